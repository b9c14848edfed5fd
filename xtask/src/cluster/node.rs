//! A node: Open vSwitch with the underlay's bridge, containerd, kubelet, kube-proxy.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::component::Component;
use super::image;
use super::layout::{self, Node, PODS};
use super::network::{self, UPLINK};
use super::pki::Pki;
use super::{cgroup, programs};

/// The underlay's bridge on each node.
pub const BRIDGE: &str = "br-lan";

/// Longest wait for a daemon.
const DEADLINE: Duration = Duration::from_secs(60);

/// The node's configuration files, as the node sees them.
const CONFIG: &str = "/etc/kubernetes";

/// Its components, in the order in which they start.
pub fn components(node: &Node<'_>) -> [Component; 5] {
    let name = &node.machine.name;
    let kubelet = format!(
        "--config={CONFIG}/kubelet.json --kubeconfig={CONFIG}/kubelet.kubeconfig --hostname-override={name} \
         --node-ip={}",
        node.address()
    );
    let proxy = format!(
        "--kubeconfig={CONFIG}/proxy.kubeconfig --hostname-override={name} --proxy-mode=nftables \
         --cluster-cidr={PODS} --conntrack-max-per-core=0"
    );
    let daemon = "--pidfile -vsyslog:off -vconsole:info";
    [
        Component::new(
            "ovsdb-server",
            &format!("/var/lib/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock {daemon}"),
        ),
        Component::new("ovs-vswitchd", &format!("unix:/run/openvswitch/db.sock {daemon}")),
        Component::new("containerd", &format!("--config={CONFIG}/containerd.toml")),
        Component::new("kubelet", &kubelet),
        Component::new("kube-proxy", &proxy),
    ]
}

/// Brings the machine and its links up.
pub fn start_machine(node: &Node<'_>, pki: &Pki) -> Result<()> {
    let machine = &node.machine;
    if machine.init().is_none() {
        machine.end()?;
        network::make_namespace(&machine.netns())?;
        write_files(node, pki)?;
        let mut arguments = vec![
            machine.name.clone(),
            machine.folder().display().to_string(),
            layout::programs().display().to_string(),
        ];
        arguments.extend(cgroup::hierarchies()?.iter().map(cgroup::Hierarchy::word));
        machine.start(include_str!("node.sh"), &arguments)?;
    }
    network::join_node(node)
}

/// Starts what does not run.
pub fn start(node: &Node<'_>) -> Result<()> {
    let [ovsdb, vswitchd, containerd, kubelet, proxy] = components(node);
    let machine = &node.machine;
    let database = ovsdb.start(machine)?;
    // While Open vSwitch begins, so does containerd.
    let containers = containerd.start(machine)?;
    if database {
        ovsdb.wait(machine, DEADLINE, || vsctl(node, &["--no-wait", "init"]).is_ok())?;
    }
    if vswitchd.start(machine)? || database {
        let id = format!("external-ids:system-id={}", machine.name);
        vsctl(node, &["--no-wait", "set", "Open_vSwitch", ".", &id])?;
        let add: Vec<&str> = ["--may-exist", "add-br", BRIDGE, "--", "set", "Bridge", BRIDGE, "datapath_type=netdev"]
            .into_iter()
            .chain(["--", "--may-exist", "add-port", BRIDGE, UPLINK])
            .collect();
        let added = vsctl(node, &add);
        added.with_context(|| format!("failed to make {BRIDGE}:\n{}", vswitchd.explanation(machine)))?;
        // A bridge that the database knew already is made some time after the daemon began.
        let set_up = || machine.program("ip").is_ok_and(|ip| ip.args(["link", "set", BRIDGE, "up"]).succeeds());
        vswitchd.wait(machine, DEADLINE, set_up)?;
    }
    if containers {
        let socket = Path::new("/run/containerd/containerd.sock");
        let version = || machine.program("ctr").is_ok_and(|ctr| ctr.arg("version").succeeds());
        containerd.wait(machine, DEADLINE, || reachable(node, socket) && version())?;
        image::import(node, &image::pause()?)?;
    }
    kubelet.start(machine)?;
    proxy.start(machine)?;
    Ok(())
}

fn vsctl(node: &Node<'_>, arguments: &[&str]) -> Result<()> {
    node.machine.program("ovs-vsctl")?.arg("--timeout=20").args(arguments).output().map(drop)
}

/// Whether a file is there, as the node sees it.
fn reachable(node: &Node<'_>, path: &Path) -> bool {
    let root = node.machine.init().map(|init| format!("/proc/{}/root{}", init.pid, path.display()));
    root.is_some_and(|path| Path::new(&path).exists())
}

/// The files that the components read. They are the same at every start.
fn write_files(node: &Node<'_>, pki: &Pki) -> Result<()> {
    let config = node.file("etc-kubernetes");
    pki.equip(node, &config)?;
    let write = |folder: &Path, name: &str, text: String| {
        let file = folder.join(name);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("failed to write {}", file.display()))
    };
    write(&config, "kubelet.json", format!("{:#}\n", kubelet()))?;
    write(&config, "containerd.toml", CONTAINERD.to_owned())?;
    // The machine's own resolver is none for pods.
    write(&config, "resolv.conf", String::new())?;
    write(&node.file("etc-cni"), "10-pods.conflist", format!("{:#}\n", primary_cni(&node.pods())))?;
    for plugin in programs::CNI_PLUGINS {
        let to = node.file("opt/cni/bin").join(plugin);
        if !to.exists() {
            fs::create_dir_all(node.file("opt/cni/bin"))?;
            fs::copy(layout::programs().join(plugin), &to)
                .with_context(|| format!("failed to copy {}", to.display()))?;
        }
    }
    let database = node.file("var/lib/openvswitch/conf.db");
    if !database.exists() {
        fs::create_dir_all(node.file("var/lib/openvswitch"))?;
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        let database = database.display().to_string();
        crate::process::Program::new("ovsdb-tool").args(["create", &database, schema]).output()?;
    }
    Ok(())
}

fn kubelet() -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": format!("{CONFIG}/ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": format!("{CONFIG}/node.crt"),
        "tlsPrivateKeyFile": format!("{CONFIG}/node.key"),
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": format!("{CONFIG}/resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // A disk that is nearly full is this machine's business: images that were loaded cannot be pulled again.
        "evictionHard": { "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": false,
        "maxPods": 200,
        "serializeImagePulls": false,
    })
}

/// CAP_SYS_RESOURCE may be missing, hence `restrict_oom_score_adj`.
const CONTAINERD: &str = r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"#;

/// The cluster's primary network: a bridge on each node, and routes between the nodes.
fn primary_cni(pods: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": pods }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "backend": "nftables", "capabilities": { "portMappings": true } },
        ],
    })
}
