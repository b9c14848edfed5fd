//! Where a cluster is: every name, address and path of it follows from its own name, so that clusters do not meet.
//!
//! ```text
//! hf-NAME-cp        10.99.0.1   etcd, API server, controller manager, scheduler; bridge `nodes` to all nodes
//! hf-NAME-node1     10.99.0.11  containerd, kubelet, kube-proxy; OVS bridge br-lan with uplink0
//! hf-NAME-underlay              bridge `lan` that joins the uplinks
//! hf-NAME-lan       192.0.2.1   a host on the underlay
//! ```

use std::path::{Path, PathBuf};

use crate::workspace;

/// Address of the API server.
pub const CONTROL_PLANE: &str = "10.99.0.1";
/// First address of the services' network: the API server's.
pub const API_SERVICE: &str = "10.96.0.1";
/// The services' network.
pub const SERVICES: &str = "10.96.0.0/16";
/// The pods' network, a /24 of it for each node.
pub const PODS: &str = "10.244.0.0/16";
/// Address of the host on the underlay, with the length of its prefix.
pub const LAN_HOST: &str = "192.0.2.1/24";
/// The most nodes: their addresses end in 10 + number.
pub const MOST_NODES: u8 = 200;

/// A cluster, up or not.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Its name.
    pub name: &'a str,
}

impl<'a> Cluster<'a> {
    /// Its files. A short path, for sockets of a node are reached through it.
    pub fn folder(&self) -> PathBuf {
        Path::new("/var/lib").join(self.mark())
    }

    /// The name of its folder and of its control group.
    pub fn mark(&self) -> String {
        format!("holdfast-{}", self.name)
    }

    /// Whether it is there, up or half.
    pub fn exists(&self) -> bool {
        self.size_file().exists()
    }

    /// The number of nodes, in a file.
    pub fn size_file(&self) -> PathBuf {
        self.folder().join("nodes")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    /// The kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder().join(format!("{user}.kubeconfig"))
    }

    /// Which requests the API server writes down, and in `log` those requests.
    pub fn audit(&self) -> PathBuf {
        self.folder().join("audit")
    }

    /// Logs. They stay when the cluster goes.
    pub fn logs(&self) -> PathBuf {
        workspace::target().join("cluster/log").join(self.name)
    }

    /// Name of a network namespace.
    pub fn netns(&self, what: &str) -> String {
        format!("hf-{}-{what}", self.name)
    }

    /// The control plane.
    pub fn control_plane(self) -> Machine<'a> {
        Machine { cluster: self, name: "cp".to_owned() }
    }

    /// A node, by its number from 1.
    pub fn node(self, number: u8) -> Node<'a> {
        Node { machine: Machine { cluster: self, name: format!("node{number}") }, number }
    }
}

/// Something that runs processes in namespaces of its own: the control plane or a node.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// The cluster that it belongs to.
    pub cluster: Cluster<'a>,
    /// Its name: `cp` or that of the node.
    pub name: String,
}

impl Machine<'_> {
    /// Name of its network namespace.
    pub fn netns(&self) -> String {
        self.cluster.netns(&self.name)
    }

    /// Its files.
    pub fn folder(&self) -> PathBuf {
        self.cluster.folder().join(&self.name)
    }

    /// Where the processes of its components are noted.
    pub fn records(&self) -> PathBuf {
        self.folder().join("pids")
    }

    /// Its control group, in each hierarchy.
    pub fn cgroup(&self) -> PathBuf {
        Path::new(&self.cluster.mark()).join(&self.name)
    }

    /// The log of one of its components.
    pub fn log(&self, component: &str) -> PathBuf {
        self.cluster.logs().join(&self.name).join(format!("{component}.log"))
    }
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    /// What runs its processes.
    pub machine: Machine<'a>,
    /// Its number, from 1.
    pub number: u8,
}

impl Node<'_> {
    /// Its address.
    pub fn address(&self) -> String {
        format!("10.99.0.{}", u16::from(self.number) + 10)
    }

    /// The network of its pods.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// A file of the node, as the host sees it. The node has /var, /opt and /tmp of its own.
    pub fn file(&self, inside: &str) -> PathBuf {
        self.machine.folder().join(inside.trim_start_matches('/'))
    }
}

/// The programs.
pub fn programs() -> PathBuf {
    workspace::target().join("cluster/bin")
}

/// The programs, as a node sees them.
pub const PROGRAMS_IN_NODE: &str = "/opt/cluster/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_not_meet() {
        let cluster = Cluster { name: "cluster" };
        let (one, last) = (cluster.node(1), cluster.node(MOST_NODES));
        assert_eq!((one.address().as_str(), last.address().as_str()), ("10.99.0.11", "10.99.0.210"));
        assert_ne!(one.pods(), last.pods());
        assert_eq!(one.machine.netns(), "hf-cluster-node1");
    }

    #[test]
    fn sockets_of_a_node_are_within_reach_of_the_host() {
        // sun_path holds 108 bytes with the NUL; this is the longest that the product has in a node.
        let socket = "/var/lib/kubelet/device-plugins/kubevirt-vhost-net.sock";
        let path = Cluster { name: "cluster" }.node(MOST_NODES).file(socket);
        assert!(path.as_os_str().len() < 108, "{}", path.display());
    }
}
