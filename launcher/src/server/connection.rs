//! One connection: calls, or a stream of events.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use holdfast_agent_api::PROTOCOL_VERSION;
use holdfast_agent_api::frame::{self, FrameError};
use holdfast_agent_api::launcher::{
    DomainState, DomainStatus, Envelope, Event, Failure, FailureClass, Request, Response,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::vm::Message;

/// Longest that a peer may take to read what it asked for.
const WRITE: Duration = Duration::from_secs(10);
/// How often a stream without events looks whether its peer is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Serves until the peer goes.
pub(super) fn serve(stream: &UnixStream, vmi_uid: &str, vm: &Sender<Message>) {
    if stream.set_write_timeout(Some(WRITE)).is_err() {
        return;
    }
    loop {
        let (request, sockets) = match frame::receive::<Value>(stream) {
            Ok((value, sockets)) => (read(value), sockets),
            Err(FrameError::Closed) => return,
            Err(error) => {
                tracing::warn!(error = crate::vm::chain(&error), "a peer does not speak the protocol");
                return;
            }
        };
        let response = match request {
            Err(failure) => Response::Failed(failure),
            Ok(Request::Hello) => Response::Hello { version: PROTOCOL_VERSION, vmi_uid: vmi_uid.to_owned() },
            Ok(Request::Watch) => return stream_events(stream, vm),
            Ok(request) => ask(request, sockets, vm),
        };
        let sent = frame::send(stream, &response, &[]);
        if sent.is_err() {
            return;
        }
        if let Response::Domain(status) = &response {
            acknowledge(status, vm);
        }
    }
}

/// The version first, so that a request that only another version knows is answered for its version.
fn read(value: Value) -> Result<Request, Failure> {
    let failure = |reason: &str, message| Failure { class: FailureClass::Invalid, reason: reason.to_owned(), message };
    let version = value.get("version").and_then(Value::as_u64).unwrap_or(0);
    if version != u64::from(PROTOCOL_VERSION) {
        let message = format!("this launcher speaks version {PROTOCOL_VERSION} of the protocol, not {version}");
        return Err(failure("UnsupportedVersion", message));
    }
    let envelope = serde_json::from_value::<Envelope>(value);
    envelope.map(|envelope| envelope.request).map_err(|error| failure("InvalidRequest", error.to_string()))
}

fn ask(request: Request, sockets: Vec<OwnedFd>, vm: &Sender<Message>) -> Response {
    let (reply, answer) = mpsc::channel();
    let asked = vm.send(Message::Request { request, sockets, reply });
    // Each step behind this answer has a deadline of its own; a VM that is gone drops the reply's other end.
    match asked.ok().and_then(|()| answer.recv().ok()) {
        Some(response) => response,
        None => Response::Failed(Failure {
            class: FailureClass::Conflict,
            reason: "LauncherEnding".to_owned(),
            message: "the launcher is ending".to_owned(),
        }),
    }
}

fn acknowledge(status: &DomainStatus, vm: &Sender<Message>) {
    if matches!(status.state, DomainState::Final(_)) {
        // An ended VM needs no word.
        let _ = vm.send(Message::FinalSeen);
    }
}

fn stream_events(stream: &UnixStream, vm: &Sender<Message>) {
    let (sender, events) = mpsc::channel();
    if vm.send(Message::Watch(sender)).is_err() {
        return;
    }
    loop {
        match events.recv_timeout(LOOK) {
            Ok(event) => {
                if frame::send(stream, &event, &[]).is_err() {
                    return;
                }
                if let Event::Domain(status) = &event {
                    acknowledge(status, vm);
                }
            }
            Err(RecvTimeoutError::Timeout) if peer_is_there(stream) => {}
            Err(_) => return,
        }
    }
}

/// A watching peer says nothing more: anything to read is its end.
fn peer_is_there(stream: &UnixStream) -> bool {
    use std::os::fd::AsFd;
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO) == Ok(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_requests_of_its_own_version_only() {
        let pause = json!({"version": PROTOCOL_VERSION, "request": "pause"});
        assert!(matches!(read(pause), Ok(Request::Pause)));
        let failure = read(json!({"version": PROTOCOL_VERSION + 1, "request": {"newer": {}}})).unwrap_err();
        assert_eq!(failure.reason, "UnsupportedVersion");
        assert!(failure.message.contains(&PROTOCOL_VERSION.to_string()), "{}", failure.message);
        let failure = read(json!({"version": PROTOCOL_VERSION, "request": "dance"})).unwrap_err();
        assert!(failure.reason == "InvalidRequest" && failure.message.contains("dance"), "{}", failure.message);
    }
}
