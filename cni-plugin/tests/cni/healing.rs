//! What somebody changes behind our back is as it was before long, because the kernel and Open vSwitch tell of it: the
//! agents here compare nothing by themselves.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Host, Netns, eventually};
use crate::plugin::{Call, config};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// A node whose agent compares by itself at its start only.
fn host(ovs: bool) -> Host {
    let mut host = Host::new();
    host.resync = NEVER;
    if ovs {
        host.add_ovs();
    }
    host.start();
    host
}

/// A network whose ports are limited.
fn limited(host: &Host, backend: &str) -> Value {
    let mut config = config(host, "1.1.0", backend);
    config["bandwidth"] = serde_json::json!({"ingressRate": 20_000_000, "egressRate": 10_000_000});
    config
}

/// All that makes up an attachment, but for the numbers that it has by chance.
fn state(host: &Host, pod: &Netns, backend: &str) -> String {
    let mut state = String::new();
    let ends = host.netns.ip("-d link show").into_iter().filter(|link| link["group"] != "default");
    for link in ends {
        let protection =
            (&link["linkinfo"]["info_slave_data"]["isolated"], &link["linkinfo"]["info_slave_data"]["learning"]);
        let up = link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP");
        let facts = (&link["ifname"], &link["master"], &link["mtu"], &link["group"], &link["ifalias"], up, protection);
        writeln!(state, "{facts:?}").unwrap();
    }
    for (netns, link) in host.host_ends().iter().map(|end| (&host.netns, end.as_str())).chain([(pod, "net1")]) {
        let queues = netns.command(&format!("tc qdisc show dev {link}")).output().unwrap().stdout;
        writeln!(state, "{}", String::from_utf8(queues).unwrap()).unwrap();
    }
    for link in pod.ip("address show") {
        let addresses: Vec<_> = link["addr_info"].as_array().unwrap().iter().map(|a| &a["local"]).collect();
        // The one of IPv6 that the kernel makes comes later.
        let ours: Vec<_> = addresses.into_iter().filter(|address| !address.to_string().contains("fe80")).collect();
        writeln!(state, "{:?}", (&link["ifname"], &link["mtu"], &link["address"], ours)).unwrap();
    }
    for route in pod.ip("route show") {
        writeln!(state, "{:?}", (&route["dst"], &route["gateway"], &route["dev"])).unwrap();
    }
    if backend == "ovs" {
        for port in host.ovs().ports() {
            let columns =
                host.ovs().vsctl(&format!("--columns=name,tag,trunks,vlan_mode,external_ids find Port name={port}"));
            writeln!(state, "{}", columns.unwrap_or_default()).unwrap();
        }
        let text = host.ovs().ofctl("dump-flows", "--no-stats --no-names cookie=0x4846535400000000/0xffffffff00000000");
        // Their cookies and ports go by the number that the port happens to have.
        let without_port = |flow: &str| {
            let fields = flow.trim().split(',').filter(|field| !field.contains("in_port") && !field.contains("cookie"));
            fields.collect::<Vec<_>>().join(",")
        };
        let mut flows: Vec<_> = text.lines().filter(|line| line.contains("cookie")).map(without_port).collect();
        flows.sort();
        writeln!(state, "{}", flows.join("\n")).unwrap();
    } else {
        let rules = host.netns.command("nft list table bridge holdfast").output().unwrap();
        state.push_str(&String::from_utf8(rules.stdout).unwrap());
    }
    state
}

/// Makes the change, sees that it is one, and waits until all is as before.
fn heals(host: &mut Host, pod: &Netns, backend: &str, what: &str, change: impl FnOnce(&mut Host)) {
    let before = state(host, pod, backend);
    let repairs = repairs(host);
    change(host);
    let begin = Instant::now();
    eventually(what, || {
        let now = state(host, pod, backend);
        let mended = repairs_of(&crate::agent::get(host, "/metrics")) > repairs;
        if now == before && mended { Ok(()) } else { Err(format!("{now}\ninstead of\n{before}\nmended: {mended}")) }
    });
    println!("{backend}: {what}: as before, and seen to be, after {:?}", begin.elapsed());
}

