//! What the guest can see is what upstream's guests have seen: the live domain of a real libvirt, element by element,
//! against two recorded ones; and the slots that we give out against those that libvirt itself would give.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;
#[path = "sandbox/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_agent_api::launcher::DomainState;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_launcher::domain::{self, DiskImage, Format, Input};
use holdfast_net::model::GuestNic;
use sandbox::{Sandbox, nic, vmi};
use serde_json::{Value, json};
use tree::Element;

/// Parts that differ, each for a reason; all else must be equal.
const NOT_COMPARED: [(&str, &str); 12] = [
    ("domain/metadata", "libvirt's clients' own notes; no guest sees them"),
    ("domain/cpu/model", "what host-model becomes depends on the host's CPU"),
    ("domain/cpu/vendor", "as above"),
    ("domain/cpu/feature", "as above"),
    ("domain/features/tcg", "size of the emulator's own cache"),
    ("domain/devices/disk/source", "paths on the host"),
    ("domain/devices/serial/source", "paths on the host"),
    ("domain/devices/serial/log", "paths on the host"),
    ("domain/devices/console/source", "paths on the host"),
    ("domain/devices/console/log", "paths on the host"),
    ("domain/devices/channel/source", "paths on the host"),
    ("domain/devices/graphics/listen", "paths on the host"),
];
/// Attributes that differ, each for a reason.
const ATTRIBUTES_NOT_COMPARED: [(&str, &str, &str); 5] = [
    ("domain", "id", "counts starts"),
    ("domain/devices/graphics", "socket", "a path on the host"),
    ("domain/devices/disk/driver", "cache", "depends on the file system below"),
    ("domain/devices/disk/driver", "io", "how the host reads the file"),
    ("domain/devices/disk/driver", "type", "an empty disk stands for the config map that is not carried out yet"),
];

fn comparable(xml: &str) -> Element {
    let mut root = Element::parse(xml);
    root.prune("", &mut |path, element| {
        for (at, name, _) in ATTRIBUTES_NOT_COMPARED {
            if path == at {
                element.attributes.remove(name);
            }
        }
        if path == "domain/os/type" {
            let machine = element.attribute("machine").to_owned();
            let (family, _) = machine.rsplit_once('-').expect("an expanded machine type");
            element.attributes.insert("machine".to_owned(), family.to_owned());
        }
        !NOT_COMPARED.iter().any(|(at, _)| *at == path)
    });
    root
}

fn observed(name: &str) -> (String, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/observed");
    let read = |name: String| std::fs::read_to_string(folder.join(name)).unwrap();
    (read(format!("{name}.xml")), serde_json::from_str(&read(format!("{name}.vmi.json"))).unwrap())
}

fn is_as_observed(name: &str, mac: &str) {
    let (recorded, mut spec) = observed(name);
    spec["metadata"]["uid"] = json!(sandbox::UID);
    for volume in spec["spec"].get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if volume.get("configMap").is_some() {
            *volume = json!({"name": volume["name"], "emptyDisk": {"capacity": "1Mi"}});
        }
    }
    let sandbox = Sandbox::start(spec["metadata"]["name"].as_str().unwrap(), |_| {});
    let nic = GuestNic { mac: mac.parse().unwrap(), mtu: 1500, ..nic("default") };
    sandbox.run(&spec, &[nic]);
    let domain = format!("default_{}", spec["metadata"]["name"].as_str().unwrap());
    let differences = comparable(&recorded).differences(&comparable(&sandbox.virsh(&["dumpxml", &domain])));
    assert!(differences.is_empty(), "- observed, + ours:\n{}", differences.join("\n"));
    assert_eq!(sandbox.domain().state, DomainState::Running);
}

#[test]
fn a_plain_domain_is_as_observed() {
    is_as_observed("plain", "16:89:69:5c:f8:20");
}

#[test]
fn a_rich_domain_is_as_observed() {
    is_as_observed("rich", "02:00:00:00:00:01");
}

/// Machines of all kinds, by what is changed in a plain one.
fn shapes() -> Vec<(&'static str, Value)> {
    let empty = |count: usize| {
        let volume = |index| json!({"name": format!("d{index}"), "emptyDisk": {"capacity": "1Mi"}});
        Value::Array((0..count).map(volume).collect())
    };
    let with = |volumes: Value, change: &dyn Fn(&mut Value)| {
        let mut vmi = vmi("shape", volumes);
        vmi["metadata"]["uid"] = json!("00000000-0000-4000-8000-000000000001");
        change(&mut vmi["spec"]["domain"]);
        vmi
    };
    let two = json!([{"name": "default", "bridge": {}}, {"name": "second", "bridge": {}, "model": "e1000"}]);
    let three = json!([
        {"name": "default", "bridge": {}, "model": "e1000e"},
        {"name": "second", "bridge": {}},
        {"name": "third", "bridge": {}, "model": "rtl8139"},
    ]);
    vec![
        ("bare", with(empty(0), &|domain| domain["devices"]["rng"] = Value::Null)),
        ("one disk", with(empty(1), &|_| {})),
        ("many disks", with(empty(12), &|_| {})),
        ("e1000 second", with(empty(1), &|domain| domain["devices"]["interfaces"] = two.clone())),
        ("three models", with(empty(2), &|domain| domain["devices"]["interfaces"] = three.clone())),
        ("no graphics", with(empty(1), &|domain| domain["devices"]["autoattachGraphicsDevice"] = json!(false))),
        (
            "watchdog",
            with(empty(1), &|domain| {
                domain["devices"]["watchdog"] = json!({"name": "w", "i6300esb": {"action": "reset"}});
            }),
        ),
        ("sound", with(empty(1), &|domain| domain["devices"]["sound"] = json!({"name": "s", "model": "ac97"}))),
        (
            "inputs",
            with(empty(1), &|domain| {
                domain["devices"]["inputs"] = json!([{"name": "t", "type": "tablet", "bus": "usb"}, {"name": "k", "type": "keyboard", "bus": "virtio"}]);
            }),
        ),
        ("no balloon", with(empty(1), &|domain| domain["devices"]["autoattachMemBalloon"] = json!(false))),
        ("transitional", with(empty(2), &|domain| domain["devices"]["useVirtioTransitional"] = json!(true))),
        ("large", with(empty(1), &|domain| domain["memory"]["guest"] = json!("4Gi"))),
    ]
}

