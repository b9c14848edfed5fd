//! The task that holds the connection to ovsdb-server: monitors, transacts, answers echoes, and connects anew when the
//! connection ends. It ends when nobody holds an [`super::Ovs`] any more.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::codec::Framed;

use super::codec::JsonStream;
use super::replica::{Replica, Touched, monitor_request};
use crate::kernel::changes::Place;

const DATABASE: &str = "Open_vSwitch";
const ZERO_TRANSACTION: &str = "00000000-0000-0000-0000-000000000000";

/// How long a connection may take to be made and to give the whole of what is monitored.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a transaction may take; it takes 0.2 ms.
const TRANSACT_DEADLINE: Duration = Duration::from_secs(5);
/// First and longest wait before a further attempt to connect.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long the server may be silent before it is asked whether it is there, and then again until it is given up.
const ECHO_INTERVAL: Duration = Duration::from_secs(5);
/// How long after a transaction further requests are collected: the switch takes as long for fifty ports as for one.
/// The first of a burst is not kept waiting.
const BATCH_WINDOW: Duration = Duration::from_millis(2);

/// What the task shares with those who ask.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) replica: Mutex<Replica>,
}

impl Shared {
    /// The copy; a panic elsewhere left it whole, for each update is applied without one.
    pub(super) fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the copy is worth: whether it is kept up to date, by which connection, and how many changes it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::kernel) struct Version {
    pub(super) connected: bool,
    pub(in crate::kernel) connections: u64,
    pub(super) changes: u64,
}

/// Operations that shall be done together, or not at all.
pub(super) struct Request {
    pub(super) operations: Vec<Value>,
    pub(super) reply: oneshot::Sender<Result<Vec<Value>, String>>,
}

/// The task.
pub(super) struct Session {
    pub(super) path: PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) version: watch::Sender<Version>,
    pub(super) heard: broadcast::Sender<Place>,
    pub(super) requests: mpsc::Receiver<Request>,
}

/// Why a connection's time is over.
enum Over {
    /// Nobody asks any more.
    NoMoreRequests,
    /// The connection is lost.
    Lost(io::Error),
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

type Stream = Framed<UnixStream, JsonStream>;

impl Session {
    /// Connects, and serves until nobody asks any more.
    pub(super) async fn run(mut self) {
        let mut wait = BACK_OFF.0;
        let mut transaction = ZERO_TRANSACTION.to_owned();
        loop {
            let connected = timeout(CONNECT_DEADLINE, self.connect(&mut transaction)).await;
            let over = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(mut stream) => {
                    wait = BACK_OFF.0;
                    tracing::info!(path = %self.path.display(), "connected to Open vSwitch");
                    self.publish(true);
                    // Without anybody who listens there is nothing to do, here and below.
                    let _ = self.heard.send(Place::Switch);
                    let over = self.serve(&mut stream, &mut transaction).await;
                    self.publish(false);
                    let _ = self.heard.send(Place::Switch);
                    over
                }
                Err(error) => Over::Lost(error),
            };
            match over {
                Over::NoMoreRequests => return,
                Over::Lost(error) => {
                    tracing::debug!(path = %self.path.display(), %error, "no connection to Open vSwitch");
                }
            }
            if self.refuse_for(wait).await {
                return;
            }
            wait = (wait * 2).min(BACK_OFF.1);
        }
    }

    fn publish(&self, connected: bool) {
        self.version.send_modify(|version| {
            version.connected = connected;
            version.connections += u64::from(connected);
            version.changes += 1;
        });
    }

