//! What the host on the physical network sees of the VM.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use super::steps::Step;
use super::{VM_DEADLINE, world};
use crate::process::{self, Program};

/// How long the guest may take for one answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What it saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The address that answered.
    pub address: String,
    /// The MAC behind it, as ARP has it.
    pub mac: String,
}

/// Waits until the guest answers ping and HTTP at the address that it asked for, when asked in the namespace `lan`.
pub fn wait(lan: &str, step: &mut Step) -> Result<Seen> {
    let address = world::GUEST_ADDRESS;
    step.tell(&format!("ping {address}"));
    process::wait_for("the guest to answer ping", VM_DEADLINE, || {
        let ping = Program::new("ip").args(["netns", "exec", lan, "busybox", "ping", "-c", "1", "-W", "1", address]);
        Ok(ping.succeeds().then_some(()))
    })?;
    step.tell(&format!("GET http://{address}/"));
    let page = process::wait_for("the guest to answer HTTP", VM_DEADLINE, || Ok(page(lan, address).ok()))?;
    let neighbours = Program::new("ip").args(["-n", lan, "neighbour", "show", address]).output()?;
    let mac = mac_of(&neighbours).with_context(|| format!("ARP has no MAC for {address}: {neighbours}"))?;
    // The guest lists the MACs of its NICs: it is the guest itself that answers for the address.
    if !page.contains(mac) {
        bail!("{address} is at {mac}, which is none of the guest's own:\n{page}");
    }
    Ok(Seen { address: address.to_owned(), mac: mac.to_owned() })
}

/// The page that the guest serves, fetched from the namespace of the host on the network.
fn page(lan: &str, address: &str) -> Result<String> {
    let address = SocketAddr::new(address.parse()?, 80);
    let namespace = File::open(Path::new("/run/netns").join(lan)).context("failed to open the namespace")?;
    // On a thread of its own, which ends inside: this one stays where it is.
    let fetch = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("failed to enter the namespace")?;
        let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
        if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
            bail!("the answer is no success: {head}");
        }
        Ok(body.to_owned())
    };
    std::thread::spawn(fetch).join().unwrap_or_else(|_| bail!("the thread that fetched the page panicked"))
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
