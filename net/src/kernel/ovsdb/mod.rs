//! Open vSwitch, through its database: a small client of our own (RFC 7047 and the extensions in ovsdb-server(7)).

mod codec;
mod replica;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

pub use self::codec::JsonStream;
use self::replica::{Attached, vlan_columns};
pub use self::replica::{Replica, Touched};
pub(super) use self::session::Version;
use self::session::{Request, Session, Shared};
use super::changes::Place;
use super::error::StepError;
use super::openflow;
use super::view::OvsView;
use crate::desired::OvsPort;
use crate::mark::{OVS_ATTACHMENT, OVS_OWNER, OVS_SECURED, OwnedPort};
use crate::model::AttachmentId;
use crate::observed::ObservedOvs;
use crate::security::flows::Flow;

/// How long to wait for a connection that is not there yet.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long a transaction may take; it takes 0.2 ms.
const TRANSACT_DEADLINE: Duration = Duration::from_secs(6);
/// How long the switch may take to take a port in; it takes 8-19 ms.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
/// Requests that wait for the task to take them.
const QUEUE: usize = 1024;

/// Open vSwitch on this host. Clones share one connection.
#[derive(Clone, Debug)]
pub(super) struct Ovs {
    path: PathBuf,
    shared: Arc<Shared>,
    version: watch::Receiver<Version>,
    requests: mpsc::Sender<Request>,
    flows: openflow::Writer,
    /// Names for rows within a transaction have to differ between the requests that are batched into it.
    row: Arc<AtomicU64>,
}

impl Ovs {
    /// Starts to connect to ovsdb-server, in the background, and to tell of what changes in the database.
    pub(super) fn start(path: PathBuf, heard: broadcast::Sender<Place>) -> Self {
        let shared = Arc::new(Shared::default());
        let (publish, version) = watch::channel(Version::default());
        let (requests, inbox) = mpsc::channel(QUEUE);
        let session = Session { path: path.clone(), shared: shared.clone(), version: publish, heard, requests: inbox };
        tokio::spawn(session.run());
        let flows = openflow::Writer::start(path.parent().unwrap_or(Path::new("/")).to_owned());
        Self { path, shared, version, requests, flows, row: Arc::default() }
    }

    /// Its socket.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Whether the copy of the database is up to date; waits a little where it is not. Where there is no socket there
    /// is no Open vSwitch, and no reason to wait.
    async fn connected(&self) -> Result<bool, StepError> {
        if self.version.borrow().connected {
            return Ok(true);
        }
        if !self.path.exists() {
            return Ok(false);
        }
        let mut version = self.version.clone();
        match timeout(CONNECT_DEADLINE, version.wait_for(|version| version.connected)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => Ok(false),
            Err(_) => Err(StepError::Deadline(CONNECT_DEADLINE)),
        }
    }

    /// What the copy of the database is worth, now and from now on: each change of the database is one of it.
    pub(super) fn version(&self) -> watch::Receiver<Version> {
        self.version.clone()
    }

    /// The bridges with flows of ours, as far as is known.
    pub(super) fn secured_bridges(&self) -> BTreeSet<String> {
        self.shared.replica().secured_bridges()
    }

    /// The port of this number, as far as is known.
    pub(super) fn port_of(&self, bridge: &str, number: u32) -> Option<String> {
        self.shared.replica().port_of(bridge, number)
    }

    /// Connects to a bridge.
    pub(super) async fn connect(&self, bridge: &str) -> Result<openflow::Connection, StepError> {
        openflow::connect(self.folder(), bridge).await
    }

    /// What is; none where there is no Open vSwitch.
    pub(super) async fn observe(&self, view: &OvsView) -> Result<Option<ObservedOvs>, StepError> {
        if !self.connected().await? {
            return Ok(None);
        }
        let mut observed = self.shared.replica().observe(&view.bridges, &view.ports);
        let mut secured = BTreeMap::<String, Vec<_>>::new();
        for (_, port) in observed.ports.iter_mut().filter(|(name, _)| view.secured.contains(*name)) {
            if let Some(number) = port.number {
                secured.entry(port.bridge.clone()).or_default().push((number, port));
            }
        }
        for (bridge, ports) in secured {
            // A connection and a question for each bridge, and not for each port.
            let only = if let [(number, _)] = ports.as_slice() { Some(*number) } else { None };
            let mut cookies = openflow::cookies(self.folder(), &bridge, only).await?;
            for (number, port) in ports {
                port.flows = Some(cookies.remove(&number).unwrap_or_default());
            }
        }
        Ok(Some(observed))
    }

