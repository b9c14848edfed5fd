//! Flows of an OVS bridge, over OpenFlow on the socket that each bridge has for that.

mod message;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use self::message::{CookieAndPort, ECHO_REQUEST, ERROR, EXPERIMENTER, HEADER, HELLO, MULTIPART_REPLY};
pub use self::message::{Told, read_told};
pub(super) use self::writer::Writer;
use super::error::StepError;
use crate::security::flows::Flow;

/// How long the switch may take; it takes 1 ms, or as long as it is busy with a port.
const DEADLINE: Duration = Duration::from_secs(5);
/// The number of the only request of a connection.
const REQUEST: u32 = 1;

/// A connection to a bridge.
pub(super) struct Connection {
    stream: UnixStream,
}

/// Connects to a bridge.
pub(super) async fn connect(folder: &Path, bridge: &str) -> Result<Connection, StepError> {
    within(Connection::open(folder, bridge), bridge).await
}

/// The cookies of our flows by port, of one port or of all.
pub(super) async fn cookies(
    folder: &Path,
    bridge: &str,
    port: Option<u32>,
) -> Result<BTreeMap<u32, BTreeSet<u64>>, StepError> {
    let mut cookies = BTreeMap::<_, BTreeSet<_>>::new();
    for (cookie, port) in within(flows(folder, bridge, port), bridge).await? {
        if let Some(port) = port {
            cookies.entry(port).or_default().insert(cookie);
        }
    }
    Ok(cookies)
}

/// Cookie and port of our flows.
async fn flows(folder: &Path, bridge: &str, port: Option<u32>) -> io::Result<Vec<CookieAndPort>> {
    let mut bridge = Connection::open(folder, bridge).await?;
    bridge.stream.write_all(&message::ask_flows(REQUEST, port)).await?;
    read_flows(&mut bridge.stream).await
}

/// Gives ports these flows, and takes our others away, at once.
async fn replace(
    folder: &Path,
    bridge: &str,
    ports: impl Iterator<Item = (u32, &[(u64, Flow)])>,
) -> Result<(), StepError> {
    let bundle = message::replace_flows(REQUEST, ports);
    let asking = async {
        let mut bridge = Connection::open(folder, bridge).await?;
        bridge.stream.write_all(&bundle).await?;
        read_commit(&mut bridge.stream).await
    };
    within(asking, bridge).await
}

/// Reads a switch's answer to the question for flows: cookie and port of each, in however many messages.
///
/// # Errors
/// The switch's refusal, what is cut off, and those of the stream.
pub async fn read_flows(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<(u64, Option<u32>)>> {
    let mut flows = Vec::new();
    loop {
        let body = answer(stream, MULTIPART_REPLY).await?;
        let (some, more) = message::read_flows(&body).ok_or_else(|| invalid("statistics are cut off"))?;
        flows.extend(some);
        if !more {
            return Ok(flows);
        }
    }
}

/// Reads until a switch says that it has committed a bundle.
///
/// # Errors
/// The switch's refusal, what is cut off, and those of the stream.
pub async fn read_commit(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    while !message::is_committed(&answer(stream, EXPERIMENTER).await?) {}
    Ok(())
}

async fn within<R>(asking: impl Future<Output = io::Result<R>>, bridge: &str) -> Result<R, StepError> {
    match timeout(DEADLINE, asking).await {
        Ok(result) => result.map_err(|error| StepError::OpenFlow(bridge.to_owned(), error)),
        Err(_) => Err(StepError::Deadline(DEADLINE)),
    }
}

impl Connection {
    async fn open(folder: &Path, bridge: &str) -> io::Result<Self> {
        // A name of a bridge is one of a file, which the switch sees to as well.
        if bridge.contains('/') {
            return Err(invalid("its name is none of a file"));
        }
        let mut stream = UnixStream::connect(folder.join(format!("{bridge}.mgmt"))).await?;
        stream.write_all(&message::hello()).await?;
        answer(&mut stream, HELLO).await?;
        Ok(Self { stream })
    }

    /// Asks to be told of flows.
    pub(super) async fn monitor(&mut self) -> io::Result<()> {
        self.stream.write_all(&message::monitor_flows(REQUEST)).await
    }

    /// What has happened to flows of ours, once that is [`monitor`](Self::monitor)ed; none where something was left out.
    ///
    /// # Errors
    /// When the switch ends the connection.
    pub(super) async fn changed(&mut self) -> io::Result<Option<Vec<Told>>> {
        loop {
            let (kind, body) = next(&mut self.stream).await?;
            match kind {
                // It asks whether we are there.
                ECHO_REQUEST => self.stream.write_all(&message::echo_reply(&body)).await?,
                MULTIPART_REPLY => match message::read_told(&body) {
                    Some(told) if told.is_empty() => {}
                    told => return Ok(told),
                },
                // It stops to tell for a while, or goes on.
                EXPERIMENTER => return Ok(None),
                // A switch that is too old to monitor says so; it still tells of its end.
                _ => {}
            }
        }
    }
}

/// Type and body of the next message.
async fn next(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await?;
    let [_, kind, high, low, ..] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let mut body = vec![0; length.checked_sub(HEADER).ok_or_else(|| invalid("a message without a header"))?];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The body of the next message of a type. A refusal is an error; what else the switch says is passed over.
async fn answer(stream: &mut (impl AsyncRead + Unpin), wanted: u8) -> io::Result<Vec<u8>> {
    loop {
        let (kind, body) = next(stream).await?;
        match kind {
            ERROR => return Err(refused(&body)),
            kind if kind == wanted => return Ok(body),
            _ => {}
        }
    }
}

/// A refusal: its type and code (ONF TS-006, section 7.4.4). One of the versions has a text.
fn refused(body: &[u8]) -> io::Error {
    let number =
        |at: usize| body.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |two| u16::from_be_bytes(*two));
    match (number(0), number(2)) {
        (0, _) => io::Error::other("the bridge's `protocols` must have OpenFlow13, or be empty"),
        (kind, code) => io::Error::other(format!("refused with error {kind}, code {code}")),
    }
}

fn invalid(error: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
