//! Whether VMs can run on this node, and what they can use. Pure.

use crate::facts::Facts;
use crate::labels::Host;

/// What a check needs to know.
pub struct Node<'a> {
    /// What the node's parts found out.
    pub facts: &'a Facts,
    /// What libvirt told; what is in the way where it did not.
    pub host: Result<&'a Host, &'a str>,
    /// Whether KVM can run a guest.
    pub kvm: bool,
    /// Whether a NIC could be wired; what was in the way where not.
    pub wiring: Result<(), &'a str>,
    /// Whether a guest may run without it.
    pub emulation: bool,
    /// Whether OVSDB answers; none where nobody expects it.
    pub ovs: Option<bool>,
}

/// The verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What keeps VMs from running here.
    pub problems: Vec<String>,
    /// What is good to know.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Whether VMs can run here.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// For people, and for `virtctl check`: a line for each finding. One that has several lines becomes one.
    #[must_use]
    pub fn message(&self) -> String {
        let one_line = |finding: &String| finding.split_whitespace().collect::<Vec<_>>().join(" ");
        let all: Vec<_> = self.problems.iter().chain(&self.notes).map(one_line).collect();
        all.join("\n")
    }
}

/// Judges.
#[must_use]
pub fn judge(node: &Node<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let problems = &mut verdict.problems;
    match (node.kvm, node.emulation) {
        (true, _) => verdict.notes.push("guests run on KVM".to_owned()),
        (false, true) => verdict.notes.push("KVM cannot run a guest here: guests are emulated".to_owned()),
        (false, false) => problems.push("KVM cannot run a guest here, and emulation is not allowed".to_owned()),
    }
    match node.wiring {
        Ok(()) => verdict.notes.push("the kernel has what NICs need".to_owned()),
        Err(error) => problems.push(format!("the NIC of a VM cannot be wired: {error}")),
    }
    if let Err(error) = node.host {
        problems.push(format!("the capabilities of QEMU are not known: {error}"));
    }
    match &node.facts.network {
        Some(Ok(())) => {}
        Some(Err(error)) => problems.push(format!("the CNI plugin is not in its place: {error}")),
        None => problems.push("the CNI plugin is not in its place yet".to_owned()),
    }
    let tun = node.facts.devices.get("tun");
    if tun.is_some_and(|tun| !tun.healthy) {
        problems.push("there is no /dev/net/tun: load the kernel's module `tun`".to_owned());
    }
    if node.facts.devices.get("vhost-net").is_some_and(|vhost| !vhost.healthy) {
        verdict.notes.push("there is no /dev/vhost-net: guests' network costs more CPU".to_owned());
    }
    let unregistered = node.facts.devices.iter().filter_map(|(name, device)| {
        device.registered.as_ref().err().map(|error| format!("kubelet does not know the device `{name}`: {error}"))
    });
    problems.extend(unregistered);
    if tun.is_none() {
        problems.push("kubelet does not know the devices yet".to_owned());
    }
    match node.ovs {
        Some(true) => verdict.notes.push("Open vSwitch is there".to_owned()),
        Some(false) => {
            verdict.notes.push("Open vSwitch is not there: networks on its bridges cannot be joined".to_owned())
        }
        None => {}
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::DeviceFact;

    fn facts() -> Facts {
        let good = DeviceFact { healthy: true, registered: Ok(()) };
        let kvm = DeviceFact { healthy: false, ..good.clone() };
        Facts { devices: [("kvm", kvm), ("tun", good)].into(), network: Some(Ok(())) }
    }

    #[test]
    fn a_node_without_kvm_can_emulate_if_it_may() {
        let (facts, host) = (facts(), Host::default());
        let mut node =
            Node { facts: &facts, host: Ok(&host), kvm: false, wiring: Ok(()), emulation: true, ovs: Some(false) };
        assert!(judge(&node).is_good());
        assert!(judge(&node).message().contains("Open vSwitch is not there"));
        node.emulation = false;
        assert!(!judge(&node).is_good());
        node.kvm = true;
        assert!(judge(&node).is_good());
    }

    #[test]
    fn names_everything_that_is_missing() {
        let unknown = Facts::default();
        let wiring = Err("failed to create bridge");
        let node = Node { facts: &unknown, host: Err("no folder"), kvm: true, wiring, emulation: false, ovs: None };
        assert_eq!(judge(&node).problems.len(), 4);
        let mut facts = facts();
        facts.network = Some(Err("no network".to_owned()));
        facts
            .devices
            .insert("tun", DeviceFact { healthy: false, registered: Err("kubelet does not listen".to_owned()) });
        let message = judge(&Node { facts: &facts, ..node }).message();
        for part in
            ["no folder", "failed to create bridge", "no network", "module `tun`", "`tun`: kubelet does not listen"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn each_finding_is_a_line() {
        let verdict = Verdict { problems: vec!["nft:\n  a; b".to_owned()], notes: vec!["c".to_owned()] };
        assert_eq!(verdict.message(), "nft: a; b\nc");
    }
}