    /// Where the switch has its sockets.
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Gives a port these flows of ours, and no others.
    pub(super) async fn set_flows(&self, bridge: &str, number: u32, flows: &[(u64, Flow)]) -> Result<(), StepError> {
        self.flows.replace(bridge, number, flows).await
    }

    /// Bridge and number of each port that has flows of ours, and is none of ours: what is left where somebody else took
    /// a port away. A bridge that does not answer has none.
    pub(super) async fn stray_flows(&self) -> Result<Vec<(String, u32)>, StepError> {
        let mut strays = Vec::new();
        for bridge in self.bridges().await? {
            let Ok(flows) = openflow::cookies(self.folder(), &bridge, None).await else { continue };
            // Known only now: a port is in the database before it has flows.
            let known = self.shared.replica().secured_numbers(&bridge);
            strays.extend(flows.into_keys().filter(|port| !known.contains(port)).map(|port| (bridge.clone(), port)));
        }
        Ok(strays)
    }

    /// The attachments that ports of ours name.
    pub(super) async fn attachments(&self) -> Result<BTreeSet<AttachmentId>, StepError> {
        let connected = self.connected().await?;
        Ok(if connected { self.shared.replica().attachments() } else { BTreeSet::new() })
    }

    /// The ports of a bridge that are not ours, with their MTUs, as far as they have one.
    pub(super) async fn foreign_ports(&self, bridge: &str) -> Result<BTreeMap<String, u32>, StepError> {
        let connected = self.connected().await?;
        Ok(if connected { self.shared.replica().foreign_ports(bridge) } else { BTreeMap::new() })
    }

    /// The names of its bridges.
    pub(super) async fn bridges(&self) -> Result<Vec<String>, StepError> {
        let connected = self.connected().await?;
        Ok(if connected { self.shared.replica().bridge_names() } else { Vec::new() })
    }

