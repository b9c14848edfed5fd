//! The pod, put together.

use std::collections::BTreeMap;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::nad::NETWORKS_ANNOTATION;
use holdfast_ipam::nic::{NICS_ANNOTATION, Nic, Wanted};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, EnvVarSource, LocalObjectReference, ObjectFieldSelector, Pod, PodReadinessGate,
    PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::volumes::PodVolumes;
use super::{
    COMPONENT_LABEL, COMPUTE, CREATED_BY_LABEL, DOMAIN_ANNOTATION, UNPAUSED, VMI_LABEL, overhead, placement, resources,
};
use crate::context::Launcher;

/// User and group of everything in the pod.
const USER: i64 = 107;
/// Seconds that a guest has to shut down, where its VMI says nothing.
pub const DEFAULT_GRACE: i64 = 30;
/// Seconds that the pod has beyond the guest's.
pub const POD_GRACE: i64 = 15;

/// What a pod is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// Its VMI.
    pub vmi: &'a VirtualMachineInstance,
    /// The VMI's NICs with the addresses that they hold, and as they were asked for.
    pub nics: &'a [(Wanted, Nic)],
    /// The launcher's image.
    pub launcher: &'a Launcher,
    /// Secrets that the launcher's image is pulled with.
    pub pull_secrets: &'a [LocalObjectReference],
    /// Whether processors are emulated.
    pub emulation: bool,
    /// How many virtual processors share one of the node's.
    pub cpu_ratio: Option<i64>,
}

/// Name of a VMI's pod: the same one whenever it is made.
pub fn pod_name(vmi: &VirtualMachineInstance) -> String {
    let meta = &vmi.metadata;
    let (name, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
    shortened(&format!("virt-launcher-{name}"), uid)
}

/// Labels of the pods of all VMIs that ever had this name. One of another long name may have them by chance.
pub fn pods_of(name: &str) -> String {
    format!("{COMPONENT_LABEL}=virt-launcher,{VMI_LABEL}={}", label_value(name))
}

/// `text`, cut so that `-` and five characters that stand for `identity` make a label of it.
pub(super) fn shortened(text: &str, identity: &str) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = Sha256::digest(identity);
    let suffix: String = digest.iter().take(5).map(|octet| ALPHABET[usize::from(*octet) % 36] as char).collect();
    let cut: String = text.chars().take(63 - 6).collect();
    format!("{}-{suffix}", cut.trim_end_matches(['-', '.']))
}

