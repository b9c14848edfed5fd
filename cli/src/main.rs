//! virtctl: the command line of Holdfast.
//!
//! It speaks to the API server of a cluster, or with `--standalone` to the holdfastd of this host. The way of a
//! command: [`args`] says what there is, one module for each command does it by [`client`], and what goes wrong is one line on standard error and exit code 1, as with
//! upstream's virtctl.

mod age;
mod args;
mod check;
mod client;
mod columns;
mod console;
mod delete;
mod describe;
mod duration;
mod get;
mod guest;
mod json_path;
mod kinds;
mod lifecycle;
mod out;
mod screenshot;
mod table;
mod target;
mod usage;
mod version;
mod vnc;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, Global, Vnc, VncCommand};
use client::{Client, Cluster, Holdfastd, Server};
use lifecycle::Api;

/// Variable of the environment that stands for `--standalone`.
const STANDALONE: &str = "HOLDFAST_STANDALONE";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether whoever reads our output has read enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe))
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "virtctl", &mut script);
            out::print(&String::from_utf8(script)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Version { client } => {
            version::client()?;
            if client {
                return Ok(ExitCode::SUCCESS);
            }
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let done = runtime.block_on(command(cli));
    // A console may still be reading standard input.
    runtime.shutdown_background();
    done
}

fn is_standalone(global: &Global) -> bool {
    global.standalone || std::env::var_os(STANDALONE).is_some_and(|value| value == "1" || value == "true")
}

/// Who answers, and the namespace to ask for.
async fn server(global: &Global) -> Result<(Server, String)> {
    let (server, default) = if is_standalone(global) {
        (Server::Holdfastd(Holdfastd::new(global.socket())), "default".to_owned())
    } else {
        let cluster = Cluster::new(&global.cluster).await.map_err(|error| anyhow!(error.text()))?;
        let namespace = cluster.namespace().to_owned();
        (Server::Cluster(cluster), namespace)
    };
    Ok((server, global.namespace.clone().unwrap_or(default)))
}

async fn command(cli: Cli) -> Result<ExitCode> {
    if let (Command::Get(_) | Command::Describe { .. } | Command::Delete(_), false) =
        (&cli.command, is_standalone(&cli.global))
    {
        bail!(
            "get, describe and delete are for the holdfastd of this host: say `virtctl --standalone ...`, or set \
             {STANDALONE}=1 in the environment. On a cluster, kubectl has them"
        );
    }
    if let (Command::Check(_), true) = (&cli.command, is_standalone(&cli.global)) {
        bail!("check is for the nodes of a cluster; holdfastd checks its host when it starts, and logs what it lacks");
    }
    let (server, namespace) = server(&cli.global).await?;
    let client = Client::new(server, cli.global.request_timeout);
    let namespace = namespace.as_str();
    let api = Api { client: &client, namespace };
    match &cli.command {
        Command::Get(arguments) => return get::get(&client, namespace, arguments).await,
        Command::Describe { target } => return describe::describe(&client, namespace, target).await,
        Command::Console { name, timeout } => return console::console(&client, namespace, name, *timeout).await,
        Command::Delete(arguments) => return delete::delete(&client, namespace, arguments).await,
        Command::Vnc(Vnc { command: Some(VncCommand::Screenshot(arguments)), .. }) => {
            screenshot::take(&client, namespace, arguments).await?;
        }
        Command::Vnc(arguments) => return vnc::vnc(&client, namespace, arguments).await,
        Command::Check(arguments) => return check::check(&client, arguments).await,
        Command::GuestOsInfo { name } => guest::os_info(&client, namespace, name).await?,
        Command::UserList { name } => guest::users(&client, namespace, name).await?,
        Command::FsList { name } => guest::file_systems(&client, namespace, name).await?,
        Command::Start { name, paused, dry_run } => api.start(name, *paused, dry_run).await?,
        Command::Stop(arguments) => api.stop(arguments).await?,
        Command::Restart(arguments) => api.restart(arguments).await?,
        Command::Pause(arguments) => api.pause(arguments).await?,
        Command::Unpause(arguments) => api.unpause(arguments).await?,
        Command::SoftReboot { name } => api.soft_reboot(name).await?,
        Command::Reset { name } => api.reset(name).await?,
        Command::Version { .. } => version::server(&client, is_standalone(&cli.global)).await?,
        // Done before there was a client.
        Command::Completion { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
