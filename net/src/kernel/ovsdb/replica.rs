//! Our copy of the parts of database Open_vSwitch that we read, kept up to date by the monitor's updates.
//!
//! Updates are those of monitor_cond (ovsdb-server(7), "Update2"): initial and inserted rows are whole, a modified one
//! has the new value of a column with at most one element, and for other columns the elements that are to be toggled.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};

use crate::mark::{OVS_ATTACHMENT, OVS_OWNER, OVS_SECURED};
use crate::model::{AttachmentId, TunnelProtocol, Vlan};
use crate::observed::{ObservedBridge, ObservedOvs, ObservedPort};

/// Tables and columns.
const MONITORED: [(&str, &[&str]); 4] = [
    ("Open_vSwitch", &["other_config"]),
    ("Bridge", &["name", "datapath_type", "ports"]),
    ("Port", &["name", "interfaces", "tag", "trunks", "cvlans", "vlan_mode", "other_config", "external_ids"]),
    ("Interface", &["name", "ofport", "mtu", "error"]),
];

/// Key in `other_config` of a port of the Ethernet type of the outer tag.
const QINQ_ETHTYPE: &str = "qinq-ethtype";

/// A row: column -> its elements. A map's elements are its pairs.
type Row = HashMap<String, BTreeSet<Element>>;

/// An element of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Text(String),
    Number(i64),
    Pair(String, String),
}

/// The copy.
#[derive(Debug, Default)]
pub struct Replica {
    /// The one row of the switch itself.
    switch: HashMap<String, Row>,
    bridges: HashMap<String, Row>,
    ports: HashMap<String, Row>,
    /// The ports' identities by their names, of which there is one of each: many ask for theirs at each update.
    by_name: HashMap<String, String>,
    interfaces: HashMap<String, Row>,
}

/// What an update is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These ports, and nothing else.
    Ports(BTreeSet<String>),
    /// A bridge itself.
    Bridges,
}

impl Touched {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ports(mut names), Self::Ports(more)) => {
                names.extend(more);
                Self::Ports(names)
            }
            _ => Self::Bridges,
        }
    }
}

/// How the switch sees a port's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attached {
    /// It has not looked at it yet.
    Pending,
    /// It took it in, under this number.
    Yes(u32),
    /// It could not; in its words.
    Failed(String),
}

/// What to monitor, as monitor_cond takes it.
pub(super) fn monitor_request() -> Value {
    let tables = MONITORED.map(|(table, columns)| (table.to_owned(), json!([{ "columns": columns }])));
    Value::Object(Map::from_iter(tables))
}

impl Replica {
    /// Applies the updates of one message, and says what they touched.
    pub fn update(&mut self, updates: &Value) -> Touched {
        let before = self.touched(updates);
        self.apply(updates);
        before.and(self.touched(updates))
    }

    /// What updates are about, as far as the names are known at this moment.
    fn touched(&self, updates: &Value) -> Touched {
        let rows = |table: &str| updates.get(table).and_then(Value::as_object).into_iter().flatten();
        let mut names = BTreeSet::new();
        if rows("Open_vSwitch").next().is_some() {
            return Touched::Bridges;
        }
        for (_, change) in rows("Bridge") {
            let columns = change.get("modify").and_then(Value::as_object);
            let Some(ports) = columns.filter(|columns| columns.len() == 1).and_then(|columns| columns.get("ports"))
            else {
                return Touched::Bridges;
            };
            let ports = elements(ports).into_iter().filter_map(|element| match element {
                Element::Text(uuid) => self.ports.get(&uuid).and_then(|row| text(row, "name")),
                Element::Number(_) | Element::Pair(..) => None,
            });
            names.extend(ports.map(str::to_owned));
        }
        for (table, known) in [("Port", &self.ports), ("Interface", &self.interfaces)] {
            let changed = rows(table).filter_map(|(uuid, _)| text(known.get(uuid)?, "name"));
            names.extend(changed.map(str::to_owned));
        }
        Touched::Ports(names)
    }

