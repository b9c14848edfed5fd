//! The small devices: input, sound, watchdog, balloon, entropy, panic notifier.

use holdfast_api::kubevirt::Devices;
use serde::Serialize;

use super::address::{Address, Alias, Pci, virtio_model};
use super::{DomainError, Refused, pci};

/// `<input>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Input {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(rename = "@bus")]
    bus: String,
    #[serde(rename = "@model", skip_serializing_if = "Option::is_none")]
    model: Option<&'static str>,
    alias: Alias,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
}

/// `<sound>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sound {
    #[serde(rename = "@model")]
    model: String,
    alias: Alias,
    address: Address,
}

/// `<watchdog>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Watchdog {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@action")]
    action: String,
    alias: Alias,
    address: Address,
}

/// `<memballoon>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MemBalloon {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "@freePageReporting", skip_serializing_if = "Option::is_none")]
    free_page_reporting: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
}

#[derive(Clone, Debug, Serialize)]
struct Stats {
    #[serde(rename = "@period")]
    period_seconds: u32,
}

/// `<rng>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    backend: Backend,
    address: Address,
}

#[derive(Clone, Debug, Serialize)]
struct Backend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    path: &'static str,
}

/// `<panic>`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Panic {
    #[serde(rename = "@model")]
    model: String,
}

/// Tablets and keyboards; a PS/2 mouse and keyboard are always there besides.
pub(super) fn inputs(devices: &Devices, slots: &mut pci::Slots) -> Result<Vec<Input>, DomainError> {
    let one = |input: &holdfast_api::kubevirt::Input| {
        let bus = input.bus.as_deref().filter(|bus| !bus.is_empty()).unwrap_or("usb");
        let on_virtio = match bus {
            "usb" => false,
            "virtio" => true,
            other => {
                let field = format!("spec.domain.devices.inputs[name={}].bus", input.name);
                return Err(Refused::new(field, format!("`{other}`: valid are usb and virtio")).into());
            }
        };
        Ok(Input {
            kind: input.r#type.clone(),
            bus: bus.to_owned(),
            // libvirt knows no transitional input devices.
            model: on_virtio.then_some("virtio"),
            alias: Alias::of(&input.name),
            address: on_virtio.then(|| slots.port().into()),
        })
    };
    devices.inputs.iter().map(one).collect()
}

/// ich9 in its slot of the root bus, ac97 on the bridge.
pub(super) fn sound(devices: &Devices, slots: &mut pci::Slots) -> Result<Option<Sound>, DomainError> {
    let Some(sound) = &devices.sound else { return Ok(None) };
    let model = sound.model.as_deref().filter(|model| !model.is_empty()).unwrap_or("ich9");
    let at = match model {
        "ich9" => Pci { bus: 0, slot: 0x1b, function: 0 },
        "ac97" => slots.conventional(),
        other => {
            let message = format!("`{other}`: valid are ich9 and ac97");
            return Err(Refused::new("spec.domain.devices.sound.model", message).into());
        }
    };
    Ok(Some(Sound { model: model.to_owned(), alias: Alias::of(&sound.name), address: at.into() }))
}

/// The i6300esb watchdog with its action, reset by default.
pub(super) fn watchdog(devices: &Devices, slots: &mut pci::Slots) -> Option<Watchdog> {
    let watchdog = devices.watchdog.as_ref()?;
    let action = watchdog.i6300esb.as_ref()?.action.clone().filter(|action| !action.is_empty());
    Some(Watchdog {
        model: "i6300esb",
        action: action.unwrap_or_else(|| "reset".to_owned()),
        alias: Alias::of(&watchdog.name),
        address: slots.conventional().into(),
    })
}

/// The balloon, which also gives free pages back to the host, unless the spec turns it off.
pub(super) fn memballoon(devices: &Devices, slots: &mut pci::Slots) -> MemBalloon {
    if devices.autoattach_mem_balloon == Some(false) {
        return MemBalloon { model: "none", free_page_reporting: None, stats: None, address: None };
    }
    MemBalloon {
        model: virtio_model(devices),
        free_page_reporting: Some("on"),
        stats: Some(Stats { period_seconds: 10 }),
        address: Some(slots.virtio(devices).into()),
    }
}

/// A source of entropy where the spec asks for one.
pub(super) fn rng(devices: &Devices, slots: &mut pci::Slots) -> Option<Rng> {
    devices.rng.as_ref().map(|_| Rng {
        model: virtio_model(devices),
        backend: Backend { model: "random", path: "/dev/urandom" },
        address: slots.virtio(devices).into(),
    })
}

/// Panic notifiers.
pub(super) fn panics(devices: &Devices) -> Vec<Panic> {
    devices.panic_devices.iter().filter_map(|panic| panic.model.clone().map(|model| Panic { model })).collect()
}
