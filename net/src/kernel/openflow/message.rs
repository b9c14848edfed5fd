//! Messages of OpenFlow 1.3 (ONF TS-006), with bundles as its extension 230 has them: what port security needs.

use crate::security::flows::{COOKIE, COOKIE_MASK, Field, Flow};

/// Length of a message's header.
pub(super) const HEADER: usize = 8;
/// Types of messages.
pub(super) const HELLO: u8 = 0;
pub(super) const ERROR: u8 = 1;
pub(super) const ECHO_REQUEST: u8 = 2;
pub(super) const EXPERIMENTER: u8 = 4;
pub(super) const MULTIPART_REPLY: u8 = 19;
const ECHO_REPLY: u8 = 3;
const FLOW_MOD: u8 = 14;
const MULTIPART_REQUEST: u8 = 18;

const VERSION: u8 = 4;
/// Any port, any group, no buffer.
const ANY: [u8; 4] = [0xff; 4];
/// The port that stands for what a switch without flows does.
const NORMAL: u32 = 0xffff_fffa;
/// Commands of a FlowMod.
const ADD: u8 = 0;
const DELETE: u8 = 3;
/// Statistics of single flows.
const FLOW_STATISTICS: u16 = 1;
/// Where the cookie is in an entry of them, and the fields that it matches.
const COOKIE_OFFSET: usize = 24;
const FIELDS_OFFSET: usize = 52;
/// Field IN_PORT of the basic class, which a flow of ours matches, and which comes first.
const IN_PORT: [u8; 4] = [0x80, 0, 0, 4];
/// Where what is told of flows begins in a message; in each entry, where its cookie is, and the fields that it matches; and
/// the event that says that it is deleted.
const TOLD_HEADER: usize = 16;
const TOLD_COOKIE_OFFSET: usize = 16;
const TOLD_FIELDS_OFFSET: usize = 28;
const FLOW_DELETED: u16 = 1;
/// Statistics of an experimenter.
const EXPERIMENTER_STATISTICS: u16 = 0xffff;
/// ONF as experimenter, and its messages.
const ONF: u32 = 0x4f4e_4600;
const FLOW_MONITOR: u32 = 1870;
const BUNDLE_CONTROL: u32 = 2300;
const BUNDLE_ADD: u32 = 2301;
/// Kinds of BundleControl.
const OPEN: u16 = 0;
const COMMIT: u16 = 4;
const COMMITTED: u16 = 5;
/// What is told of flows: that they are added, deleted and modified; not those that are there, and no actions.
const MONITORED: u16 = 2 | 4 | 8;
/// All at once or nothing, in the order given.
const ATOMIC_ORDERED: u16 = 3;

/// A message.
fn message(kind: u8, id: u32, body: &[u8]) -> Vec<u8> {
    // No message here is longer than some hundred bytes.
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    [&[VERSION, kind], &length.to_be_bytes()[..], &id.to_be_bytes(), body].concat()
}

pub(super) fn hello() -> Vec<u8> {
    message(HELLO, 0, &[])
}

/// The answer to an ECHO_REQUEST with this body, by whom nobody waits for its id.
pub(super) fn echo_reply(body: &[u8]) -> Vec<u8> {
    message(ECHO_REPLY, 0, body)
}

/// Asks for our flows, of one port or of all.
pub(super) fn ask_flows(id: u32, port: Option<u32>) -> Vec<u8> {
    let mut body = FLOW_STATISTICS.to_be_bytes().to_vec();
    // No flags; table 0.
    body.extend_from_slice(&[0; 6]);
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&[ANY, ANY, [0; 4]].concat());
    body.extend_from_slice(&COOKIE.to_be_bytes());
    body.extend_from_slice(&COOKIE_MASK.to_be_bytes());
    body.extend_from_slice(&port.map_or_else(any, |port| match_of(port, &[])));
    message(MULTIPART_REQUEST, id, &body)
}

/// Cookie and port of a flow.
pub(super) type CookieAndPort = (u64, Option<u32>);

/// Those of each flow in an answer, and whether there are more to come; none where it is cut off.
pub(super) fn read_flows(body: &[u8]) -> Option<(Vec<CookieAndPort>, bool)> {
    let ([_, _, _, flags, ..], mut rest) = body.split_first_chunk::<8>()?;
    let mut flows = Vec::new();
    while !rest.is_empty() {
        let length = u16::from_be_bytes(*rest.first_chunk()?);
        let (entry, behind) = rest.split_at_checked(length.into())?;
        let cookie = u64::from_be_bytes(*entry.get(COOKIE_OFFSET..)?.first_chunk()?);
        let port = entry.get(FIELDS_OFFSET..).and_then(|fields| fields.strip_prefix(&IN_PORT)?.first_chunk());
        flows.push((cookie, port.map(|port| u32::from_be_bytes(*port))));
        rest = behind;
    }
    Some((flows, flags & 1 == 1))
}