    fn apply(&mut self, updates: &Value) {
        for (table, rows) in [
            ("Open_vSwitch", &mut self.switch),
            ("Bridge", &mut self.bridges),
            ("Port", &mut self.ports),
            ("Interface", &mut self.interfaces),
        ] {
            let Some(changes) = updates.get(table).and_then(Value::as_object) else { continue };
            for (uuid, change) in changes {
                update_row(rows, uuid, change);
            }
        }
        for uuid in updates.get("Port").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            match self.ports.get(uuid).and_then(|row| text(row, "name")) {
                Some(name) => _ = self.by_name.insert(name.to_owned(), uuid.clone()),
                None => self.by_name.retain(|_, of| of != uuid),
            }
        }
    }

    /// The bridge that has this port, by name.
    fn bridge_of(&self, port: &str) -> Option<&str> {
        let element = Element::Text(port.to_owned());
        let bridge =
            self.bridges.values().find(|row| row.get("ports").is_some_and(|ports| ports.contains(&element)))?;
        text(bridge, "name")
    }

    /// The port of this name and its row.
    fn port(&self, name: &str) -> Option<(&String, &Row)> {
        self.ports.get_key_value(self.by_name.get(name)?)
    }

    /// How the switch sees the interface of this port.
    pub(super) fn attached(&self, name: &str) -> Option<Attached> {
        let (_, port) = self.port(name)?;
        let interfaces = port.get("interfaces")?.iter().filter_map(|element| match element {
            Element::Text(uuid) => self.interfaces.get(uuid),
            Element::Number(_) | Element::Pair(..) => None,
        });
        let mut state = Attached::Pending;
        for interface in interfaces {
            // -1 and whatever else is no number in OpenFlow: the switch has not taken it in.
            let number = number(interface, "ofport").and_then(|number| u32::try_from(number).ok());
            match (number, text(interface, "error")) {
                (Some(number @ 1..), _) => state = Attached::Yes(number),
                (_, Some(error)) => return Some(Attached::Failed(error.to_owned())),
                (_, None) => return Some(Attached::Pending),
            }
        }
        Some(state)
    }

    /// The port of a bridge that has this number.
    pub(super) fn port_of(&self, bridge: &str, number: u32) -> Option<String> {
        let has_it = |row: &&Row| self::number(row, "ofport") == Some(number.into());
        let names = self.interfaces.values().filter(has_it).filter_map(|row| text(row, "name"));
        let mut here = names.filter(|name| self.port(name).and_then(|(uuid, _)| self.bridge_of(uuid)) == Some(bridge));
        here.next().map(str::to_owned)
    }

    /// The ports of a bridge without a mark of ours, with the smallest MTU of their interfaces; without the bridge's own.
    pub(super) fn foreign_ports(&self, bridge: &str) -> BTreeMap<String, u32> {
        let rows = self.bridges.values().filter(|row| text(row, "name") == Some(bridge));
        let ports = rows.flat_map(|row| uuids(row, "ports")).filter_map(|uuid| self.ports.get(uuid));
        let foreign = ports.filter(|row| pair(row, OVS_ATTACHMENT).is_none());
        let with_mtu = foreign.filter_map(|row| {
            let name = text(row, "name").filter(|name| *name != bridge)?;
            let interfaces = uuids(row, "interfaces").filter_map(|uuid| self.interfaces.get(uuid));
            let mtus = interfaces.filter_map(|row| number(row, "mtu").and_then(|mtu| u32::try_from(mtu).ok()));
            Some((name.to_owned(), mtus.min()?))
        });
        with_mtu.collect()
    }

    /// The names of all bridges.
    pub(super) fn bridge_names(&self) -> Vec<String> {
        self.bridges.values().filter_map(|row| text(row, "name").map(str::to_owned)).collect()
    }

    /// The names of the bridges with ports of which we say that they have flows of ours.
    pub(super) fn secured_bridges(&self) -> BTreeSet<String> {
        let secured = self.ports.iter().filter(|(_, row)| pair(row, OVS_SECURED).is_some());
        secured.filter_map(|(uuid, _)| self.bridge_of(uuid)).map(str::to_owned).collect()
    }

    /// The numbers of the ports of a bridge of which we say that they have flows of ours.
    pub(super) fn secured_numbers(&self, bridge: &str) -> BTreeSet<u32> {
        let secured = self.ports.iter().filter(|(_, row)| pair(row, OVS_SECURED).is_some());
        let here = secured.filter(|(uuid, _)| self.bridge_of(uuid) == Some(bridge));
        let attached = here.filter_map(|(_, row)| self.attached(text(row, "name")?));
        let number = |attached| match attached {
            Attached::Yes(number) => Some(number),
            Attached::Pending | Attached::Failed(_) => None,
        };
        attached.filter_map(number).collect()
    }

    /// What is known of these bridges and ports.
    pub fn observe(&self, bridges: &BTreeSet<String>, ports: &BTreeSet<String>) -> ObservedOvs {
        let bridges = self.bridges.values().filter_map(|row| {
            let name = text(row, "name").filter(|name| bridges.contains(*name))?;
            let userspace = text(row, "datapath_type") == Some("netdev");
            Some((name.to_owned(), ObservedBridge { userspace }))
        });
        let ports = ports.iter().filter_map(|name| {
            let (uuid, row) = self.port(name)?;
            let attached = self.attached(name);
            let port = ObservedPort {
                uuid: uuid.clone(),
                bridge: self.bridge_of(uuid)?.to_owned(),
                vlan: vlan(row),
                attachment: pair(row, OVS_ATTACHMENT).and_then(|id| id.parse().ok()),
                owner: pair(row, OVS_OWNER).unwrap_or_default().to_owned(),
                number: match attached {
                    Some(Attached::Yes(number)) => Some(number),
                    Some(Attached::Pending | Attached::Failed(_)) | None => None,
                },
                secured: pair(row, OVS_SECURED).is_some(),
                flows: None,
                error: match attached {
                    Some(Attached::Failed(error)) => Some(error),
                    Some(Attached::Pending | Attached::Yes(_)) | None => None,
                },
            };
            Some((name.clone(), port))
        });
        ObservedOvs { bridges: bridges.collect(), ports: ports.collect(), two_tags: self.two_tags() }
    }

    /// Whether the switch looks at two VLAN tags of a frame (ovs-vswitchd.conf.db(5), `vlan-limit`): 0 is as many as it
    /// can, and nothing is one.
    fn two_tags(&self) -> bool {
        let limit =
            self.switch.values().find_map(|row| pair_of(row, "other_config", "vlan-limit")?.parse::<u32>().ok());
        limit.is_some_and(|limit| limit != 1)
    }

    /// The attachments that our marks name.
    pub fn attachments(&self) -> BTreeSet<AttachmentId> {
        self.ports.values().filter_map(|row| pair(row, OVS_ATTACHMENT)?.parse().ok()).collect()
    }
}

