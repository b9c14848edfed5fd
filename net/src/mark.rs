//! How an object says that it is ours, and the proofs without which no delete can be planned.
//!
//! Invariant: an [`OwnedLink`], [`OwnedPort`] or [`OwnedTable`] can only be made by the observed object that carries
//! our mark, so an `Op` that deletes can only name an object of ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{AttachmentId, IfName};
use crate::table::Family;

/// The interface group (IFLA_GROUP) of every link that we make; set in the message that creates the link, so that no
/// crash leaves one without it. "HFST" in ASCII.
pub const LINK_GROUP: u32 = 0x4846_5354;

/// The interface group of our links that wait for their deletion: one message deletes the whole group.
pub const DOOMED_LINK_GROUP: u32 = LINK_GROUP + 1;

/// The protocol number of our routes and neighbours (RTA_PROTOCOL, NDA_PROTOCOL); unassigned in rt_protos.
pub const ROUTE_PROTOCOL: u8 = 72;

/// Key in OVSDB external_ids of the attachment that a port belongs to: `<container>/<ifname>`.
pub const OVS_ATTACHMENT: &str = "holdfast.io/attachment";

/// Key in OVSDB external_ids of the port's owner, for people: `namespace/pod/network`.
pub const OVS_OWNER: &str = "holdfast.io/owner";

/// Key in OVSDB external_ids of whether a port has flows of ours: `true`.
pub const OVS_SECURED: &str = "holdfast.io/port-security";

/// First part of the name of each of our nftables tables; the rest is the name of a bridge.
const TABLE_PREFIX: &str = "holdfast-";

/// What an object is part of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mark {
    /// One attachment, of this key.
    Attachment(AttachmentId),
    /// One VM interface's binding inside a pod; the name of the interface in the VM's spec.
    Binding(String),
    /// The node: what attachments share, such as a gateway bridge. Goes when nothing uses it.
    Shared,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment(id) => write!(f, "{OVS_ATTACHMENT}={id}"),
            Self::Binding(nic) => write!(f, "holdfast.io/binding={nic}"),
            Self::Shared => f.write_str("holdfast.io/shared"),
        }
    }
}

/// A link alias that is not one of our marks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mark of ours")]
pub struct MarkError(String);

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || MarkError(text.to_owned());
        if text == "holdfast.io/shared" {
            return Ok(Self::Shared);
        }
        match text.split_once('=') {
            Some((OVS_ATTACHMENT, id)) => id.parse().map(Self::Attachment).map_err(|_| bad()),
            Some(("holdfast.io/binding", nic)) if !nic.is_empty() => Ok(Self::Binding(nic.to_owned())),
            Some(_) | None => Err(bad()),
        }
    }
}

/// Whose a link is, as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkMark {
    /// Not ours.
    Foreign,
    /// Ours; a crash came between its creation and its alias, or its deletion has begun.
    Unnamed,
    /// Ours, and part of this.
    Ours(Mark),
}

impl LinkMark {
    /// Reads group and alias of a link.
    pub fn read(group: u32, alias: Option<&str>) -> Self {
        match group {
            LINK_GROUP => alias.and_then(|text| text.parse().ok()).map_or(Self::Unnamed, Self::Ours),
            DOOMED_LINK_GROUP => Self::Unnamed,
            _ => Self::Foreign,
        }
    }
}

/// A link that carried our mark when it was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedLink {
    name: IfName,
    index: u32,
}

impl OwnedLink {
    /// The proof, where the mark is ours.
    pub(crate) fn prove(name: &IfName, index: u32, mark: &LinkMark) -> Option<Self> {
        match mark {
            LinkMark::Foreign => None,
            LinkMark::Unnamed | LinkMark::Ours(_) => Some(Self { name: name.clone(), index }),
        }
    }

    /// Its name.
    pub fn name(&self) -> &IfName {
        &self.name
    }

    /// Its index when it was observed: a link that took its name since then is not meant.
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// An OVS port that carried our mark when it was observed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedPort {
    name: String,
    bridge: String,
    uuid: String,
    flows_of: Option<u32>,
}

impl OwnedPort {
    /// The proof, where the port's external_ids name an attachment of ours.
    pub(crate) fn prove(name: &str, port: &crate::observed::ObservedPort) -> Option<Self> {
        port.attachment.as_ref().map(|_| Self {
            name: name.to_owned(),
            bridge: port.bridge.clone(),
            uuid: port.uuid.clone(),
            flows_of: port.number.filter(|_| port.secured),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bridge that it is a port of.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Its row in table Port.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Its number in OpenFlow, where it has flows of ours.
    pub fn flows_of(&self) -> Option<u32> {
        self.flows_of
    }
}

/// The key of an nftables table of ours: its family and `holdfast-<bridge>`. Every table of such a name is ours: the
/// name is the mark, and there is one table per bridge, never one per port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedTable {
    family: Family,
    name: String,
}

impl OwnedTable {
    /// The table that belongs to a bridge of ours.
    pub fn of_bridge(family: Family, bridge: &IfName) -> Self {
        Self { family, name: format!("{TABLE_PREFIX}{bridge}") }
    }

    /// The table of this name, if it is one of ours.
    pub fn recognise(family: Family, name: &str) -> Option<Self> {
        name.starts_with(TABLE_PREFIX).then(|| Self { family, name: name.to_owned() })
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the bridge that it belongs to.
    pub fn bridge(&self) -> &str {
        self.name.strip_prefix(TABLE_PREFIX).unwrap_or(&self.name)
    }
}

impl fmt::Display for OwnedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_marks_that_it_writes() {
        let id = AttachmentId { container_id: "c1".into(), ifname: "eth0".parse().unwrap() };
        for mark in [Mark::Attachment(id), Mark::Binding("default".into()), Mark::Shared] {
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        for bad in ["", "holdfast.io/attachment=", "holdfast.io/attachment=a", "holdfast.io/binding=", "uplink"] {
            assert!(bad.parse::<Mark>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_link_is_ours_by_its_group_alone() {
        assert_eq!(LinkMark::read(0, Some("holdfast.io/shared")), LinkMark::Foreign);
        assert_eq!(LinkMark::read(LINK_GROUP, None), LinkMark::Unnamed);
        assert_eq!(LinkMark::read(LINK_GROUP, Some("holdfast.io/shared")), LinkMark::Ours(Mark::Shared));
        assert_eq!(LinkMark::read(DOOMED_LINK_GROUP, Some("holdfast.io/shared")), LinkMark::Unnamed);
    }
}