    /// Adds a port, or changes the one that is there.
    pub(super) async fn set_port(
        &self,
        name: &str,
        port: &OvsPort,
        present: Option<&OwnedPort>,
    ) -> Result<(), StepError> {
        let OvsPort { bridge, vlan, attachment, owner, security } = port;
        let mut ids = vec![[OVS_ATTACHMENT, &attachment.to_string()].map(str::to_owned)];
        ids.push([OVS_OWNER, owner].map(str::to_owned));
        if security.is_some() {
            ids.push([OVS_SECURED, "true"].map(str::to_owned));
        }
        let ids = json!(["map", ids]);
        let mut row = json!({ "external_ids": ids });
        for (column, value) in vlan_columns(vlan) {
            row[column] = value;
        }
        if let Some(present) = present {
            // As ovs-vsctl does: without it the switch does not look at a port whose mode alone has changed.
            let told =
                json!({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]});
            let update = json!({"op": "update", "table": "Port", "where": is(present.uuid()), "row": row});
            let results = self.transact(vec![told, update]).await?;
            return if counted(&results) { self.synced(name, port).await } else { Err(vanished("port", name)) };
        }
        let number = self.row.fetch_add(1, Ordering::Relaxed);
        let (interface_row, port_row) = (format!("interface{number}"), format!("port{number}"));
        row["name"] = json!(name);
        row["interfaces"] = json!(["named-uuid", interface_row]);
        let results = self
            .transact(vec![
                json!({"op": "insert", "table": "Interface", "uuid-name": interface_row, "row": {"name": name}}),
                json!({"op": "insert", "table": "Port", "uuid-name": port_row, "row": row}),
                json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                    "mutations": [["ports", "insert", ["set", [["named-uuid", port_row]]]]]}),
            ])
            .await?;
        // Rows that no bridge names are collected as garbage at once.
        if counted(&results) { self.synced(name, port).await } else { Err(vanished("bridge", bridge)) }
    }

    /// Waits until our own copy has what was written: the monitor's update follows the transaction's answer.
    async fn synced(&self, name: &str, port: &OvsPort) -> Result<(), StepError> {
        let ports = BTreeSet::from([name.to_owned()]);
        let written =
            || {
                let observed = self.shared.replica().observe(&BTreeSet::new(), &ports);
                observed.ports.get(name).filter(|found| found.secured == port.security.is_some()).is_some_and(|found| {
                    found.bridge == port.bridge && found.attachment.as_ref() == Some(&port.attachment)
                })
            };
        self.wait(TRANSACT_DEADLINE, || written().then_some(())).await
    }

    /// Takes a port off its bridge; false where it was gone.
    ///
    /// Its flows go first: of a port that is gone nobody knows which they were.
    pub(super) async fn delete_port(&self, port: &OwnedPort) -> Result<bool, StepError> {
        if let Some(number) = port.flows_of() {
            match self.set_flows(port.bridge(), number, &[]).await {
                // A switch that does not run has no flows.
                Err(StepError::OpenFlow(_, error)) if is_absent(&error) => {}
                result => result?,
            }
        }
        let mutate = json!({"op": "mutate", "table": "Bridge", "where": [["ports", "includes", ["uuid", port.uuid()]]],
            "mutations": [["ports", "delete", ["uuid", port.uuid()]]]});
        let found = counted(&self.transact(vec![mutate]).await?);
        let ports = BTreeSet::from([port.name().to_owned()]);
        let gone = || {
            let observed = self.shared.replica().observe(&BTreeSet::new(), &ports);
            observed.ports.get(port.name()).is_none_or(|present| present.uuid != port.uuid())
        };
        self.wait(TRANSACT_DEADLINE, || gone().then_some(())).await?;
        Ok(found)
    }

    /// Waits until the switch has taken a port in.
    pub(super) async fn await_port(&self, name: &str) -> Result<(), StepError> {
        let attached = || match self.shared.replica().attached(name) {
            Some(Attached::Yes(_)) => Some(Ok(())),
            Some(Attached::Failed(words)) => Some(Err(StepError::Switch(words))),
            Some(Attached::Pending) => None,
            None => Some(Err(vanished("port", name))),
        };
        self.wait(ATTACH_DEADLINE, attached).await?
    }

    /// Waits until a look at the copy gives something.
    async fn wait<R>(&self, deadline: Duration, mut look: impl FnMut() -> Option<R>) -> Result<R, StepError> {
        let mut version = self.version.clone();
        let looking = async {
            loop {
                version.borrow_and_update();
                if let Some(result) = look() {
                    return Ok(result);
                }
                version.changed().await.map_err(|_| StepError::Ovsdb("the client has ended".to_owned()))?;
            }
        };
        timeout(deadline, looking).await.map_err(|_| StepError::Deadline(deadline))?
    }

    async fn transact(&self, operations: Vec<Value>) -> Result<Vec<Value>, StepError> {
        let (reply, answer) = oneshot::channel();
        let ended = || StepError::Ovsdb("the client has ended".to_owned());
        let asking = async {
            self.requests.send(Request { operations, reply }).await.map_err(|_| ended())?;
            answer.await.map_err(|_| ended())?.map_err(StepError::Ovsdb)
        };
        timeout(TRANSACT_DEADLINE, asking).await.map_err(|_| StepError::Deadline(TRANSACT_DEADLINE))?
    }
}

/// Whether the last operation found a row.
fn counted(results: &[Value]) -> bool {
    results.last().and_then(|result| result.get("count")).and_then(Value::as_u64).is_some_and(|count| count > 0)
}

/// Whether nobody listens on a socket.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is(uuid: &str) -> Value {
    json!([["_uuid", "==", ["uuid", uuid]]])
}

fn vanished(kind: &str, name: &str) -> StepError {
    StepError::Ovsdb(format!("{kind} `{name}` is gone"))
}
