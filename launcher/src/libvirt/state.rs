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
    }
}
