//! DEL: the record goes, the answer follows, the devices and leases go behind it.
//!
//! It needs neither the namespace nor the bridge, OVS, a valid configuration or `prevResult`; what is not there
//! is a success.

use holdfast_agent_api::cni::Request;

use super::{Done, Fault, call};
use crate::context::Context;
use crate::registry::Registry;

pub(super) async fn del(context: &Context, registry: &Registry, request: &Request) -> Result<Done, Fault> {
    let key = call::key(request)?;
    let id = registry.get(&key).map_or_else(|| key.attachment_id(), |entry| entry.record.attachment.id);
    if registry.is_doomed(&id) {
        // A DEL before this one; waiting for it would help nobody.
        return Ok(Done::NOTHING);
    }
    let hold = registry.hold(&key, &id).await?;
    registry.take_note(&context.options.run, &hold, &key)?;
    registry.drop_key(&hold, &key, id)?;
    Ok(Done::NOTHING)
}
