//! The kinds that can be shown: their names, where they are, and their columns.

use anyhow::bail;
use jiff::Timestamp;
use serde_json::Value;

use crate::age::since;

/// How a column's text is made of an object.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// The text or number at a JSON pointer.
    At(&'static str),
    /// The time since the RFC 3339 time at a JSON pointer.
    Age(&'static str),
    /// The status of the condition of a type.
    Condition(&'static str),
    /// How many fields the objects at these JSON pointers have.
    Count(&'static [&'static str]),
    /// `kind/name` of an event's object.
    Involved,
}

/// A column: heading, content, and whether it is for `-o wide` only.
pub type Column = (&'static str, Cell, bool);

/// A kind.
#[derive(Debug)]
pub struct Kind {
    /// `kind` of its objects.
    pub name: &'static str,
    /// Its names on the command line; the first is the plural.
    pub names: &'static [&'static str],
    /// Its API group; empty for the core group.
    pub group: &'static str,
    version: &'static str,
    namespaced: bool,
    columns: &'static [Column],
}

const CREATED: &str = "/metadata/creationTimestamp";
const LEASE: &[Column] = &[
    ("SEGMENT", Cell::At("/spec/segment"), false),
    ("ADDRESS", Cell::At("/spec/address"), false),
    ("NAMESPACE", Cell::At("/spec/claim/namespace"), false),
    ("HOLDER", Cell::At("/spec/claim/name"), false),
    ("NETWORK", Cell::At("/spec/claim/network"), false),
    ("NODE", Cell::At("/status/node"), false),
    ("AGE", Cell::Age(CREATED), false),
];

/// Every kind that holdfastd serves.
pub const KINDS: [Kind; 9] = [
    Kind {
        name: "VirtualMachine",
        names: &["virtualmachines", "virtualmachine", "vm", "vms"],
        group: "kubevirt.io",
        version: "v1",
        namespaced: true,
        columns: &[
            ("AGE", Cell::Age(CREATED), false),
            ("STATUS", Cell::At("/status/printableStatus"), false),
            ("READY", Cell::Condition("Ready"), false),
        ],
    },
    Kind {
        name: "VirtualMachineInstance",
        names: &["virtualmachineinstances", "virtualmachineinstance", "vmi", "vmis"],
        group: "kubevirt.io",
        version: "v1",
        namespaced: true,
        columns: &[
            ("AGE", Cell::Age(CREATED), false),
            ("PHASE", Cell::At("/status/phase"), false),
            ("IP", Cell::At("/status/interfaces/0/ipAddress"), false),
            ("NODENAME", Cell::At("/status/nodeName"), false),
            ("READY", Cell::Condition("Ready"), false),
            ("LIVE-MIGRATABLE", Cell::Condition("LiveMigratable"), true),
            ("PAUSED", Cell::Condition("Paused"), true),
        ],
    },
    Kind {
        name: "NetworkAttachmentDefinition",
        names: &["network-attachment-definitions", "network-attachment-definition", "net-attach-def", "nad"],
        group: "k8s.cni.cncf.io",
        version: "v1",
        namespaced: true,
        columns: &[("AGE", Cell::Age(CREATED), false)],
    },
    Kind {
        name: "UnderlayNetwork",
        names: &["underlaynetworks", "underlaynetwork", "unet", "unets"],
        group: "holdfast.io",
        version: "v1alpha1",
        namespaced: false,
        columns: &[
            ("SEGMENT", Cell::At("/spec/segment"), false),
            ("BACKEND", Cell::At("/spec/backend"), false),
            ("USED", Cell::At("/status/addresses/used"), false),
            ("TOTAL", Cell::At("/status/addresses/total"), false),
            ("AGE", Cell::Age(CREATED), false),
        ],
    },
    Kind {
        name: "IPLease",
        names: &["ipleases", "iplease", "ipl"],
        group: "holdfast.io",
        version: "v1alpha1",
        namespaced: false,
        columns: LEASE,
    },
    Kind {
        name: "MACLease",
        names: &["macleases", "maclease", "macl"],
        group: "holdfast.io",
        version: "v1alpha1",
        namespaced: false,
        columns: LEASE,
    },
    Kind {
        name: "ConfigMap",
        names: &["configmaps", "configmap", "cm"],
        group: "",
        version: "v1",
        namespaced: true,
        columns: &[("DATA", Cell::Count(&["/data", "/binaryData"]), false), ("AGE", Cell::Age(CREATED), false)],
    },
    Kind {
        name: "Secret",
        names: &["secrets", "secret"],
        group: "",
        version: "v1",
        namespaced: true,
        columns: &[
            ("TYPE", Cell::At("/type"), false),
            ("DATA", Cell::Count(&["/data"]), false),
            ("AGE", Cell::Age(CREATED), false),
        ],
    },
    Kind {
        name: "Event",
        names: &["events", "event", "ev"],
        group: "",
        version: "v1",
        namespaced: true,
        columns: &[
            ("LAST SEEN", Cell::Age("/lastTimestamp"), false),
            ("TYPE", Cell::At("/type"), false),
            ("REASON", Cell::At("/reason"), false),
            ("OBJECT", Cell::Involved, false),
            ("COUNT", Cell::At("/count"), true),
            ("MESSAGE", Cell::At("/message"), false),
        ],
    },
];

impl Kind {
    /// The kind with that name, in any spelling kubectl takes (`vm`, `virtualmachines.kubevirt.io`).
    pub fn find(name: &str) -> anyhow::Result<&'static Self> {
        let lower = name.to_lowercase();
        let (bare, group) = lower.split_once('.').unwrap_or((&lower, ""));
        let fits = |kind: &&Self| {
            kind.names.contains(&bare) && (group.is_empty() || group.trim_start_matches("v1.").ends_with(kind.group))
        };
        match KINDS.iter().find(fits) {
            Some(kind) => Ok(kind),
            None => {
                let known: Vec<&str> = KINDS.iter().map(|kind| kind.names[kind.names.len().min(3) - 1]).collect();
                bail!("the server doesn't have a resource type \"{name}\"; there are {}", known.join(", "))
            }
        }
    }

    /// Whether its objects live in namespaces.
    pub const fn is_namespaced(&self) -> bool {
        self.namespaced
    }

    /// Path of its objects, of one namespace or all, or of one of them.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let place = namespace.filter(|_| self.namespaced).map(|n| format!("/namespaces/{n}")).unwrap_or_default();
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{root}{place}/{}{name}", self.names[0])
    }

    /// How an object is called in messages: `virtualmachine.kubevirt.io/a`.
    pub fn full_name(&self, name: &str) -> String {
        let singular = self.name.to_lowercase();
        match self.group {
            "" => format!("{singular}/{name}"),
            group => format!("{singular}.{group}/{name}"),
        }
    }

    /// The columns after the name.
    pub fn columns(&self, wide: bool) -> impl Iterator<Item = &'static Column> {
        self.columns.iter().filter(move |(.., only_wide)| wide || !only_wide)
    }

    /// Whether its rows begin with the object's name: those of events do not.
    pub fn shows_names(&self) -> bool {
        self.name != "Event"
    }
}

