//! Rules on devices other than disks and NICs.

use super::{Causes, Context, Rule};

pub(super) const RULES: &[Rule] = &[inputs, host_devices, sound, vsock, video];

/// The video models of amd64 guests.
const VIDEO_MODELS: [&str; 5] = ["vga", "cirrus", "virtio", "ramfb", "bochs"];

fn inputs(context: &Context, causes: &mut Causes) {
    for (index, input) in context.spec.domain.devices.inputs.iter().enumerate() {
        let at = context.path(format_args!("domain.devices.inputs[{index}]"));
        if !matches!(input.bus.as_deref(), None | Some("" | "virtio" | "usb")) {
            causes.invalid(format!("{at}.bus"), "Input device can have only virtio or usb bus.");
        }
        if input.r#type != "tablet" {
            causes.invalid(format!("{at}.type"), "Input device can have only tablet type.");
        }
    }
}

fn host_devices(context: &Context, causes: &mut Causes) {
    if !context.spec.domain.devices.host_devices.is_empty() && !context.config.has("HostDevices") {
        let message = "Host Devices feature gate is not enabled in kubevirt-config";
        causes.invalid(context.path("HostDevices"), message);
    }
}

fn sound(context: &Context, causes: &mut Causes) {
    let Some(sound) = &context.spec.domain.devices.sound else { return };
    if !matches!(sound.model.as_deref(), None | Some("" | "ich9" | "ac97")) {
        let message = "Sound device type is not supported. Options: 'ich9' or 'ac97'";
        causes.invalid(context.path("Sound"), message);
    }
    if sound.name.is_empty() {
        causes.invalid(context.path("Sound"), "Sound device requires a name field.");
    }
}

fn vsock(context: &Context, causes: &mut Causes) {
    if context.spec.domain.devices.autoattach_vsock == Some(true) && !context.config.has("VSOCK") {
        let message = "VSOCK feature gate is not enabled in kubevirt-config";
        causes.invalid(context.path("domain.devices.autoattachVSOCK"), message);
    }
}

fn video(context: &Context, causes: &mut Causes) {
    let Some(model) = context.spec.domain.devices.video.as_ref().and_then(|video| video.r#type.as_deref()) else {
        return;
    };
    let architecture = context.spec.architecture.as_deref().unwrap_or_default();
    let known = match architecture {
        "amd64" => &VIDEO_MODELS[..],
        _ => &["virtio"][..],
    };
    if !known.contains(&model) {
        let message = format!("video model '{model}' is not supported on {architecture} architecture");
        causes.not_supported(context.path("domain.devices.video.type"), message);
    }
}
