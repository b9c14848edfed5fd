//! The NICs of the VMs on this node, believed only once their leases were seen.
//!
//! A pod's annotation says which addresses its VM's NICs carry, and whoever makes pods can write one. So an address is
//! the VM's only where the claim is the one that its VMI leads to, and where the leases themselves name that claim.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::lease::{Claim, IPLease, MACLease};
use holdfast_ipam::leases::{Lease, is_quarantined};
use holdfast_ipam::nic::{Nic, claim};
use holdfast_kubernetes::store::CLAIM_LABEL;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::disk;
use crate::pods::Pod;

/// How long the API server may take for a list.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why the NICs of a pod are not believed.
#[derive(Debug, thiserror::Error)]
pub enum NicsError {
    /// The annotation is not one.
    #[error("failed to decode the NICs of pod `{0}`")]
    Decode(String, #[source] serde_json::Error),
    /// It is not borne out by the leases.
    #[error("network `{network}` of the VM: {why}")]
    Unproven {
        /// The network.
        network: String,
        /// What is missing.
        why: String,
    },
    /// The leases could not be listed.
    #[error("failed to list the leases of claim `{0}`")]
    List(String, #[source] Box<kube::Error>),
    /// The leases could not be listed in time.
    #[error("failed to list the leases of claim `{0}`: the API server does not answer")]
    NoAnswer(String),
}

/// What a launcher's pod needs to be run without the API server, on disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// UID of the pod.
    pub pod_uid: String,
    /// The VMI, defaulted.
    pub vmi: VirtualMachineInstance,
    /// Its NICs, proven.
    pub nics: Vec<Nic>,
}

/// The NICs by the UIDs of their pods. Cheap to clone.
#[derive(Clone)]
pub struct Nics(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Arc<Known>>>,
    /// Why those that are not known yet are not.
    waiting: Mutex<BTreeMap<String, String>>,
    changes: watch::Sender<u64>,
}

impl Nics {
    /// Those that the disk knows.
    pub fn open(folder: &Path) -> Self {
        let known = disk::read_folder::<Known>(folder).into_iter().map(|known| (known.pod_uid.clone(), known.into()));
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            known: Mutex::new(known.collect()),
            waiting: Mutex::default(),
            changes: watch::Sender::new(0),
        }))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Known>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.0.folder.join(format!("{uid}.json"))
    }

    /// What is known of a pod.
    pub fn get(&self, uid: &str) -> Option<Arc<Known>> {
        self.known().get(uid).cloned()
    }

    /// Why a pod's NICs are not known yet.
    pub fn why_not(&self, uid: &str) -> String {
        self.waiting().get(uid).cloned().unwrap_or_else(|| "its leases have not been seen yet".to_owned())
    }

    /// UIDs of the pods that are known.
    pub fn uids(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    /// Takes what is known of a pod; it is on disk when this returns.
    ///
    /// # Errors
    /// [`disk::DiskError`]: then it is not known.
    pub async fn put(&self, known: Known) -> Result<Arc<Known>, disk::DiskError> {
        let known = Arc::new(known);
        let (path, row) = (self.path(&known.pod_uid), Arc::clone(&known));
        tokio::task::block_in_place(|| disk::write(&path, &*row))?;
        self.waiting().remove(&known.pod_uid);
        self.known().insert(known.pod_uid.clone(), Arc::clone(&known));
        self.0.changes.send_modify(|count| *count += 1);
        Ok(known)
    }

    /// Notes why a pod's NICs are not known yet.
    pub fn put_off(&self, uid: &str, why: String) {
        self.waiting().insert(uid.to_owned(), why);
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.waiting().remove(uid);
        if self.known().remove(uid).is_some()
            && let Err(error) = disk::remove(&self.path(uid))
        {
            tracing::warn!(error = holdfast_kubernetes::chain(&error), "a pod that is gone stays written down");
        }
    }

    /// Returns when a pod is known, or after this time.
    pub async fn wait_for(&self, uid: &str, patience: Duration) {
        let mut changes = self.0.changes.subscribe();
        let wait = async {
            while self.get(uid).is_none() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(patience, wait).await;
    }
}

/// Reads the NICs of a launcher's pod and proves them.
///
/// # Errors
/// [`NicsError`].
pub async fn prove(client: &Client, pod: &Pod, vmi: &VirtualMachineInstance) -> Result<Vec<Nic>, NicsError> {
    let nics: Vec<Nic> = match &pod.nics {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| NicsError::Decode(pod.name.clone(), error))?,
    };
    let mut leases = BTreeMap::new();
    for lease in nics.iter().filter_map(|nic| nic.lease.as_ref()) {
        if !leases.contains_key(&lease.claim.uid) {
            leases.insert(lease.claim.uid.clone(), list(client, &lease.claim).await?);
        }
    }
    let leases: Vec<Lease> = leases.into_values().flatten().collect();
    check(&nics, vmi, &leases)?;
    Ok(nics)
}

