//! Version, and whether the API server can be reached.

use axum::http::StatusCode;
use axum::response::Response;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::DEADLINE;
use crate::answer::json as answer;

/// Which version we are, with the fields that clients read.
pub fn version() -> Value {
    json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// The architecture as Kubernetes calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the API server can be reached, and which state of the configuration is in force.
pub async fn health(client: &Client, configuration: Option<String>) -> Response {
    let version = match timeout(DEADLINE, client.apiserver_version()).await {
        Ok(Ok(version)) => Ok(version),
        Ok(Err(error)) => Err(holdfast_kubernetes::chain(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    };
    match version {
        Ok(version) => {
            let mut health = json!({"apiserver": {"connectivity": "ok", "version": version}});
            if let Some(configuration) = configuration {
                health["config-resource-version"] = configuration.into();
            }
            answer(StatusCode::OK, &health)
        }
        Err(error) => {
            let health = json!({"apiserver": {"connectivity": "failed", "error": error}});
            answer(StatusCode::INTERNAL_SERVER_ERROR, &health)
        }
    }
}
