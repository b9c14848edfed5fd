//! Short texts that users and other programs write on objects: annotations, and the marks on links and ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use holdfast_api::addresses::{
    ADDRESSES_ANNOTATION, BANDWIDTH_ANNOTATION, PAIRS_ANNOTATION, asked_by, parse_addresses, parse_bandwidths,
    parse_pairs,
};
use holdfast_api::kubevirt::VirtualMachine;
use holdfast_api::nad::{network_name, parse_networks};
use holdfast_net::mark::Mark;
use holdfast_net::model::{AttachmentId, IfName, MacAddr};

/// The annotations by which a VM asks for addresses: the VM's in the first line, its template's in the second.
pub fn addresses_annotation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (own, template) = text.split_once('\n').unwrap_or((text, "{}"));
    match parse_pairs(own) {
        Ok(pairs) => assert_eq!(parse_pairs(&serde_json::to_string(&pairs).unwrap()), Ok(pairs)),
        Err(message) => assert!(message.starts_with(&format!("annotation {PAIRS_ANNOTATION} "))),
    }
    match parse_bandwidths(own) {
        Ok(asked) => assert_eq!(parse_bandwidths(&serde_json::to_string(&asked).unwrap()), Ok(asked)),
        Err(message) => assert!(message.starts_with(&format!("annotation {BANDWIDTH_ANNOTATION} "))),
    }
    let parts = [own, template].map(parse_addresses);
    for part in &parts {
        match part {
            Ok(addresses) => {
                assert!(addresses.values().flatten().all(is_of_a_nic), "{addresses:?}");
                assert_eq!(parse_addresses(&written(addresses)).as_ref(), Ok(addresses));
            }
            Err(message) => assert!(message.starts_with(&format!("annotation {ADDRESSES_ANNOTATION} "))),
        }
    }
    let [Ok(mut both), Ok(of_template)] = parts else { return };
    let mut vm = VirtualMachine::default();
    let annotated = |text: &str| Some(BTreeMap::from([(ADDRESSES_ANNOTATION.to_owned(), text.to_owned())]));
    vm.metadata.annotations = annotated(own);
    vm.spec.template.metadata.get_or_insert_default().annotations = annotated(template);
    both.extend(of_template);
    assert_eq!(parse_addresses(&asked_by(&vm, ADDRESSES_ANNOTATION).unwrap()), Ok(both));
}

fn written(addresses: &BTreeMap<String, Vec<IpAddr>>) -> String {
    serde_json::to_string(addresses).unwrap()
}

fn is_of_a_nic(address: &IpAddr) -> bool {
    !(address.is_multicast() || address.is_unspecified() || address.is_loopback())
}

/// The annotation by which a pod joins networks, and the name of one network.
pub fn networks_annotation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok((namespace, name)) = network_name(text, "own") {
        let of_url = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        assert!(namespace.chars().chain(name.chars()).all(of_url) && !name.contains(".."), "{namespace}/{name}");
    }
    let Ok(elements) = parse_networks(text, "own") else { return };
    assert!(elements.iter().all(|element| element.namespace.is_some()));
    assert!(elements.iter().filter(|element| !element.default_route.is_empty()).count() <= 1);
    let written = serde_json::to_string(&elements).unwrap();
    assert_eq!(parse_networks(&written, "other").unwrap(), elements);
}

/// What stands on links and ports, of which anybody may make some.
pub fn marks(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    read_again::<Mark>(text);
    read_again::<AttachmentId>(text);
    read_again::<MacAddr>(text);
    if let Ok(name) = text.parse::<IfName>() {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= 15 && !text.contains(['/', '\0']));
    }
}

/// What is read is the same when it is written and read again.
fn read_again<T: FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
}
