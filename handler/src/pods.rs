//! The pods of this node, as far as networks and VMs need to know them.
//!
//! CNI calls are answered from here, so it holds every pod; those that cannot be told from others without the API
//! server (launchers, and pods with networks of their own) are on disk as well.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_agent::workloads::PodRef;
use holdfast_api::nad::NETWORKS_ANNOTATION;
use holdfast_ipam::nic::NICS_ANNOTATION;
use k8s_openapi::api::core::v1 as core;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::disk;
use crate::follow::Key;

/// Annotation of a static pod's mirror: the UID that the kubelet and the runtime know the pod by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// The resource that is KVM's device.
const KVM: &str = "devices.kubevirt.io/kvm";

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// The networks that it joins besides its own, as its annotation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<String>,
    /// The NICs of its VM, as its annotation has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nics: Option<String>,
    /// The UID that a static pod is known by on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_uid: Option<String>,
    /// The VMI whose launcher it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmi: Option<VmiRef>,
    /// Whether it was given KVM's device; a launcher without it emulates.
    #[serde(default)]
    pub kvm: bool,
    /// The grace period in seconds of a pod that is being deleted.
    #[serde(skip)]
    pub deleting: Option<u64>,
    /// Its phase; empty where only the disk is known.
    #[serde(skip)]
    pub phase: String,
}

/// Which VMI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VmiRef {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl Pod {
    /// What is to be known of a pod; none of an object without a UID.
    pub fn of(pod: &core::Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let annotation = |name: &str| meta.annotations.as_ref()?.get(name).filter(|text| !text.is_empty()).cloned();
        let is_launcher = meta.labels.as_ref().and_then(|labels| labels.get("kubevirt.io")).map(String::as_str);
        let owner = meta.owner_references.iter().flatten().find(|owner| {
            owner.controller == Some(true)
                && owner.kind == "VirtualMachineInstance"
                && owner.api_version.starts_with("kubevirt.io/")
        });
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            networks: annotation(NETWORKS_ANNOTATION),
            nics: annotation(NICS_ANNOTATION),
            static_uid: annotation(CONFIG_HASH),
            vmi: owner
                .filter(|_| is_launcher == Some("virt-launcher"))
                .map(|owner| VmiRef { name: owner.name.clone(), uid: owner.uid.clone() }),
            kvm: pod.spec.iter().flat_map(|spec| &spec.containers).any(has_kvm),
            deleting: meta
                .deletion_timestamp
                .as_ref()
                .map(|_| meta.deletion_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0)),
            phase: pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default(),
        })
    }

    /// Whether its containers have ended for good.
    pub fn is_over(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Whether it must be known also while the API server is away.
    fn is_kept(&self) -> bool {
        self.vmi.is_some() || self.networks.is_some()
    }

    fn is(&self, pod: &PodRef) -> bool {
        if pod.uid.is_empty() {
            return self.namespace == pod.namespace && self.name == pod.name;
        }
        self.uid == pod.uid || self.static_uid.as_ref() == Some(&pod.uid)
    }
}

fn has_kvm(container: &core::Container) -> bool {
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    limits.is_some_and(|limits| limits.contains_key(KVM))
}

/// The pods of the node. Cheap to clone.
#[derive(Clone)]
pub struct Pods(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    /// Counts the changes.
    changes: watch::Sender<u64>,
}

