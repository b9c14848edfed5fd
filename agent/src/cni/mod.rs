//! CNI: the server that the plugin calls, and what each verb means.
//!
//! One connection carries one request and its answer. Only root may ask. A call that the runtime has given up
//! is carried to its end all the same: half of one is what the next call has to mend. What an ADD has made by then goes
//! away again ([`undo`]).

mod add;
mod call;
mod chain;
mod del;
mod fault;
mod inspect;
mod mtu;
pub mod result;
mod undo;

use std::time::{Duration, Instant};

use holdfast_agent_api::PROTOCOL_VERSION;
use holdfast_agent_api::cni::{CniError, Request, Response, Verb, code};
use holdfast_agent_api::frame::{self, FrameError};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::registry::{Key, Registry};
use crate::workloads::Joined;
use holdfast_ipam::leases::{self, Place};

pub(crate) use fault::Fault;
use undo::Adds;

/// How long a peer may take to send its request, or to take its answer.
const EXCHANGE: Duration = Duration::from_secs(5);

/// The `backend` of a call behind a primary plugin that made nothing, for metrics.
const UNTOUCHED: &str = "none";

/// What a verb did.
pub(super) struct Done {
    /// What to print; null for nothing.
    result: Value,
    /// The attachments that were added.
    added: Vec<Key>,
    /// What is told of the pod behind the answer.
    joined: Option<Box<Joined>>,
}

impl Done {
    const NOTHING: Self = Self::answer(Value::Null);

    /// A result, and nothing to do behind it.
    const fn answer(result: Value) -> Self {
        Self { result, added: Vec::new(), joined: None }
    }
}

/// Accepts calls until `stop`, then waits for those at hand.
pub(crate) async fn serve(context: Context, registry: Registry, listener: UnixListener, stop: CancellationToken) {
    let calls = TaskTracker::new();
    let adds = Adds::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                _ = calls.spawn(converse(context.clone(), registry.clone(), adds.clone(), stream, stop.clone()))
            }
            Err(error) => {
                // Out of descriptors, say: others will be freed.
                tracing::error!(%error, "failed to accept a CNI call");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    calls.close();
    calls.wait().await;
}

async fn converse(context: Context, registry: Registry, adds: Adds, mut stream: UnixStream, stop: CancellationToken) {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 => {}
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "a CNI call of somebody else than root is refused"),
        Err(error) => return tracing::warn!(%error, "a CNI call of nobody is refused"),
    }
    let request = match timeout(EXCHANGE, receive(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => return tracing::warn!(error = crate::chain(&error), "failed to receive a CNI call"),
        Err(_) => return tracing::warn!("a CNI call does not come to its end"),
    };
    let adding = adds.begin(&request);
    let (response, Done { added, joined, .. }) = answer(&context, &registry, request).await;
    let sent = timeout(EXCHANGE, send(&mut stream, &response)).await;
    if !matches!(sent, Ok(Ok(()))) {
        if let Some(adding) = adding {
            adding.undo(&registry, &added).await;
        }
        return;
    }
    // Before `adding` ends: what is neither answered nor under way is what an undone ADD of the same call takes away.
    added.iter().for_each(|key| registry.answered(key));
    drop(adding);
    if let Some(joined) = joined {
        context.workloads.joined(*joined);
    }
    for key in added {
        // What does not succeed now is tried again with each comparison.
        tokio::select! {
            () = stop.cancelled() => return,
            () = note_place(&context, &registry, &key) => {}
        }
    }
}

async fn receive(stream: &mut UnixStream) -> Result<Request, FrameError> {
    let mut header = [0; frame::HEADER];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; frame::length(header)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn send(stream: &mut UnixStream, response: &Response) -> Result<(), FrameError> {
    Ok(stream.write_all(&frame::encode(response)?).await?)
}

async fn answer(context: &Context, registry: &Registry, request: Request) -> (Response, Done) {
    let start = Instant::now();
    let verb = request.verb;
    let name = verb_name(verb);
    let what = format!("{}/{}", request.container_id, request.ifname);
    let (backend, result) = if request.version == PROTOCOL_VERSION {
        dispatch(context, registry, request).await
    } else {
        let told =
            format!("the plugin speaks version {} of its protocol, the agent {PROTOCOL_VERSION}", request.version);
        ("none", Err(Fault::new(code::INTERNAL, told, "install the plugin and the agent of one release")))
    };
    let took = start.elapsed();
    let outcome = result.as_ref().map_or_else(|Fault(error)| error.code.to_string(), |_| "ok".to_owned());
    context.metrics.cni(name, backend, outcome, took);
    match result {
        Ok(mut done) => {
            // Each pod of a node comes by where we are chained: that is worth a line only where something was done.
            if backend == UNTOUCHED {
                tracing::debug!(verb = name, attachment = what, took_us = took.as_micros(), "served");
            } else {
                tracing::info!(verb = name, attachment = what, took_ms = took.as_millis(), "served");
            }
            (Response::Done(done.result.take()), done)
        }
        Err(Fault(error)) => {
            let CniError { code, msg, details } = &error;
            tracing::warn!(verb = name, attachment = what, code, msg, details, "refused");
            (Response::Failed(error), Done::NOTHING)
        }
    }
}

async fn dispatch(context: &Context, registry: &Registry, request: Request) -> (&'static str, Result<Done, Fault>) {
    let verb = request.verb;
    if request.is_chained() {
        return chain::serve(context, registry, &request).await;
    }
    if verb == Verb::Del {
        // Whatever the configuration says by now: DEL goes by what is written down.
        return ("any", del::del(context, registry, &request).await);
    }
    let call = match call::Call::read(context, registry, request) {
        Ok(call) => call,
        Err(fault) => return ("none", Err(fault)),
    };
    let backend = call.backend();
    let result = match verb {
        Verb::Add => add::add(context, registry, &call).await,
        Verb::Check => inspect::check(context, registry, &call).await,
        Verb::Gc => inspect::gc(registry, &call).await,
        Verb::Status => inspect::status(context, &call).await,
        Verb::Del => Ok(Done::NOTHING),
    };
    (backend, result)
}

/// Notes on the leases where they are in use; for people and other nodes, so behind the answer.
pub(crate) async fn note_place(context: &Context, registry: &Registry, key: &Key) {
    let Some(entry) = registry.get(key) else { return };
    let Some(claim) = entry.record.claim.as_ref().filter(|_| !entry.bound) else { return };
    let Ok(_hold) = registry.hold_claim(claim).await else { return };
    if registry.get(key).is_none() {
        return;
    }
    let place = Place {
        node: context.options.node.clone(),
        pod: entry.record.pod.clone(),
        container_id: key.container_id.clone(),
    };
    match leases::bind(&*context.leases, &entry.record.segment, claim, &place).await {
        Ok(()) => registry.set_bound(&entry.record),
        Err(error) => {
            tracing::warn!(attachment = %key, error = crate::chain(&error), "failed to note where a lease is in use");
        }
    }
}

const fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Add => "ADD",
        Verb::Del => "DEL",
        Verb::Check => "CHECK",
        Verb::Gc => "GC",
        Verb::Status => "STATUS",
    }
}
