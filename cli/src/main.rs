//! virtctl: the command line of Holdfast.
//!
//! Reading order: [`args`] is the command line, [`client`] speaks to holdfastd, [`kinds`] knows what there is to get;
//! then one module per group of commands. Messages, codes and flags are KubeVirt's where it has the command, and
//! kubectl's where that has it.
//!
//! Invariants: results go to standard output, everything else to standard error; exit code 1 for every failure;
//! the terminal is put back as it was, however a console ends.

mod age;
mod args;
mod client;
mod console;
mod delete;
mod describe;
mod get;
mod kinds;
mod table;
mod terminal;
mod verbs;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use client::Client;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return args::refuse(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(cli));
            // A read of standard input may still be waiting; nobody needs it.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let server = &cli.server;
    match cli.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "virtctl", &mut std::io::stdout());
            Ok(())
        }
        Command::Version { client } => version::show(server, client).await,
        Command::Get(get) => get::run(&Client::of(server)?, server, &get).await,
        Command::Describe(describe) => describe::run(&Client::of(server)?, server, &describe).await,
        Command::Console(console) => console::run(&Client::of(server)?, server, &console).await,
        Command::Start(start) => verbs::start(&Client::of(server)?, server, &start).await,
        Command::Stop(stop) => verbs::stop(&Client::of(server)?, server, &stop).await,
        Command::Restart(restart) => verbs::restart(&Client::of(server)?, server, &restart).await,
        Command::Pause(pause) => verbs::pause(&Client::of(server)?, server, &pause).await,
        Command::Unpause(unpause) => verbs::unpause(&Client::of(server)?, server, &unpause).await,
        Command::SoftReboot(names) => verbs::soft_reboot(&Client::of(server)?, server, &names).await,
        Command::Reset(names) => verbs::reset(&Client::of(server)?, server, &names).await,
        Command::Delete(delete) => delete::run(&Client::of(server)?, server, &delete).await,
    }
}