    /// Answers requests with an error for a while; true when nobody asks any more.
    async fn refuse_for(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                () = sleep_until(until) => return false,
                request = self.requests.recv() => match request {
                    Some(request) => answer(request, Err("no connection".to_owned())),
                    None => return true,
                },
            }
        }
    }

    /// Connects and gets the whole of what is monitored, or what changed since the last connection.
    async fn connect(&self, transaction: &mut String) -> io::Result<Stream> {
        let mut stream = Framed::new(UnixStream::connect(&self.path).await?, JsonStream::default());
        let since = json!([DATABASE, "holdfast", monitor_request(), transaction]);
        let reply = match call(&mut stream, "monitor_cond_since", since).await? {
            Ok(reply) => reply,
            // Servers older than 2.12 do not know it.
            Err(_) => {
                let params = json!([DATABASE, "holdfast", monitor_request()]);
                let whole = call(&mut stream, "monitor_cond", params).await?.map_err(io::Error::other)?;
                json!([false, ZERO_TRANSACTION, whole])
            }
        };
        let mut replica = self.shared.replica();
        if reply.get(0) != Some(&Value::Bool(true)) {
            *replica = Replica::default();
        }
        replica.update(reply.get(2).unwrap_or(&Value::Null));
        *transaction = reply.get(1).and_then(Value::as_str).unwrap_or(ZERO_TRANSACTION).to_owned();
        Ok(stream)
    }

    /// Serves one connection until it ends.
    async fn serve(&mut self, stream: &mut Stream, transaction: &mut String) -> Over {
        let mut pending = Pending::default();
        let over = self.exchange(stream, transaction, &mut pending).await;
        for (_, (batch, _)) in pending.sent.drain() {
            batch.into_iter().for_each(|request| answer(request, Err("the connection was lost".to_owned())));
        }
        pending.collecting.drain(..).for_each(|request| answer(request, Err("the connection was lost".to_owned())));
        over.unwrap_or_else(|over| over)
    }

    async fn exchange(
        &mut self,
        stream: &mut Stream,
        transaction: &mut String,
        pending: &mut Pending,
    ) -> Result<Over, Over> {
        let mut echo_at = Instant::now() + ECHO_INTERVAL;
        let mut asked = false;
        loop {
            let batch_at = pending.send_at;
            tokio::select! {
                message = stream.next() => {
                    let message = message.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))??;
                    (echo_at, asked) = (Instant::now() + ECHO_INTERVAL, false);
                    self.take(message, stream, transaction, pending).await?;
                }
                request = self.requests.recv() => {
                    pending.collect(request.ok_or(Over::NoMoreRequests)?);
                    while let Ok(request) = self.requests.try_recv() {
                        pending.collect(request);
                    }
                }
                () = sleep_until(batch_at.unwrap_or(echo_at)), if batch_at.is_some() => {
                    pending.send_at = None;
                    let batch = std::mem::take(&mut pending.collecting);
                    send(stream, pending, batch).await?;
                }
                () = sleep_until(echo_at) => {
                    if asked || pending.overdue() {
                        return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                    }
                    stream.send(json!({"method": "echo", "params": [], "id": "echo"})).await?;
                    (echo_at, asked) = (Instant::now() + ECHO_INTERVAL, true);
                }
            }
        }
    }

    /// Takes one message of the server.
    async fn take(
        &mut self,
        message: Value,
        stream: &mut Stream,
        transaction: &mut String,
        pending: &mut Pending,
    ) -> io::Result<()> {
        let params = message.get("params");
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                stream.send(json!({"result": params, "error": null, "id": message.get("id")})).await?;
            }
            Some("update3") => {
                *transaction = params.and_then(|p| p.get(1)).and_then(Value::as_str).unwrap_or_default().to_owned();
                self.update(params.and_then(|p| p.get(2)));
            }
            Some("update2") => self.update(params.and_then(|p| p.get(1))),
            Some(_) => {}
            None => {
                let Some((batch, _)) =
                    message.get("id").and_then(Value::as_u64).and_then(|id| pending.sent.remove(&id))
                else {
                    return Ok(());
                };
                let results = message.get("result").and_then(Value::as_array).cloned().unwrap_or_default();
                settle(stream, pending, batch, &results, message.get("error")).await?;
            }
        }
        Ok(())
    }

    fn update(&self, updates: Option<&Value>) {
        let touched = self.shared.replica().update(updates.unwrap_or(&Value::Null));
        self.publish(true);
        let places = match touched {
            Touched::Ports(names) => names.iter().filter_map(|name| Some(Place::Link(name.parse().ok()?))).collect(),
            Touched::Bridges => vec![Place::Switch],
        };
        for place in places {
            let _ = self.heard.send(place);
        }
    }
}

