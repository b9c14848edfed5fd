//! Port security on the host's Linux bridges: one table of nftables for all of them, read and written over netlink, for
//! each ADD and DEL changes it.

mod message;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use netlink_packet_core::{NlaBuffer, NlasIterator};

use self::message::{KEY, KEY_END, NAME};
use super::netlink::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, Netlink};
use super::nft::{self, NFPROTO_BRIDGE};
use crate::model::IfName;
use crate::observed::ObservedGuard;
use crate::security::rules::{Element, Rule, Set, rules};

/// Table and chain; every table of this name is ours.
const TABLE: &str = "holdfast";
const CHAIN: &str = "port-security";
/// NFNL_SUBSYS_NFTABLES.
const SUBSYSTEM: u16 = 10;
/// NFTA_SET_ELEM_LIST_ELEMENTS, and within a key NFTA_DATA_VALUE.
const ELEMENTS: u16 = 3;
/// NFTA_SET_ELEM_LIST_TABLE.
const ELEMENTS_TABLE: u16 = 1;
const VALUE: u16 = 1;

/// Elements in one request: an attribute's length has 16 bits.
const AT_ONCE: usize = 500;

type Request = (u16, u16, Vec<u8>);

/// Reads the table: all that is in its sets, or which of some elements are.
pub(super) fn observe(netfilter: &mut Netlink, only: Option<&BTreeSet<Element>>) -> io::Result<ObservedGuard> {
    let rules = nft::observe_rules(netfilter, NFPROTO_BRIDGE, TABLE)?.rules;
    let mut guard =
        ObservedGuard { rules: rules.into_iter().map(|(_, comment)| comment).collect(), ..Default::default() };
    if guard.rules.is_empty() {
        return Ok(guard);
    }
    if let Some(elements) = only {
        for element in elements {
            if is_there(netfilter, element)? {
                guard.elements.insert(element.clone());
            }
        }
        return Ok(guard);
    }
    for set in Set::ALL {
        let answers = match netfilter.exchange(message::GET_ELEMENT, NLM_F_DUMP, &message::elements_of(TABLE, set)) {
            // A table from before there was such a set, or one that somebody took it from.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => continue,
            answers => answers?,
        };
        for (_, answer) in answers {
            guard.elements.extend(read_elements(set, &answer)?);
        }
    }
    Ok(guard)
}

fn is_there(netfilter: &mut Netlink, element: &Element) -> io::Result<bool> {
    let request = message::elements(TABLE, element.set, [element]);
    match netfilter.exchange(message::GET_ELEMENT, 0, &request) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The elements of a set, from the kernel's message about some of them.
///
/// # Errors
/// What is cut off.
pub fn read_elements(set: Set, message: &[u8]) -> io::Result<Vec<Element>> {
    let list = nft::attribute(message, ELEMENTS)?.unwrap_or_default();
    let mut elements = Vec::new();
    for element in NlasIterator::new(list.as_slice()) {
        let element: NlaBuffer<&[u8]> = element.map_err(invalid)?;
        let (name, mut address) = key(set, element.value(), KEY)?;
        if set.is_of_intervals() {
            address.extend(key(set, element.value(), KEY_END)?.1);
        }
        // What is no name of a link is no port of anybody. A name that is no text is not read as another one: it would be
        // removed under that, again and again.
        let port = std::str::from_utf8(&name).ok().and_then(|port| port.trim_end_matches('\0').parse().ok());
        elements.extend(port.map(|port| Element { set, port, address }));
    }
    Ok(elements)
}

/// The ports whose elements the kernel tells of; none where it tells of something else in the table.
pub(super) fn ports_of(kind: u16, payload: &[u8]) -> Option<Vec<IfName>> {
    let is_element = [message::NEW_ELEMENT, message::DELETE_ELEMENT].map(|kind| SUBSYSTEM << 8 | kind).contains(&kind);
    if !is_element || nft::attribute(payload, ELEMENTS_TABLE).ok()?? != [TABLE.as_bytes(), &[0]].concat() {
        return None;
    }
    // All keys begin with the port: nothing else is asked for here.
    let elements = read_elements(Set::Ports, payload).ok()?;
    Some(elements.into_iter().map(|element| element.port).collect())
}

/// Name and address of a key, or of the end of one.
fn key(set: Set, element: &[u8], kind: u16) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let value = attribute(&attribute(element, kind)?, VALUE)?;
    let cut_off = || invalid("a key is too short");
    let (port, address) = value.split_at_checked(NAME).ok_or_else(cut_off)?;
    Ok((port.to_vec(), address.get(..set.address_length()).ok_or_else(cut_off)?.to_vec()))
}

