//! Messages of nf_tables (linux/netfilter/nf_tables.h), as far as port security needs them.

use crate::kernel::nft::NFPROTO_BRIDGE;
use crate::security::rules::{Bytes, Check, Element, Header, Rule, Set};

/// Message types within subsystem NFNL_SUBSYS_NFTABLES.
pub(super) const NEW_TABLE: u16 = message(0);
pub(super) const DELETE_TABLE: u16 = message(2);
pub(super) const NEW_CHAIN: u16 = message(3);
pub(super) const NEW_RULE: u16 = message(6);
pub(super) const DELETE_RULE: u16 = message(8);
pub(super) const NEW_SET: u16 = message(9);
pub(super) const NEW_ELEMENT: u16 = message(12);
pub(super) const GET_ELEMENT: u16 = message(13);
pub(super) const DELETE_ELEMENT: u16 = message(14);

/// Length of an interface's name in the kernel, with its end.
pub(super) const NAME: usize = 16;

/// Marks an attribute that contains others.
const NESTED: u16 = 0x8000;
/// Hook and priority of the chain: before the bridge has looked at the frame, and before other filters (-200).
const BRIDGE_PREROUTING: u32 = 0;
const PRIORITY: i32 = -300;
/// 32-bit registers: the first, and the one behind an interface's name.
const FIRST_REGISTER: u32 = 8;
const BEHIND_NAME: u32 = FIRST_REGISTER + 4;
/// Types of nft, for people who list the sets: an interface's name, and addresses.
const TYPE_NAME: u32 = 41;
const TYPE_MAC: u32 = 9;
const TYPE_IPV4: u32 = 7;
const TYPE_IPV6: u32 = 8;
const TYPE_BITS: u32 = 6;
/// Keys of meta, and bases of payload.
const META_PROTOCOL: u32 = 16;
const META_INPUT: u32 = 6;
/// A set of intervals whose keys have fields (NFT_SET_INTERVAL | NFT_SET_CONCAT).
const INTERVALS: u32 = 0x4 | 0x80;
/// Where in an element its key is, and the end of an interval (NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_KEY_END).
pub(super) const KEY: u16 = 1;
pub(super) const KEY_END: u16 = 10;
/// Comparison with equal, and a lookup that holds where nothing is found.
const EQUAL: u32 = 0;
const NOT_FOUND: u32 = 1;

const fn message(kind: u16) -> u16 {
    (10 << 8) | kind
}

/// A message's payload: struct nfgenmsg, then attributes.
struct Message(Vec<u8>);

impl Message {
    /// One about a table of family bridge.
    fn new(table: &str) -> Self {
        Self(vec![NFPROTO_BRIDGE, 0, 0, 0]).text(1, table)
    }

    fn finish(self) -> Vec<u8> {
        self.0
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // No value here is longer than a few hundred bytes.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn nested(self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let inner = inside(Self(Vec::new())).0;
        self.bytes(kind | NESTED, &inner)
    }
}

pub(super) fn table(name: &str) -> Vec<u8> {
    Message::new(name).finish()
}

pub(super) fn set(table: &str, set: Set, number: u32) -> Vec<u8> {
    let address_type = match set {
        Set::Ports | Set::Tagged | Set::Ipv4Limited | Set::Ipv6Limited => None,
        Set::Sources => Some(TYPE_MAC),
        Set::Ipv4 | Set::Ipv4Prefixes => Some(TYPE_IPV4),
        Set::Ipv6 | Set::Ipv6Prefixes => Some(TYPE_IPV6),
    };
    let key_type = address_type.map_or(TYPE_NAME, |kind| (TYPE_NAME << TYPE_BITS) | kind);
    // Fields of a key fill 32-bit registers.
    let length = NAME + set.address_length().next_multiple_of(4);
    let number_of = |length: usize| u32::try_from(length).unwrap_or_default();
    let flags = if set.is_of_intervals() { INTERVALS } else { 0 };
    let message = Message::new(table)
        .text(2, set.name())
        .number(3, flags)
        .number(4, key_type)
        .number(5, number_of(length))
        .number(10, number);
    if !set.is_of_intervals() {
        return message.finish();
    }
    // Each field has bounds of its own, so the kernel has to know them.
    let field = |fields: Message, length: usize| fields.nested(1, |field| field.number(1, number_of(length)));
    let fields = |fields| field(field(fields, NAME), set.address_length());
    message.nested(9, |description| description.nested(2, fields)).finish()
}

