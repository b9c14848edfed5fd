//! What the host on the physical network sees of the VM.

use anyhow::{Context, Result};

use super::steps::Step;
use super::{VM_DEADLINE, on_the_underlay, world};
use crate::process::{self, Program};

/// What it saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The address that answered.
    pub address: String,
    /// The MAC behind it, as ARP has it.
    pub mac: String,
}

/// Waits until the guest answers ping and HTTP at the address that it asked for.
pub fn wait(step: &mut Step) -> Result<Seen> {
    let address = world::GUEST_ADDRESS;
    step.tell(&format!("ping {address}"));
    process::wait_for("the guest to answer ping", VM_DEADLINE, || {
        Ok(on_the_underlay("busybox").args(["ping", "-c", "1", "-W", "1", address]).succeeds().then_some(()))
    })?;
    step.tell(&format!("wget http://{address}"));
    let page = process::wait_for("the guest to answer HTTP", VM_DEADLINE, || {
        let url = format!("http://{address}/");
        Ok(on_the_underlay("busybox").args(["wget", "-q", "-T", "2", "-O", "-", &url]).output().ok())
    })?;
    let neighbours = Program::new("ip").args(["-n", world::LAN, "neighbour", "show", address]).output()?;
    let mac = mac_of(&neighbours).with_context(|| format!("ARP has no MAC for {address}: {neighbours}"))?;
    // The guest lists the MACs of its NICs: it is the guest itself that answers for the address.
    if !page.contains(mac) {
        anyhow::bail!("{address} is at {mac}, which is none of the guest's own:\n{page}");
    }
    Ok(Seen { address: address.to_owned(), mac: mac.to_owned() })
}

/// The MAC in a line of `ip neighbour`: `192.0.2.10 dev eth0 lladdr 02:00:00:00:02:0a REACHABLE`.
fn mac_of(line: &str) -> Option<&str> {
    line.split_whitespace().skip_while(|word| *word != "lladdr").nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_neighbour() {
        assert_eq!(mac_of("192.0.2.10 dev eth0 lladdr 02:00:00:00:02:0a REACHABLE\n"), Some("02:00:00:00:02:0a"));
        assert_eq!(mac_of("192.0.2.10 dev eth0 FAILED\n"), None);
    }
}
