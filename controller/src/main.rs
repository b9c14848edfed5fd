//! `virt-operator`, `virt-api` and `virt-controller`: one program that takes its role from its name, so that one
//! image with three names serves all three.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let name = std::env::args_os().next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("virt-api") => runtime.block_on(holdfast_api_server::run()),
        Some("virt-controller") => runtime.block_on(holdfast_controllers::run()),
        Some("virt-operator") => runtime.block_on(holdfast_operator::run()),
        _ => anyhow::bail!("call this program by one of the names virt-operator, virt-api and virt-controller"),
    }
}
