//! libvirt's numbers and its live XML, in our words.

use holdfast_agent_api::launcher::PauseReason;
use serde::Deserialize;
use virt::sys;

/// The state of a domain as libvirt tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Its vCPUs run (or wait, or sleep by their own will).
    Running,
    /// Its vCPUs are stopped.
    Paused(PauseReason),
    /// The guest is powering off.
    ShuttingDown,
    /// It does not run.
    ShutOff(ShutOff),
}

/// Why a domain does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutOff {
    /// It has not run since it was defined.
    NeverRan,
    /// It could not be started.
    NotStarted,
    /// The guest powered off.
    Shutdown,
    /// It was destroyed.
    Destroyed,
    /// The hypervisor ended without saying why, or the guest panicked.
    Crashed,
}

/// Reads the numbers of virDomainGetState.
pub(super) fn observed(state: sys::virDomainState, reason: i32) -> Observed {
    let reason = reason.unsigned_abs();
    match state {
        sys::VIR_DOMAIN_PAUSED => Observed::Paused(match reason {
            sys::VIR_DOMAIN_PAUSED_USER => PauseReason::User,
            sys::VIR_DOMAIN_PAUSED_IOERROR => PauseReason::IoError,
            sys::VIR_DOMAIN_PAUSED_MIGRATION | sys::VIR_DOMAIN_PAUSED_POSTCOPY => PauseReason::Migration,
            _ => PauseReason::Other,
        }),
        sys::VIR_DOMAIN_SHUTDOWN => Observed::ShuttingDown,
        sys::VIR_DOMAIN_SHUTOFF => Observed::ShutOff(match reason {
            sys::VIR_DOMAIN_SHUTOFF_UNKNOWN => ShutOff::NeverRan,
            sys::VIR_DOMAIN_SHUTOFF_FAILED => ShutOff::NotStarted,
            sys::VIR_DOMAIN_SHUTOFF_DESTROYED => ShutOff::Destroyed,
            sys::VIR_DOMAIN_SHUTOFF_CRASHED | sys::VIR_DOMAIN_SHUTOFF_DAEMON => ShutOff::Crashed,
            _ => ShutOff::Shutdown,
        }),
        sys::VIR_DOMAIN_CRASHED => Observed::ShutOff(ShutOff::Crashed),
        // Blocked and suspended to RAM are states of a running guest.
        _ => Observed::Running,
    }
}

/// What a running domain turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Machine type, expanded (`pc-q35-7.2`).
    pub machine: String,
    /// Whether the guest agent has opened its channel.
    pub agent_connected: bool,
    /// Whether the CPU is emulated.
    pub emulation: bool,
    /// Its NICs.
    pub nics: Vec<LiveNic>,
}

/// A NIC of a running domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveNic {
    /// The alias that it was given, `ua-NAME`.
    pub alias: String,
    /// Whether the guest sees a carrier.
    pub link_up: bool,
    /// The whole element.
    xml: String,
}

impl LiveNic {
    fn read(xml: &str) -> Option<Self> {
        let element: InterfaceElement = quick_xml::de::from_str(xml).ok()?;
        let link_up = element.link.is_none_or(|link| link.state != "down");
        Some(Self { alias: element.alias?.name, link_up, xml: xml.to_owned() })
    }

    /// One of that name in the spec, with its link up.
    #[cfg(test)]
    pub fn named(name: &str) -> Self {
        let alias = crate::domain::alias(name);
        Self::read(&format!("<interface><alias name='{alias}'/></interface>")).unwrap_or_else(|| unreachable!())
    }

    /// The element with its link switched and all else as it is: libvirt takes no change but this one.
    pub fn with_link(&self, up: bool) -> String {
        let without = LINKS.iter().fold(self.xml.clone(), |xml, link| xml.replace(link, ""));
        let link = LINKS[usize::from(!up)];
        without.replace(INTERFACE.1, &format!("{link}{}", INTERFACE.1))
    }
}

/// How libvirt prints the beginning and the end of a NIC.
const INTERFACE: (&str, &str) = ("<interface ", "</interface>");
/// And its link, up and down.
const LINKS: [&str; 2] = ["<link state='up'/>", "<link state='down'/>"];

/// The NICs in a live XML.
fn nics(xml: &str) -> Vec<LiveNic> {
    let elements = xml.split(INTERFACE.0).skip(1).filter_map(|rest| rest.split_once(INTERFACE.1));
    let whole = elements.map(|(inner, _)| format!("{}{inner}{}", INTERFACE.0, INTERFACE.1));
    whole.filter_map(|xml| LiveNic::read(&xml)).collect()
}

#[derive(Deserialize)]
struct InterfaceElement {
    alias: Option<AliasElement>,
    link: Option<LinkElement>,
}

#[derive(Deserialize)]
struct AliasElement {
    #[serde(rename = "@name")]
    name: String,
}

#[derive(Deserialize)]
struct LinkElement {
    #[serde(rename = "@state")]
    state: String,
}

#[derive(Deserialize)]
struct Domain {
    #[serde(rename = "@type")]
    kind: String,
    os: Os,
    devices: Devices,
}

#[derive(Deserialize)]
struct Os {
    #[serde(rename = "type")]
    kind: OsType,
}

#[derive(Deserialize)]
struct OsType {
    #[serde(rename = "@machine")]
    machine: String,
}

#[derive(Deserialize)]
struct Devices {
    #[serde(rename = "channel", default)]
    channels: Vec<Channel>,
}

#[derive(Deserialize)]
struct Channel {
    target: Target,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "@name", default)]
    name: String,
    #[serde(rename = "@state", default)]
    state: String,
}

/// Reads the parts of a live XML that we report; one that cannot be read says nothing.
pub(super) fn live(xml: &str) -> Live {
    let Ok(domain) = quick_xml::de::from_str::<Domain>(xml) else {
        return Live::default();
    };
    let agent = domain.devices.channels.iter().find(|channel| channel.target.name == "org.qemu.guest_agent.0");
    Live {
        machine: domain.os.kind.machine,
        agent_connected: agent.is_some_and(|channel| channel.target.state == "connected"),
        emulation: domain.kind == "qemu",
        nics: nics(xml),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_of_a_nic_is_switched_and_nothing_else() {
        let nic =
            "<interface type='ethernet'>\n  <target dev='tap0' managed='no'/>\n  <alias name='ua-lan'/>\n</interface>";
        let domain = format!("<domain><devices><disk/>{nic}<serial/></devices></domain>");
        let [plain] = nics(&domain).try_into().unwrap();
        assert_eq!((plain.alias.as_str(), plain.link_up), ("ua-lan", true));
        let down = LiveNic::read(&plain.with_link(false)).unwrap();
        assert!(!down.link_up);
        assert_eq!(down.with_link(false), down.xml);
        let up = LiveNic::read(&down.with_link(true)).unwrap();
        assert!(up.link_up);
        assert_eq!(up.xml.replace(LINKS[0], ""), nic);
    }
}
