//! What a VMI's virt-handler does, or tells.

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse;
use holdfast_api::error_status::ErrorStatus;
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::run_strategy;
use holdfast_api::status::{is_true, phase};

use super::options::Options;
use super::{Call, get, stream};
use crate::answer::{Answer, Refusal, empty, internal, raw_json};
use crate::handlers::{HandlerError, Reply};
use crate::server::Server;
use crate::verbs::{Kind, Verb};

/// pause, unpause, softreboot, reset; 200, for it is done.
pub async fn command(server: &Server, call: Call<'_>, body: Bytes) -> Answer {
    // The others take no options: whatever their bodies are, they are passed over.
    let takes_options = matches!(call.verb, Verb::Pause | Verb::Unpause);
    let options = if takes_options { Options::of(&body)? } else { Options::default() };
    let vmi = instance(server, call).await?;
    match call.verb {
        Verb::Pause => run_strategy::pause(&vmi),
        Verb::Unpause => run_strategy::unpause(&vmi),
        Verb::SoftReboot => run_strategy::soft_reboot(&vmi),
        _ => run_strategy::reset(&vmi),
    }?;
    if options.dry_run() {
        return Ok(empty(StatusCode::OK));
    }
    let reply = server.handlers.request(node(&vmi), Method::PUT, &path(call), body).await;
    done(call, reply)?;
    Ok(empty(StatusCode::OK))
}

/// guestosinfo, userlist, filesystemlist. Whatever is wrong is a 500 with a text alone: so do clients know it.
pub async fn ask(server: &Server, call: Call<'_>) -> Answer {
    let asked = async {
        let vmi = instance(server, call).await?;
        if phase(&vmi) != "Running" {
            return Err(call.conflict("VMI is not running"));
        }
        if !vmi.status.as_ref().is_some_and(|status| is_true(&status.conditions, "AgentConnected")) {
            return Err(call.conflict("VMI does not have guest agent connected"));
        }
        done(call, server.handlers.request(node(&vmi), Method::GET, &path(call), Bytes::new()).await)
    };
    match asked.await {
        Ok(body) => Ok(raw_json(StatusCode::OK, body.into())),
        Err(refusal) => Err(refusal.into_text(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

/// vnc/screenshot: a PNG. What is wrong is told as for [`ask`].
pub async fn screenshot(server: &Server, call: Call<'_>, query: Option<&str>) -> Answer {
    let asked = async {
        let vmi = instance(server, call).await?;
        stream::possible(call, &vmi)?;
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{}{query}", path(call));
        done(call, server.handlers.request(node(&vmi), Method::GET, &path, Bytes::new()).await)
    };
    match asked.await {
        Ok(png) => Ok(([(CONTENT_TYPE, "image/png")], png).into_response()),
        Err(refusal) => Err(refusal.into_text(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

/// The VMI.
pub async fn instance(server: &Server, call: Call<'_>) -> Result<VirtualMachineInstance, Refusal> {
    let vmi = get(&server.client, Kind::Vmi, call.namespace, call.name).await?;
    Ok(vmi.ok_or_else(|| ErrorStatus::not_found(Kind::Vmi.singular(), call.name))?)
}

/// The node that a VMI runs on.
pub fn node(vmi: &VirtualMachineInstance) -> &str {
    vmi.status.as_ref().and_then(|status| status.node_name.as_deref()).unwrap_or_default()
}

/// Where virt-handler has the verb.
pub fn path(call: Call<'_>) -> String {
    format!("/v1/namespaces/{}/virtualmachineinstances/{}/{}", call.namespace, call.name, call.verb.name())
}

/// What virt-handler said, or why not.
fn done(call: Call<'_>, reply: Result<Reply, HandlerError>) -> Result<Bytes, Refusal> {
    let reply = reply.map_err(|error| internal(&holdfast_kubernetes::chain(&error)))?;
    if reply.status.is_success() { Ok(reply.body) } else { Err(refused(call, &reply)) }
}

/// What virt-handler refuses. It looked later than we did: that the state does not allow it is the same conflict.
pub fn refused(call: Call<'_>, reply: &Reply) -> Refusal {
    let text = String::from_utf8_lossy(&reply.body);
    let text = text.trim();
    match reply.status {
        StatusCode::CONFLICT | StatusCode::NOT_FOUND => {
            call.conflict(if text.is_empty() { "VMI is not running" } else { text })
        }
        status => internal(&format!("unexpected return code {} ({status}), message: {text}", status.as_u16())),
    }
}
