//! Our plugin behind the primary one of a cluster: it makes the further networks that a pod's annotation asks for, so
//! that no meta plugin is needed.
//!
//! Invariants: the primary's result is answered as it came; a pod that asks for nothing costs a look into memory and
//! cannot fail; an ADD that fails for one network leaves none of them; DEL goes by what is written down.

use holdfast_agent_api::cni::{Request, Verb, code};
use holdfast_net::model::IfName;
use serde_json::Value;

use super::call::{self, Call};
use super::result::CniResult;
use super::{Done, Fault, UNTOUCHED, add, inspect};
use crate::context::Context;
use crate::registry::{Chained, Key, Registry};
use crate::workloads::{Attach, Joined};

/// The `backend` of a call that made or removed something, for metrics.
const CHAINED: &str = "chained";

pub(super) async fn serve(
    context: &Context,
    registry: &Registry,
    request: &Request,
) -> (&'static str, Result<Done, Fault>) {
    let result = match request.verb {
        Verb::Add => add(context, registry, request).await,
        Verb::Del => return (UNTOUCHED, del(context, registry, request).await),
        Verb::Check => check(context, registry, request).await,
        Verb::Gc => gc(registry, request).await,
        // What a pod may ask for is another matter: those that ask for nothing are served.
        Verb::Status => call::version(request).map(|_| Done::NOTHING),
    };
    let backend = if matches!(&result, Ok(done) if done.added.is_empty()) { UNTOUCHED } else { CHAINED };
    (backend, result)
}

async fn add(context: &Context, registry: &Registry, request: &Request) -> Result<Done, Fault> {
    call::version(request)?;
    let pod = call::pod(&request.args)?;
    let key = call::key(request)?;
    let prev = prev_result(request)?;
    let networks = context.workloads.networks(&pod).await?;
    if networks.is_empty() {
        return Ok(Done::answer(prev.clone()));
    }
    let result = CniResult::parse(prev.clone())
        .map_err(|error| Fault::new(code::DECODE, "failed to decode `prevResult`", error))?;
    let chained = Chained { list: list_name(request)?.to_owned(), ifname: key.ifname.clone() };
    // Everything that can be known to be wrong, before the first of them is made.
    let mut calls = Vec::new();
    for attach in &networks {
        let taken = attach.ifname == key.ifname || is_there(&result, &attach.ifname);
        if taken {
            let msg = format!("interface `{}` is there already", attach.ifname);
            return Err(Fault::new(code::CONFIG, msg, "").on(&attach.network));
        }
        let call = Call::behind(context, request, chained.clone(), attach);
        calls.push((attach, call.map_err(|fault| fault.on(&attach.network))?));
    }
    let hold = registry.hold(&key, &key.attachment_id()).await?;
    registry.take_chained_note(&context.options.run, &hold, &key).await?;
    let mut further = Vec::new();
    let mut added = Vec::new();
    for (Attach { network, .. }, call) in calls {
        match add::attach(context, registry, &call).await {
            Ok(record) => {
                further.push((network.clone(), record.result));
                added.push(record.key);
            }
            Err(fault) => {
                // Its error is the one to tell; what cannot be dropped now goes with the runtime's DEL.
                let _ = registry.drop_chained(&hold, &key).await;
                return Err(fault.on(network));
            }
        }
    }
    let joined = Joined { pod, primary: chained.list, ifname: key.ifname.to_string(), result, further };
    Ok(Done { result: prev.clone(), added, joined: Some(Box::new(joined)) })
}

async fn del(context: &Context, registry: &Registry, request: &Request) -> Result<Done, Fault> {
    let key = call::key(request)?;
    // An ADD of the same call that is still under way comes to its end first.
    let hold = registry.hold(&key, &key.attachment_id()).await?;
    registry.take_chained_note(&context.options.run, &hold, &key).await?;
    registry.drop_chained(&hold, &key).await?;
    Ok(Done::NOTHING)
}

async fn check(context: &Context, registry: &Registry, request: &Request) -> Result<Done, Fault> {
    call::version(request)?;
    let Key { container_id, ifname } = call::key(request)?;
    prev_result(request)?;
    let netns = call::netns(&request.netns);
    for entry in registry.chained(&container_id, &ifname) {
        inspect::check_record(context, registry, &entry.record, &netns, None).await?;
    }
    Ok(Done::NOTHING)
}

async fn gc(registry: &Registry, request: &Request) -> Result<Done, Fault> {
    call::version(request)?;
    let list = list_name(request)?;
    let Some(valid) = inspect::valid(&request.config)? else { return Ok(Done::NOTHING) };
    inspect::collect(registry, |record| {
        record.chained.as_ref().is_some_and(|chained| {
            let call = (record.key.container_id.clone(), chained.ifname.to_string());
            chained.list == list && !valid.contains(&call)
        })
    })
    .await
}

fn prev_result(request: &Request) -> Result<&Value, Fault> {
    request.config.get("prevResult").filter(|value| value.is_object()).ok_or_else(|| {
        let msg = "`prevResult` is missing: a `holdfast` plugin with `chained` stands behind the primary one of a list";
        Fault::new(code::CONFIG, msg, "")
    })
}

fn list_name(request: &Request) -> Result<&str, Fault> {
    let name = request.config.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    name.ok_or_else(|| Fault::new(code::CONFIG, "invalid network configuration: `name` is missing", ""))
}

/// Whether a plugin before us has made an interface of that name in the pod.
fn is_there(result: &CniResult, ifname: &IfName) -> bool {
    result.interfaces.iter().any(|there| there.name == ifname.as_str() && !there.sandbox.is_empty())
}
