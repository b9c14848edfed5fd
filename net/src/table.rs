//! nftables tables of ours, as values: few matches and verdicts, all that the bindings and the gateway need.
//!
//! Invariant: the text of a [`Rule`] says all of it. The kernel keeps that text as the rule's comment, so that a rule
//! that is read back is compared by its comment and nothing ever parses nftables expressions.

use std::fmt;

use ipnetwork::IpNetwork;
use std::net::IpAddr;

use crate::model::{IfName, Protocol};

/// Protocol family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6 on their way through the stack.
    Inet,
    /// Frames on their way through a bridge.
    Bridge,
}

impl Family {
    /// Its name in nftables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

/// A table: one base chain per hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Chains in the order of the hooks, each with at least one rule.
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Where it sits; also its name and, with it, its type and priority.
    pub hook: Hook,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a chain sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Destination NAT of what comes in (type nat, priority -100).
    Prerouting,
    /// Destination NAT of what starts here (type nat, priority -100).
    Output,
    /// Source NAT of what leaves (type nat, priority 100).
    Postrouting,
    /// Filter of what is forwarded (type filter, priority 0).
    Forward,
}

impl Hook {
    /// Name of the hook and of our chain on it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Forward => "forward",
        }
    }
}

/// A rule: when all of the matches hold, the verdict falls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions.
    pub matches: Vec<Match>,
    /// What happens.
    pub verdict: Verdict,
}

/// A condition on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// It came in through this link.
    Input(IfName),
    /// It leaves through this link.
    Output(IfName),
    /// Its source is in this prefix.
    Source(IpNetwork),
    /// Its destination is in this prefix.
    Destination(IpNetwork),
    /// Its destination is not in this prefix.
    NotDestination(IpNetwork),
    /// Its protocol and source port.
    SourcePort(Protocol, u16),
    /// Its protocol and destination port.
    DestinationPort(Protocol, u16),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is lost.
    Drop,
    /// It gets the address of the link that it leaves through as its source.
    Masquerade,
    /// It gets this source.
    Snat(IpAddr),
    /// It gets this destination.
    Dnat(IpAddr),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "{}", self.verdict)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(link) => write!(f, "in {link}"),
            Self::Output(link) => write!(f, "out {link}"),
            Self::Source(prefix) => write!(f, "from {prefix}"),
            Self::Destination(prefix) => write!(f, "to {prefix}"),
            Self::NotDestination(prefix) => write!(f, "not to {prefix}"),
            Self::SourcePort(protocol, port) => write!(f, "{} from port {port}", name(*protocol)),
            Self::DestinationPort(protocol, port) => write!(f, "{} to port {port}", name(*protocol)),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Snat(address) => write!(f, "snat {address}"),
            Self::Dnat(address) => write!(f, "dnat {address}"),
        }
    }
}

/// A protocol as nftables calls it.
pub(crate) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// What can be read back of a table: chain and comment of each rule, in the kernel's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// (name of the chain, comment of the rule); the comment is empty where there is none.
    pub rules: Vec<(String, String)>,
}

impl Table {
    /// What is read back of this table once it has been applied.
    pub fn as_observed(&self) -> ObservedTable {
        let rules = self
            .chains
            .iter()
            .flat_map(|chain| chain.rules.iter().map(|rule| (chain.hook.name().to_owned(), rule.to_string())))
            .collect();
        ObservedTable { rules }
    }
}