/// Ends the attachment; the rounds of the agent have the rest to do.
fn removed(host: &mut Host, call: &Call) {
    assert_eq!(call.verb("DEL").run(), Ok(Value::Null));
    host.stop();
    host.resync = Duration::from_millis(100);
    host.start();
    host.assert_clean();
}

fn repairs(host: &Host) -> u64 {
    repairs_of(&crate::agent::get(host, "/metrics"))
}

/// How many attachments were mended.
fn repairs_of(metrics: &str) -> u64 {
    let counts = metrics.lines().filter_map(|line| line.strip_prefix("holdfast_attachment_repairs_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn on_a_linux_bridge() {
    let mut host = host(false);
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &limited(&host, "linux-bridge"));
    call.run().unwrap();
    let end = host.host_ends().remove(0);
    let commands = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| line.replace("END", &end)).collect();
        move |host: &mut Host| lines.iter().for_each(|line| drop(host.netns.run(line)))
    };
    for (what, lines) in [
        ("the port unplugged", &["ip link set END nomaster"][..]),
        ("the port down", &["ip link set END down"]),
        ("another MTU", &["ip link set END mtu 1300"]),
        ("the pair deleted", &["ip link delete END"]),
        (
            "the bridge deleted and made again",
            &["ip link delete br0", "ip link add br0 type bridge", "ip link set br0 up"],
        ),
        ("what limits the port removed", &["tc qdisc delete dev END root"]),
        ("the table of port security deleted", &["nft delete table bridge holdfast"]),
        ("a set of port security emptied", &["nft flush set bridge holdfast ports"]),
        ("the rules of port security emptied", &["nft flush chain bridge holdfast port-security"]),
    ] {
        heals(&mut host, &pod, "linux-bridge", what, commands(lines));
    }
    heals(&mut host, &pod, "linux-bridge", "the pod's address deleted", |_| drop(pod.run("ip address flush dev net1")));
    heals(&mut host, &pod, "linux-bridge", "what limits the pod removed", |_| {
        drop(pod.run("tc qdisc delete dev net1 root"));
    });
    heals(&mut host, &pod, "linux-bridge", "the pod's end deleted", |_| drop(pod.run("ip link delete net1")));
    removed(&mut host, &call);
}

#[test]
fn on_open_vswitch() {
    const OURS: &str = "cookie=0x4846535400000000/0xffffffff00000000";
    let mut host = host(true);
    let pod = host.pod();
    let call = Call::new("c", &pod.path, &limited(&host, "ovs"));
    call.run().unwrap();
    let end = host.host_ends().remove(0);
    for (what, line) in [
        ("the port deleted", format!("del-port {end}")),
        ("another VLAN", format!("set port {end} tag=99")),
        ("the bridge's ports cleared", "clear bridge ovs0 ports".to_owned()),
        ("the pair deleted", format!("LINK delete {end}")),
        ("the pair down", format!("LINK set {end} down")),
        ("what limits the port removed", format!("QUEUE delete dev {end} root")),
    ] {
        heals(&mut host, &pod, "ovs", what, |host| match line.split_once(' ') {
            Some(("LINK", rest)) => drop(host.netns.run(&format!("ip link {rest}"))),
            Some(("QUEUE", rest)) => drop(host.netns.run(&format!("tc qdisc {rest}"))),
            _ => drop(host.ovs().vsctl(&line).unwrap()),
        });
    }
    heals(&mut host, &pod, "ovs", "our flows deleted", |host| drop(host.ovs().ofctl("del-flows", OURS)));
    heals(&mut host, &pod, "ovs", "the bridge deleted and made again", |host| {
        host.remove_bridge("ovs");
        host.ovs().add_bridge(&host.netns);
    });
    heals(&mut host, &pod, "ovs", "Open vSwitch restarted", |host| {
        host.stop_ovs();
        host.start_ovs();
    });
    heals(&mut host, &pod, "ovs", "the database emptied", |host| {
        host.stop_ovs();
        host.start_ovs_anew();
    });
    removed(&mut host, &call);
}
