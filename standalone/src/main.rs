//! holdfastd: the command line, the logs, and the hidden life as a sandbox's first process.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use holdfast_standalone::options::Options;
use holdfast_standalone::{daemon, sandbox};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything else: this must happen while the process has one thread.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(sandbox::enter::SUBCOMMAND) {
        let code = sandbox::enter::main(&arguments.next().unwrap_or_default());
        return if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let options = Options::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if options.json {
        logs.json().init();
    } else {
        logs.init();
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(daemon::run(options)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfastd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
