#![allow(clippy::unwrap_used)]

use holdfast_api::kubevirt::VirtualMachineInstance;
use serde_json::json;

use super::*;

fn vmi(extra: Value) -> VirtualMachineInstance {
    let mut object = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "a", "namespace": "lab", "uid": "vmi"},
        "spec": {
            "domain": {"devices": {"interfaces": [
                {"name": "default", "masquerade": {}}, {"name": "lan", "bridge": {}},
                {"name": "six", "bridge": {}}, {"name": "gone", "bridge": {}, "state": "absent"}]}},
            "networks": [
                {"name": "default", "pod": {}}, {"name": "lan", "multus": {"networkName": "lan"}},
                {"name": "six", "multus": {"networkName": "infra/six"}},
                {"name": "gone", "multus": {"networkName": "x"}}],
        },
    });
    for (pointer, value) in extra.as_object().unwrap() {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn annotate(vmi: &mut VirtualMachineInstance, text: &str) {
    vmi.metadata.annotations = Some([(ADDRESSES_ANNOTATION.to_owned(), text.to_owned())].into());
}

#[test]
fn interfaces_are_named_as_in_pods() {
    assert_eq!(interface_name("default", true), "eth0");
    // As seen upstream for a network of that name.
    assert_eq!(interface_name("blue", false), "pod16477688c0e");
}

#[test]
fn nics_come_in_the_order_of_the_interfaces() {
    let mut vmi = vmi(json!({"/spec/domain/devices/interfaces/1/macAddress": "02-00-00-00-00-01"}));
    annotate(&mut vmi, r#"{"lan":"192.0.2.10","six":["192.0.2.11/24","2001:db8::1"]}"#);
    let all = wanted(&vmi).unwrap();
    let names: Vec<_> = all.iter().map(|nic| (nic.ifname.as_str(), nic.ips.len(), nic.vm_owned)).collect();
    let second = interface_name("lan", false);
    let third = interface_name("six", false);
    assert_eq!(names, [("eth0", 0, false), (second.as_str(), 1, true), (third.as_str(), 2, true)]);
    assert_eq!(all[1].capabilities(), json!({"mac": "02:00:00:00:00:01", "ips": ["192.0.2.10"]}));
    let definitions: Vec<_> = all.iter().map(|nic| nic.definition()).collect();
    assert_eq!(definitions, [None, Some(("lab", "lan")), Some(("infra", "six"))]);
}

#[test]
fn what_cannot_be_read_is_named_with_an_example() {
    for (text, word) in [
        ("x", "cannot be read"),
        (r#"{"lan":"a"}"#, "`a` for network `lan`"),
        (r#"{"lan":"224.0.0.9"}"#, "`224.0.0.9` for network `lan`, which no NIC can have"),
        (r#"{"lan":["192.0.2.1","::"]}"#, "`::` for network `lan`, which no NIC can have"),
        (r#"{"lan":"::ffff:127.0.0.1"}"#, "which no NIC can have"),
        ("[1]", "cannot"),
        (r#"{"lan":null}"#, "`null` for network `lan`, which is neither an address nor a list of them; valid is JSON"),
        (r#"{"lan":["192.0.2.1",7]}"#, "neither an address nor a list of them"),
        (r#"{"wan":"192.0.2.1"}"#, "names network `wan`; the networks of the VM are default, lan, six, gone"),
    ] {
        let mut vmi = vmi(json!({}));
        annotate(&mut vmi, text);
        let error = wanted(&vmi).unwrap_err();
        assert_eq!(error.reason, "AddressInvalid");
        assert!(error.message.contains(word), "{error}");
    }
}

#[test]
fn only_addresses_that_a_nic_can_have_are_taken() {
    for text in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02:00"] {
        let error = wanted(&vmi(json!({"/spec/domain/devices/interfaces/1/macAddress": text}))).unwrap_err();
        assert_eq!(error.reason, "FailedAttachNetwork");
        let begin = format!("`macAddress` `{text}` of interface `lan`: must be a");
        assert!(error.message.starts_with(&begin), "{error}");
    }
}

#[tokio::test]
async fn what_a_network_of_ours_cannot_give_is_told_before_anything_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::leases::FileStore::open(folder.path()).unwrap();
    let mac = "02:00:00:00:00:01";
    let mut vmi = vmi(json!({"/spec/domain/devices/interfaces/1/macAddress": mac,
        "/spec/domain/devices/interfaces/2/macAddress": mac,
        "/spec/networks/2/multus/networkName": "lab/lan"}));
    annotate(&mut vmi, r#"{"lan":"192.0.2.1"}"#);
    let config = json!({"name": "n", "type": "holdfast", "backend": "ovs", "bridge": "b"});
    let network = crate::network::NetConf::parse(&config).unwrap().addressing(None).unwrap();
    let wanted = wanted(&vmi).unwrap();
    let error = wanted[1].lease(&store, &network, claim(&vmi, "lan")).await.unwrap_err();
    assert!(error.message.starts_with("network `n` has no subnets to take the address 192.0.2.1 from"), "{error}");
    let error = wanted[2].lease(&store, &network, claim(&vmi, "six")).await.unwrap_err();
    assert_eq!(error.reason, "AddressInvalid");
    let begin = "`macAddress` `02:00:00:00:00:01` of interface `six` is that of interface `lan`";
    assert!(error.message.starts_with(begin), "{error}");
}

#[tokio::test]
async fn address_pairs_go_with_the_leases_where_the_network_allows_them() {
    let folder = tempfile::tempdir().unwrap();
    let store = crate::leases::FileStore::open(folder.path()).unwrap();
    let mut vmi = vmi(json!({}));
    let mut asking = |text: &str| {
        vmi.metadata.annotations = Some([(PAIRS_ANNOTATION.to_owned(), text.to_owned())].into());
        wanted(&vmi).map(|wanted| (wanted, claim(&vmi, "lan")))
    };
    for (text, words) in [
        (r#"{"lan":[{"cidr":"10.9.0.1/16"}]}"#, "a pair whose `cidr` `10.9.0.1/16` has bits behind the prefix"),
        (r#"{"lan":[{"cidr":"10.9.0.1","mac":"x"}]}"#, "a pair whose `mac` `x` is no Ethernet address of a NIC"),
        (r#"{"lan":[{"address":"10.9.0.1"}]}"#, "unknown field `address`"),
        (r#"{"lan":["10.9.0.1"]}"#, "valid is JSON by network name"),
        (r#"{"wan":[]}"#, "annotation holdfast.io/allowed-address-pairs names network `wan`"),
    ] {
        let error = asking(text).unwrap_err();
        assert!(error.reason == "AddressInvalid" && error.message.contains(words), "{error}");
    }
    let config = json!({"name": "n", "type": "holdfast", "backend": "ovs", "bridge": "b", "segment": "n",
        "subnets": [{"cidr": "192.0.2.0/24"}], "allowedAddressPairs": [{"cidr": "10.9.0.0/16"}]});
    let network = crate::network::NetConf::parse(&config).unwrap().addressing(None).unwrap();
    let (all, own) = asking(r#"{"lan":[{"cidr":"10.9.8.0/24"}]}"#).unwrap();
    let nic = all[1].lease(&store, &network, own).await.unwrap();
    assert_eq!(json!(nic.lease.unwrap().pairs), json!([{"cidr": "10.9.8.0/24"}]));
    let (all, own) = asking(r#"{"lan":[{"cidr":"192.0.2.9"}]}"#).unwrap();
    let error = all[1].lease(&store, &network, own).await.unwrap_err();
    let begin = "annotation holdfast.io/allowed-address-pairs: network `n`: address pair `192.0.2.9/32` is not one that \
                 the network allows: valid is what lies within `10.9.0.0/16`";
    assert_eq!(error.message, begin);
    let list = NetworkList::parse(r#"{"type":"bridge"}"#, "x").unwrap();
    let error = all[1].foreign(&list, "N `x`").unwrap_err();
    assert!(error.message.starts_with("N `x` has no port security"), "{error}");
}

#[test]
fn addresses_need_a_network_that_takes_them() {
    let mut vmi = vmi(json!({}));
    annotate(&mut vmi, r#"{"lan":"192.0.2.1"}"#);
    let wanted = wanted(&vmi).unwrap();
    let list = |text| NetworkList::parse(text, "x").unwrap();
    let error = wanted[1].foreign(&list(r#"{"type":"bridge"}"#), "N `x`").unwrap_err();
    assert!(error.message.starts_with("N `x` takes no addresses"), "{error}");
    let takes = list(r#"{"type":"sriov","capabilities":{"ips":true}}"#);
    assert_eq!(wanted[1].foreign(&takes, "N `x`").unwrap().lease, None);
    assert!(wanted[0].foreign(&list(r#"{"type":"bridge"}"#), "N `x`").is_ok());
}

#[test]
fn a_network_without_guests_is_refused_before_anything_is_made() {
    let wanted = wanted(&vmi(json!({}))).unwrap();
    let list = |text| NetworkList::parse(text, "x").unwrap();
    let macvlan = list(r#"{"type":"macvlan","master":"eth0"}"#);
    let error = wanted[1].foreign(&macvlan, "N `x`").unwrap_err();
    assert_eq!(error.reason, "FailedAttachNetwork");
    assert!(error.message.starts_with("N `x` is of CNI type `macvlan`"), "{error}");
    assert!(error.message.contains("needs type `holdfast`"), "{error}");
    assert!(wanted[0].foreign(&macvlan, "N `x`").is_ok(), "behind masquerade, nobody sees the guest's own address");
    assert!(wanted[1].foreign(&list(r#"{"type":"macvlan","mode":"passthru"}"#), "N `x`").is_ok());
    assert!(wanted[1].foreign(&list(r#"{"plugins":[{"type":"bridge"},{"type":"tuning"}]}"#), "N `x`").is_ok());
}

#[test]
fn a_networks_name_that_is_none_is_refused() {
    for name in ["../../secrets/x", "a?b=c", "x#", "a/b/c", "A"] {
        let error = wanted(&vmi(json!({"/spec/networks/1/multus/networkName": name}))).unwrap_err();
        assert_eq!(error.reason, "FailedAttachNetwork");
        assert!(error.message.starts_with(&format!("`networkName` of network `lan`: `{name}`")), "{error}");
    }
}

#[test]
fn leases_are_the_vms_where_a_vm_controls_the_vmi() {
    let own = claim(&vmi(json!({})), "lan");
    assert_eq!((own.kind.as_str(), own.uid.as_str(), own.name.as_str()), ("VirtualMachineInstance", "vmi", "a"));
    let owned = |kind: &str| {
        let reference = json!([{"apiVersion": "kubevirt.io/v1", "kind": kind, "name": "v", "uid": "u",
            "controller": true}]);
        claim(&vmi(json!({"/metadata/ownerReferences": reference})), "lan")
    };
    let vms = owned("VirtualMachine");
    assert_eq!((vms.uid.as_str(), vms.name.as_str(), vms.namespace.as_str()), ("u", "v", "lab"));
    // A set makes its VMIs anew under other names; each holds its own.
    assert_eq!(owned("VirtualMachineInstanceReplicaSet"), own);
}
