//! virtctl: the command line of Holdfast.
//!
//! It speaks to the holdfastd of this host. The way of a command: [`args`] says what there is, one module for each
//! command does it by [`client`], and what goes wrong is one line on standard error and exit code 1, as with
//! upstream's virtctl.

mod age;
mod args;
mod client;
mod columns;
mod console;
mod delete;
mod describe;
mod duration;
mod get;
mod json_path;
mod kinds;
mod lifecycle;
mod out;
mod table;
mod target;
mod usage;
mod version;

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, Global};
use client::Client;
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
    if !is_standalone(&cli.global) {
        bail!(
            "This virtctl speaks to the holdfastd of this host only: say `virtctl --standalone ...`, or set \
             {STANDALONE}=1 in the environment"
        );
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

async fn command(cli: Cli) -> Result<ExitCode> {
    let client = Client::new(cli.global.socket(), cli.global.request_timeout);
    let namespace = cli.global.namespace.as_str();
    let api = Api { client: &client, namespace };
    match &cli.command {
        Command::Get(arguments) => return get::get(&client, namespace, arguments).await,
        Command::Describe { target } => return describe::describe(&client, namespace, target).await,
        Command::Console { name, timeout } => return console::console(&client, namespace, name, *timeout).await,
        Command::Delete(arguments) => return delete::delete(&client, namespace, arguments).await,
        Command::Start { name, paused, dry_run } => api.start(name, *paused, dry_run).await?,
        Command::Stop(arguments) => api.stop(arguments).await?,
        Command::Restart(arguments) => api.restart(arguments).await?,
        Command::Pause(arguments) => api.pause(arguments).await?,
        Command::Unpause(arguments) => api.unpause(arguments).await?,
        Command::SoftReboot { name } => api.soft_reboot(name).await?,
        Command::Reset { name } => api.reset(name).await?,
        Command::Version { .. } => version::server(&client).await?,
        // Done before there was a client.
        Command::Completion { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
