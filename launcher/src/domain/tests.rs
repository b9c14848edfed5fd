//! Golden descriptions: whole domains, and what each kind of device becomes.

use std::path::{Path, PathBuf};

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_net::model::GuestNic;
use serde_json::{Value, json};

use super::{Backing, DiskImage, DomainError, Format, Input, build};

fn nic(name: &str, index: usize) -> GuestNic {
    GuestNic {
        name: name.to_owned(),
        pod_interface: "eth0".parse().unwrap(),
        tap: format!("tap{index}").parse().unwrap(),
        mac: format!("02:00:00:00:00:{:02x}", index + 1).parse().unwrap(),
        mtu: 1500,
        queues: 1,
        macvtap: false,
        dhcp_v4: None,
        addresses: Vec::new(),
    }
}

/// The XML of a VMI whose volumes are all there, with its NICs changed by `change`.
fn xml_with(vmi: &Value, emulation: bool, change: impl Fn(&mut GuestNic)) -> Result<String, DomainError> {
    let vmi: VirtualMachineInstance = serde_json::from_value(vmi.clone()).unwrap();
    let image = |volume: &holdfast_api::kubevirt::Volume| DiskImage {
        volume: volume.name.clone(),
        path: PathBuf::from(format!("/images/{}", volume.name)),
        format: if volume.empty_disk.is_some() { Format::Qcow2 } else { Format::Raw },
        backing: volume.container_disk.as_ref().map(|_| Backing { path: "/base".into(), format: Format::Raw }),
        direct_io: volume.name != "tmpfs",
    };
    let images: Vec<DiskImage> = vmi.spec.volumes.iter().map(image).collect();
    let interfaces = vmi.spec.domain.devices.interfaces.iter().enumerate();
    let mut nics: Vec<GuestNic> = interfaces.map(|(index, interface)| nic(&interface.name, index)).collect();
    nics.iter_mut().for_each(change);
    let input = Input { vmi: &vmi, nics: &nics, images: &images, emulation, sockets: Path::new("/sockets") };
    build(&input)?.to_xml()
}

fn xml(vmi: &Value) -> String {
    xml_with(vmi, false, |_| {}).unwrap()
}

/// A VMI of which only `spec.domain` and the volumes matter.
fn vmi(domain: Value, volumes: Value) -> Value {
    let mut domain = domain;
    if domain.get("devices").is_none() {
        domain["devices"] = json!({});
    }
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "v", "namespace": "n", "uid": "6f2c9a6c-5b07-4e5f-9c1c-6a5b4c3d2e1f"},
        "spec": {"domain": domain, "volumes": volumes},
    })
}

/// The lines of one element and what is in it.
fn element(xml: &str, name: &str) -> String {
    let mut found = String::new();
    let mut depth = None;
    for line in xml.lines() {
        let indent = line.len() - line.trim_start().len();
        if depth.is_none() && line.trim_start().trim_start_matches('<').split([' ', '>', '/']).next() == Some(name) {
            depth = Some(indent);
        }
        if let Some(start) = depth {
            found.push_str(&line[start.min(line.len())..]);
            found.push('\n');
            let ends = line.contains(&format!("</{name}>")) || (line.ends_with("/>") && indent == start);
            if ends && indent == start {
                depth = None;
            }
        }
    }
    found
}

#[test]
fn whole_domains() {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let plain = xml_with(&read(include_str!("../../tests/observed/plain.vmi.json")), true, |_| {}).unwrap();
    insta::assert_snapshot!("plain", plain);
    let rich = xml_with(&read(include_str!("../../tests/observed/rich.vmi.json")), true, |_| {}).unwrap();
    insta::assert_snapshot!("rich", rich);
}

#[test]
fn disks() {
    let volumes = json!([
        {"name": "root", "containerDisk": {"image": "x"}},
        {"name": "tmpfs", "emptyDisk": {"capacity": "1Mi"}},
        {"name": "cd", "cloudInitNoCloud": {"userData": "x"}},
    ]);
    let devices = json!({"disks": [
        {"name": "root", "disk": {"bus": "virtio"}, "bootOrder": 1, "io": "threads", "cache": "writeback",
         "shareable": true, "blockSize": {"custom": {"logical": 512, "physical": 4096}}},
        {"name": "tmpfs", "disk": {"bus": "scsi", "readonly": true}, "serial": "S"},
        {"name": "cd", "cdrom": {"bus": "sata", "tray": "open"}},
    ]});
    insta::assert_snapshot!("disks", element(&xml(&vmi(json!({"devices": devices}), volumes)), "disk"));
}