pub(super) fn chain(table: &str, name: &str) -> Vec<u8> {
    let hook = |hook: Message| hook.number(1, BRIDGE_PREROUTING).bytes(2, &PRIORITY.to_be_bytes());
    Message::new(table).text(3, name).nested(4, hook).text(7, "filter").finish()
}

/// All rules of a chain.
pub(super) fn rules_of(table: &str, chain: &str) -> Vec<u8> {
    Message::new(table).text(2, chain).finish()
}

pub(super) fn rule(table: &str, chain: &str, rule: &Rule) -> Vec<u8> {
    let expressions = |mut list: Message| {
        for check in &rule.checks {
            list = expressions_of(list, check);
        }
        let code = u32::from(rule.passes);
        expression(list, "immediate", |data| {
            data.number(1, 0).nested(2, |value| value.nested(2, |verdict| verdict.number(1, code)))
        })
    };
    let comment = rule.comment();
    // Type 0, length, text with a zero at its end (libnftnl/udata.h).
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let user_data = [&[0, length], comment.as_bytes(), &[0]].concat();
    Message::new(table).text(2, chain).nested(4, expressions).bytes(7, &user_data).finish()
}

/// All elements of a set, to be read.
pub(super) fn elements_of(table: &str, set: Set) -> Vec<u8> {
    Message::new(table).text(2, set.name()).finish()
}

/// Elements of one set, to be asked for, added or removed.
pub(super) fn elements<'a>(table: &str, set: Set, elements: impl IntoIterator<Item = &'a Element>) -> Vec<u8> {
    let put = |element: Message, kind, data: &[u8]| element.nested(kind, |value| value.bytes(1, data));
    let list = |mut list: Message| {
        for Element { port, address, .. } in elements {
            let (first, last) = address.split_at_checked(set.address_length()).unwrap_or((address, &[]));
            list = list.nested(1, |element| {
                let element = put(element, KEY, &key(port.as_str(), first));
                if last.is_empty() { element } else { put(element, KEY_END, &key(port.as_str(), last)) }
            });
        }
        list
    };
    Message::new(table).text(2, set.name()).nested(3, list).finish()
}

/// The key of an element, or the end of one.
pub(super) fn key(port: &str, address: &[u8]) -> Vec<u8> {
    let mut key = port.as_bytes().to_vec();
    key.resize(NAME, 0);
    key.extend_from_slice(address);
    key.resize(key.len().next_multiple_of(4), 0);
    key
}

fn expression(list: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    list.nested(1, |element| element.text(1, name).nested(2, data))
}

fn expressions_of(list: Message, check: &Check) -> Message {
    match check {
        Check::Port(set, found) => lookup(load_input(list), *set, *found),
        Check::With(bytes, set, found) => lookup(load(load_input(list), *bytes, BEHIND_NAME), *set, *found),
        Check::Is(bytes, value) => compare(load(list, *bytes, FIRST_REGISTER), value),
        Check::Protocol(protocol) => {
            let list = expression(list, "meta", |data| data.number(1, FIRST_REGISTER).number(2, META_PROTOCOL));
            compare(list, &[*protocol])
        }
    }
}

fn load_input(list: Message) -> Message {
    expression(list, "meta", |data| data.number(1, FIRST_REGISTER).number(2, META_INPUT))
}

fn load(list: Message, Bytes(header, offset, length): Bytes, register: u32) -> Message {
    let base = match header {
        Header::Link => 0,
        Header::Network => 1,
        Header::Transport => 2,
    };
    expression(list, "payload", |data| {
        data.number(1, register).number(2, base).number(3, offset.into()).number(4, length.into())
    })
}

fn compare(list: Message, value: &[u8]) -> Message {
    expression(list, "cmp", |data| {
        data.number(1, FIRST_REGISTER).number(2, EQUAL).nested(3, |data| data.bytes(1, value))
    })
}

fn lookup(list: Message, set: Set, found: bool) -> Message {
    expression(list, "lookup", |data| {
        let data = data.text(1, set.name()).number(2, FIRST_REGISTER);
        if found { data } else { data.number(5, NOT_FOUND) }
    })
}
