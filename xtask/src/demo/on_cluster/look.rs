//! kubectl and virtctl, as users call them: every look at the VM goes through them.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::super::control::Vmi;
use super::super::steps::Step;
use super::super::{VM_DEADLINE, world};
use crate::cluster::{self, Cluster};
use crate::install;
use crate::process;

/// The pod that asks the Service.
pub const CLIENT: &str = "demo-client";
/// Namespace of the example.
const NAMESPACE: &str = "default";
/// Between two looks: each starts a program.
const PAUSE: Duration = Duration::from_millis(250);

/// The way to a cluster.
pub struct Look<'a> {
    /// The cluster.
    pub cluster: Cluster<'a>,
    /// The program.
    pub virtctl: PathBuf,
}

impl Look<'_> {
    /// What kubectl prints, in the example's namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let program = cluster::kubectl(self.cluster).args(["-n", NAMESPACE]).args(arguments);
        program.deadline(Duration::from_secs(60)).output()
    }

    /// What virtctl prints.
    pub fn virtctl(&self, arguments: &[&str]) -> Result<String> {
        let program = cluster::inside(self.cluster, "cp", &self.virtctl).args(arguments);
        program.deadline(Duration::from_secs(60)).output()
    }

    fn get(&self, kind: &str) -> Result<Option<Value>> {
        let text = self.kubectl(&["get", kind, world::VM, "--ignore-not-found", "-o", "json"])?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).context("failed to parse what kubectl prints").map(Some)
    }

    /// Waits until the VM's VMI runs, and returns its node as well; where `not` is given, one with another uid.
    pub fn wait_running(&self, not: Option<&str>, step: &mut Step) -> Result<(Vmi, String)> {
        process::wait_for("the VM to run", VM_DEADLINE, || {
            let text =
                |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (vm, vmi) = (self.get("vm")?.unwrap_or_default(), self.get("vmi")?.unwrap_or_default());
            let phase = text(&vmi, "/status/phase");
            step.tell(&format!("VM is {}, VMI is {phase}", text(&vm, "/status/printableStatus")));
            match phase.as_str() {
                _ if not == Some(&text(&vmi, "/metadata/uid")) => {}
                "Running" => return Ok(Some((Vmi::of(&vmi), text(&vmi, "/status/nodeName")))),
                "Failed" => bail!("the VMI failed"),
                _ => {}
            }
            std::thread::sleep(PAUSE);
            Ok(None)
        })
    }

    /// Asks the VM's Service from a pod on another node than the VM's, where there is another. Returns a line on it.
    pub fn service_answers(&self, node: &str, step: &mut Step) -> Result<String> {
        let nodes = cluster::nodes(self.cluster)?;
        let other = nodes.iter().map(|other| other.machine.name.as_str()).find(|other| *other != node).unwrap_or(node);
        let address = self.kubectl(&["get", "service", world::VM, "-o", "jsonpath={.spec.clusterIP}"])?;
        step.tell(&format!("start a pod on {other}"));
        let overrides = json!({"spec": {"nodeName": other, "terminationGracePeriodSeconds": 0}}).to_string();
        let image = format!("--image={}", cluster::BUSYBOX);
        let overrides = format!("--overrides={overrides}");
        self.kubectl(&["run", CLIENT, &image, "--restart=Never", &overrides, "--command", "--", "sleep", "3600"])?;
        let pod = format!("pod/{CLIENT}");
        self.kubectl(&["wait", &pod, "--for=condition=Ready", "--timeout=50s"])?;
        step.tell(&format!("GET http://{address}/ from there"));
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
        process::wait_for("the Service to answer", VM_DEADLINE, || {
            let answer = self.kubectl(&["exec", CLIENT, "--", "sh", "-c", &ask]).unwrap_or_default();
            Ok(answer.lines().next().is_some_and(|line| line.contains(" 200 ")).then_some(()))
        })?;
        self.kubectl(&["delete", "pod", CLIENT])?;
        Ok(format!("{address} from {other}, the VM is on {node}"))
    }

    /// Presses Enter on the VM's console until it asks for a login. Returns that line.
    pub fn console(&self) -> Result<String> {
        process::wait_for("the console to ask for a login", VM_DEADLINE, || {
            let mut enter = tempfile::NamedTempFile::new().context("failed to make a temporary file")?;
            enter.write_all(b"\n").context("failed to write a temporary file")?;
            let program = cluster::inside(self.cluster, "cp", &self.virtctl).args(["console", world::VM]);
            let said = program.stdin(enter.reopen()?).deadline(Duration::from_secs(30)).output()?;
            // It takes an Enter for a name, and asks for the password then.
            let asks = |line: &&str| ["login:", "Password:"].iter().any(|end| line.ends_with(end));
            Ok(said.lines().rev().map(str::trim).find(asks).map(str::to_owned))
        })
    }

    /// Prints what the cluster tells of a failure.
    pub fn explain(&self) {
        let show = |title: &str, arguments: &[&str]| {
            if let Ok(text) = self.kubectl(arguments) {
                eprintln!("--- {title}\n{}", text.trim_end());
            }
        };
        show("the VM", &["describe", "vm,vmi", world::VM]);
        show("its pods", &["get", "pods", "-o", "wide"]);
        show("events", &["get", "events", "--sort-by=.lastTimestamp"]);
        show("its launcher", &["logs", "-l", "kubevirt.io=virt-launcher", "--tail=40", "--all-containers"]);
        for component in ["virt-controller", "virt-handler"] {
            let label = format!("kubevirt.io={component}");
            let logs = ["-n", install::NAMESPACE, "logs", "-l", &label, "--tail=25", "--prefix"];
            show(component, &logs);
        }
    }
}