#[test]
fn interfaces() {
    let devices = json!({"interfaces": [
        {"name": "a", "bridge": {}, "bootOrder": 1, "acpiIndex": 7},
        {"name": "b", "bridge": {}, "model": "e1000e", "state": "down"},
        {"name": "c", "bridge": {}, "pciAddress": "0000:05:00.0"},
        {"name": "d", "bridge": {}, "state": "absent"},
    ]});
    let xml = xml_with(&vmi(json!({"devices": devices}), json!([])), false, |nic| {
        nic.queues = if nic.name == "a" { 4 } else { 1 };
    });
    insta::assert_snapshot!("interfaces", element(&xml.unwrap(), "interface"));
}

/// libvirt asks for it under the name of the pod's interface, and QEMU is told the MTU beside it.
#[test]
fn a_macvtap_is_fetched_from_the_launcher() {
    let devices = json!({"interfaces": [
        {"name": "a", "binding": {"name": "macvtap"}},
        {"name": "b", "binding": {"name": "macvtap"}, "model": "e1000"},
    ]});
    let xml =
        xml_with(&vmi(json!({"devices": devices}), json!([])), false, |nic| (nic.macvtap, nic.mtu) = (true, 9000));
    let xml = xml.unwrap();
    let nics = element(&xml, "interface");
    assert_eq!(nics.matches(r#"<interface type="bridge">"#).count(), 2, "{nics}");
    assert!(
        nics.contains(r#"<source bridge="tap0"/>"#) && !nics.contains("<target") && !nics.contains("<mtu"),
        "{nics}"
    );
    let told = element(&xml, "qemu:override");
    assert_eq!(told.matches("qemu:device alias").count(), 1, "{told}");
    assert!(
        told.contains(r#"alias="ua-a""#) && told.contains(r#"name="host_mtu" type="unsigned" value="9000""#),
        "{told}"
    );
    assert!(xml.contains(r#"xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0""#), "{xml}");
}

#[test]
fn processors_features_and_clock() {
    let domain = json!({
        "cpu": {"sockets": 2, "cores": 2, "threads": 2, "model": "Haswell", "features": [{"name": "vmx", "policy": "disable"}]},
        "features": {
            "acpi": {"enabled": false}, "apic": {"endOfInterrupt": true}, "kvm": {"hidden": true}, "smm": {},
            "hyperv": {"relaxed": {}, "spinlocks": {"spinlocks": 8191}, "synictimer": {"direct": {}},
                       "vendorid": {"vendorid": "us"}, "vapic": {"enabled": false}},
        },
        "clock": {"timezone": "Europe/Berlin", "timer": {"kvm": {"present": false}, "hyperv": {}}},
        "firmware": {"serial": "S-1", "bootloader": {"bios": {"useSerial": true}}},
        "chassis": {"manufacturer": "M", "sku": "K"},
        "rebootPolicy": "Terminate",
    });
    let xml = xml(&vmi(domain, json!([])));
    let parts = ["vcpu", "sysinfo", "os", "features", "cpu", "clock", "on_reboot"].map(|part| element(&xml, part));
    insta::assert_snapshot!("machine", parts.join(""));
}

#[test]
fn switched_off() {
    let devices = json!({
        "autoattachGraphicsDevice": false, "autoattachMemBalloon": false, "autoattachSerialConsole": false,
        "disableHotplug": true,
    });
    insta::assert_snapshot!("switched_off", xml(&vmi(json!({"devices": devices}), json!([]))));
}

#[test]
fn iothreads_go_round() {
    let count = 5;
    let names: Vec<String> = (0..count).map(|index| format!("d{index}")).collect();
    let volumes: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "emptyDisk": {"capacity": "1Mi"}})).collect();
    let mut disks: Vec<Value> = names.iter().map(|name| json!({"name": name, "disk": {"bus": "virtio"}})).collect();
    disks[1]["dedicatedIOThread"] = json!(true);
    let domain = json!({"ioThreadsPolicy": "auto", "cpu": {"cores": 2}, "devices": {"disks": disks}});
    let xml = xml(&vmi(domain, json!(volumes)));
    assert!(xml.contains("<iothreads>4</iothreads>"), "{xml}");
    let thread = |line: &str| Some(line.split_once("iothread=\"")?.1.split('"').next()?.to_owned());
    let threads: Vec<String> = xml.lines().filter_map(thread).collect();
    assert_eq!(threads, ["1", "4", "2", "3", "1"]);
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    for (domain, named) in [
        (json!({"firmware": {"kernelBoot": {}}}), "spec.domain.firmware.kernelBoot"),
        (json!({"firmware": {"bootloader": {"efi": {}}}}), "spec.domain.firmware.bootloader.efi"),
        (json!({"cpu": {"dedicatedCpuPlacement": true}}), "spec.domain.cpu.dedicatedCpuPlacement"),
        (json!({"memory": {"hugepages": {"pageSize": "2Mi"}}}), "spec.domain.memory.hugepages"),
        (json!({"devices": {"tpm": {}}}), "spec.domain.devices.tpm"),
        (json!({"devices": {"gpus": [{"name": "g", "deviceName": "d"}]}}), "spec.domain.devices.gpus"),
        (json!({"devices": {"interfaces": [{"name": "a", "sriov": {}}]}}), "spec.domain.devices.interfaces[].sriov"),
        (json!({"devices": {"inputs": [{"name": "a", "type": "tablet", "bus": "ps2"}]}}), "valid are usb and virtio"),
    ] {
        let error = xml_with(&vmi(domain, json!([])), false, |_| {}).unwrap_err();
        assert!(matches!(error, DomainError::Refused(_)) && error.to_string().contains(named), "{error}");
    }
}

#[test]
fn what_does_not_fit_together_is_an_error() {
    let disk = |cache: &str| json!({"devices": {"disks": [{"name": "tmpfs", "disk": {}, "cache": cache}]}});
    let volumes = json!([{"name": "tmpfs", "emptyDisk": {"capacity": "1Mi"}}]);
    let text = |vmi: &Value| xml_with(vmi, false, |_| {}).unwrap_err().to_string();
    assert!(text(&vmi(disk("none"), volumes.clone())).contains("disks[name=tmpfs].cache: none"));
    assert!(xml(&vmi(disk(""), volumes)).contains("cache=\"writethrough\""));
    assert!(text(&vmi(disk(""), json!([]))).contains("disk `tmpfs` has no volume"));
    let memory = json!({"memory": {"guest": "lots"}});
    assert!(text(&vmi(memory, json!([]))).contains("spec.domain.memory.guest `lots`"));
    let interface = json!({"devices": {"interfaces": [{"name": "a", "bridge": {}}]}});
    let error = xml_with(&vmi(interface, json!([])), false, |nic| nic.name.clear()).unwrap_err();
    assert!(matches!(error, DomainError::NotWired(_)));
}

#[test]
fn text_is_escaped() {
    let domain = json!({"firmware": {"serial": "a<b>&\"c'"}});
    assert!(xml(&vmi(domain, json!([]))).contains("a&lt;b&gt;&amp;\"c'"));
}

#[test]
fn an_address_of_the_spec_is_left_to_its_device() {
    let devices = json!({"interfaces": [
        {"name": "a", "bridge": {}, "pciAddress": "0000:01:00.0"}, {"name": "b", "bridge": {}},
        {"name": "c", "bridge": {}, "pciAddress": "0000:0c:00.0"},
    ]});
    let xml = xml(&vmi(json!({"devices": devices}), json!([])));
    let buses = |name: &str| -> Vec<String> {
        let lines = element(&xml, name);
        let buses = lines.lines().filter_map(|line| Some(line.split_once("bus=\"")?.1[..4].to_owned()));
        buses.filter(|bus| bus != "0x00").collect()
    };
    assert_eq!(buses("interface"), ["0x01", "0x02", "0x0c"]);
    let mut all: Vec<String> = ["interface", "controller", "memballoon"].iter().flat_map(|name| buses(name)).collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "two devices on one bus: {all:?}");
    // Ports up to the one that the spec names, and a free one.
    assert!(xml.contains("index=\"12\" model=\"pcie-root-port\"") && xml.contains("index=\"13\""), "{xml}");
}
