//! The graphics adapter, and VNC on a unix socket to look at it.

use holdfast_api::kubevirt::Devices;
use serde::Serialize;

use super::Input;
use super::address::{Address, Pci};

/// `<graphics>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Graphics {
    #[serde(rename = "@type")]
    kind: &'static str,
    listen: Listen,
}

#[derive(Clone, Debug, Serialize)]
struct Listen {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@socket")]
    socket: String,
}

/// `<video>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Video {
    model: VideoModel,
    address: Address,
}

#[derive(Clone, Debug, Serialize)]
struct VideoModel {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(rename = "@vram", skip_serializing_if = "Option::is_none")]
    vram_kib: Option<u32>,
    #[serde(rename = "@heads")]
    heads: u8,
}

/// Whether the VM has a graphics adapter: yes unless the spec turns it off.
pub(super) fn wanted(devices: &Devices) -> bool {
    devices.autoattach_graphics_device != Some(false)
}

/// VNC on `virt-vnc` among the VM's sockets.
pub(super) fn graphics(input: &Input<'_>) -> Option<Graphics> {
    wanted(&input.vmi.spec.domain.devices).then(|| Graphics {
        kind: "vnc",
        listen: Listen { kind: "socket", socket: input.sockets.join("virt-vnc").to_string_lossy().into_owned() },
    })
}

/// VGA with 16 MiB, or the model that the spec names, in slot 1 of the root bus.
pub(super) fn video(devices: &Devices) -> Option<Video> {
    let kind = devices.video.as_ref().and_then(|video| video.r#type.clone()).unwrap_or_else(|| "vga".to_owned());
    let vram_kib = (kind == "vga").then_some(16384);
    wanted(devices).then(|| Video {
        model: VideoModel { kind, vram_kib, heads: 1 },
        address: Pci { bus: 0, slot: 1, function: 0 }.into(),
    })
}
