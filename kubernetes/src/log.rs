//! The log: to standard error, in words or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How to log.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Verbosity: 2 is what operators need, 4 tells every decision, 6 everything
    #[arg(short = 'v', long = "verbosity", value_name = "LEVEL", default_value_t = 2)]
    pub verbosity: u8,
    /// Log as JSON
    #[arg(long)]
    pub json: bool,
}

/// Begins to log. `RUST_LOG` comes before the verbosity.
pub fn init(args: &LogArgs) {
    let level = match args.verbosity {
        0..=1 => "warn",
        2..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    // kube_client tells each failed call as an error, which its caller tells anyway.
    let ours = format!("{level},hyper=warn,hyper_util=warn,rustls=warn,tower=warn,kube=warn,kube_client=off,h2=warn");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(ours));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if args.json { logs.json().init() } else { logs.init() }
}
