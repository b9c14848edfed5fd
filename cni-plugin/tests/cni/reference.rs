//! The reference runtime (libcni, by its program cnitool) and the reference plugins, from the Go module tests/cluster/cni.
//!
//! They run in the host's network, with /run and /var/lib of their own: libcni and the plugins remember there what they
//! did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::host::{Host, files, unique};
use crate::plugin::HOLDFAST;

/// A runtime on a host.
pub struct Runtime {
    host: PathBuf,
    folder: PathBuf,
    path: String,
    capabilities: Value,
}

impl Runtime {
    pub fn on(host: &Host) -> Self {
        let ours = Path::new(HOLDFAST).parent().unwrap();
        let reference = ours.parent().unwrap().join("cluster/bin");
        let built = reference.join("cnitool").exists();
        assert!(built, "there is no {}/cnitool: `cargo xtask test cni-plugin` builds it", reference.display());
        let folder = host.folder.path().join(unique("runtime"));
        for name in ["net.d", "lib", "run"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let path = format!("{}:{}", ours.display(), reference.display());
        Self { host: host.netns.path.clone(), folder, path, capabilities: json!({}) }
    }

    /// Makes these plugins the network of the name that the first one has.
    pub fn network(&self, version: &str, plugins: &[Value]) {
        self.write(&json!({"cniVersion": version, "name": "lab", "plugins": plugins}));
    }

    /// Writes the list of the network.
    pub fn write(&self, list: &Value) {
        fs::write(self.folder.join("net.d/lab.conflist"), list.to_string()).unwrap();
    }

    /// The same runtime with these arguments for capabilities.
    pub fn with_capabilities(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A folder that plugins of a list may keep things in.
    pub fn data(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Calls `cnitool VERB` for the interface eth0 of the pod at `netns`; what it prints, or its error.
    pub fn call(&self, verb: &str, netns: &Path) -> Result<String, String> {
        let pod = netns.file_name().unwrap().to_str().unwrap();
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}");
        let apart = r#"mount --bind "$1/lib" /var/lib && mount --bind "$1/run" /run && shift && exec "$@""#;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.host.display()));
        command.args(["--", "unshare", "--mount", "sh", "-c", apart, "sh"]).arg(&self.folder);
        command.arg(Path::new(self.path.rsplit(':').next().unwrap()).join("cnitool")).args([verb, "lab"]).arg(netns);
        command.env("CNI_PATH", &self.path).env("NETCONFPATH", self.folder.join("net.d"));
        command.env("CNI_ARGS", args).env("CAP_ARGS", self.capabilities.to_string());
        let output = command.output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// ADD, and the list's result.
    pub fn add(&self, netns: &Path) -> Value {
        serde_json::from_str(&self.call("add", netns).unwrap()).unwrap()
    }

    /// A verb that answers nothing.
    pub fn done(&self, verb: &str, netns: &Path) {
        assert_eq!(self.call(verb, netns).as_deref(), Ok(""), "{verb}");
    }

    /// The results that it remembers.
    pub fn cached(&self) -> Vec<String> {
        files(&self.folder.join("lib/cni/results"))
    }

    /// Forgets them.
    pub fn forget(&self) {
        fs::remove_dir_all(self.folder.join("lib/cni")).unwrap();
    }
}