/// The pod of a VMI.
pub fn launcher_pod(input: &Input<'_>) -> Pod {
    let Input { vmi, .. } = *input;
    let spec = &vmi.spec;
    let volumes = PodVolumes::of(vmi);
    let pull_secrets: Vec<_> = input.pull_secrets.iter().chain(&volumes.pull_secrets).cloned().collect();
    let pod_spec = PodSpec {
        containers: vec![container(input, &volumes)],
        volumes: Some(volumes.volumes),
        image_pull_secrets: some_list(&pull_secrets),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(grace(vmi) + POD_GRACE),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        service_account_name: spec.service_account_name.clone(),
        security_context: Some(PodSecurityContext {
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            run_as_non_root: Some(true),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        readiness_gates: Some(vec![PodReadinessGate { condition_type: UNPAUSED.to_owned() }]),
        hostname: Some(hostname(vmi)),
        subdomain: spec.subdomain.clone(),
        node_selector: Some(placement::node_selector(vmi, input.emulation)),
        affinity: Some(placement::affinity(vmi)),
        // Those for nodes that are not ready are given by admission, to any pod, as the cluster is set.
        tolerations: Some(vmi.spec.tolerations.clone()),
        topology_spread_constraints: some_list(&spec.topology_spread_constraints),
        scheduler_name: spec.scheduler_name.clone().filter(|name| !name.is_empty()),
        priority_class_name: spec.priority_class_name.clone().filter(|name| !name.is_empty()),
        dns_policy: spec.dns_policy.clone().filter(|policy| !policy.is_empty()),
        dns_config: spec.dns_config.clone(),
        ..PodSpec::default()
    };
    Pod { metadata: metadata(input), spec: Some(pod_spec), status: None }
}

/// Seconds that a VMI's guest has to shut down.
pub fn grace(vmi: &VirtualMachineInstance) -> i64 {
    vmi.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE).max(0)
}

fn metadata(input: &Input<'_>) -> ObjectMeta {
    let meta = &input.vmi.metadata;
    let (name, uid) = (meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
    let mut labels = meta.labels.clone().unwrap_or_default();
    let label = hostname(input.vmi);
    for (key, value) in [
        (COMPONENT_LABEL, "virt-launcher"),
        (CREATED_BY_LABEL, uid.as_str()),
        ("vm.kubevirt.io/name", label.as_str()),
        (VMI_LABEL, label_value(&name).as_str()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    ObjectMeta {
        name: Some(pod_name(input.vmi)),
        namespace: meta.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations(input)),
        owner_references: Some(vec![OwnerReference {
            api_version: "kubevirt.io/v1".to_owned(),
            kind: "VirtualMachineInstance".to_owned(),
            name,
            uid,
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

fn annotations(input: &Input<'_>) -> BTreeMap<String, String> {
    let meta = &input.vmi.metadata;
    // The VMI's own, but for what tells of the VMI's making.
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !key.starts_with("kubevirt.io/") || key == "kubevirt.io/pci-topology-version");
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    let domain = meta.name.clone().unwrap_or_default();
    let overhead = overhead(input.vmi, input.emulation).to_string();
    for (key, value) in [
        (DOMAIN_ANNOTATION, domain.as_str()),
        ("kubectl.kubernetes.io/default-container", COMPUTE),
        ("kubevirt.io/migrationTransportUnix", "true"),
        ("kubevirt.io/memory-overhead-bytes", overhead.as_str()),
        ("descheduler.alpha.kubernetes.io/request-evict-only", ""),
    ] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    let nics: Vec<&Nic> = input.nics.iter().map(|(_, nic)| nic).collect();
    if !nics.is_empty() {
        annotations.insert(NICS_ANNOTATION.to_owned(), json!(nics).to_string());
    }
    let (default, others): (Vec<_>, Vec<_>) =
        input.nics.iter().map(|(wanted, _)| wanted).partition(|wanted| wanted.ifname.as_str() == "eth0");
    let networks: Vec<Value> = others.into_iter().filter_map(selection).collect();
    if !networks.is_empty() {
        annotations.insert(NETWORKS_ANNOTATION.to_owned(), json!(networks).to_string());
    }
    if let Some((namespace, name)) = default.first().and_then(|wanted| wanted.definition()) {
        annotations.insert("v1.multus-cni.io/default-network".to_owned(), format!("{namespace}/{name}"));
    }
    annotations
}

/// A network as the pod's networks annotation lists it.
fn selection(wanted: &Wanted) -> Option<Value> {
    let (namespace, name) = wanted.definition()?;
    let mut selection = json!({"name": name, "namespace": namespace, "interface": wanted.ifname});
    if let (Value::Object(selection), Value::Object(asked)) = (&mut selection, wanted.capabilities()) {
        selection.extend(asked);
    }
    Some(selection)
}

fn container(input: &Input<'_>, volumes: &PodVolumes) -> Container {
    let Input { vmi, launcher, .. } = *input;
    let meta = &vmi.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let arguments = [
        ("--name", text(&meta.name)),
        ("--namespace", text(&meta.namespace)),
        ("--uid", text(&meta.uid)),
        ("--grace-period-seconds", grace(vmi).to_string()),
    ];
    Container {
        name: COMPUTE.to_owned(),
        image: Some(launcher.image.clone()),
        image_pull_policy: Some(launcher.pull_policy.clone()),
        command: Some(vec!["/usr/bin/virt-launcher".to_owned()]),
        args: Some(arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()),
        env: Some(environment()),
        resources: Some(resources::requirements(vmi, input.emulation, input.cpu_ratio)),
        volume_mounts: Some(volumes.mounts.clone()),
        security_context: Some(SecurityContext {
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            run_as_non_root: Some(true),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

/// Where libvirt keeps its things: folders that can be written.
fn environment() -> Vec<EnvVar> {
    let private = "/var/run/kubevirt-private";
    let fixed = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", private),
        ("XDG_CACHE_HOME", private),
        ("XDG_CONFIG_HOME", private),
        ("XDG_RUNTIME_DIR", "/var/run"),
    ];
    let variable =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: "metadata.name".to_owned() };
    let pod_name = EnvVar {
        name: "POD_NAME".to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    };
    fixed.into_iter().map(|(name, value)| variable(name, value)).chain([pod_name]).collect()
}

/// `spec.hostname`, else the VMI's name; a label of at most 63 characters.
fn hostname(vmi: &VirtualMachineInstance) -> String {
    let given = vmi.spec.hostname.as_deref().filter(|name| !name.is_empty());
    let name = given.or(vmi.metadata.name.as_deref()).unwrap_or("vm");
    let label: String = name.split('.').next().unwrap_or(name).chars().take(63).collect();
    label.trim_end_matches('-').to_owned()
}

/// A name as the value of a label; a longer one is cut and told apart by its hash.
fn label_value(name: &str) -> String {
    if name.len() <= 63 { name.to_owned() } else { shortened(name, name) }
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
