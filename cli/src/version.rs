//! `virtctl version`.

use crate::args::Server;
use crate::client::Client;

/// Shows the versions, in the form that scripts for KubeVirt's virtctl look for.
pub async fn show(server: &Server, client_only: bool) -> anyhow::Result<()> {
    let info =
        |version: &str, platform: &str| format!("version.Info{{GitVersion:\"{version}\", Platform:\"{platform}\"}}");
    let own = concat!("v", env!("CARGO_PKG_VERSION"));
    println!("Client Version: {}", info(own, &format!("linux/{}", std::env::consts::ARCH)));
    if client_only {
        return Ok(());
    }
    let version = Client::of(server)?.get("/version").await?;
    let text = |field: &str| version[field].as_str().unwrap_or("unknown").to_owned();
    println!("Server Version: {}", info(&text("gitVersion"), &text("platform")));
    Ok(())
}
