//! Interfaces that carry a VM's NIC.

use std::sync::Arc;

use holdfast_agent::workloads::{NotReady, PodRef, VmNic, Workloads};
use holdfast_api::lease::Claim;
use holdfast_net::model::IfName;
use serde_json::{Value, json};

use crate::host::{Host, eventually, files};
use crate::plugin::{Call, code, config};

/// Interfaces `net1` and `net2` of each pod are the VM's NIC, which asks for address pairs on the second, `late` is one that is not known yet, others are plain.
pub struct OneVm;

impl Workloads for OneVm {
    fn vm_nic(&self, pod: &PodRef, ifname: &IfName) -> Result<Option<VmNic>, NotReady> {
        match ifname.as_str() {
            "net1" | "net2" => Ok(Some(VmNic {
                claim: Claim {
                    uid: "vm-uid".into(),
                    kind: "VirtualMachine".into(),
                    namespace: "lab".into(),
                    name: "web".into(),
                    network: "lan".into(),
                },
                mac: "02:00:00:00:00:42".parse().unwrap(),
                addresses: vec!["192.0.2.42/24".parse().unwrap()],
                delivery: None,
                vm_owned: true,
                bandwidth: None,
                pairs: match ifname.as_str() {
                    "net1" => Vec::new(),
                    _ => serde_json::from_value(json!([{"cidr": "10.9.8.0/24", "mac": "00:00:5e:00:01:0a"}])).unwrap(),
                },
            })),
            "late" => Err(NotReady { pod: pod.name.clone(), ifname: ifname.clone(), reason: "no lease yet".into() }),
            _ => Ok(None),
        }
    }
}

/// Whoever can write on a pod can ask; the network is asked where the port is made.
#[test]
fn address_pairs_are_the_networks_to_allow() {
    let mut host = Host::new();
    host.start_with(Arc::new(OneVm));
    let pods = [host.pod(), host.pod()];
    let mut network = config(&host, "1.1.0", "linux-bridge");
    let of_vm = |config: &Value| Call { ifname: "net2".to_owned(), ..Call::new("one", &pods[0].path, config) };
    let of_pod = |config: &Value, cidr: &str| {
        let mut config = config.clone();
        config["args"] = json!({"cni": {"allowedAddressPairs": [{"cidr": cidr}]}});
        Call { ifname: "eth1".to_owned(), ..Call::new("two", &pods[1].path, &config) }
    };
    for call in [of_vm(&network), of_pod(&network, "10.9.0.7")] {
        let error = call.run().unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
        assert!(error["msg"].as_str().unwrap().contains("allows none (`allowedAddressPairs` of"), "{error}");
    }
    network["allowedAddressPairs"] = json!([{"cidr": "10.9.0.0/16", "mac": "00:00:5e:00:01:0a"}]);
    let error = of_pod(&network, "10.10.0.7").run().unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("within `10.9.0.0/16 with 00:00:5e:00:01:0a`"), "{error}");
    let error = of_pod(&network, "10.9.0.7/16").run().unwrap_err();
    assert!(error["msg"].as_str().unwrap().contains("`args.cni.allowedAddressPairs[0].cidr`"), "{error}");

    of_vm(&network).run().unwrap();
    of_pod(&network, "10.9.0.7").run().unwrap();
    let table = host.netns.run("nft list table bridge holdfast");
    for element in [" . 10.9.8.0/24 ", " . 00:00:5e:00:01:0a", " . 10.9.0.7", " . 192.0.2.42"] {
        assert!(table.contains(element), "{element} in {table}");
    }
}

#[test]
fn a_vm_has_its_own_address_once_and_for_all() {
    let mut host = Host::new();
    host.start_with(Arc::new(OneVm));
    let pods = [host.pod(), host.pod()];
    let config = config(&host, "1.1.0", "linux-bridge");
    let call = Call::new("one", &pods[0].path, &config);
    let result = call.run().unwrap();
    assert_eq!(result["ips"][0]["address"], "192.0.2.42/24");

    // Nothing in the pod speaks for the guest.
    let link = pods[0].ip("address show dev net1").remove(0);
    assert_ne!(link["address"], "02:00:00:00:00:42");
    assert_eq!(link["addr_info"], json!([]));
    // ADD allocates nothing for a VM.
    assert!(files(&host.state().join("leases/ipleases")).is_empty());

    // Not in two sandboxes at once.
    let second = Call::new("two", &pods[1].path, &config);
    let error = second.run().unwrap_err();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("VirtualMachine `lab/web`, network `lan`"), "{error}");
    assert!(pods[1].links().is_empty());
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    eventually("the second comes in", || second.run().map(|_| ()).map_err(|error| error.to_string()));

    // What is asked for must be the VM's.
    let asked = Call::new("three", &pods[0].path, &config).ifname("net1");
    assert_eq!(
        code(
            second
                .verb("DEL")
                .run()
                .and_then(|_| asked.with("runtimeConfig", json!({"mac": "02:00:00:00:00:43"})).run())
        ),
        100
    );
    assert_eq!(code(Call::new("four", &pods[0].path, &config).ifname("late").run()), 11);
    host.assert_clean();
}