fn update_row(rows: &mut HashMap<String, Row>, uuid: &str, change: &Value) {
    let columns = |kind: &str| change.get(kind).and_then(Value::as_object);
    if let Some(whole) = columns("initial").or_else(|| columns("insert")) {
        rows.insert(uuid.to_owned(), whole.iter().map(|(column, value)| (column.clone(), elements(value))).collect());
    } else if let Some(modified) = columns("modify") {
        let row = rows.entry(uuid.to_owned()).or_default();
        for (column, value) in modified {
            modify(row.entry(column.clone()).or_default(), column, elements(value));
        }
    } else if change.get("delete").is_some() {
        rows.remove(uuid);
    }
}

fn modify(present: &mut BTreeSet<Element>, column: &str, change: BTreeSet<Element>) {
    match column {
        "ports" | "interfaces" | "trunks" | "cvlans" => {
            for element in change {
                if !present.remove(&element) {
                    present.insert(element);
                }
            }
        }
        // A pair that is there goes; another value for its key replaces it.
        "external_ids" | "other_config" => {
            for element in change {
                let Element::Pair(key, _) = &element else { continue };
                let unchanged = present.contains(&element);
                present.retain(|other| !matches!(other, Element::Pair(other, _) if other == key));
                if !unchanged {
                    present.insert(element);
                }
            }
        }
        _ => *present = change,
    }
}

/// The elements of a value (RFC 7047, section 5.1): an atom, a set or a map.
fn elements(value: &Value) -> BTreeSet<Element> {
    if let Some([kind, inner]) = value.as_array().map(Vec::as_slice) {
        match (kind.as_str(), inner.as_array()) {
            (Some("set"), Some(inner)) => return inner.iter().filter_map(atom).collect(),
            (Some("map"), Some(inner)) => {
                let pairs = inner.iter().filter_map(|pair| match pair.as_array()?.as_slice() {
                    [Value::String(key), Value::String(value)] => Some(Element::Pair(key.clone(), value.clone())),
                    _ => None,
                });
                return pairs.collect();
            }
            _ => {}
        }
    }
    atom(value).into_iter().collect()
}

