//! A sandbox as a container runtime would leave it: a network namespace with pod interfaces, and folders. A
//! second namespace holds their other ends. All of it is gone when it is dropped.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_agent::vmi::Sandbox;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;

/// One test's sandbox.
pub struct TestSandbox {
    pub id: String,
    peer: String,
    pub folder: tempfile::TempDir,
}

impl TestSandbox {
    /// With a pod interface for each of `interfaces`: name, MAC, address.
    pub fn new(interfaces: &[(&str, &str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let id = format!("hfvmi-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let this = Self { peer: format!("{id}-peer"), id, folder };
        this.make_folders();
        for netns in [&this.id, &this.peer] {
            ip(&["netns", "add", netns]);
        }
        for (number, (name, mac, address)) in interfaces.iter().enumerate() {
            let (pod, peer, other) = (this.id.as_str(), this.peer.as_str(), format!("host{number}"));
            ip(&[
                "-n", pod, "link", "add", name, "address", mac, "mtu", "1450", "type", "veth", "peer", "name", &other,
                "netns", peer,
            ]);
            ip(&["-n", pod, "address", "add", address, "dev", name]);
            ip(&["-n", pod, "link", "set", name, "up"]);
            ip(&["-n", peer, "link", "set", &other, "up"]);
        }
        this
    }

    fn make_folders(&self) {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.folder.path(), all).unwrap();
        for name in ["share", "private", "state"] {
            std::fs::create_dir(self.folder.path().join(name)).unwrap();
        }
        chown(self.share(), Some(107), Some(107)).unwrap();
        // The sandbox's own device node, which its user may open.
        let tun = self.share().join("tun");
        mknod(&tun, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 200)).unwrap();
        std::fs::set_permissions(&tun, std::fs::Permissions::from_mode(0o666)).unwrap();
    }

    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn sandbox(&self) -> Sandbox {
        Sandbox {
            id: self.id.clone(),
            netns: Path::new("/run/netns").join(&self.id),
            share_dir: self.share(),
            private_dir: self.folder.path().join("private"),
            launcher_socket: self.share().join("launcher.sock"),
        }
    }

    /// The links of the sandbox, as `ip -d -j address` tells them, without what changes by itself.
    pub fn links(&self) -> Vec<Value> {
        let output = ip(&["-n", &self.id, "-d", "-j", "address"]);
        let links: Vec<Value> = serde_json::from_str(&output).unwrap();
        let keep = ["ifindex", "ifname", "address", "mtu", "master", "addr_info", "linkinfo"];
        let slim = |link: Value| {
            let mut slim: serde_json::Map<_, _> =
                link.as_object().unwrap().clone().into_iter().filter(|(key, _)| keep.contains(&key.as_str())).collect();
            if let Some(addresses) = slim.get_mut("addr_info").and_then(Value::as_array_mut) {
                // The kernel's own come and settle in their time.
                addresses.retain(|address| address["scope"] != "link");
            }
            if let Some(info) = slim.get_mut("linkinfo").and_then(Value::as_object_mut) {
                // Bridges and their ports have timers.
                info.retain(|key, value| key == "info_kind" || (key == "info_data" && value.get("user").is_some()));
            }
            Value::Object(slim)
        };
        links.into_iter().map(slim).collect()
    }

    /// One link of them.
    pub fn link(&self, name: &str) -> Value {
        let links = self.links();
        links.iter().find(|link| link["ifname"] == name).unwrap_or_else(|| panic!("no {name} in {links:#?}")).clone()
    }
}

impl Drop for TestSandbox {
    fn drop(&mut self) {
        for netns in [&self.id, &self.peer] {
            // Not `ip`, which would panic while a failed test unwinds.
            let _ = Command::new("ip").args(["netns", "delete", netns]).status();
        }
    }
}

/// Runs ip(8) and returns what it prints.
pub fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