/// Asks to be told of all flows of table 0, as extension 187 has it.
pub(super) fn monitor_flows(id: u32) -> Vec<u8> {
    let mut body = [EXPERIMENTER_STATISTICS.to_be_bytes(), [0; 2], [0; 2], [0; 2]].concat();
    body.extend_from_slice(&[ONF.to_be_bytes(), FLOW_MONITOR.to_be_bytes()].concat());
    // The number of the monitor; an empty match; any port; table 0.
    body.extend_from_slice(&[0; 4]);
    body.extend_from_slice(&[MONITORED.to_be_bytes(), 4u16.to_be_bytes()].concat());
    body.extend_from_slice(&[ANY, [0; 4]].concat());
    body.extend_from_slice(&any());
    message(MULTIPART_REQUEST, id, &body)
}

/// What is told of a flow of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its port.
    pub port: Option<u32>,
    /// It was deleted; else it was added or modified.
    pub deleted: bool,
}

/// What is told of flows of ours; none where it is cut off.
#[must_use]
pub fn read_told(body: &[u8]) -> Option<Vec<Told>> {
    let (_, mut rest) = body.split_at_checked(TOLD_HEADER)?;
    let mut told = Vec::new();
    while !rest.is_empty() {
        let length = u16::from_be_bytes(*rest.first_chunk()?);
        let (entry, behind) = rest.split_at_checked(length.into())?;
        let event = u16::from_be_bytes(*entry.get(2..)?.first_chunk()?);
        let cookie = u64::from_be_bytes(*entry.get(TOLD_COOKIE_OFFSET..)?.first_chunk()?);
        if cookie & COOKIE_MASK == COOKIE {
            let port = entry.get(TOLD_FIELDS_OFFSET..).and_then(|fields| fields.strip_prefix(&IN_PORT)?.first_chunk());
            told.push(Told { port: port.map(|port| u32::from_be_bytes(*port)), deleted: event == FLOW_DELETED });
        }
        rest = behind;
    }
    Some(told)
}

/// A bundle after which these ports have these flows of ours, and no others; its messages in one piece.
pub(super) fn replace_flows<'a>(id: u32, ports: impl Iterator<Item = (u32, &'a [(u64, Flow)])>) -> Vec<u8> {
    let mut messages = control(id, OPEN);
    let mut put = |inner: Vec<u8>| {
        let body = [&id.to_be_bytes(), &[0, 0][..], &ATOMIC_ORDERED.to_be_bytes(), &inner].concat();
        messages.extend_from_slice(&experimenter(id, BUNDLE_ADD, &body));
    };
    for (port, flows) in ports {
        put(flow_mod(id, DELETE, COOKIE, COOKIE_MASK, 0, &match_of(port, &[]), &[]));
        for (cookie, Flow { priority, fields, passes }) in flows {
            let instructions = if *passes { output_normal() } else { Vec::new() };
            put(flow_mod(id, ADD, *cookie, 0, *priority, &match_of(port, fields), &instructions));
        }
    }
    messages.extend_from_slice(&control(id, COMMIT));
    messages
}

/// Whether this is the answer to a bundle's commit.
pub(super) fn is_committed(body: &[u8]) -> bool {
    let expected = [ONF.to_be_bytes(), BUNDLE_CONTROL.to_be_bytes()].concat();
    body.starts_with(&expected) && body.get(12..14) == Some(&COMMITTED.to_be_bytes()[..])
}

fn control(id: u32, kind: u16) -> Vec<u8> {
    let body = [&id.to_be_bytes()[..], &kind.to_be_bytes(), &ATOMIC_ORDERED.to_be_bytes()].concat();
    experimenter(id, BUNDLE_CONTROL, &body)
}

fn experimenter(id: u32, kind: u32, body: &[u8]) -> Vec<u8> {
    message(EXPERIMENTER, id, &[&ONF.to_be_bytes(), &kind.to_be_bytes(), body].concat())
}

fn flow_mod(id: u32, command: u8, cookie: u64, mask: u64, priority: u16, what: &[u8], instructions: &[u8]) -> Vec<u8> {
    let mut body = [cookie.to_be_bytes(), mask.to_be_bytes()].concat();
    // Table 0; no timeouts.
    body.extend_from_slice(&[0, command, 0, 0, 0, 0]);
    body.extend_from_slice(&priority.to_be_bytes());
    // No buffer; any port and group; no flags.
    body.extend_from_slice(&[ANY, ANY, ANY, [0; 4]].concat());
    body.extend_from_slice(what);
    body.extend_from_slice(instructions);
    message(FLOW_MOD, id, &body)
}

