//! What the operator answers: the webhooks of the KubeVirt object, probes and metrics. The same on both of its ports:
//! a pod cannot have two names for one, and its Services go by `webhooks` and by `metrics`.
//!
//! Its certificate is in a Secret that it makes itself. That is read by the API, not from a mounted volume: a Secret
//! that is made after its pod reaches the volume a minute late. Until there is one, probes are answered with a
//! certificate that nobody trusts.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use holdfast_kubernetes::tls::{self, Pem};
use holdfast_kubernetes::{chain, probes};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Issued, OPERATOR, self_signed};
use crate::cluster::{CallError, Cluster};
use crate::install::workloads;
use crate::object::resource;
use crate::review::{Refusal, answer, create, delete, update};

/// Between two looks at the Secret: until it is there, and from then on.
const WANTED: Duration = Duration::from_secs(2);
const KNOWN: Duration = Duration::from_secs(60);

/// Who answers.
pub struct Reviewer {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// Image of the operator.
    pub image: String,
}

/// Answers on `ports` until `stop`.
///
/// # Errors
/// Where a port is taken, or TLS cannot be set up.
pub async fn serve(
    ports: [u16; 2],
    reviewer: Reviewer,
    registry: Registry,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let Issued { certificate, key } = self_signed(now)?;
    let (chain_sender, certificate) = watch::channel(certificate.into_bytes());
    let (key_sender, key) = watch::channel(key.into_bytes());
    let config = tls::server_of(Pem::Watched(certificate), Pem::Watched(key), None)?;
    let listeners = (TcpListener::bind(("::", ports[0])).await?, TcpListener::bind(("::", ports[1])).await?);
    let cluster = reviewer.cluster.clone();
    let router = Router::new()
        .route("/kubevirt-validate-create", post(review_create))
        .route("/kubevirt-validate-update", post(review_update))
        .route("/kubevirt-validate-delete", post(review_delete))
        .with_state(Arc::new(reviewer))
        .merge(probes::router(registry));
    let answer = async {
        tokio::join!(
            tls::serve(listeners.0, config.clone(), router.clone(), stop.cancelled()),
            tls::serve(listeners.1, config, router, stop.cancelled()),
        );
    };
    tokio::select! {
        () = answer => {}
        () = follow(cluster, chain_sender, key_sender) => {}
    }
    Ok(())
}

async fn follow(cluster: Arc<Cluster>, chain_sender: watch::Sender<Vec<u8>>, key_sender: watch::Sender<Vec<u8>>) {
    let mut there = false;
    loop {
        match cluster.certificates([OPERATOR].into_iter()).await {
            Ok(mut found) => {
                let issued = found.remove(OPERATOR);
                there = issued.is_some();
                if let Some(Issued { certificate, key }) = issued {
                    replace(&chain_sender, certificate);
                    replace(&key_sender, key);
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "cannot read the operator's certificate"),
        }
        tokio::time::sleep(if there { KNOWN } else { WANTED }).await;
    }
}

fn replace(sender: &watch::Sender<Vec<u8>>, text: String) {
    sender.send_if_modified(|known| {
        let changed = *known != text.as_bytes();
        if changed {
            *known = text.into_bytes();
        }
        changed
    });
}

async fn review_create(State(reviewer): State<Arc<Reviewer>>, Json(review): Json<Value>) -> Json<Value> {
    let others = reviewer.cluster.left(&resource("kubevirt.io/v1", "KubeVirt"), 1).await;
    let verdict = others
        .map_err(|error| unknown(&error))
        .and_then(|others| create(&review["request"]["object"], others.len(), &reviewer.image));
    Json(answer(&review["request"]["uid"], verdict))
}

async fn review_update(State(reviewer): State<Arc<Reviewer>>, Json(review): Json<Value>) -> Json<Value> {
    let verdict = update(&review["request"]["object"], &reviewer.image);
    Json(answer(&review["request"]["uid"], verdict))
}

async fn review_delete(State(reviewer): State<Arc<Reviewer>>, Json(review): Json<Value>) -> Json<Value> {
    let verdict = match left(&reviewer.cluster).await {
        Ok(left) => delete(&review["request"]["oldObject"], left),
        Err(error) => Err(unknown(&error)),
    };
    Json(answer(&review["request"]["uid"], verdict))
}

/// The kind of workloads that there are, in the words of a refusal.
async fn left(cluster: &Cluster) -> Result<Option<&'static str>, CallError> {
    for kind in workloads() {
        let words = match kind.kind.as_str() {
            "VirtualMachineInstance" => "Virtual Machine Instances",
            "VirtualMachine" => "Virtual Machines",
            "VirtualMachineInstanceReplicaSet" => "Virtual Machine Instance Replica Sets",
            // What they come from, or go with, is one of these.
            _ => continue,
        };
        if !cluster.left(&kind, 1).await?.is_empty() {
            return Ok(Some(words));
        }
    }
    Ok(None)
}

fn unknown(error: &CallError) -> Refusal {
    Refusal::bad_request(chain(error))
}
