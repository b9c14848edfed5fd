//! Images as they lie on disk, made by the real tools.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use holdfast_api::kubevirt::VirtualMachineInstance;
use serde_json::{Value, json};

use super::prepare;
use crate::domain::{DiskImage, Format};
use crate::paths::Paths;

struct Machine {
    folder: tempfile::TempDir,
    vmi: VirtualMachineInstance,
}

impl Machine {
    fn with(volume: Value) -> Self {
        let name = volume["name"].clone();
        let vmi = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "web.example", "namespace": "shop"},
            "spec": {"domain": {"devices": {"disks": [{"name": name, "disk": {}}]}}, "volumes": [volume]},
        });
        Self { folder: tempfile::tempdir().unwrap(), vmi: serde_json::from_value(vmi).unwrap() }
    }

    fn paths(&self) -> Paths {
        let at = |name: &str| self.folder.path().join(name);
        Paths { run: at("run"), private: at("private"), ephemeral: at("disks"), libvirt: at("libvirt") }
    }

    fn put(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, contents).unwrap();
    }

    fn image(&self) -> DiskImage {
        let mut images =
            prepare(&self.vmi, &self.paths()).unwrap_or_else(|error| panic!("{}", crate::vm::chain(&error)));
        assert_eq!(images.len(), 1);
        images.remove(0)
    }

    fn error(&self) -> (bool, String) {
        let error = prepare(&self.vmi, &self.paths()).unwrap_err();
        (error.is_invalid(), crate::vm::chain(&error))
    }
}