/// The instruction to do what a switch without flows does.
fn output_normal() -> Vec<u8> {
    let mut bytes = [4u16.to_be_bytes(), 24u16.to_be_bytes(), [0; 2], [0; 2]].concat();
    bytes.extend_from_slice(&[0u16.to_be_bytes(), 16u16.to_be_bytes()].concat());
    bytes.extend_from_slice(&NORMAL.to_be_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// What matches anything.
fn any() -> Vec<u8> {
    [1u16.to_be_bytes(), 4u16.to_be_bytes(), [0; 2], [0; 2]].concat()
}

/// What matches a port and these fields.
fn match_of(port: u32, fields: &[Field]) -> Vec<u8> {
    let mut inside = oxm(0, &port.to_be_bytes());
    for field in fields {
        inside.extend_from_slice(&match field {
            Field::Source(mac) => oxm(4, &mac.octets()),
            Field::EtherType(kind) => oxm(5, &kind.to_be_bytes()),
            Field::Untagged => oxm(6, &[0; 2]),
            Field::Protocol(protocol) => oxm(10, &[*protocol]),
            Field::Ipv4Source(prefix) => within(11, &prefix.network().octets(), &prefix.mask().octets()),
            Field::UdpSource(port) => oxm(15, &port.to_be_bytes()),
            Field::UdpDestination(port) => oxm(16, &port.to_be_bytes()),
            Field::ArpAddress(prefix) => within(22, &prefix.network().octets(), &prefix.mask().octets()),
            Field::ArpMac(mac) => oxm(24, &mac.octets()),
            Field::Ipv6Source(prefix) => within(26, &prefix.network().octets(), &prefix.mask().octets()),
            Field::Icmpv6Type(kind) => oxm(29, &[*kind]),
            Field::NdTarget(prefix) => within(31, &prefix.network().octets(), &prefix.mask().octets()),
            Field::NdSource(mac) => oxm(32, &mac.octets()),
            Field::NdTargetMac(mac) => oxm(33, &mac.octets()),
        });
    }
    let length = u16::try_from(4 + inside.len()).unwrap_or(u16::MAX);
    let mut bytes = [&1u16.to_be_bytes()[..], &length.to_be_bytes(), &inside].concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A field of the basic class, without a mask.
fn oxm(field: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    [&[0x80, 0x00, field << 1, length], value].concat()
}

/// A field of the basic class whose bits under a mask count; without the mask where that is of all bits.
fn within(field: u8, value: &[u8], mask: &[u8]) -> Vec<u8> {
    if mask.iter().all(|byte| *byte == 0xff) {
        return oxm(field, value);
    }
    let length = u8::try_from(value.len() + mask.len()).unwrap_or(u8::MAX);
    [&[0x80, 0x00, field << 1 | 1, length], value, mask].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_names_its_port_first() {
        let mut entry = [64u16.to_be_bytes().as_slice(), &[0; 22], &(COOKIE | 7).to_be_bytes(), &[0; 16]].concat();
        entry.extend_from_slice(&match_of(9, &[])[..16]);
        let answer = [&[0, 1, 0, 0, 0, 0, 0, 0], entry.as_slice()].concat();
        assert_eq!(read_flows(&answer), Some((vec![(COOKIE | 7, Some(9))], false)));
    }

    #[test]
    fn what_is_told_names_port_and_end() {
        let entry = |event: u16, cookie: u64| {
            let mut entry = [48u16.to_be_bytes(), event.to_be_bytes()].concat();
            entry.extend_from_slice(&[0; 12]);
            entry.extend_from_slice(&cookie.to_be_bytes());
            entry.extend_from_slice(&match_of(9, &[Field::Source(crate::model::MacAddr([2, 0, 0, 0, 0, 1]))]));
            entry
        };
        assert_eq!(entry(0, 0).len(), 48);
        let body = [&[0; 16][..], &entry(0, COOKIE | 7), &entry(1, COOKIE | 8), &entry(0, 7)].concat();
        let told = |deleted| Told { port: Some(9), deleted };
        assert_eq!(read_told(&body), Some(vec![told(false), told(true)]));
        assert_eq!(read_told(&body[..16]), Some(vec![]));
        for length in [0, 15, 17, 40, body.len() - 1] {
            assert_eq!(read_told(&body[..length]), None, "{length}");
        }
        // An entry of no length does not end.
        assert_eq!(read_told(&[0; 20]), None);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let mut entry = 32u16.to_be_bytes().to_vec();
        entry.extend_from_slice(&[0; 22]);
        entry.extend_from_slice(&(COOKIE | 7).to_be_bytes());
        let answer = [&[0, 1, 0, 1, 0, 0, 0, 0], entry.as_slice(), &entry].concat();
        assert_eq!(read_flows(&answer), Some((vec![(COOKIE | 7, None); 2], true)));
        for length in [0, 7, 9, 31, answer.len() - 1] {
            assert_eq!(read_flows(&answer[..length]), None, "{length}");
        }
        assert_eq!(read_flows(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