fn atom(value: &Value) -> Option<Element> {
    match value {
        Value::String(text) => Some(Element::Text(text.clone())),
        Value::Number(number) => number.as_i64().map(Element::Number),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(kind), Value::String(uuid)] if kind == "uuid" => Some(Element::Text(uuid.clone())),
            _ => None,
        },
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}

fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column)?.iter().find_map(|element| match element {
        Element::Text(text) => Some(text.as_str()),
        Element::Number(_) | Element::Pair(..) => None,
    })
}

/// The rows that a column names.
fn uuids<'a>(row: &'a Row, column: &str) -> impl Iterator<Item = &'a String> {
    row.get(column).into_iter().flatten().filter_map(|element| match element {
        Element::Text(uuid) => Some(uuid),
        Element::Number(_) | Element::Pair(..) => None,
    })
}

fn numbers(row: &Row, column: &str) -> Vec<i64> {
    let elements = row.get(column).into_iter().flatten();
    elements
        .filter_map(|element| match element {
            Element::Number(number) => Some(*number),
            Element::Text(_) | Element::Pair(..) => None,
        })
        .collect()
}

fn number(row: &Row, column: &str) -> Option<i64> {
    numbers(row, column).first().copied()
}

fn pair<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    pair_of(row, "external_ids", key)
}

fn pair_of<'a>(row: &'a Row, column: &str, key: &str) -> Option<&'a str> {
    row.get(column)?.iter().find_map(|element| match element {
        Element::Pair(found, value) if found == key => Some(value.as_str()),
        Element::Pair(..) | Element::Text(_) | Element::Number(_) => None,
    })
}

/// A port's VLAN, where it is one of the combinations that we set.
fn vlan(row: &Row) -> Option<Vlan> {
    let tag = |number: i64| u16::try_from(number).ok();
    let native = number(row, "tag").and_then(tag);
    let tags: Vec<u16> = numbers(row, "trunks").into_iter().filter_map(tag).collect();
    let customers = numbers(row, "cvlans").into_iter().filter_map(tag).collect();
    let protocol = match pair_of(row, "other_config", QINQ_ETHTYPE) {
        None => Some(TunnelProtocol::default()),
        Some(name) => [TunnelProtocol::Ieee8021ad, TunnelProtocol::Ieee8021q].into_iter().find(|it| it.name() == name),
    };
    match (text(row, "vlan_mode"), native, tags.is_empty()) {
        (None, None, true) => Some(Vlan::Untagged),
        (Some("access"), Some(tag), true) => Some(Vlan::Access(tag)),
        (Some("trunk"), None, false) => Some(Vlan::Trunk { tags, native: None }),
        (Some("native-untagged"), Some(native), false) => Some(Vlan::Trunk { tags, native: Some(native) }),
        (Some("dot1q-tunnel"), Some(outer), true) => Some(Vlan::Tunnel { outer, customers, protocol: protocol? }),
        _ => None,
    }
}

