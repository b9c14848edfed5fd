//! The serial console and the guest agent's channel: unix sockets on the host.

use holdfast_api::kubevirt::Devices;
use serde::Serialize;

use super::Input;

/// `<serial>`; libvirt adds the `<console>` that mirrors it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Serial {
    #[serde(rename = "@type")]
    kind: &'static str,
    source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Log>,
    target: SerialTarget,
}

#[derive(Clone, Debug, Serialize)]
struct Source {
    #[serde(rename = "@mode")]
    mode: &'static str,
    #[serde(rename = "@path")]
    path: String,
}

#[derive(Clone, Debug, Serialize)]
struct Log {
    #[serde(rename = "@file")]
    file: String,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct SerialTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@port")]
    port: u8,
}

/// `<channel>`; libvirt places its socket among its own files.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Channel {
    #[serde(rename = "@type")]
    kind: &'static str,
    target: ChannelTarget,
}

#[derive(Clone, Debug, Serialize)]
struct ChannelTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

/// The first serial port, on unless the spec turns it off; its output is also kept in a file.
pub(super) fn serial(input: &Input<'_>) -> Option<Serial> {
    let devices: &Devices = &input.vmi.spec.domain.devices;
    if devices.autoattach_serial_console == Some(false) {
        return None;
    }
    let path = input.serial_socket().to_string_lossy().into_owned();
    let log = (devices.log_serial_console != Some(false)).then(|| Log { file: format!("{path}-log"), append: "on" });
    Some(Serial {
        kind: "unix",
        source: Source { mode: "bind", path },
        log,
        target: SerialTarget { kind: "isa-serial", port: 0 },
    })
}

/// The port on which the guest agent listens.
pub(super) fn guest_agent() -> Channel {
    Channel { kind: "unix", target: ChannelTarget { kind: "virtio", name: "org.qemu.guest_agent.0" } }
}
