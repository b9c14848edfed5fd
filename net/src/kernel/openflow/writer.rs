//! Writes flows. What is asked for while the switch is at work goes to it together, in one bundle for each bridge: it takes
//! about as long for fifty ports as for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use super::replace;
use crate::kernel::error::StepError;
use crate::security::flows::Flow;

/// Requests that wait for the switch.
const QUEUE: usize = 1024;

/// A port shall have these flows of ours.
struct Request {
    bridge: String,
    port: u32,
    flows: Vec<(u64, Flow)>,
    reply: oneshot::Sender<Result<(), StepError>>,
}

/// Writes flows of the bridges of one switch. Clones share its work, which ends with the last of them.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct Writer(mpsc::Sender<Request>);

impl Writer {
    /// A writer to the bridges that have their sockets in `folder`.
    pub(in crate::kernel) fn start(folder: PathBuf) -> Self {
        let (requests, mut inbox) = mpsc::channel::<Request>(QUEUE);
        tokio::spawn(async move {
            while let Some(first) = inbox.recv().await {
                let mut bridges = BTreeMap::<String, Vec<Request>>::new();
                for request in std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
                    bridges.entry(request.bridge.clone()).or_default().push(request);
                }
                futures::future::join_all(bridges.into_values().map(|requests| write(&folder, requests))).await;
            }
        });
        Self(requests)
    }

    /// Gives a port these flows of ours, and no others.
    pub(in crate::kernel) async fn replace(
        &self,
        bridge: &str,
        port: u32,
        flows: &[(u64, Flow)],
    ) -> Result<(), StepError> {
        let (reply, written) = oneshot::channel();
        let request = Request { bridge: bridge.to_owned(), port, flows: flows.to_vec(), reply };
        let ended = || StepError::Ovsdb("the client has ended".to_owned());
        self.0.send(request).await.map_err(|_| ended())?;
        written.await.map_err(|_| ended())?
    }
}

/// Writes what is asked of one bridge. Where that fails, each request alone: one that is refused is nobody else's.
async fn write(folder: &Path, requests: Vec<Request>) {
    let Some(bridge) = requests.first().map(|request| request.bridge.clone()) else { return };
    let ports = requests.iter().map(|request| (request.port, request.flows.as_slice()));
    // Who asked may have given up, and need not be told.
    match (replace(folder, &bridge, ports).await, <[Request; 1]>::try_from(requests)) {
        (Ok(()), Ok([request])) => _ = request.reply.send(Ok(())),
        (Ok(()), Err(requests)) => requests.into_iter().for_each(|request| drop(request.reply.send(Ok(())))),
        (Err(error), Ok([request])) => _ = request.reply.send(Err(error)),
        (Err(_), Err(requests)) => {
            for request in requests {
                Box::pin(write(folder, vec![request])).await;
            }
        }
    }
}
