//! virt-api, virt-controller and virt-handler.

use holdfast_api::kubevirt::{Flags, LogVerbosity};
use serde_json::{Value, json};

use super::placement::{infra_affinity, infra_tolerations, place};
use super::pods::{
    authorities, environment, folder, host_folder, probe, pull_policy, secret, template, unzip, version,
};
use crate::customize;
use crate::target::Target;

/// Verbosity where nobody says.
const VERBOSITY: i64 = 2;

/// The Deployment of virt-api.
pub(super) fn virt_api(target: &Target) -> Value {
    let arguments = ["--port", "8443", "--handler-port", "8186"];
    let mounted = vec![
        secret("kubevirt-virt-api-certs", "/etc/virt-api/certificates"),
        secret("kubevirt-virt-handler-certs", "/etc/virt-handler/clientcertificates"),
        authorities(),
    ];
    let component = Component {
        name: "virt-api",
        account: "kubevirt-apiserver",
        replicas: target.api_replicas(),
        arguments: arguments.map(str::to_owned).into(),
        verbosity: |levels| levels.virt_api,
        flags: |flags| &flags.api,
        ports: json!([{"name": "metrics", "containerPort": 8443, "protocol": "TCP"}]),
        requests: json!({"cpu": "5m", "memory": "40Mi"}),
        mounted,
    };
    component.deployment(target)
}

/// The Deployment of virt-controller.
pub(super) fn virt_controller(target: &Target) -> Value {
    let launcher = target.image("virt-launcher");
    let of_launcher = target.spec.configuration.as_ref().and_then(|given| given.image_pull_policy.as_deref());
    let policy = of_launcher.filter(|policy| !policy.is_empty()).unwrap_or("IfNotPresent");
    let arguments = ["--port", "8443", "--launcher-image", &launcher, "--image-pull-policy", policy];
    let component = Component {
        name: "virt-controller",
        account: "kubevirt-controller",
        replicas: target.replicas(),
        arguments: arguments.map(str::to_owned).into(),
        verbosity: |levels| levels.virt_controller,
        flags: |flags| &flags.controller,
        ports: json!([{"name": "metrics", "containerPort": 8443, "protocol": "TCP"}]),
        requests: json!({"cpu": "10m", "memory": "40Mi"}),
        mounted: vec![secret("kubevirt-controller-certs", "/etc/virt-controller/certificates"), authorities()],
    };
    component.deployment(target)
}

/// A component that serves the cluster.
struct Component {
    name: &'static str,
    account: &'static str,
    replicas: u64,
    arguments: Vec<String>,
    verbosity: fn(&LogVerbosity) -> Option<i64>,
    flags: fn(&Flags) -> &std::collections::BTreeMap<String, String>,
    ports: Value,
    requests: Value,
    mounted: Vec<(Value, Value)>,
}

impl Component {
    fn deployment(self, target: &Target) -> Value {
        let (volumes, mounts) = unzip(self.mounted);
        let mut pod = json!({
            "serviceAccountName": self.account,
            "affinity": infra_affinity(self.name),
            "tolerations": infra_tolerations(),
            "securityContext": {"runAsNonRoot": true, "fsGroup": 1001, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
            "containers": [{
                "name": self.name,
                // One image under several names.
                "image": target.image("virt-operator"),
                "imagePullPolicy": pull_policy(target),
                "command": [self.name],
                "args": arguments(target, self.arguments, self.verbosity, self.flags),
                "env": environment(&[]),
                "ports": self.ports,
                "livenessProbe": probe("/healthz", 8443, 10, 6),
                "readinessProbe": probe("/readyz", 8443, 2, 3),
                "resources": {"requests": self.requests},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": mounts,
            }],
        });
        place(&mut pod, target.spec.infra.as_ref());
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": metadata(target, self.name),
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"kubevirt.io": self.name}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": template(target, self.name, pod),
            },
        })
    }
}

