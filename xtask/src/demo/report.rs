//! What the demo tells at its end: each step with its time, each NIC with its MAC and addresses.

use std::fmt;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::steps::Row;
use super::world::{self, DEMO};

/// The whole.
#[derive(Default, Serialize)]
pub struct Report {
    /// The steps in their order; the last one is the sum.
    pub steps: Vec<Row>,
    /// The VM's NICs.
    pub nics: Vec<Nic>,
}

/// One NIC of the VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Nic {
    /// Its name in the VM's spec.
    pub name: String,
    /// Its MAC.
    pub mac: String,
    /// Its addresses, as the VMI's status has them.
    pub addresses: Vec<String>,
    /// Whether MAC and addresses were the same after the restart; none before it.
    pub same_after_restart: Option<bool>,
}

impl Report {
    /// Compares the NICs with those after the restart: each must have its MAC and its addresses still.
    pub fn compare(&mut self, after: &[Nic]) -> Result<()> {
        for nic in &mut self.nics {
            let same =
                |other: &Nic| (&other.name, &other.mac, &other.addresses) == (&nic.name, &nic.mac, &nic.addresses);
            nic.same_after_restart = Some(after.iter().any(same));
        }
        if let Some(nic) = self.nics.iter().find(|nic| nic.same_after_restart == Some(false)) {
            bail!("NIC `{}` was {nic:?}, and after the restart the NICs are {after:?}", nic.name);
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = table(&["step", "seconds", "", ""]);
        for row in &self.steps {
            let mark = if row.ok { "ok" } else { "FAILED" };
            steps.add_row([&row.step, &format!("{:.1}", row.seconds), mark, &row.detail]);
        }
        write!(f, "\n{steps}")?;
        if !self.nics.is_empty() {
            let mut nics = table(&["NIC", "MAC", "addresses", "same after restart"]);
            for nic in &self.nics {
                let same = match nic.same_after_restart {
                    Some(true) => "yes",
                    Some(false) => "no",
                    None => "",
                };
                nics.add_row([&nic.name, &nic.mac, &nic.addresses.join(", "), same]);
            }
            write!(f, "\n\n{nics}")?;
        }
        Ok(())
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
}

/// What to do after a demo that took itself down.
pub fn what_next() -> String {
    format!(
        "What to try next:\n  \
         cargo xtask demo --keep     leave the VM up and log in\n  \
         less {}     the manifests that ran; change one\n  \
         less docs/user-guide.md     VMs on this host, every day",
        "deploy/examples/vm-underlay.yaml"
    )
}

/// What to do with a demo that was left up.
pub fn how_to_play() -> String {
    let virtctl = DEMO.virtctl_line();
    format!(
        "Everything is up. What to try:\n  \
         {virtctl} get vm,vmi -o wide\n  \
         {virtctl} describe vmi {vm}\n  \
         {virtctl} console {vm}     (login root, password guest; leave with Ctrl-])\n  \
         {virtctl} restart {vm}\n  \
         ip netns exec {lan} ping {address}     from the host on the underlay\n  \
         ip netns exec {lan} curl http://{address}/\n  \
         ip netns exec {node} ip link     the node's own links\n  \
         $EDITOR {manifests}/{file}     change it: holdfastd watches the folder\n  \
         tail -f {log}\n\
         And at the end:\n  \
         cargo xtask demo --down",
        vm = world::VM,
        lan = DEMO.lan(),
        node = DEMO.node(),
        address = world::GUEST_ADDRESS,
        manifests = DEMO.manifests().display(),
        file = world::EXAMPLE,
        log = DEMO.log().display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(name: &str, mac: &str) -> Nic {
        Nic {
            name: name.to_owned(),
            mac: mac.to_owned(),
            addresses: vec!["192.0.2.10".to_owned()],
            same_after_restart: None,
        }
    }

    #[test]
    fn each_nic_must_stay_the_same() {
        let before = vec![nic("default", "a"), nic("lan", "b")];
        let mut report = Report { nics: before.clone(), ..Report::default() };
        report.compare(&before).unwrap();
        assert!(report.nics.iter().all(|nic| nic.same_after_restart == Some(true)));
        for after in [vec![nic("default", "a"), nic("lan", "c")], vec![nic("default", "a")], Vec::new()] {
            let error = report.compare(&after).unwrap_err().to_string();
            assert!(error.starts_with("NIC `"), "{error}");
        }
        assert!(report.to_string().contains("192.0.2.10"));
    }
}