/// All leases of the object that a claim names, of every network.
async fn list(client: &Client, claim: &Claim) -> Result<Vec<Lease>, NicsError> {
    let select = ListParams::default().labels(&format!("{CLAIM_LABEL}={}", claim.uid));
    let (ips, macs) = (Api::<IPLease>::all(client.clone()), Api::<MACLease>::all(client.clone()));
    let both = async { tokio::try_join!(ips.list(&select), macs.list(&select)) };
    let answer = timeout(DEADLINE, both).await.map_err(|_| NicsError::NoAnswer(claim.uid.clone()))?;
    let (ips, macs) = answer.map_err(|error| NicsError::List(claim.uid.clone(), Box::new(error)))?;
    Ok(ips.items.into_iter().map(Lease::Ip).chain(macs.items.into_iter().map(Lease::Mac)).collect())
}

/// Whether each NIC's claim is its VMI's, and each of its addresses is leased to that claim.
fn check(nics: &[Nic], vmi: &VirtualMachineInstance, leases: &[Lease]) -> Result<(), NicsError> {
    for nic in nics {
        let Some(lease) = &nic.lease else { continue };
        let fail = |why: String| Err(NicsError::Unproven { network: nic.network.clone(), why });
        let own = claim(vmi, &nic.network);
        if lease.claim != own {
            return fail(format!("its addresses are claimed for `{}`, not for `{}`", lease.claim.id(), own.id()));
        }
        let held: Vec<&Lease> = leases.iter().filter(|held| *held.claim() == own && !is_quarantined(held)).collect();
        let mac = lease.mac.to_string();
        let is_held = |address: &str| held.iter().any(|held| held.address() == address);
        let addresses = lease.addresses.iter().map(|address| address.ip().to_string());
        if let Some(address) = addresses.chain([mac]).find(|address| !is_held(address)) {
            return fail(format!("there is no lease of {address} for it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn vmi() -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": "a", "namespace": "lab", "uid": "vmi-uid", "ownerReferences": [
                {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": "a", "uid": "vm-uid", "controller": true}]},
            "spec": {"domain": {"devices": {}}},
        }))
        .unwrap()
    }

    fn nics(uid: &str) -> Vec<Nic> {
        serde_json::from_value(json!([
            {"interface": "default", "network": "default", "ifname": "eth0"},
            {"interface": "lan", "network": "lan", "ifname": "pod1", "lease": {
                "claim": {"uid": uid, "kind": "VirtualMachine", "namespace": "lab", "name": "a", "network": "lan"},
                "mac": "02:00:00:00:00:42", "addresses": ["192.0.2.42/24"], "vmOwned": true,
                "delivery": holdfast_net::model::Delivery::default()}},
        ]))
        .unwrap()
    }

    fn leases(uid: &str, network: &str) -> Vec<Lease> {
        let claim = json!({"uid": uid, "kind": "VirtualMachine", "namespace": "lab", "name": "a", "network": network});
        let object = |kind: &str, address: &str| {
            json!({"apiVersion": "holdfast.io/v1alpha1", "kind": kind, "metadata": {"name": "x"},
                "spec": {"segment": "s", "address": address, "claim": claim}})
        };
        vec![
            Lease::Ip(serde_json::from_value(object("IPLease", "192.0.2.42")).unwrap()),
            Lease::Mac(serde_json::from_value(object("MACLease", "02:00:00:00:00:42")).unwrap()),
        ]
    }

    #[test]
    fn an_annotation_alone_proves_nothing() {
        let why = |nics: &[Nic], leases: &[Lease]| check(nics, &vmi(), leases).unwrap_err().to_string();
        assert!(check(&nics("vm-uid"), &vmi(), &leases("vm-uid", "lan")).is_ok());
        assert!(why(&nics("vm-uid"), &[]).contains("no lease of 192.0.2.42"));
        assert!(why(&nics("vm-uid"), &leases("vm-uid", "lan")[..1]).contains("no lease of 02:00:00:00:00:42"));
        assert!(why(&nics("vm-uid"), &leases("vm-uid", "other")).contains("no lease"));
        assert!(why(&nics("stranger"), &leases("stranger", "lan")).contains("not for `vm-uid/lan`"));
        // Given up.
        let mut given_up = leases("vm-uid", "lan");
        if let Lease::Ip(lease) = &mut given_up[0] {
            let status = json!({"conditions": [{"type": "Quarantined", "status": "True", "reason": "Released",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
            lease.status = Some(serde_json::from_value(status).unwrap());
        }
        assert!(why(&nics("vm-uid"), &given_up).contains("no lease of 192.0.2.42"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_proven_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let all = Nics::open(folder.path());
        all.put_off("u1", "why".to_owned());
        assert_eq!(all.why_not("u1"), "why");
        let known = Known { pod_uid: "u1".into(), vmi: vmi(), nics: nics("vm-uid") };
        let waiting = all.wait_for("u1", Duration::from_secs(20));
        tokio::join!(waiting, async { drop(all.put(known.clone()).await.unwrap()) });
        let again = Nics::open(folder.path());
        assert_eq!(*again.get("u1").unwrap(), known);
        again.forget("u1");
        assert!(Nics::open(folder.path()).uids().is_empty());
    }
}
