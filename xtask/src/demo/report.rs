//! What the demo tells at its end: each step with its time, each NIC with its MAC and addresses.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::steps::Row;
use super::world::{self, DEMO};

/// The whole.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The steps in their order.
    pub steps: Vec<Row>,
    /// How long the whole took.
    pub total_seconds: f64,
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
    /// Prints it, and writes it to a file as well.
    pub fn publish(&self, file: Option<&Path>) -> Result<()> {
        println!("{self}");
        let Some(file) = file else { return Ok(()) };
        fs::write(file, self.json()?).with_context(|| format!("failed to write {}", file.display()))
    }

    /// As JSON, with a newline at the end.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Compares NICs with those after the restart: each that `stays` must have its MAC and its addresses still. The
    /// others are as they are now.
    pub fn compare(&mut self, after: &[Nic], stays: impl Fn(&Nic) -> bool) -> Result<()> {
        for nic in self.nics.iter_mut().filter(|nic| !stays(nic)) {
            let now = after.iter().find(|other| other.name == nic.name).unwrap_or(nic).clone();
            *nic = Nic { same_after_restart: None, ..now };
        }
        for nic in self.nics.iter_mut().filter(|nic| stays(nic)) {
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
        let mut add = |step: &str, seconds: f64, ok: bool, detail: &str| {
            steps.add_row([step, &format!("{seconds:.1}"), if ok { "ok" } else { "FAILED" }, detail]);
        };
        for row in &self.steps {
            add(&row.step, row.seconds, row.ok, &row.detail);
        }
        add("all", self.total_seconds, self.steps.iter().all(|row| row.ok), "");
        write!(f, "\n{steps}")?;
        if !self.nics.is_empty() {
            let mut nics = table(&["NIC", "MAC", "addresses", "same after restart"]);
            for nic in &self.nics {
                let same = match nic.same_after_restart {
                    Some(true) => "yes",
                    Some(false) => "no",
                    None => "(the pod's)",
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
         cargo xtask demo --cluster     the same on a Kubernetes of two nodes\n  \
         less {}     the manifests that ran; change one\n  \
         holdfastd --manifests FOLDER     keep VMs of your own running: README.md, \"Use it on one host\"\n  \
         less docs/one-host.md     networks, disks and daily life",
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
        report.compare(&before, |_| true).unwrap();
        assert!(report.nics.iter().all(|nic| nic.same_after_restart == Some(true)));
        for after in [vec![nic("default", "a"), nic("lan", "c")], vec![nic("default", "a")], Vec::new()] {
            let error = report.compare(&after, |_| true).unwrap_err().to_string();
            assert!(error.starts_with("NIC `"), "{error}");
        }
        assert!(report.to_string().contains("192.0.2.10"));
        let mut report = Report { nics: before, ..Report::default() };
        report.compare(&[nic("default", "c"), nic("lan", "b")], |nic| nic.name == "lan").unwrap();
        assert_eq!(report.nics[0].same_after_restart, None, "an address of the pod network is its pod's");
    }

    #[test]
    fn the_whole_is_a_row_of_the_table_and_a_field_of_the_json() {
        let row = Row { step: "one".to_owned(), seconds: 1.5, ok: false, detail: String::new() };
        let report = Report { steps: vec![row], total_seconds: 2.125, nics: Vec::new() };
        let text = report.to_string();
        let last: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(last, ["|", "all", "|", "2.1", "|", "FAILED", "|", "|"]);
        let json = report.json().unwrap();
        assert!(json.ends_with("}\n"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["totalSeconds"].as_f64(), json["steps"].as_array().map(Vec::len)), (Some(2.125), Some(1)));
    }
}
