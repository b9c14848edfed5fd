//! The command line of holdfastd.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use holdfast_agent::{AgentOptions, HttpAddress, node_label};
use ipnetwork::Ipv4Network;

/// Keeps the virtual machines of a folder of KubeVirt manifests running on this host.
///
/// VirtualMachines, VirtualMachineInstances, NetworkAttachmentDefinitions, UnderlayNetworks, ConfigMaps and Secrets
/// are read from the folder, and read again whenever it changes: a new document makes an object, a changed one
/// changes it, a removed one deletes it. `virtctl --standalone get vm` shows what came of them.
///
/// VMs go on running when holdfastd ends, and are taken over when it starts again.
#[derive(Clone, Debug, Parser)]
#[command(name = "holdfastd", version)]
pub struct Options {
    /// Folder of manifests (.yaml, .yml, .json)
    #[arg(long, value_name = "DIR")]
    pub manifests: PathBuf,
    /// Folder of everything that is kept: objects, leases, images, VMs' disks
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast")]
    pub state: PathBuf,
    /// Folder of sockets and network namespaces; empty after a reboot
    #[arg(long, value_name = "DIR", default_value = "/run/holdfast")]
    pub run: PathBuf,
    /// Socket of Open vSwitch's database, for networks with the backend `ovs`
    #[arg(long, value_name = "SOCKET", default_value = "/run/openvswitch/db.sock")]
    pub ovsdb: PathBuf,
    /// Folder of CNI plugins; may be given more than once. The folder of holdfastd comes first
    #[arg(long, value_name = "DIR", default_values = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"])]
    pub cni_bin_path: Vec<PathBuf>,
    /// Addresses of the pod network (`pod: {}`); its first address is the host's
    #[arg(long, value_name = "CIDR", default_value = "10.88.0.0/16")]
    pub pod_cidr: Ipv4Network,
    /// CNI configuration (or list) to use for the pod network instead of the built-in one
    #[arg(long, value_name = "FILE", conflicts_with = "pod_cidr")]
    pub pod_network: Option<PathBuf>,
    /// Folder below which the files of hostDisk volumes may lie, an absolute path; may be given more than once. Those
    /// files are given to the VMs' user; none elsewhere is touched
    #[arg(long = "host-disk-folder", value_name = "DIR", value_parser = host_disk_folder,
          default_value = "/var/lib/holdfast-disks")]
    pub host_disk_folders: Vec<PathBuf>,
    /// Whether guests' CPUs are emulated: where KVM cannot run a guest, always, or never
    #[arg(long, value_enum, default_value_t = Emulation::Auto)]
    pub emulation: Emulation,
    /// Program of the launcher; that beside holdfastd where not given
    #[arg(long, value_name = "FILE")]
    pub launcher: Option<PathBuf>,
    /// Where to answer /healthz, /metrics and /debug/attachments besides: an address such as 127.0.0.1:9200, or a path
    #[arg(long, value_name = "ADDRESS")]
    pub http: Option<HttpAddress>,
    /// Name of this host as a node; its host name where not given
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// A label of this host as a node, for `nodes` of an UnderlayNetwork
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = node_label)]
    pub node_labels: Vec<(String, String)>,
    /// Seconds that the address of a VM that was deleted stays locked
    #[arg(long, value_name = "SECONDS", default_value_t = AgentOptions::QUARANTINE.as_secs())]
    pub quarantine: u64,
    /// Log as JSON
    #[arg(long)]
    pub json: bool,
}

/// When guests' CPUs are emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emulation {
    /// Where a probe says that KVM cannot run a guest.
    Auto,
    /// Even where KVM could.
    Always,
    /// Never: holdfastd does not start where KVM cannot run a guest.
    Never,
}

fn host_disk_folder(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') || text.split('/').any(|part| part == "." || part == "..") {
        return Err("it must be an absolute path without `.` and `..`".to_owned());
    }
    Ok(PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let parsed = Options::try_parse_from(["holdfastd", "--manifests", "/m", "--http", "127.0.0.1:1"]).unwrap();
        assert_eq!(parsed.cni_bin_path.len(), 3);
        assert_eq!(parsed.host_disk_folders, [PathBuf::from("/var/lib/holdfast-disks")]);
        let folders = |list: &[&str]| {
            let arguments = list.iter().flat_map(|folder| ["--host-disk-folder", folder]);
            Options::try_parse_from(["holdfastd", "--manifests", "/m"].into_iter().chain(arguments))
        };
        assert_eq!(folders(&["/a", "/b"]).unwrap().host_disk_folders, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert!(folders(&["disks"]).unwrap_err().to_string().contains("absolute"));
        assert!(folders(&["/a/../etc"]).is_err());
        assert!(Options::try_parse_from(["holdfastd", "--manifests", "/m", "--node-label", "x"]).is_err());
    }
}