fn describe(spec: &Value) -> String {
    let vmi: VirtualMachineInstance = serde_json::from_value(spec.clone()).unwrap();
    let devices = &vmi.spec.domain.devices;
    let image = |disk: &holdfast_api::kubevirt::Disk| DiskImage {
        volume: disk.name.clone(),
        path: PathBuf::from(format!("/run/kubevirt-ephemeral-disks/{}", disk.name)),
        format: Format::Qcow2,
        backing: None,
        direct_io: true,
    };
    let images: Vec<DiskImage> = devices.disks.iter().map(image).collect();
    let nics: Vec<GuestNic> = devices.interfaces.iter().map(|interface| nic(&interface.name)).collect();
    let sockets = Path::new("/run/kubevirt-private/x");
    let input = Input { vmi: &vmi, nics: &nics, images: &images, emulation: true, sockets };
    domain::build(&input).unwrap().to_xml().unwrap()
}

/// Device -> PCI address, each device under a name that is the same in both descriptions.
fn slots(xml: &str) -> BTreeMap<String, String> {
    let root = Element::parse(xml);
    let mut slots = BTreeMap::new();
    for device in &root.child("devices").unwrap().children {
        let alias = device.child("alias").map_or("", |alias| alias.attribute("name"));
        let address = device.child("address").filter(|address| address.attribute("type") == "pci");
        let port = device.child("target").map_or("", |target| target.attribute("port"));
        if let Some(address) = address {
            let of = |name| address.attribute(name).to_owned();
            let key = format!("{}[{}][{}][{alias}]", device.name, device.attribute("type"), device.attribute("index"));
            let place = format!("{}:{}.{} {port} {}", of("bus"), of("slot"), of("function"), device.attribute("model"));
            slots.insert(key, place);
        }
    }
    slots
}

/// The same domain with nothing placed, and with stand-ins behind the NICs for the ports that stay free: upstream lets
/// libvirt place those and takes the stand-ins away again.
fn unplaced(xml: &str) -> String {
    let root = Element::parse(xml);
    let ports = root.child("devices").unwrap().children.iter().filter(|device| {
        device.name == "controller" && ["pcie-root-port", "pcie-to-pci-bridge"].contains(&device.attribute("model"))
    });
    let taken: Vec<String> = slots(xml).into_values().map(|place| place[..4].to_owned()).collect();
    let is_free = |port: &&Element| {
        port.attribute("model") == "pcie-root-port"
            && !taken.contains(&format!("{:#04x}", port.attribute("index").parse::<u8>().unwrap()))
    };
    // One more is libvirt's own doing.
    let spare = ports.filter(is_free).count() - 1;
    let mut text = String::new();
    let mut skipping = false;
    for line in xml.lines() {
        let opens_port = line.contains("<controller") && line.contains("model=\"pcie-");
        skipping |= opens_port;
        if !skipping && !line.contains("<address type=\"pci\"") {
            text.push_str(line);
            text.push('\n');
        }
        if skipping && (line.contains("</controller>") || (opens_port && line.contains("/>"))) {
            skipping = false;
        }
    }
    let end = text.rfind("</interface>").unwrap() + "</interface>".len();
    let mut numbered = String::new();
    for number in 0..spare {
        numbered.push_str(&format!(
            "<interface type='ethernet'><model type='virtio-non-transitional'/><alias name='ua-spare{number}'/></interface>"
        ));
    }
    text.insert_str(end, &numbered);
    text
}

#[test]
fn slots_are_those_that_libvirt_gives() {
    let sandbox = Sandbox::start("slots", |_| {});
    sandbox.run(&vmi("slots", json!([])), &[nic("default")]);
    let mut wrong = Vec::new();
    for (shape, spec) in shapes() {
        let ours = describe(&spec);
        let mut placed = Vec::new();
        for xml in [ours.clone(), unplaced(&ours)] {
            std::fs::write(sandbox.path("private/shape.xml"), xml).unwrap();
            sandbox.virsh(&["define", "/run/kubevirt-private/shape.xml"]);
            let mut slots = slots(&sandbox.virsh(&["dumpxml", "--inactive", "default_shape"]));
            slots.retain(|device, _| !device.contains("ua-spare"));
            placed.push(slots);
            sandbox.virsh(&["undefine", "default_shape"]);
        }
        for (device, place) in &placed[1] {
            let ours = placed[0].get(device);
            if ours != Some(place) {
                wrong.push(format!("{shape}: {device}: libvirt {place}, ours {ours:?}"));
            }
        }
        let more = placed[0].keys().filter(|device| !placed[1].contains_key(*device));
        wrong.extend(more.map(|device| format!("{shape}: {device}: only ours")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
