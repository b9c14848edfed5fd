//! The verbs: pause, unpause, soft reboot, reset.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_agent::vmi::CommandError;
use holdfast_agent::vmi::status::COMMAND_EVENTS;
use holdfast_kubernetes::events::EventType;

use super::{Serving, refuse};

/// Carries a verb out.
pub async fn command(
    State(serving): State<Serving>,
    Path((namespace, name)): Path<(String, String)>,
    verb: &'static str,
) -> Response {
    let Some(entry) = serving.running.get(&namespace, &name) else { return absent(&name) };
    let done = match verb {
        "pause" => entry.task.pause().await,
        "unpause" => entry.task.unpause().await,
        "softreboot" => entry.task.soft_reboot().await,
        _ => entry.task.reset().await,
    };
    if let Err(error) = done {
        return failed(&error);
    }
    if let Some((_, reason, message)) = COMMAND_EVENTS.iter().find(|(command, ..)| *command == verb) {
        let events = serving.events.clone();
        // Behind the answer: it is done already.
        tokio::spawn(async move { events.publish(&entry.about, EventType::Normal, reason, message).await });
    }
    StatusCode::OK.into_response()
}

/// The answer for a VMI that does not run here.
pub fn absent(name: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, format!("virtualmachineinstance `{name}` does not run on this node"))
}

/// The answer for a verb that was not carried out.
pub fn failed(error: &CommandError) -> Response {
    let code = if error.is_conflict() { StatusCode::CONFLICT } else { StatusCode::INTERNAL_SERVER_ERROR };
    refuse(code, holdfast_kubernetes::chain(error))
}
