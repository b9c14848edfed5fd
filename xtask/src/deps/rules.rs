//! Which part may depend on which, and why. ARCHITECTURE.md tells the same in a picture.

/// What a package of ours may depend on, of ours.
pub struct Direction {
    /// The package.
    pub package: &'static str,
    /// Packages of ours that it may use.
    pub may_use: &'static [&'static str],
    /// Why so, and no more.
    pub reason: &'static str,
}

/// One entry for each package of the workspace.
pub const DIRECTIONS: &[Direction] = &[
    Direction {
        package: "holdfast-api",
        may_use: &[],
        reason: "types and decisions are pure: whoever needs them gets nothing else with them",
    },
    Direction {
        package: "holdfast-net",
        may_use: &[],
        reason: "wiring knows attachments and links, and nothing of VMs or Kubernetes",
    },
    Direction {
        package: "holdfast-agent-api",
        may_use: &["holdfast-net"],
        reason: "messages carry the wiring's model types",
    },
    Direction {
        package: "holdfast-cni",
        may_use: &["holdfast-agent-api"],
        reason: "the plugin forwards a call, and decides nothing",
    },
    Direction {
        package: "holdfast-launcher",
        may_use: &["holdfast-api", "holdfast-agent-api", "holdfast-net"],
        reason: "a launcher turns a VMI and its guest NICs into a domain; it knows no agent",
    },
    Direction {
        package: "holdfast-ipam",
        may_use: &["holdfast-api", "holdfast-agent-api", "holdfast-net"],
        reason: "addresses are taken by controllers and by agents alike, in the words of messages and model",
    },
    Direction {
        package: "holdfast-agent",
        may_use: &["holdfast-api", "holdfast-agent-api", "holdfast-ipam", "holdfast-net"],
        reason: "the agent speaks to launchers by messages only, and knows no API server",
    },
    Direction {
        package: "holdfast-kubernetes",
        may_use: &["holdfast-api", "holdfast-ipam"],
        reason: "what all clients of an API server share; it keeps leases as objects",
    },
    Direction {
        package: "holdfast-operator",
        may_use: &["holdfast-api", "holdfast-kubernetes"],
        reason: "the operator writes objects, and touches no node",
    },
    Direction {
        package: "holdfast-api-server",
        may_use: &["holdfast-api", "holdfast-kubernetes"],
        reason: "virt-api admits objects by api's functions, and reaches a node by virt-handler only",
    },
    Direction {
        package: "holdfast-controllers",
        may_use: &["holdfast-api", "holdfast-ipam", "holdfast-kubernetes", "holdfast-net"],
        reason: "controllers turn objects into objects, and touch no node; of net they use the model",
    },
    Direction {
        package: "holdfast-controller",
        may_use: &["holdfast-api-server", "holdfast-controllers", "holdfast-operator"],
        reason: "one program with three roles",
    },
    Direction {
        package: "holdfast-node",
        may_use: &["holdfast-agent", "holdfast-api", "holdfast-kubernetes"],
        reason: "device plugins, labels and the CNI installation know the node, and no VM",
    },
    Direction {
        package: "holdfast-handler",
        may_use: &[
            "holdfast-agent",
            "holdfast-agent-api",
            "holdfast-api",
            "holdfast-ipam",
            "holdfast-kubernetes",
            "holdfast-net",
            "holdfast-node",
        ],
        reason: "the handler embeds the agent, as standalone does, with the API server in the place of a folder",
    },
    Direction {
        package: "holdfast-standalone",
        may_use: &["holdfast-agent", "holdfast-agent-api", "holdfast-api", "holdfast-ipam", "holdfast-net"],
        reason: "standalone embeds the agent, and hands its inputs on in the types of messages and model",
    },
    Direction {
        package: "holdfast-cli",
        may_use: &["holdfast-api"],
        reason: "the command line speaks the API, as any client does",
    },
    Direction {
        package: "holdfast-cluster-tests",
        may_use: &[],
        reason: "the suite on a cluster sees what a user sees: the API server, programs, the network",
    },
    Direction {
        package: "holdfast-parser-tests",
        may_use: &[
            "holdfast-agent",
            "holdfast-agent-api",
            "holdfast-api",
            "holdfast-ipam",
            "holdfast-launcher",
            "holdfast-net",
        ],
        reason: "the checks of parsers see those that read foreign bytes, and nobody uses them",
    },
    Direction {
        package: "xtask",
        may_use: &["holdfast-api"],
        reason: "xtask writes the CRDs; it builds on a bare machine",
    },
];

/// A crate that must not be in the tree of a package, not even by others.
pub struct Forbidden {
    /// The package, built by itself with its default features.
    pub package: &'static str,
    /// The crate.
    pub krate: &'static str,
    /// Why not.
    pub reason: &'static str,
}

/// Crates that are kept out.
pub const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        package: "holdfast-cni",
        krate: "tokio",
        reason: "the plugin is executed for each attachment: it starts in a millisecond and makes one call",
    },
    Forbidden { package: "holdfast-cni", krate: "kube", reason: "the plugin knows the agent, and no API server" },
    Forbidden { package: "holdfast-net", krate: "tokio", reason: "without the feature `kernel`, net is pure" },
    Forbidden { package: "holdfast-net", krate: "kube", reason: "net knows nothing of Kubernetes" },
    Forbidden { package: "holdfast-api", krate: "tokio", reason: "api is pure" },
    Forbidden { package: "holdfast-agent", krate: "hyper-rustls", reason: "the agent knows no API server" },
    Forbidden { package: "holdfast-controllers", krate: "netlink-packet-route", reason: "controllers touch no node" },
    Forbidden { package: "xtask", krate: "virt", reason: "xtask installs libvirt, so it cannot need it" },
];

/// A crate with effects, and the one place that may use it.
pub struct Confined {
    /// The crate, as it is written in code.
    pub krate: &'static str,
    /// The one package that may depend on it.
    pub package: &'static str,
    /// The one folder of that package's sources that may name it.
    pub folder: &'static str,
}

/// Crates with effects.
pub const CONFINED: &[Confined] = &[
    Confined { krate: "rtnetlink", package: "holdfast-net", folder: "src/kernel" },
    Confined { krate: "netlink_packet_route", package: "holdfast-net", folder: "src/kernel" },
    Confined { krate: "nftables", package: "holdfast-net", folder: "src/kernel" },
    Confined { krate: "virt", package: "holdfast-launcher", folder: "src/libvirt" },
    Confined { krate: "virt_sys", package: "holdfast-launcher", folder: "src/libvirt" },
];
