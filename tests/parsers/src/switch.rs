//! What Open vSwitch answers: its database, and its bridges.

use std::collections::BTreeSet;

use futures::FutureExt;
use holdfast_net::kernel::reply::{JsonStream, Replica, read_commit, read_flows, read_told};
use holdfast_net::observed::ObservedOvs;
use serde_json::Value;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;

/// Length of an entry of a flow's statistics, up to the end of its cookie.
const STATISTICS: usize = 32;
/// Length of an entry of what is told of flows, up to the same.
const TOLD: usize = 24;

/// A stream of the database's messages, whose first byte says where it is cut.
pub fn ovsdb(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let (before, behind) = stream.split_at(usize::from(*cut).min(stream.len()));
    let whole = messages(&[stream]);
    assert_eq!(messages(&[before, behind]), whole);

    let mut replica = Replica::default();
    for message in &whole {
        // What is monitored comes in an answer's result; changes, in a notice's parameters.
        let places = ["/result/2", "/result", "/params/2", "/params/1"];
        places.iter().filter_map(|place| message.pointer(place)).for_each(|updates| drop(replica.update(updates)));
    }
    observed(&replica.observe(&names("br0"), &names("hf1")));
    let _ = replica.attachments();
}

fn names(name: &str) -> BTreeSet<String> {
    BTreeSet::from([name.to_owned()])
}

/// The messages of a stream that comes in these parts, up to what is none.
fn messages(parts: &[&[u8]]) -> Vec<Value> {
    let (mut stream, mut buffer, mut found) = (JsonStream::default(), BytesMut::new(), Vec::new());
    for part in parts {
        buffer.extend_from_slice(part);
        loop {
            match stream.decode(&mut buffer) {
                Ok(Some(message)) => found.push(message),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

fn observed(ovs: &ObservedOvs) {
    assert!(ovs.bridges.keys().all(|name| name == "br0") && ovs.ports.keys().all(|name| name == "hf1"));
    for port in ovs.ports.values() {
        assert_ne!(port.number, Some(0), "OpenFlow counts ports from 1");
    }
}

/// A stream of a bridge's messages.
pub fn openflow(bytes: &[u8]) {
    let mut stream = bytes;
    // Bytes that are there are not waited for.
    if let Ok(flows) = read_flows(&mut stream).now_or_never().unwrap() {
        assert!(flows.len() * STATISTICS <= bytes.len());
    }
    if let Some(told) = read_told(bytes) {
        assert!(told.len() * TOLD <= bytes.len());
    }
    let mut stream = bytes;
    if read_commit(&mut stream).now_or_never().unwrap().is_ok() {
        assert!(stream.len() < bytes.len());
    }
}
