//! The NICs of a domain that runs: plugged, unplugged and switched as the spec says now.
//!
//! What to do is decided from what libvirt says is there, so it does not matter who did the rest, or when.

use holdfast_agent_api::launcher::{FailureClass, Response, Sync};
use holdfast_api::kubevirt::{Interface, VirtualMachineInstance};
use holdfast_api::run_strategy::is_absent;

use super::{Vm, chain, failed};
use crate::domain::{self, Input};
use crate::libvirt::{Guest, LibvirtError, LiveNic};

/// The name in the spec of a NIC that we gave the domain.
pub(super) fn name_of(nic: &LiveNic) -> Option<String> {
    nic.alias.strip_prefix(&domain::alias("")).map(str::to_owned)
}

/// A step towards the NICs of the spec.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    Plug(&'a Interface),
    Unplug(&'a LiveNic),
    Switch(&'a LiveNic, bool),
}

/// The steps from the NICs that are there to those that are wanted. What the spec does not know is let go as well.
fn steps<'a>(wanted: &'a [Interface], live: &'a [LiveNic]) -> Vec<Step<'a>> {
    let of_name = |name: &str| live.iter().find(|nic| nic.alias == domain::alias(name));
    let present = |nic: &&LiveNic| wanted.iter().any(|w| !is_absent(w) && nic.alias == domain::alias(&w.name));
    let gone = live.iter().filter(|nic| !present(nic)).map(Step::Unplug);
    let rest = wanted.iter().filter(|interface| !is_absent(interface)).filter_map(|interface| {
        let up = interface.state.as_deref() != Some("down");
        match of_name(&interface.name) {
            None => Some(Step::Plug(interface)),
            Some(nic) if nic.link_up != up => Some(Step::Switch(nic, up)),
            Some(_) => None,
        }
    });
    gone.chain(rest).collect()
}

impl Vm {
    /// Brings the NICs of the running domain to those of the spec. Goes on after a NIC that cannot be plugged, so that
    /// it keeps no other; the first failure is told.
    pub(super) fn fit_nics(&self, guest: &Guest, sync: &Sync, vmi: &VirtualMachineInstance) -> Result<(), Response> {
        let refused = |error: LibvirtError| failed(FailureClass::Retry, "HotPlugFailed", chain(&error));
        let live = guest.description().map_err(refused)?.nics;
        let sockets = self.paths.sockets(&self.identity.uid);
        let input = Input { vmi, nics: &sync.nics, images: &[], emulation: sync.emulation, sockets: &sockets };
        let mut result = Ok(());
        for step in steps(&vmi.spec.domain.devices.interfaces, &live) {
            let done = match step {
                Step::Unplug(nic) => guest.detach(&nic.alias).map_err(refused),
                Step::Switch(nic, up) => guest.update(&nic.with_link(up)).map_err(refused),
                Step::Plug(interface) => match domain::nic(&input, interface) {
                    Ok(xml) => guest.attach(&xml).map_err(refused),
                    Err(error) => Err(failed(FailureClass::Invalid, "NotSupported", chain(&error))),
                },
            };
            result = result.and(done);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lead_from_what_is_there_to_what_is_wanted() {
        let interface = |name: &str, state: Option<&str>| Interface {
            name: name.to_owned(),
            state: state.map(str::to_owned),
            ..Interface::default()
        };
        let live = ["a", "b", "c", "d"].map(LiveNic::named);
        let same = [interface("a", None), interface("b", Some("up")), interface("c", None), interface("d", None)];
        assert_eq!(steps(&same, &live), []);
        let wanted = [
            interface("a", Some("down")),
            interface("b", Some("absent")),
            interface("d", Some("up")),
            interface("e", None),
            interface("f", Some("absent")),
        ];
        let expected =
            [Step::Unplug(&live[1]), Step::Unplug(&live[2]), Step::Switch(&live[0], false), Step::Plug(&wanted[3])];
        assert_eq!(steps(&wanted, &live), expected);
        assert_eq!(name_of(&live[0]).as_deref(), Some("a"));
    }
}