impl Cell {
    /// The text for an object.
    pub fn text(&self, object: &Value, now: Timestamp) -> String {
        match self {
            Self::At(pointer) => match object.pointer(pointer) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            },
            Self::Age(pointer) => since(object.pointer(pointer).and_then(Value::as_str), now),
            Self::Condition(kind) => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                let found = conditions.into_iter().flatten().find(|condition| condition["type"] == *kind);
                found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
            }
            Self::Count(pointers) => {
                let count = |p: &&str| object.pointer(p).and_then(Value::as_object).map_or(0, serde_json::Map::len);
                pointers.iter().map(count).sum::<usize>().to_string()
            }
            Self::Involved => {
                let involved = &object["involvedObject"];
                let text = |field: &str| involved[field].as_str().unwrap_or_default().to_lowercase();
                format!("{}/{}", text("kind"), text("name"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_are_found_by_each_name() {
        for name in ["vm", "VMs", "virtualmachine", "virtualmachines.kubevirt.io", "virtualmachine.v1.kubevirt.io"] {
            assert_eq!(Kind::find(name).unwrap().name, "VirtualMachine", "{name}");
        }
        assert!(Kind::find("pod").unwrap_err().to_string().contains("vmi"));
        let vmi = Kind::find("vmi").unwrap();
        assert_eq!(vmi.path(Some("n"), Some("a")), "/apis/kubevirt.io/v1/namespaces/n/virtualmachineinstances/a");
        let unet = Kind::find("unet").unwrap();
        assert_eq!(unet.path(Some("n"), None), "/apis/holdfast.io/v1alpha1/underlaynetworks");
    }

    #[test]
    fn cells_show_what_is_there() {
        let object = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}], "n": 3}, "data": {"a": 1}});
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(Cell::Condition("Ready").text(&object, now), "True");
        assert_eq!(Cell::At("/status/n").text(&object, now), "3");
        assert_eq!(Cell::At("/nope").text(&object, now), "");
        assert_eq!(Cell::Count(&["/data", "/binaryData"]).text(&object, now), "1");
    }
}
