//! Frames between CNI plugin, agent and launcher, as they come out of a socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use holdfast_agent_api::frame::{FrameError, MAX_FRAME, receive, send};
use holdfast_agent_api::{cni, launcher};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Far longer than a socket needs for what fits into it.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a socket takes in without anybody who reads.
const FITS: usize = 64 * 1024;

/// A frame. The first byte says what it is taken for, and whether the rest is a body or has a header of its own.
pub fn frame(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    if rest.len() > FITS {
        return;
    }
    let mut stream = if choice & 0x80 == 0 { (rest.len() as u32).to_be_bytes().to_vec() } else { Vec::new() };
    stream.extend_from_slice(rest);
    match choice & 0x7f {
        0 => exchange::<cni::Request>(&stream),
        1 => exchange::<cni::Response>(&stream),
        2 => exchange::<launcher::Envelope>(&stream),
        3 => exchange::<launcher::Response>(&stream),
        _ => exchange::<launcher::Event>(&stream),
    }
}

/// Receives what comes, and what was received once more.
fn exchange<T: Serialize + DeserializeOwned>(stream: &[u8]) {
    let announced = stream.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let message = match received::<T>(|mut peer| peer.write_all(stream).unwrap()) {
        Ok(message) => message,
        Err(FrameError::Closed) => return assert!(stream.is_empty()),
        Err(FrameError::TooLarge(length)) => return assert!(length == announced && length > MAX_FRAME),
        Err(FrameError::Io(_) | FrameError::Json(_)) => return,
    };
    assert!(announced <= stream.len() - 4, "a frame that was cut off");
    let first = serde_json::to_value(&message).unwrap();
    let again: T = received(|peer| send(&peer, &message, &[]).unwrap()).unwrap();
    if !has_fractions(&first) {
        assert_eq!(serde_json::to_value(&again).unwrap(), first);
    }
}

/// What is received of a peer that does this, and goes.
fn received<T: DeserializeOwned>(send: impl FnOnce(UnixStream)) -> Result<T, FrameError> {
    let (receiver, sender) = UnixStream::pair().unwrap();
    for end in [&receiver, &sender] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    send(sender);
    receive(&receiver).map(|(message, fds)| {
        assert!(fds.is_empty());
        message
    })
}

/// Whether there are numbers that the decoder reads as the next one beside them: it is quick, not exact, with fractions.
fn has_fractions(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fractions),
        Value::Object(fields) => fields.values().any(has_fractions),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