/// The DaemonSet of virt-handler.
pub(super) fn virt_handler(target: &Target) -> Value {
    const CAPABILITIES: &str = "/var/run/holdfast-capabilities";
    let (capabilities, probed) = folder("capabilities", CAPABILITIES);
    let (runtime, libvirt) = folder("libvirt", "/var/run/libvirt");
    let (scratch, temporary) = folder("tmp", "/tmp");
    let (mut volumes, mut mounts) = unzip(vec![
        secret("kubevirt-virt-handler-server-certs", "/etc/virt-handler/servercertificates"),
        authorities(),
        host_folder("kubelet", "/var/lib/kubelet", Some("HostToContainer")),
        host_folder("state", "/var/lib/holdfast", None),
        host_folder("run", "/run/holdfast", None),
        // Network namespaces of pods are mounted here one by one.
        host_folder("netns", "/run/netns", Some("HostToContainer")),
        host_folder("openvswitch", "/run/openvswitch", None),
        host_folder("cni-bin", "/opt/cni/bin", None),
        host_folder("cni-conf", "/etc/cni/net.d", None),
        host_folder("dev", "/dev", None),
    ]);
    volumes.extend([capabilities, runtime, scratch]);
    mounts.push(json!({"name": "capabilities", "mountPath": CAPABILITIES, "readOnly": true}));
    let own = ["--port", "8186"].map(str::to_owned).into();
    let mut pod = json!({
        "serviceAccountName": "kubevirt-handler",
        "hostNetwork": true,
        "hostPID": true,
        "dnsPolicy": "ClusterFirstWithHostNet",
        "terminationGracePeriodSeconds": 45,
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "volumes": volumes,
        // What libvirt and QEMU of the launcher's image can do on this node.
        "initContainers": [{
            "name": "capabilities",
            "image": target.image("virt-launcher"),
            "imagePullPolicy": pull_policy(target),
            "command": ["/usr/bin/virt-launcher"],
            "args": ["probe", "--output", CAPABILITIES],
            // It needs /dev/kvm, and gives the rest up before it starts anything.
            "securityContext": {"privileged": true, "runAsUser": 0, "readOnlyRootFilesystem": true},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [probed, libvirt, temporary],
        }],
        "containers": [{
            "name": "virt-handler",
            "image": target.image("virt-handler"),
            "imagePullPolicy": pull_policy(target),
            "command": ["virt-handler"],
            "args": arguments(target, own, |levels| levels.virt_handler, |flags| &flags.handler),
            "env": environment(&[("NODE_NAME", "spec.nodeName")]),
            "ports": [{"name": "metrics", "containerPort": 8186, "hostPort": 8186, "protocol": "TCP"}],
            "livenessProbe": probe("/healthz", 8186, 15, 6),
            "readinessProbe": probe("/healthz", 8186, 2, 3),
            "resources": {"requests": {"cpu": "10m", "memory": "60Mi"}},
            "securityContext": {"privileged": true, "readOnlyRootFilesystem": true},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }],
    });
    place(&mut pod, target.spec.workloads.as_ref());
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": metadata(target, "virt-handler"),
        "spec": {
            "selector": {"matchLabels": {"kubevirt.io": "virt-handler"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": template(target, "virt-handler", pod),
        },
    })
}

fn metadata(target: &Target, name: &str) -> Value {
    json!({
        "name": name, "namespace": target.namespace,
        "labels": {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/version": version(target),
            "kubevirt.io": name,
        },
    })
}

/// A component's arguments, with its verbosity and the user's flags.
fn arguments(
    target: &Target,
    mut arguments: Vec<String>,
    verbosity: fn(&LogVerbosity) -> Option<i64>,
    flags: fn(&Flags) -> &std::collections::BTreeMap<String, String>,
) -> Vec<String> {
    let developer = target.spec.configuration.as_ref().and_then(|given| given.developer_configuration.as_ref());
    let levels = developer.and_then(|developer| developer.log_verbosity.as_ref());
    let level = levels.and_then(verbosity).unwrap_or(VERBOSITY);
    arguments.extend(["-v".to_owned(), level.to_string()]);
    if let Some(given) = target.spec.customize_components.as_ref().and_then(|custom| custom.flags.as_ref()) {
        customize::set_flags(&mut arguments, flags(given));
    }
    arguments
}
