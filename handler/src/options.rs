//! The command line.

use std::path::PathBuf;

use clap::Parser;
use holdfast_kubernetes::client::ClusterArgs;
use holdfast_kubernetes::log::LogArgs;

/// Looks after the virtual machines and the networks of one node of a cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "virt-handler", version)]
pub struct Options {
    /// Name of the node
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: String,
    /// Namespace of the installation; the pod's own where it is not given
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Port on which virt-api is answered, and probes
    #[arg(long, default_value_t = 8186)]
    pub port: u16,
    /// Folder of the state: what running VMs need while the API server is away
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast")]
    pub state: PathBuf,
    /// Folder of the sockets
    #[arg(long, value_name = "DIR", default_value = "/run/holdfast")]
    pub run: PathBuf,
    /// The kubelet's folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet: PathBuf,
    /// OVSDB's socket
    #[arg(long, value_name = "PATH", default_value = "/run/openvswitch/db.sock")]
    pub ovsdb: PathBuf,
    /// Folder of tls.crt and tls.key
    #[arg(long, value_name = "DIR", default_value = "/etc/virt-handler/servercertificates")]
    pub server_certificates: PathBuf,
    /// Authorities of virt-api's client certificate
    #[arg(long, value_name = "FILE", default_value = "/etc/kubevirt/ca/ca-bundle")]
    pub ca: PathBuf,
    /// Folder of the CNI plugins' programs
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin: PathBuf,
    /// Folder of the CNI configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf: PathBuf,
    /// The CNI plugin that is installed
    #[arg(long, value_name = "FILE", default_value = "/usr/libexec/holdfast/holdfast")]
    pub cni_plugin: PathBuf,
    /// Folder of what libvirt and QEMU can do here, as the launcher's image found it
    #[arg(long, value_name = "DIR", default_value = "/var/run/holdfast-capabilities")]
    pub capabilities: PathBuf,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub log: LogArgs,
}