/// The value of the attribute of a type in a list of attributes.
pub(super) fn attribute(list: &[u8], kind: u16) -> io::Result<Vec<u8>> {
    for attribute in NlasIterator::new(list) {
        let attribute: NlaBuffer<&[u8]> = attribute.map_err(invalid)?;
        if attribute.kind() == kind {
            return Ok(attribute.value().to_vec());
        }
    }
    Err(invalid("an attribute is missing"))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Makes the table, or its rules anew; what is in its sets stays.
pub(super) fn make(netfilter: &mut Netlink) -> io::Result<()> {
    let mut requests: Vec<Request> = vec![(message::NEW_TABLE, NLM_F_CREATE, message::table(TABLE))];
    for (set, number) in Set::ALL.into_iter().zip(1..) {
        requests.push((message::NEW_SET, NLM_F_CREATE, message::set(TABLE, set, number)));
    }
    requests.push((message::NEW_CHAIN, NLM_F_CREATE, message::chain(TABLE, CHAIN)));
    requests.push((message::DELETE_RULE, 0, message::rules_of(TABLE, CHAIN)));
    let rule = |rule: Rule| (message::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, message::rule(TABLE, CHAIN, &rule));
    requests.extend(rules().into_iter().map(rule));
    netfilter.batch(SUBSYSTEM, &requests)
}

/// Removes the table.
pub(super) fn delete(netfilter: &mut Netlink) -> io::Result<()> {
    netfilter.batch(SUBSYSTEM, &[(message::DELETE_TABLE, 0, message::table(TABLE))])
}

/// Adds elements; those that are there are no error.
pub(super) fn add(netfilter: &mut Netlink, elements: &BTreeSet<Element>) -> io::Result<()> {
    change(netfilter, message::NEW_ELEMENT, NLM_F_CREATE, elements)
}

/// Removes elements.
pub(super) fn remove(netfilter: &mut Netlink, elements: &BTreeSet<Element>) -> io::Result<()> {
    change(netfilter, message::DELETE_ELEMENT, 0, elements)
}

fn change(netfilter: &mut Netlink, kind: u16, flags: u16, elements: &BTreeSet<Element>) -> io::Result<()> {
    let mut by_set: BTreeMap<Set, Vec<&Element>> = BTreeMap::new();
    for element in elements {
        by_set.entry(element.set).or_default().push(element);
    }
    let requests: Vec<Request> = by_set
        .iter()
        .flat_map(|(set, elements)| elements.chunks(AT_ONCE).map(|elements| (*set, elements)))
        .map(|(set, elements)| (kind, flags, message::elements(TABLE, set, elements.iter().copied())))
        .collect();
    netfilter.batch(SUBSYSTEM, &requests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MacAddr, PortSecurity};
    use crate::security::rules;

    #[test]
    fn elements_are_read_as_they_are_written() {
        let security = PortSecurity {
            macs: BTreeSet::from([MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])]),
            ipv4: Some(["192.0.2.7", "10.0.0.0/8"].map(|prefix| prefix.parse().unwrap()).into()),
            ipv6: Some(["2001:db8::7", "2001:db8:1::/48"].map(|prefix| prefix.parse().unwrap()).into()),
        };
        let written = rules::elements(&"hf0123456789abc".parse().unwrap(), &security);
        let mut read = BTreeSet::new();
        for set in Set::ALL {
            let own = written.iter().filter(|element| element.set == set);
            read.extend(read_elements(set, &message::elements(TABLE, set, own)).unwrap());
        }
        assert_eq!(read, written);
    }

    #[test]
    fn a_name_that_is_no_text_is_no_port() {
        let element = Element { set: Set::Ports, port: "hf1".parse().unwrap(), address: Vec::new() };
        let mut whole = message::elements(TABLE, Set::Ports, [&element]);
        assert_eq!(read_elements(Set::Ports, &whole).unwrap().len(), 1);
        assert!(read_elements(Set::Sources, &whole).is_err(), "a key without an address");
        let name = whole.windows(3).position(|bytes| bytes == b"hf1").unwrap();
        whole[name + 2] = 0xff;
        assert_eq!(read_elements(Set::Ports, &whole).unwrap(), []);
    }
}