/// Requests that are under way.
#[derive(Default)]
struct Pending {
    /// To be sent together.
    collecting: Vec<Request>,
    /// When.
    send_at: Option<Instant>,
    /// When the last transaction was sent.
    last_sent: Option<Instant>,
    /// Sent, by the id of their transaction, with the time until which an answer is due.
    sent: HashMap<u64, (Vec<Request>, Instant)>,
    last_id: u64,
}

impl Pending {
    fn collect(&mut self, request: Request) {
        self.collecting.push(request);
        let now = Instant::now();
        let next = self.last_sent.map_or(now, |last| now.max(last + BATCH_WINDOW));
        self.send_at.get_or_insert(next);
    }

    fn overdue(&self) -> bool {
        self.sent.values().any(|(_, due)| *due < Instant::now())
    }
}

/// Sends requests as one transaction.
async fn send(stream: &mut Stream, pending: &mut Pending, batch: Vec<Request>) -> io::Result<()> {
    let operations = batch.iter().flat_map(|request| request.operations.iter().cloned());
    let params: Vec<Value> = [json!(DATABASE)].into_iter().chain(operations).collect();
    pending.last_id += 1;
    let (id, now) = (pending.last_id, Instant::now());
    pending.last_sent = Some(now);
    pending.sent.insert(id, (batch, now + TRANSACT_DEADLINE));
    stream.send(json!({"method": "transact", "params": params, "id": id})).await
}

/// Hands each request of a transaction its results. One that failed made all fail: then each is sent alone.
async fn settle(
    stream: &mut Stream,
    pending: &mut Pending,
    mut batch: Vec<Request>,
    results: &[Value],
    error: Option<&Value>,
) -> io::Result<()> {
    let failure = failure(results, error);
    match (failure, batch.len()) {
        (None, _) => {
            let mut rest = results;
            for request in batch {
                let (own, others) = rest.split_at(request.operations.len().min(rest.len()));
                rest = others;
                answer(request, Ok(own.to_vec()));
            }
        }
        (Some(failure), 1) => batch.drain(..).for_each(|request| answer(request, Err(failure.clone()))),
        (Some(_), _) => {
            for request in batch {
                send(stream, pending, vec![request]).await?;
            }
        }
    }
    Ok(())
}

/// What failed, in the server's words; an error of the whole comes after the results of the operations.
fn failure(results: &[Value], error: Option<&Value>) -> Option<String> {
    if let Some(error) = error.filter(|error| !error.is_null()) {
        return Some(error.to_string());
    }
    let failed = results.iter().find(|result| result.get("error").is_some())?;
    let word = |key: &str| failed.get(key).and_then(Value::as_str).unwrap_or_default();
    Some(format!("{}: {}", word("error"), word("details")))
}

fn answer(request: Request, result: Result<Vec<Value>, String>) {
    // Who asked may have given up.
    let _ = request.reply.send(result);
}

/// Calls a method before anything else is under way; the inner error is the server's.
async fn call(stream: &mut Stream, method: &str, params: Value) -> io::Result<Result<Value, String>> {
    stream.send(json!({"method": method, "params": params, "id": method})).await?;
    loop {
        let message = stream.next().await.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))??;
        if message.get("id").and_then(Value::as_str) == Some(method) {
            return Ok(match message.get("error") {
                None | Some(Value::Null) => Ok(message.get("result").cloned().unwrap_or_default()),
                Some(error) => Err(error.to_string()),
            });
        }
        if message.get("method").and_then(Value::as_str) == Some("echo") {
            stream.send(json!({"result": message.get("params"), "error": null, "id": message.get("id")})).await?;
        }
    }
}
