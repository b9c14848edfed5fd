//! `version`: what virtctl is, and what the server says that it is, in the form that scripts expect of upstream's.

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::client::Client;
use crate::out::print;

/// Prints virtctl's version.
pub fn client() -> Result<()> {
    let own = json!({
        "gitVersion": concat!("v", env!("CARGO_PKG_VERSION")),
        "platform": format!("linux/{}", architecture()),
    });
    Ok(print(&format!("Client Version: {}\n", info(&own)))?)
}

/// The architecture as container images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Prints the server's version: holdfastd's, or that of the cluster's virt-api.
pub async fn server(client: &Client, standalone: bool) -> Result<()> {
    let path = if standalone { "/version" } else { "/apis/subresources.kubevirt.io/v1/version" };
    let version = client.get(path).await.map_err(|error| anyhow!(error.text()))?;
    Ok(print(&format!("Server Version: {}\n", info(&version)))?)
}

fn info(version: &Value) -> String {
    let field = |name: &str| version[name].as_str().unwrap_or_default();
    format!(
        "version.Info{{GitVersion:{:?}, GitCommit:{:?}, GitTreeState:{:?}, BuildDate:{:?}, GoVersion:{:?}, \
         Compiler:{:?}, Platform:{:?}}}",
        field("gitVersion"),
        field("gitCommit"),
        field("gitTreeState"),
        field("buildDate"),
        field("goVersion"),
        field("compiler"),
        field("platform"),
    )
}