fn info(image: &Path) -> Value {
    let output = Command::new("qemu-img").args(["info", "--output=json"]).arg(image).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn isoinfo(image: &Path, arguments: &[&str]) -> String {
    let output = Command::new("isoinfo").arg("-i").arg(image).args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_container_disk_gets_an_overlay_that_is_kept() {
    let machine = Machine::with(json!({"name": "root", "containerDisk": {"image": "x"}}));
    machine.put("run/container-disks/root.img", vec![7u8; 1 << 20]);
    let image = machine.image();
    let backing = image.backing.clone().unwrap();
    assert_eq!((image.format, backing.format), (Format::Qcow2, Format::Raw));
    let made = info(&image.path);
    assert_eq!(made["backing-filename-format"], "raw");
    assert_eq!(made["virtual-size"], 1 << 20);
    std::fs::write(&image.path, "what the guest wrote").unwrap();
    assert_eq!(machine.image(), image);
    assert_eq!(std::fs::read(&image.path).unwrap(), b"what the guest wrote");
}

#[test]
fn a_half_made_image_is_made_anew() {
    let machine = Machine::with(json!({"name": "data", "emptyDisk": {"capacity": "16Mi"}}));
    machine.put("disks/empty-disks/data.qcow2.new", "half");
    let image = machine.image();
    assert_eq!(info(&image.path)["virtual-size"], 16 << 20);
    assert!(!machine.folder.path().join("disks/empty-disks/data.qcow2.new").exists());
}

#[test]
fn an_empty_disk_needs_a_size() {
    for capacity in ["0", "-1Gi", "many"] {
        let machine = Machine::with(json!({"name": "data", "emptyDisk": {"capacity": capacity}}));
        let (invalid, text) = machine.error();
        assert!(invalid && text.contains("volume `data`: emptyDisk.capacity") && text.contains(capacity), "{text}");
    }
}

#[test]
fn a_host_disk_is_taken_or_made() {
    let source = |kind: &str| json!({"name": "h", "hostDisk": {"path": "/d/x.img", "type": kind, "capacity": "1Mi"}});
    let missing = Machine::with(source("Disk"));
    missing.put("private/vmi-disks/h/other", "");
    let (invalid, text) = missing.error();
    assert!(invalid && text.contains("`h`") && text.contains("`/d/x.img` is not there"), "{text}");
    let made = Machine::with(source("DiskOrCreate"));
    made.put("private/vmi-disks/h/other", "");
    let image = made.image();
    assert_eq!((image.format, std::fs::metadata(&image.path).unwrap().len()), (Format::Raw, 1 << 20));
    made.put("private/vmi-disks/h/x.img", "kept");
    made.image();
    assert_eq!(std::fs::read(&image.path).unwrap(), b"kept");
    // On a cluster the whole folder is there, with the disks of others.
    let other = json!({"name": "h", "hostDisk": {"path": "/d/y.img", "type": "Disk"}});
    let other = Machine::with(other);
    other.put("private/vmi-disks/h/x.img", "of another");
    assert!(other.error().1.contains("`/d/y.img` is not there"));
    let nameless = Machine::with(json!({"name": "h", "hostDisk": {"path": "/d/..", "type": "Disk"}}));
    assert!(nameless.error().1.contains("hostDisk.path"), "{}", nameless.error().1);
}

#[test]
fn no_cloud_data_is_an_iso_of_its_own() {
    let machine = Machine::with(json!({"name": "ci", "cloudInitNoCloud": {
        "userData": "#cloud-config\nx: 1\n", "networkDataBase64": "dmVyc2lvbjogMgo=",
    }}));
    let image = machine.image();
    assert_eq!(image.format, Format::Raw);
    assert!(isoinfo(&image.path, &["-d"]).contains("Volume id: cidata"));
    let read = |name: &str| isoinfo(&image.path, &["-R", "-x", name]);
    assert_eq!(read("/user-data"), "#cloud-config\nx: 1\n");
    assert_eq!(read("/network-config"), "version: 2\n");
    assert_eq!(read("/meta-data"), "instance-id: web.shop\nlocal-hostname: web\n");
    let metadata = std::fs::metadata(&image.path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = std::fs::read_dir(image.path.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    machine.image();
    assert_eq!(std::fs::metadata(&image.path).unwrap().ino(), metadata.ino());
}

#[test]
fn a_config_drive_takes_its_data_from_secrets() {
    let machine = Machine::with(json!({"name": "cd", "cloudInitConfigDrive": {
        "secretRef": {"name": "s"}, "networkDataSecretRef": {"name": "n"},
    }}));
    let (invalid, text) = machine.error();
    assert!(!invalid && text.contains("private/secret/cd/userdata"), "{text}");
    machine.put("private/secret/cd/userdata", "hidden");
    machine.put("private/secret/cd/networkdata", "{}");
    let image = machine.image();
    assert!(isoinfo(&image.path, &["-d"]).contains("Volume id: config-2"));
    let read = |name: &str| isoinfo(&image.path, &["-R", "-x", &format!("/openstack/latest/{name}")]);
    assert_eq!((read("user_data").as_str(), read("network_data.json").as_str()), ("hidden", "{}"));
    let metadata: Value = serde_json::from_str(&read("meta_data.json")).unwrap();
    assert_eq!(metadata, json!({"instance_id": "web.example.shop", "local_hostname": "web"}));
}

#[test]
fn an_error_does_not_tell_a_secret() {
    let machine = Machine::with(json!({"name": "ci", "cloudInitNoCloud": {"userDataBase64": "pass!word"}}));
    let (invalid, text) = machine.error();
    assert!(invalid && text.contains("volume `ci`: userDataBase64: is not base64"), "{text}");
    assert!(!text.contains("pass"), "{text}");
}

#[test]
fn a_name_cannot_leave_its_folder() {
    for name in ["../x", "a/b", "", "..", "A"] {
        let (invalid, text) = Machine::with(json!({"name": name, "emptyDisk": {"capacity": "1Mi"}})).error();
        assert!(invalid && text.contains("not a DNS label"), "{text}");
    }
}

#[test]
fn what_is_not_carried_out_is_named() {
    let (invalid, text) = Machine::with(json!({"name": "p", "persistentVolumeClaim": {"claimName": "c"}})).error();
    assert!(invalid && text.starts_with("failed to prepare volume `p`: its source is none of"), "{text}");
}
