//! The launcher of a VMI in its sandbox.

use std::path::{Path, PathBuf};

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::quantity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::SetupError;
use super::volumes::Volumes;
use crate::host::Host;
use crate::sandbox::{Bind, Device, Plan, Process, Record, own_folder, spawn};

/// The launcher's program inside.
const PROGRAM: &str = "/virt-launcher";
/// What a VM's processes may need beside the guest's memory, where a limit is set: as KubeVirt reckons for a plain
/// VM, and emulation's translated code besides.
const OVERHEAD: u64 = 512 << 20;

/// The folders of a VMI outside its sandbox.
pub struct Folders {
    /// /var/run/kubevirt.
    pub share: PathBuf,
    /// /var/run/kubevirt-private.
    pub private: PathBuf,
    /// /var/run/kubevirt-ephemeral-disks.
    pub disks: PathBuf,
    /// Where the sandbox's root is assembled.
    root: PathBuf,
}

impl Folders {
    /// The folders below a VMI's own.
    pub fn of(folder: &Path) -> Self {
        let below = |name: &str| folder.join(name);
        Self { share: below("share"), private: below("private"), disks: below("disks"), root: below("root") }
    }

    /// Makes them; the sandbox's user owns all but the root.
    pub fn make(&self, uid: &str) -> std::io::Result<()> {
        let owned = [
            self.share.clone(),
            self.share.join("sockets"),
            self.share.join("container-disks"),
            self.private.clone(),
            self.private.join(uid),
            self.private.join("vmi-disks"),
            self.disks.clone(),
        ];
        owned.into_iter().try_for_each(|path| own_folder(path).map(drop))?;
        std::fs::create_dir_all(&self.root)
    }
}

/// Starts the launcher and records it.
pub async fn launch(
    host: &Host,
    vmi: &VirtualMachineInstance,
    record: &mut Record,
    folder: &Path,
    netns: &Path,
    volumes: &Volumes,
) -> Result<Process, SetupError> {
    let folders = Folders::of(folder);
    let limit = memory_limit(vmi);
    let cgroups = host.cgroups.make(&record.vmi_uid, limit).map_err(|error| {
        SetupError::new("FailedCreatePodSandBox", format!("failed to make a control group: {error}"))
    })?;
    let plan = Plan {
        netns: netns.to_owned(),
        root: folders.root.clone(),
        hostname: hostname(vmi),
        binds: binds(host, &folders, volumes),
        devices: devices(host),
        cgroups,
        log: folder.join("launcher.log"),
        command: command(vmi, record),
        environment: environment(record),
    };
    let remember = |process: &Process| {
        record.launcher = Some(process.id());
        record.write(folder)
    };
    spawn(&host.program, &plan, remember).await.map_err(|error| SetupError::of("FailedCreatePodSandBox", &error))
}

fn binds(host: &Host, folders: &Folders, volumes: &Volumes) -> Vec<Bind> {
    let writable = |source: &Path, target: &str| Bind {
        source: source.to_owned(),
        target: PathBuf::from(target),
        writable: true,
        file: None,
    };
    let mut binds = vec![
        Bind { source: host.launcher.clone(), target: PathBuf::from(PROGRAM), writable: false, file: None },
        writable(&folders.share, "/var/run/kubevirt"),
        writable(&folders.private, "/var/run/kubevirt-private"),
        writable(&folders.disks, "/var/run/kubevirt-ephemeral-disks"),
    ];
    binds.extend(volumes.binds.iter().cloned());
    binds
}

/// The device nodes that KVM guests use; without KVM none, so that nothing inside mistakes the node for the thing.
fn devices(host: &Host) -> Vec<Device> {
    if !host.kvm {
        return Vec::new();
    }
    let vhost = Path::new("/dev/vhost-net").exists().then(|| Device::new("vhost-net", 10, 238));
    [Device::new("kvm", 10, 232)].into_iter().chain(vhost).collect()
}

fn command(vmi: &VirtualMachineInstance, record: &Record) -> Vec<String> {
    let grace = vmi.spec.termination_grace_period_seconds.unwrap_or(super::task::DEFAULT_GRACE).max(0);
    let grace = grace.to_string();
    let arguments = [
        PROGRAM,
        "--name",
        &record.name,
        "--namespace",
        &record.namespace,
        "--uid",
        &record.vmi_uid,
        "--grace-period-seconds",
        &grace,
    ];
    arguments.map(str::to_owned).to_vec()
}

fn environment(record: &Record) -> Vec<(String, String)> {
    let mut variables = vec![
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOME", "/run".to_owned()),
        ("XDG_CACHE_HOME", "/var/run/kubevirt-private".to_owned()),
        ("XDG_CONFIG_HOME", "/var/run/kubevirt-private".to_owned()),
        ("XDG_RUNTIME_DIR", "/var/run".to_owned()),
        ("POD_NAME", record.pod_name.clone()),
    ];
    // The one setting of holdfastd's own environment that its launchers share: how much they log.
    variables.extend(std::env::var("RUST_LOG").ok().map(|level| ("RUST_LOG", level)));
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// `spec.hostname`, else the VMI's name; a label of at most 63 characters.
fn hostname(vmi: &VirtualMachineInstance) -> String {
    let name = vmi.spec.hostname.as_deref().or(vmi.metadata.name.as_deref()).unwrap_or("vm");
    let label: String = name.split('.').next().unwrap_or(name).chars().take(63).collect();
    label.trim_end_matches('-').to_owned()
}

/// Bytes that the sandbox may use: none where the VM sets no limit, as for pods.
fn memory_limit(vmi: &VirtualMachineInstance) -> Option<u64> {
    let limits = vmi.spec.domain.resources.as_ref()?;
    let value = serde_json::to_value(limits).ok()?;
    let limit = Quantity(value["limits"]["memory"].as_str()?.to_owned());
    let bytes = u64::try_from(quantity::parse(&limit).ok()?.value()).ok()?;
    Some(bytes.saturating_add(OVERHEAD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_a_label() {
        let mut vmi = VirtualMachineInstance::default();
        vmi.metadata.name = Some("a.b.c".into());
        assert_eq!(hostname(&vmi), "a");
        vmi.spec.hostname = Some(format!("{}-x", "h".repeat(62)));
        assert_eq!(hostname(&vmi), "h".repeat(62));
    }

    #[test]
    fn limits_are_those_of_the_vm_and_its_overhead() {
        let mut vmi = VirtualMachineInstance::default();
        assert_eq!(memory_limit(&vmi), None);
        let resources = serde_json::json!({"limits": {"memory": "1Gi"}});
        vmi.spec.domain.resources = Some(serde_json::from_value(resources).unwrap());
        assert_eq!(memory_limit(&vmi), Some((1 << 30) + OVERHEAD));
    }
}
