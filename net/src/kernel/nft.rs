//! nftables: tables of ours are read over netlink, for that takes 0.1 ms and happens in each round, and written by one
//! run of `nft`, for that happens when a bridge is made, and encoding expressions is its trade.

use std::collections::BTreeMap;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use netlink_packet_core::{NlaBuffer, NlasIterator};
use nftables::batch::Batch;
use nftables::expr::{Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::schema::{Chain, NfListObject, Nftables, Rule as NftRule, Table as NftTable};
use nftables::stmt::{Match as NftMatch, NAT, NATFamily, Operator, Statement};
use nftables::types::{NfChainType, NfFamily, NfHook};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::error::{StepError, WiringError};
use super::netlink::{NLM_F_DUMP, Netlink};
use super::netns::Namespace;
use crate::mark::OwnedTable;
use crate::model::Protocol;
use crate::table::{Family, Hook, Match, ObservedTable, Rule, Table, Verdict};

/// How long a run of `nft` may take; it takes 4-7 ms.
const DEADLINE: Duration = Duration::from_secs(10);

/// Message types: subsystem NFNL_SUBSYS_NFTABLES, then NFT_MSG_GETTABLE and NFT_MSG_GETRULE.
const GET_TABLE: u16 = (10 << 8) | 1;
const GET_RULE: u16 = (10 << 8) | 7;
/// Attributes.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_USERDATA: u16 = 7;
/// Length of struct nfgenmsg.
const GENERIC_HEADER: usize = 4;
/// Protocol families.
const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_BRIDGE: u8 = 7;

/// Reads the tables of ours in a namespace.
pub(super) fn observe(netfilter: &mut Netlink) -> io::Result<BTreeMap<OwnedTable, ObservedTable>> {
    let mut tables = BTreeMap::new();
    for (_, answer) in netfilter.exchange(GET_TABLE, NLM_F_DUMP, &[0; GENERIC_HEADER])? {
        let name = text(attribute(&answer, NFTA_TABLE_NAME)?);
        let family = match answer.first() {
            Some(&NFPROTO_INET) => Family::Inet,
            Some(&NFPROTO_BRIDGE) => Family::Bridge,
            Some(_) | None => continue,
        };
        if let Some(table) = OwnedTable::recognise(family, &name) {
            let family = answer.first().copied().unwrap_or_default();
            let observed = observe_rules(netfilter, family, table.name())?;
            tables.insert(table, observed);
        }
    }
    Ok(tables)
}

/// The rules of a table, by their comments; none where there is no such table.
pub(super) fn observe_rules(netfilter: &mut Netlink, family: u8, table: &str) -> io::Result<ObservedTable> {
    let name = table.as_bytes();
    let mut request = vec![family, 0, 0, 0];
    let length = u16::try_from(4 + name.len() + 1).map_err(io::Error::other)?;
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&NFTA_RULE_TABLE.to_ne_bytes());
    request.extend_from_slice(name);
    request.resize((request.len() + 1).next_multiple_of(4), 0);
    let rules = netfilter.exchange(GET_RULE, NLM_F_DUMP, &request)?;
    let rules = rules.into_iter().map(|(_, answer)| read_rule(&answer));
    Ok(ObservedTable { rules: rules.collect::<io::Result<_>>()? })
}

/// Chain and comment of a rule, from the kernel's message about it.
///
/// # Errors
/// What is cut off.
pub fn read_rule(message: &[u8]) -> io::Result<(String, String)> {
    let chain = text(attribute(message, NFTA_RULE_CHAIN)?);
    let comment = attribute(message, NFTA_RULE_USERDATA)?.map(comment).unwrap_or_default();
    Ok((chain, comment))
}

/// The value of an attribute after the generic header.
pub(super) fn attribute(answer: &[u8], wanted: u16) -> io::Result<Option<Vec<u8>>> {
    for attribute in NlasIterator::new(answer.get(GENERIC_HEADER..).unwrap_or_default()) {
        let attribute: NlaBuffer<&[u8]> =
            attribute.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if attribute.kind() == wanted {
            return Ok(Some(attribute.value().to_vec()));
        }
    }
    Ok(None)
}

fn text(value: Option<Vec<u8>>) -> String {
    let value = value.unwrap_or_default();
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(&value)).into_owned()
}

/// The comment in a rule's user data: type 0, length, text with a zero at its end (libnftnl/udata.h).
fn comment(data: Vec<u8>) -> String {
    let mut rest = data.as_slice();
    while let [kind, length, tail @ ..] = rest {
        let Some((value, next)) = tail.split_at_checked(usize::from(*length)) else { break };
        if *kind == 0 {
            return text(Some(value.to_vec()));
        }
        rest = next;
    }
    String::new()
}

/// Brings a table to its whole content in one transaction.
pub(super) async fn replace(
    namespace: &Namespace,
    name: &OwnedTable,
    table: &Table,
) -> Result<Result<(), StepError>, WiringError> {
    run(namespace, &replacement(name, table)).await
}

/// Removes a table; no error where there is none.
pub(super) async fn delete(namespace: &Namespace, name: &OwnedTable) -> Result<Result<(), StepError>, WiringError> {
    let mut batch = Batch::new();
    // Without the first, the second fails where there is none; `destroy` would need a newer nft.
    batch.add(nft_table(name));
    batch.delete(nft_table(name));
    run(namespace, &batch.to_nftables()).await
}

