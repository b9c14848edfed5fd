//! What the machine's kernel can do, as far as tests depend on it: printed before they run, so that a suite that
//! leaves something out can be understood from its output.

use std::path::Path;
use std::time::Duration;

use crate::process::Program;

/// Something that a kernel has or lacks.
struct Probe {
    name: &'static str,
    what_for: &'static str,
    test: Test,
}

/// How it is found out.
enum Test {
    /// `ip link add` with these words works, in a network namespace of its own.
    Link(&'static str),
    /// nft takes these lines, in a network namespace of its own.
    Nft(&'static str),
    /// This file is there.
    File(&'static str),
}

const PROBES: &[Probe] = &[
    Probe { name: "veth", what_for: "every attachment", test: Test::Link("t0 type veth peer name t1") },
    Probe { name: "bridge", what_for: "pods and Linux bridges", test: Test::Link("t0 type bridge") },
    Probe { name: "tun", what_for: "the taps of guests", test: Test::File("/dev/net/tun") },
    Probe {
        name: "kvm device",
        what_for: "guests at full speed (whether it works, the agent finds out)",
        test: Test::File("/dev/kvm"),
    },
    Probe { name: "vhost-net", what_for: "guests' traffic at full speed", test: Test::File("/dev/vhost-net") },
    Probe { name: "openvswitch", what_for: "OVS bridges in the kernel", test: Test::File("/sys/module/openvswitch") },
    Probe { name: "dummy", what_for: "nothing; a veth's end stands in", test: Test::Link("t0 type dummy") },
    Probe {
        name: "vlan filtering",
        what_for: "VLANs on Linux bridges",
        test: Test::Link("t0 type bridge vlan_filtering 1"),
    },
    Probe {
        name: "macvtap",
        what_for: "the macvtap backend",
        test: Test::Link("t0 type veth peer name t1; ip link add t2 link t0 type macvtap"),
    },
    Probe {
        name: "nft NAT",
        what_for: "masquerade",
        test: Test::Nft("table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }"),
    },
    Probe {
        name: "nft bridge",
        what_for: "filters on bridges",
        test: Test::Nft("table bridge t { chain c { type filter hook forward priority 0; udp dport 67 drop; }; }"),
    },
    Probe {
        name: "cgroup v2",
        what_for: "limits of a VM's memory",
        test: Test::File("/sys/fs/cgroup/cgroup.controllers"),
    },
];

/// Prints each probe with its verdict.
pub fn print() {
    for probe in PROBES {
        let verdict = if holds(&probe.test) { "yes" } else { "no" };
        println!("probe: {:15} {verdict:4} {}", probe.name, probe.what_for);
    }
}

fn holds(test: &Test) -> bool {
    let apart = |script: String| {
        let program = Program::new("unshare").args(["--net", "sh", "-e", "-c", &script]);
        program.deadline(Duration::from_secs(10)).succeeds()
    };
    match test {
        Test::Link(words) => apart(format!("ip link add {words}")),
        Test::Nft(lines) => apart(format!("nft '{lines}'")),
        Test::File(path) => Path::new(path).exists(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_works_from_what_does_not() {
        assert!(holds(&Test::Link("t0 type veth peer name t1")));
        assert!(!holds(&Test::Link("t0 type nonsense")));
        assert!(holds(&Test::Nft("table ip t { }")));
        assert!(!holds(&Test::Nft("table nonsense t { }")));
        assert!(!holds(&Test::File("/nonsense")));
    }
}
