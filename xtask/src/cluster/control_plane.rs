//! The control plane: etcd, API server, controller manager, scheduler.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::component::Component;
use super::layout::{CONTROL_PLANE, Cluster, SERVICES};
use super::network;
use super::pki::Pki;
use crate::process::Program;

/// Longest wait for the API server.
const DEADLINE: Duration = Duration::from_secs(90);

/// Seconds without a word from a node until it is NotReady (Kubernetes: 50), and from then until its pods are
/// deleted, unless they say otherwise (Kubernetes: 300). Shorter, for tests wait for it; not so short that a busy
/// machine loses nodes.
const NODE_GRACE_SECONDS: u32 = 30;

/// Name of the file that says which requests the API server writes down.
const POLICY: &str = "policy.yaml";

/// Its components, in the order in which they start.
pub fn components(cluster: Cluster<'_>, pki: &Pki) -> [Component; 4] {
    let path = |file: &str| pki.path(file);
    let kubeconfig = |user: &str| cluster.kubeconfig(user).display().to_string();
    let data = cluster.control_plane().folder().join("etcd");
    let etcd = format!(
        "--name=cp --data-dir={} --unsafe-no-fsync --listen-client-urls=http://127.0.0.1:2379 \
         --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 \
         --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=cp=http://127.0.0.1:2380",
        data.display()
    );
    let apiserver = format!(
        "--etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address={CONTROL_PLANE} \
         --secure-port=6443 --service-cluster-ip-range={SERVICES} --authorization-mode=Node,RBAC \
         --allow-privileged=true --enable-aggregator-routing=true \
         --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement \
         --audit-policy-file={policy} --audit-log-path={audit}/requests.log --audit-log-maxsize=50 \
         --audit-log-maxbackup=4 \
         --kubelet-preferred-address-types=InternalIP,Hostname \
         --default-not-ready-toleration-seconds={NODE_GRACE_SECONDS} \
         --default-unreachable-toleration-seconds={NODE_GRACE_SECONDS} \
         --client-ca-file={ca} --tls-cert-file={} --tls-private-key-file={} \
         --kubelet-client-certificate={} --kubelet-client-key={} --kubelet-certificate-authority={ca} \
         --proxy-client-cert-file={} --proxy-client-key-file={} --requestheader-client-ca-file={ca} \
         --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
         --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
         --service-account-key-file={} --service-account-signing-key-file={} \
         --service-account-issuer=https://kubernetes.default.svc.cluster.local",
        path("apiserver.crt"),
        path("apiserver.key"),
        path("apiserver-kubelet.crt"),
        path("apiserver-kubelet.key"),
        path("front-proxy.crt"),
        path("front-proxy.key"),
        path("service-accounts.pub"),
        path("service-accounts.key"),
        ca = path("ca.crt"),
        policy = cluster.audit().join(POLICY).display(),
        audit = cluster.audit().join("log").display(),
    );
    let controllers = format!(
        "--kubeconfig={} --leader-elect=false --use-service-account-credentials=true --root-ca-file={ca} \
         --service-account-private-key-file={} --cluster-signing-cert-file={ca} --cluster-signing-key-file={} \
         --node-monitor-grace-period={NODE_GRACE_SECONDS}s",
        kubeconfig("controller-manager"),
        path("service-accounts.key"),
        path("ca.key"),
        ca = path("ca.crt"),
    );
    let scheduler = format!("--kubeconfig={} --leader-elect=false", kubeconfig("scheduler"));
    [
        Component::new("etcd", &etcd),
        Component::new("kube-apiserver", &apiserver),
        Component::new("kube-controller-manager", &controllers),
        Component::new("kube-scheduler", &scheduler),
    ]
}

/// Brings the machine and its network up.
pub fn start_machine(cluster: Cluster<'_>) -> Result<()> {
    let machine = cluster.control_plane();
    if machine.init().is_none() {
        machine.end()?;
        network::make_namespace(&machine.netns())?;
        machine.start(include_str!("control-plane.sh"), &[])?;
    }
    network::join_control_plane(cluster)
}

/// Starts what does not run, and waits for the API server.
pub fn start(cluster: Cluster<'_>, pki: &Pki) -> Result<()> {
    let machine = cluster.control_plane();
    let components = components(cluster, pki);
    let [etcd, apiserver, rest @ ..] = &components;
    fs::create_dir_all(cluster.audit()).context("failed to make a folder for the log of requests")?;
    fs::write(cluster.audit().join(POLICY), include_str!("audit-policy.yaml"))
        .context("failed to write what requests to log")?;
    etcd.start(&machine)?;
    apiserver.start(&machine)?;
    apiserver.wait(&machine, DEADLINE, || kubectl(cluster).args(["get", "--raw", "/readyz"]).succeeds())?;
    rest.iter().try_for_each(|component| component.start(&machine).map(drop))
}

/// kubectl as the administrator.
pub fn kubectl(cluster: Cluster<'_>) -> Program {
    network::inside(&cluster.control_plane().netns(), &super::layout::programs().join("kubectl").display().to_string())
        .args([format!("--kubeconfig={}", cluster.kubeconfig("admin").display())])
}
