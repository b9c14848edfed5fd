//! IPLease and MACLease as objects of the API: creating one is the lock, for a name is taken once in a cluster.
//!
//! Each lease carries its claim's UID as the label [`CLAIM_LABEL`], so that what a claim holds is one LIST. Lists are
//! not answered from a cache: who asks acts upon what he is told.

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use futures::future::BoxFuture;
use holdfast_api::lease::{Claim, IPLease, MACLease};
use holdfast_ipam::leases::{Lease, LeaseError, LeaseKind, LeaseStore};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Label of a lease: UID of the object that its claim names.
pub const CLAIM_LABEL: &str = "holdfast.io/claim";

/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many leases one answer of a LIST has.
const PAGE: u32 = 500;
/// How often a create whose obstacle vanishes is tried.
const ATTEMPTS: usize = 3;

/// Leases in a cluster. Cheap to clone.
#[derive(Clone)]
pub struct KubeStore {
    ips: Api<IPLease>,
    macs: Api<MACLease>,
}

impl KubeStore {
    /// Leases in the cluster that `client` talks to.
    pub fn new(client: Client) -> Self {
        Self { ips: Api::all(client.clone()), macs: Api::all(client) }
    }
}

impl LeaseStore for KubeStore {
    fn create(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        Box::pin(async move {
            let uid = claim_label(&lease.claim().uid);
            match lease {
                Lease::Ip(mut lease) => {
                    lease.metadata.labels.get_or_insert_default().insert(CLAIM_LABEL.to_owned(), uid);
                    create(&self.ips, lease).await
                }
                Lease::Mac(mut lease) => {
                    lease.metadata.labels.get_or_insert_default().insert(CLAIM_LABEL.to_owned(), uid);
                    create(&self.macs, lease).await
                }
            }
        })
    }

    fn get<'a>(&'a self, kind: LeaseKind, name: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseError>> {
        Box::pin(async move {
            match kind {
                LeaseKind::Ip => get(&self.ips, name).await,
                LeaseKind::Mac => get(&self.macs, name).await,
            }
        })
    }

    fn list(&self, kind: LeaseKind) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        Box::pin(self.select(kind, ListParams::default()))
    }

    fn held<'a>(
        &'a self,
        kind: LeaseKind,
        segment: &'a str,
        claim: &'a Claim,
    ) -> BoxFuture<'a, Result<Vec<Lease>, LeaseError>> {
        Box::pin(async move {
            let labels = format!("{CLAIM_LABEL}={}", claim_label(&claim.uid));
            let mut leases = self.select(kind, ListParams::default().labels(&labels)).await?;
            // The label says whose; the spec says for which network, and where.
            leases.retain(|lease| lease.segment() == segment && lease.claim().id() == claim.id());
            Ok(leases)
        })
    }

    fn update_status(&self, lease: Lease) -> BoxFuture<'_, Result<Lease, LeaseError>> {
        Box::pin(async move {
            match lease {
                Lease::Ip(lease) => update_status(&self.ips, lease).await,
                Lease::Mac(lease) => update_status(&self.macs, lease).await,
            }
        })
    }

    fn delete(&self, lease: Lease) -> BoxFuture<'_, Result<(), LeaseError>> {
        Box::pin(async move {
            match &lease {
                Lease::Ip(_) => delete(&self.ips, &lease).await,
                Lease::Mac(_) => delete(&self.macs, &lease).await,
            }
        })
    }
}

impl KubeStore {
    async fn select(&self, kind: LeaseKind, params: ListParams) -> Result<Vec<Lease>, LeaseError> {
        match kind {
            LeaseKind::Ip => list(&self.ips, params).await,
            LeaseKind::Mac => list(&self.macs, params).await,
        }
    }
}

/// The two kinds of object.
trait LeaseObject: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Into<Stored> {
    const KIND: LeaseKind;
}

/// A lease on its way out of an answer.
struct Stored(Lease);

impl From<IPLease> for Stored {
    fn from(lease: IPLease) -> Self {
        Self(Lease::Ip(lease))
    }
}

impl From<MACLease> for Stored {
    fn from(lease: MACLease) -> Self {
        Self(Lease::Mac(lease))
    }
}

impl LeaseObject for IPLease {
    const KIND: LeaseKind = LeaseKind::Ip;
}

impl LeaseObject for MACLease {
    const KIND: LeaseKind = LeaseKind::Mac;
}

async fn create<K: LeaseObject>(api: &Api<K>, lease: K) -> Result<Lease, LeaseError> {
    let name = lease.meta().name.clone().unwrap_or_default();
    for attempt in 1.. {
        match call(api.create(&PostParams::default(), &lease)).await {
            Ok(stored) => return Ok(stored.into().0),
            Err(error) if error.code() == Some(409) => match get(api, &name).await? {
                Some(present) => return Err(LeaseError::Exists(Box::new(present))),
                // It was deleted in between.
                None if attempt < ATTEMPTS => {}
                None => return Err(failed::<K>("create", &name, error)),
            },
            Err(error) => return Err(failed::<K>("create", &name, error)),
        }
    }
    unreachable!("the loop ends by returning")
}

async fn get<K: LeaseObject>(api: &Api<K>, name: &str) -> Result<Option<Lease>, LeaseError> {
    let found = call(api.get_opt(name)).await.map_err(|error| failed::<K>("get", name, error))?;
    Ok(found.map(|lease| lease.into().0))
}

async fn list<K: LeaseObject>(api: &Api<K>, params: ListParams) -> Result<Vec<Lease>, LeaseError> {
    let mut params = params.limit(PAGE);
    let mut leases = Vec::new();
    loop {
        let page = call(api.list(&params)).await.map_err(|error| failed::<K>("list", "*", error))?;
        leases.extend(page.items.into_iter().map(|lease| lease.into().0));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(leases),
        }
    }
}

async fn update_status<K: LeaseObject>(api: &Api<K>, lease: K) -> Result<Lease, LeaseError> {
    let name = lease.meta().name.clone().unwrap_or_default();
    match call(api.replace_status(&name, &PostParams::default(), &lease)).await {
        Ok(stored) => Ok(stored.into().0),
        Err(error) if matches!(error.code(), Some(404 | 409)) => Err(LeaseError::Changed { kind: K::KIND, name }),
        Err(error) => Err(failed::<K>("update", &name, error)),
    }
}

async fn delete<K: LeaseObject>(api: &Api<K>, lease: &Lease) -> Result<(), LeaseError> {
    let (name, meta) = (lease.name(), lease.metadata());
    let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match call(api.delete(name, &params)).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(404) => Ok(()),
        Err(error) if error.code() == Some(409) => Err(LeaseError::Changed { kind: K::KIND, name: name.to_owned() }),
        Err(error) => Err(failed::<K>("delete", name, error)),
    }
}

/// Why a call had no answer that counts.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the API server refused")]
    Api(#[source] kube::Error),
    #[error("the API server did not answer within {} s", DEADLINE.as_secs())]
    Deadline,
}

impl CallError {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(result) => result.map_err(CallError::Api),
        Err(_) => Err(CallError::Deadline),
    }
}

fn failed<K: LeaseObject>(verb: &'static str, name: &str, error: CallError) -> LeaseError {
    let source: Box<dyn Error + Send + Sync> = Box::new(error);
    LeaseError::Store { verb, kind: K::KIND, name: name.to_owned(), source }
}

/// A UID as a label's value. That of a pod whose runtime told none is a container's id, which may be longer than a
/// label; what is cut off matters not, for the claim in the spec is compared as well.
fn claim_label(uid: &str) -> String {
    let allowed: String = uid.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(63).collect();
    allowed.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests;
