//! CHECK, GC and STATUS.

use std::collections::BTreeSet;
use std::path::Path;

use holdfast_agent_api::cni::code;
use holdfast_net::model::Backend;
use holdfast_net::plan::Op;
use serde::Deserialize;
use serde_json::Value;

use super::call::Call;
use super::result::{CniResult, Route};
use super::{Done, Fault};
use crate::context::Context;
use crate::netns::link_mtu;
use crate::registry::{Key, Record, Registry};

/// Whether the attachment is as ADD left it: the plan to make it so is empty. What later plugins of the list have added
/// is not ours to judge, nor is a route that they have taken away or put elsewhere, and out of the list's result.
pub(super) async fn check(context: &Context, registry: &Registry, call: &Call) -> Result<Done, Fault> {
    let target = call.target()?;
    let Some(result) = &call.prev_result else {
        return Err(Fault::new(code::CONFIG, "`prevResult` is missing: CHECK needs the result of ADD", ""));
    };
    let unknown = || {
        Fault::new(
            code::UNKNOWN_CONTAINER,
            format!("attachment `{}` does not exist", target.key),
            "it was never added, or DEL has removed it",
        )
    };
    let record = registry.get(&target.key).ok_or_else(unknown)?.record;
    check_record(context, registry, &record, &target.netns, Some(result)).await?;
    Ok(Done::NOTHING)
}

/// Whether an attachment is as it shall be, and in the namespace at `netns`. Of its routes only those must be there that
/// are in `result`, what the list has come to; all where it is not told.
pub(super) async fn check_record(
    context: &Context,
    registry: &Registry,
    record: &Record,
    netns: &Path,
    result: Option<&CniResult>,
) -> Result<(), Fault> {
    let _hold = registry.hold(&record.key, &record.attachment.id).await?;
    let id = context.visitor.identify(netns).await?;
    if id != record.netns {
        return Err(Fault::new(
            code::NETNS,
            format!("`{}` is not the namespace that ADD was given", netns.display()),
            "",
        ));
    }
    let mut plan = context.wiring.plan(&context.desired(record)).await?;
    if let Some(result) = result {
        plan.ops.retain(|op| matters(op, &result.routes));
    }
    if plan.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        code::DRIFT,
        format!("attachment `{}` is not as ADD left it", record.key),
        format!("to mend it: {plan}"),
    ))
}

/// Whether a step of the plan mends something that the result of the list still tells.
fn matters(op: &Op, told: &[Route]) -> bool {
    match op {
        Op::AddRoute { route, .. } => told.iter().any(|told| {
            (told.dst.network(), told.dst.prefix()) == (route.destination.network(), route.destination.prefix())
        }),
        _ => true,
    }
}

/// An element of `cni.dev/valid-attachments`.
#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Removes the attachments of this network that are not valid any more.
pub(super) async fn gc(registry: &Registry, call: &Call) -> Result<Done, Fault> {
    let Some(valid) = valid(&call.config)? else { return Ok(Done::NOTHING) };
    let network = &call.network.addressing.name;
    collect(registry, |record| {
        let Key { container_id, ifname } = &record.key;
        record.chained.is_none()
            && record.network == *network
            && !valid.contains(&(container_id.clone(), ifname.to_string()))
    })
    .await
}

/// The attachments that the runtime knows, container and interface of each; none where it tells nothing.
///
/// An absent list is not an empty one: taking it for one would remove everything. Nor is it an error: `cnitool gc` gives
/// none, when libcni has said DEL for each attachment that it knows.
pub(super) fn valid(config: &Value) -> Result<Option<BTreeSet<(String, String)>>, Fault> {
    let listed = ["cni.dev/valid-attachments", "cni.dev/attachments"].iter().find_map(|key| config.get(*key));
    let valid: Vec<Valid> = match listed.cloned() {
        None => {
            tracing::warn!("GC without `cni.dev/valid-attachments`: nothing is removed");
            return Ok(None);
        }
        Some(Value::Null) => Vec::new(),
        Some(listed) => serde_json::from_value(listed).map_err(|error| {
            Fault::new(code::CONFIG, "failed to decode `cni.dev/valid-attachments`", error.to_string())
        })?,
    };
    Ok(Some(valid.into_iter().map(|valid| (valid.container_id, valid.ifname)).collect()))
}

/// Removes the attachments that are `garbage`. What fails for one does not keep the others.
pub(super) async fn collect(registry: &Registry, garbage: impl Fn(&Record) -> bool) -> Result<Done, Fault> {
    let mut failed: Option<Fault> = None;
    for entry in registry.entries() {
        let record = entry.record;
        if !garbage(&record) {
            continue;
        }
        let hold = match registry.hold(&record.key, &record.attachment.id).await {
            Ok(hold) => hold,
            Err(error) => {
                failed = Some(error.into());
                continue;
            }
        };
        // Unless a DEL was faster, and an ADD after it.
        if registry.get(&record.key).is_some_and(|entry| entry.record == record) {
            tracing::info!(attachment = %record.key, "GC removes an attachment that the runtime does not know");
            let dropped = registry.drop_key(&hold, &record.key, record.attachment.id.clone());
            failed = dropped.err().map(Fault::from).or(failed);
        }
    }
    failed.map_or(Ok(Done::NOTHING), Err)
}

/// Whether ADD would be served. A full pool is no reason against it: other networks have room.
pub(super) async fn status(context: &Context, call: &Call) -> Result<Done, Fault> {
    let unavailable = |msg: String, details: String| Fault::new(code::UNAVAILABLE, msg, details);
    match &call.network.backend {
        Backend::LinuxBridge { gateway: Some(_), .. } => Ok(Done::NOTHING),
        Backend::LinuxBridge { bridge: link, .. } | Backend::Macvtap { uplink: link, .. } => match link_mtu(link) {
            Ok(Some(_)) => Ok(Done::NOTHING),
            Ok(None) => Err(unavailable(format!("link `{link}` is not on this node"), String::new())),
            Err(error) => Err(unavailable(format!("failed to look for link `{link}`"), error.to_string())),
        },
        Backend::Ovs { .. } => match context.wiring.owned().await {
            Ok(_) => Ok(Done::NOTHING),
            Err(error) => Err(unavailable("Open vSwitch is not available".to_owned(), crate::chain(&error))),
        },
    }
}
