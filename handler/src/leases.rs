//! The leases as one node's agent sees them: it takes and gives back any, but looks through those of its own plain pods
//! only. What all nodes and VMs hold is the controller's to look through.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use holdfast_api::lease::{Claim, IPLease, MACLease};
use holdfast_ipam::leases::{Lease, LeaseError, LeaseKind, LeaseStore, NODE_LABEL};
use holdfast_kubernetes::store::KubeStore;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);
/// How old a list may be. It finds what a crash has left and ends quarantines, both of which can wait.
const FRESH: Duration = Duration::from_secs(60);

/// The leases of a kind, and when they were listed.
type Listed = (Instant, Vec<Lease>);

/// A store of leases for one node.
pub struct NodeLeases {
    all: KubeStore,
    client: Client,
    node: String,
    listed: Mutex<[Option<Listed>; 2]>,
}

impl NodeLeases {
    /// For this node.
    pub fn new(client: Client, node: &str) -> Self {
        Self { all: KubeStore::new(client.clone()), client, node: node.to_owned(), listed: Mutex::default() }
    }

    fn recent(&self, kind: LeaseKind) -> Option<Vec<Lease>> {
        let listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        listed[kind as usize].as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, leases)| leases.clone())
    }

    async fn list_own(&self, kind: LeaseKind) -> Result<Vec<Lease>, LeaseError> {
        // From the API server's cache: what is done about a lease is done under its UID and resourceVersion.
        let select = ListParams::default().labels(&format!("{NODE_LABEL}={}", self.node)).match_any();
        let list = async {
            Ok::<Vec<Lease>, kube::Error>(match kind {
                LeaseKind::Ip => {
                    let list = Api::<IPLease>::all(self.client.clone()).list(&select).await?;
                    list.items.into_iter().map(Lease::Ip).collect()
                }
                LeaseKind::Mac => {
                    let list = Api::<MACLease>::all(self.client.clone()).list(&select).await?;
                    list.items.into_iter().map(Lease::Mac).collect()
                }
            })
        };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| LeaseError::Store {
            verb: "list",
            kind,
            name: format!("of node {}", self.node),
            source,
        };
        let answer = timeout(DEADLINE, list).await.map_err(|late| failed(Box::new(late)))?;
        answer.map_err(|error| failed(Box::new(error)))
    }
}

impl LeaseStore for NodeLeases {
    fn create(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        self.all.create(lease)
    }

    fn get<'a>(&'a self, kind: LeaseKind, name: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseError>> {
        self.all.get(kind, name)
    }

    fn list(&self, kind: LeaseKind) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        Box::pin(async move {
            if let Some(recent) = self.recent(kind) {
                return Ok(recent);
            }
            let leases = self.list_own(kind).await?;
            let mut listed = self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            listed[kind as usize] = Some((Instant::now(), leases.clone()));
            Ok(leases)
        })
    }

    fn held<'a>(
        &'a self,
        kind: LeaseKind,
        segment: &'a str,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LeaseError>> {
        self.all.held(kind, segment, claim)
    }

    fn update_status(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        self.all.update_status(lease)
    }

    fn delete(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        self.listed.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[lease.kind() as usize] = None;
        self.all.delete(lease)
    }
}