/// The columns of a port's VLAN.
pub(super) fn vlan_columns(vlan: &Vlan) -> BTreeMap<&'static str, Value> {
    let none = || json!(["set", []]);
    let set = |tags: &[u16]| json!(["set", tags.iter().collect::<BTreeSet<_>>()]);
    let (mode, tag, trunks, customers) = match vlan {
        Vlan::Untagged => (none(), none(), none(), none()),
        Vlan::Access(tag) => (json!("access"), json!(tag), none(), none()),
        Vlan::Trunk { tags, native: None } => (json!("trunk"), none(), set(tags), none()),
        Vlan::Trunk { tags, native: Some(native) } => (json!("native-untagged"), json!(native), set(tags), none()),
        Vlan::Tunnel { outer, customers, protocol: _ } => (json!("dot1q-tunnel"), json!(outer), none(), set(customers)),
    };
    let mut columns = BTreeMap::from([("vlan_mode", mode), ("tag", tag), ("trunks", trunks), ("cvlans", customers)]);
    if let Vlan::Tunnel { protocol, .. } = vlan {
        columns.insert("other_config", json!(["map", [[QINQ_ETHTYPE, protocol.name()]]]));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn follows_inserts_modifications_and_deletions() {
        let mut replica = Replica::default();
        replica.update(&json!({
            "Bridge": {"b1": {"initial": {"name": "br0", "datapath_type": "netdev", "ports": ["uuid", "p1"]}}},
            "Port": {"p1": {"initial": {"name": "br0", "interfaces": ["uuid", "i1"], "tag": ["set", []],
                "trunks": ["set", []], "vlan_mode": ["set", []], "external_ids": ["map", []]}}},
            "Interface": {"i1": {"initial": {"name": "br0", "ofport": 65534, "error": ["set", []]}}},
        }));
        let touched = replica.update(&json!({
            "Bridge": {"b1": {"modify": {"ports": ["set", [["uuid", "p2"]]]}}},
            "Port": {"p2": {"insert": {"name": "hf1", "interfaces": ["uuid", "i2"], "tag": 7, "vlan_mode": "access",
                "external_ids": ["map", [["holdfast.io/attachment", "c/eth0"], ["x", "y"]]]}}},
            "Interface": {"i2": {"insert": {"name": "hf1"}}},
        }));
        assert_eq!(touched, Touched::Ports(names(&["hf1"])));
        assert_eq!(replica.attached("hf1"), Some(Attached::Pending));
        let observed = replica.observe(&names(&["br0"]), &names(&["hf1"]));
        assert!(observed.bridges["br0"].userspace);
        let port = &observed.ports["hf1"];
        assert_eq!((port.bridge.as_str(), &port.vlan), ("br0", &Some(Vlan::Access(7))));
        assert_eq!(port.attachment.as_ref().unwrap().to_string(), "c/eth0");

        replica.update(&json!({
            "Interface": {"i2": {"modify": {"ofport": -1, "error": "no such device"}}},
            "Port": {"p2": {"modify": {"external_ids":
                ["map", [["x", "y"], ["holdfast.io/attachment", "c/eth1"], ["holdfast.io/owner", "ns/pod/net"]]]}}},
        }));
        assert_eq!(replica.attached("hf1"), Some(Attached::Failed("no such device".into())));
        let port = &replica.observe(&names(&[]), &names(&["hf1"])).ports["hf1"];
        assert_eq!(port.attachment.as_ref().unwrap().to_string(), "c/eth1");
        assert_eq!(port.owner, "ns/pod/net");
        assert_eq!(pair(&replica.ports["p2"], "x"), None);

        replica.update(&json!({"Interface": {"i2": {"modify": {"ofport": 1_u64 << 32, "error": ["set", []]}}}}));
        assert_eq!(replica.attached("hf1"), Some(Attached::Pending));
        replica.update(&json!({"Interface": {"i2": {"modify": {"ofport": 3}}}}));
        assert_eq!(replica.attached("hf1"), Some(Attached::Yes(3)));
        assert_eq!(replica.port_of("br0", 3).as_deref(), Some("hf1"));
        assert_eq!(replica.port_of("br1", 3), None);
        let touched = replica.update(&json!({
            "Bridge": {"b1": {"modify": {"ports": ["uuid", "p2"]}}},
            "Port": {"p2": {"delete": null}},
            "Interface": {"i2": {"delete": null}},
        }));
        assert_eq!(touched, Touched::Ports(names(&["hf1"])));
        assert_eq!(replica.update(&json!({"Bridge": {"b1": {"modify": {"name": "br9"}}}})), Touched::Bridges);
        assert_eq!(replica.update(&json!({"Bridge": {"b1": {"modify": {"name": "br0"}}}})), Touched::Bridges);
        assert_eq!(replica.attached("hf1"), None);
        assert_eq!(replica.bridge_of("p1"), Some("br0"));
        assert!(replica.attachments().is_empty());
    }

    #[test]
    fn reads_the_vlans_that_it_writes() {
        for vlan in [
            Vlan::Untagged,
            Vlan::Access(1),
            Vlan::Trunk { tags: vec![2, 4094], native: None },
            Vlan::Trunk { tags: vec![2], native: Some(3) },
            Vlan::Tunnel { outer: 9, customers: Vec::new(), protocol: TunnelProtocol::Ieee8021ad },
            Vlan::Tunnel { outer: 9, customers: vec![2, 4094], protocol: TunnelProtocol::Ieee8021q },
        ] {
            let row: Row =
                vlan_columns(&vlan).into_iter().map(|(column, value)| (column.to_owned(), elements(&value))).collect();
            assert_eq!(super::vlan(&row), Some(vlan));
        }
    }
}
