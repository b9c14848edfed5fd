//! `vnc`: a VM's screen in a viewer on this machine.
//!
//! The viewer connects to a port that listens here for it alone; what it says goes to the VM as it is. One viewer is
//! served, and the command ends with it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::json;
use tokio::io::{copy, split};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::args::{Vnc, exactly};
use crate::client::{Client, Stream};
use crate::lifecycle::subresource;
use crate::out::print;

/// How long a viewer that we started may take to connect.
const VIEWER: Duration = Duration::from_secs(20);

/// A viewer: its name for `--vnc-type`, its program, and how it is told where to connect.
struct Viewer {
    kind: &'static str,
    program: &'static str,
    target: fn(SocketAddr) -> OsString,
}

const VIEWERS: [Viewer; 3] = [
    Viewer { kind: "remote-viewer", program: "remote-viewer", target: |address| format!("vnc://{address}").into() },
    Viewer { kind: "tiger", program: "xtigervncviewer", target: with_double_colon },
    Viewer { kind: "tight", program: "vncviewer", target: with_double_colon },
];

/// A port, and not a display's number (`::`, in viewers' own notation).
fn with_double_colon(address: SocketAddr) -> OsString {
    format!("{}::{}", address.ip(), address.port()).into()
}

/// Shows a VMI's screen.
pub async fn vnc(client: &Client, namespace: &str, arguments: &Vnc) -> Result<ExitCode> {
    let [name] = exactly(&arguments.name)?;
    let viewer = if arguments.proxy_only { None } else { Some(viewer(arguments)?) };
    let query = if arguments.preserve_session { "vnc?preserveSession=true" } else { "vnc" };
    let path = subresource(namespace, "virtualmachineinstances", name, query);
    let stream = client.stream(&path).await.map_err(|error| anyhow!("can't access VMI {name}: {}", error.text()))?;
    let listener = TcpListener::bind((arguments.address, arguments.port)).await;
    let listener = listener.with_context(|| format!("failed to listen on {}:{}", arguments.address, arguments.port))?;
    let address = listener.local_addr().context("failed to learn the port")?;
    let Some((program, target)) = viewer else {
        print(&format!("{}\n", json!({"port": address.port()})))?;
        serve(&listener, stream).await?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut child = Command::new(&program)
        .arg(target(address))
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start the viewer `{}`", program.display()))?;
    tokio::select! {
        served = timeout(VIEWER, listener.accept()) => {
            let (viewer, _) = served.with_context(|| format!("`{}` did not connect", program.display()))??;
            pass(viewer, stream).await;
        }
        ended = child.wait() => bail!("the viewer `{}` ended before it connected: {}", program.display(), ended?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(listener: &TcpListener, stream: Stream) -> Result<()> {
    let (viewer, _) = listener.accept().await.context("failed to wait for a viewer")?;
    pass(viewer, stream).await;
    Ok(())
}

/// Passes bytes both ways until either side has closed; how it closed is of no interest then.
async fn pass(viewer: tokio::net::TcpStream, mut stream: Stream) {
    let (mut from_viewer, mut to_viewer) = split(viewer);
    tokio::select! {
        _ = copy(&mut from_viewer, &mut stream.writer) => {}
        _ = copy(&mut stream.reader, &mut to_viewer) => {}
    }
}

type Target = fn(SocketAddr) -> OsString;

/// The viewer to start: the one that was asked for, or the first that is installed.
fn viewer(arguments: &Vnc) -> Result<(PathBuf, Target)> {
    let kinds = || VIEWERS.iter().map(|viewer| viewer.kind).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Viewer> = match &arguments.vnc_type {
        None => VIEWERS.iter().collect(),
        Some(kind) => match VIEWERS.iter().find(|viewer| viewer.kind == kind) {
            None => bail!("--vnc-type `{kind}` is not known: it must be one of {}", kinds()),
            Some(viewer) => vec![viewer],
        },
    };
    if let Some(path) = &arguments.vnc_path {
        let named = chosen.iter().find(|viewer| path.file_name().is_some_and(|name| name == viewer.program));
        return Ok((path.clone(), named.or(chosen.first()).map_or(with_double_colon, |viewer| viewer.target)));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let installed = |program: &str| {
        std::env::split_paths(&folders).map(|folder: PathBuf| folder.join(program)).find(|path: &PathBuf| is_file(path))
    };
    let found = chosen.iter().find_map(|viewer| Some((installed(viewer.program)?, viewer.target)));
    found.with_context(|| {
        let programs: Vec<_> = chosen.iter().map(|viewer| viewer.program).collect();
        format!("no VNC viewer found in PATH ({}): install one, or say --proxy-only", programs.join(", "))
    })
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_is_told_a_port() {
        let address: SocketAddr = "127.0.0.1:5999".parse().unwrap();
        let told: Vec<_> = VIEWERS.iter().map(|viewer| (viewer.target)(address)).collect();
        assert_eq!(told, ["vnc://127.0.0.1:5999", "127.0.0.1::5999", "127.0.0.1::5999"]);
    }
}