/// Runs nft; the inner error is its refusal.
async fn run(namespace: &Namespace, ruleset: &Nftables<'_>) -> Result<Result<(), StepError>, WiringError> {
    let input = match serde_json::to_vec(ruleset) {
        Ok(input) => input,
        Err(error) => return Ok(Err(StepError::Nft(error.to_string()))),
    };
    let runtime = tokio::runtime::Handle::current();
    let spawn = move |_: &mut _| {
        // A child is born into the namespace of the thread that spawns it; the runtime reaps it.
        let _runtime = runtime.enter();
        Command::new("nft")
            .args(["-j", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    };
    Ok(match namespace.call(spawn).await? {
        Ok(child) => finish(child, &input).await,
        Err(error) => Err(StepError::Kernel(error)),
    })
}

async fn finish(child: Child, input: &[u8]) -> Result<(), StepError> {
    let output = tokio::time::timeout(DEADLINE, feed(child, input))
        .await
        .map_err(|_| StepError::Deadline(DEADLINE))?
        .map_err(StepError::Kernel)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(StepError::Nft(words.lines().next().unwrap_or("failed without a word").to_owned()))
}

async fn feed(mut child: Child, input: &[u8]) -> io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await?;
    }
    child.wait_with_output().await
}

fn replacement<'a>(name: &'a OwnedTable, table: &'a Table) -> Nftables<'a> {
    let mut batch = Batch::new();
    batch.add(nft_table(name));
    batch.delete(nft_table(name));
    batch.add(nft_table(name));
    let family = nft_family(name.family());
    for chain in &table.chains {
        let (kind, hook, priority) = match chain.hook {
            Hook::Prerouting => (NfChainType::NAT, NfHook::Prerouting, -100),
            Hook::Output => (NfChainType::NAT, NfHook::Output, -100),
            Hook::Postrouting => (NfChainType::NAT, NfHook::Postrouting, 100),
            Hook::Forward => (NfChainType::Filter, NfHook::Forward, 0),
        };
        batch.add(NfListObject::Chain(Chain {
            family,
            table: name.name().into(),
            name: chain.hook.name().into(),
            _type: Some(kind),
            hook: Some(hook),
            prio: Some(priority),
            ..Chain::default()
        }));
        for rule in &chain.rules {
            batch.add(NfListObject::Rule(NftRule {
                family,
                table: name.name().into(),
                chain: chain.hook.name().into(),
                expr: statements(rule).into(),
                comment: Some(rule.to_string().into()),
                ..NftRule::default()
            }));
        }
    }
    batch.to_nftables()
}

fn nft_table(name: &OwnedTable) -> NfListObject<'_> {
    NfListObject::Table(NftTable { family: nft_family(name.family()), name: name.name().into(), handle: None })
}

fn nft_family(family: Family) -> NfFamily {
    match family {
        Family::Inet => NfFamily::INet,
        Family::Bridge => NfFamily::Bridge,
    }
}

fn statements(rule: &Rule) -> Vec<Statement<'static>> {
    let nat = |address: std::net::IpAddr| {
        let family = if address.is_ipv4() { NATFamily::IP } else { NATFamily::IP6 };
        let addr = Some(Expression::String(address.to_string().into()));
        Some(NAT { addr, family: Some(family), port: None, flags: None })
    };
    let verdict = match rule.verdict {
        Verdict::Drop => Statement::Drop(None),
        Verdict::Masquerade => Statement::Masquerade(None),
        Verdict::Snat(address) => Statement::SNAT(nat(address)),
        Verdict::Dnat(address) => Statement::DNAT(nat(address)),
    };
    rule.matches.iter().map(|condition| Statement::Match(nft_match(condition))).chain([verdict]).collect()
}

fn nft_match(condition: &Match) -> NftMatch<'static> {
    let meta = |key| Expression::Named(NamedExpression::Meta(Meta { key }));
    let field = |protocol: &'static str, field: &'static str| {
        let field = PayloadField { protocol: protocol.into(), field: field.into() };
        Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
    };
    let address = |prefix: &ipnetwork::IpNetwork, end| field(if prefix.is_ipv4() { "ip" } else { "ip6" }, end);
    let port = |protocol: &Protocol, end| field(crate::table::name(*protocol), end);
    let (left, right, op) = match condition {
        Match::Input(link) => (meta(MetaKey::Iifname), Expression::String(link.to_string().into()), Operator::EQ),
        Match::Output(link) => (meta(MetaKey::Oifname), Expression::String(link.to_string().into()), Operator::EQ),
        Match::Source(prefix) => (address(prefix, "saddr"), nft_prefix(prefix), Operator::EQ),
        Match::Destination(prefix) => (address(prefix, "daddr"), nft_prefix(prefix), Operator::EQ),
        Match::NotDestination(prefix) => (address(prefix, "daddr"), nft_prefix(prefix), Operator::NEQ),
        Match::SourcePort(protocol, number) => {
            (port(protocol, "sport"), Expression::Number((*number).into()), Operator::EQ)
        }
        Match::DestinationPort(protocol, number) => {
            (port(protocol, "dport"), Expression::Number((*number).into()), Operator::EQ)
        }
    };
    NftMatch { left, right, op }
}

fn nft_prefix(prefix: &ipnetwork::IpNetwork) -> Expression<'static> {
    let addr = Box::new(Expression::String(prefix.network().to_string().into()));
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len: prefix.prefix().into() }))
}