impl Pods {
    /// The pods that the disk knows.
    pub fn open(folder: &Path) -> Self {
        let pods = disk::read_folder::<Pod>(folder).into_iter().map(|pod| (pod.uid.clone(), Arc::new(pod)));
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            pods: Mutex::new(pods.collect()),
            changes: watch::Sender::new(0),
        }))
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// A pod is there, or is another than before.
    pub fn set(&self, pod: Pod) {
        let kept = pod.is_kept();
        let (path, pod) = (self.path(&pod.uid), Arc::new(pod));
        let before = self.pods().insert(pod.uid.clone(), Arc::clone(&pod));
        if before.as_ref() == Some(&pod) {
            return;
        }
        let on_disk = |pod: &Pod| Pod { deleting: None, phase: String::new(), ..pod.clone() };
        if kept && before.is_none_or(|before| on_disk(&before) != on_disk(&pod)) {
            // Synchronous: a CNI call that it concerns is answered after it.
            if let Err(error) = tokio::task::block_in_place(|| disk::write(&path, &*pod)) {
                tracing::error!(error = holdfast_kubernetes::chain(&error), "a pod cannot be written down");
            }
        }
        self.changed();
    }

    /// A pod is gone.
    pub fn gone(&self, key: &Key) {
        self.retain(|pod| (&pod.namespace, &pod.name) != (&key.0, &key.1));
    }

    /// All pods but these are gone.
    pub fn only(&self, keys: &BTreeSet<Key>) {
        self.retain(|pod| keys.contains(&(pod.namespace.clone(), pod.name.clone())));
    }

    fn retain(&self, keep: impl Fn(&Pod) -> bool) {
        let mut gone = Vec::new();
        self.pods().retain(|_, pod| {
            let stays = keep(pod);
            if !stays {
                gone.push(Arc::clone(pod));
            }
            stays
        });
        if gone.is_empty() {
            return;
        }
        for pod in gone.iter().filter(|pod| pod.is_kept()) {
            if let Err(error) = disk::remove(&self.path(&pod.uid)) {
                tracing::warn!(error = holdfast_kubernetes::chain(&error), "a pod that is gone stays written down");
            }
        }
        self.changed();
    }

    fn changed(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.0.folder.join(format!("{uid}.json"))
    }

    /// The pod of this UID.
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.pods().get(uid).cloned()
    }

    /// The pods that are launchers.
    pub fn launchers(&self) -> Vec<Arc<Pod>> {
        self.pods().values().filter(|pod| pod.vmi.is_some()).cloned().collect()
    }

    /// The pod that a CNI call is about.
    pub fn find(&self, pod: &PodRef) -> Option<Arc<Pod>> {
        let pods = self.pods();
        pods.get(&pod.uid).or_else(|| pods.values().find(|known| known.is(pod))).cloned()
    }

    /// The pod that a CNI call is about, also where it becomes known only within this time.
    pub async fn wait_for(&self, pod: &PodRef, patience: Duration) -> Option<Arc<Pod>> {
        let mut changes = self.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = self.find(pod) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        tokio::time::timeout(patience, wait).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        Pod::of(&serde_json::from_value(value).unwrap()).unwrap()
    }

    fn launcher() -> Pod {
        pod(json!({
            "metadata": {
                "namespace": "lab", "name": "virt-launcher-a-x", "uid": "u1", "labels": {"kubevirt.io": "virt-launcher"},
                "annotations": {"k8s.v1.cni.cncf.io/networks": "lan"},
                "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
                    "name": "a", "uid": "v1", "controller": true}],
            },
            "status": {"phase": "Running"},
        }))
    }

    #[test]
    fn a_launcher_is_told_from_a_pod_that_only_says_so() {
        assert_eq!(launcher().vmi, Some(VmiRef { name: "a".into(), uid: "v1".into() }));
        let plain = pod(json!({"metadata": {"namespace": "lab", "name": "p", "uid": "u2",
            "labels": {"kubevirt.io": "virt-launcher"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": 30}}));
        assert_eq!((plain.vmi, plain.deleting), (None, Some(30)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pods_that_matter_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let pods = Pods::open(folder.path());
        pods.set(launcher());
        pods.set(pod(json!({"metadata": {"namespace": "lab", "name": "plain", "uid": "u2"}})));
        let again = Pods::open(folder.path());
        let by = |uid: &str, name: &str| PodRef { namespace: "lab".into(), name: name.into(), uid: uid.into() };
        assert_eq!(again.find(&by("u1", "")).unwrap().networks.as_deref(), Some("lan"));
        assert_eq!(again.find(&by("", "virt-launcher-a-x")).unwrap().uid, "u1");
        assert!(again.find(&by("u2", "plain")).is_none());
        assert_eq!(again.launchers().len(), 1);

        again.only(&BTreeSet::from([("lab".to_owned(), "plain".to_owned())]));
        assert!(again.launchers().is_empty());
        assert!(Pods::open(folder.path()).launchers().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_static_pod_is_found_by_the_uid_that_its_node_knows() {
        let folder = tempfile::tempdir().unwrap();
        let pods = Pods::open(folder.path());
        pods.set(pod(json!({"metadata": {"namespace": "kube-system", "name": "s", "uid": "u3",
            "annotations": {"kubernetes.io/config.hash": "abc"}}})));
        let call = PodRef { uid: "abc".into(), ..PodRef::default() };
        assert_eq!(pods.find(&call).unwrap().uid, "u3");
        let late = PodRef { uid: "u4".into(), ..PodRef::default() };
        assert!(pods.wait_for(&late, Duration::from_millis(1)).await.is_none());
        let waiting = pods.wait_for(&late, Duration::from_secs(20));
        let set = async { pods.set(pod(json!({"metadata": {"namespace": "n", "name": "p", "uid": "u4"}}))) };
        assert_eq!(tokio::join!(waiting, set).0.unwrap().name, "p");
    }
}
