//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Controls virtual machines
///
/// This version speaks to holdfastd on the same host: add --standalone.
#[derive(Debug, Parser)]
#[command(name = "virtctl", disable_version_flag = true)]
pub struct Cli {
    /// Where the API is.
    #[command(flatten)]
    pub server: Server,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the API is.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// Speak to holdfastd on this host
    #[arg(long, global = true)]
    pub standalone: bool,
    /// holdfastd's --run folder
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/holdfast")]
    pub run: PathBuf,
    /// holdfastd's API socket; api.sock in the --run folder where not given
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Namespace of the objects
    #[arg(short, long, global = true, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show objects: vm, vmi, net-attach-def, unet, ipl, macl, cm, secret, events
    Get(Get),
    /// Show one object in words, with its events
    Describe(Describe),
    /// Connect to the serial console of a VM
    Console(Console),
    /// Start a VM
    Start(Start),
    /// Stop a VM
    Stop(Stop),
    /// Restart a VM
    Restart(Restart),
    /// Pause a VM: its CPUs stop, its memory stays
    Pause(Pause),
    /// Let a paused VM go on
    Unpause(Pause),
    /// Ask the guest of a VM to reboot
    SoftReboot(Names),
    /// Press the reset button of a VM
    Reset(Names),
    /// Delete an object, and its document in the folder of manifests
    Delete(Delete),
    /// Show the versions of virtctl and of what it speaks to
    Version {
        /// Client version only
        #[arg(short, long)]
        client: bool,
    },
    /// Write a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `virtctl get`.
#[derive(Debug, Args)]
pub struct Get {
    /// KIND[,KIND...] [NAME...], or KIND/NAME...
    #[arg(required = true)]
    pub what: Vec<String>,
    /// How to show them
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Objects of every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Leave out the headings
    #[arg(long)]
    pub no_headers: bool,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// As YAML, whole
    Yaml,
    /// As JSON, whole
    Json,
    /// As a table with more columns
    Wide,
    /// Kind and name only
    Name,
}

/// `virtctl describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// KIND [NAME...], or KIND/NAME...
    #[arg(required = true)]
    pub what: Vec<String>,
}

/// `virtctl console`.
#[derive(Debug, Args)]
pub struct Console {
    /// Name of the VMI
    pub names: Vec<String>,
    /// Minutes to wait for the VM to run
    #[arg(long, default_value_t = 5)]
    pub timeout: u64,
}

/// `virtctl start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Name of the VM
    pub names: Vec<String>,
    /// Start it paused
    #[arg(long)]
    pub paused: bool,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `virtctl stop`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Name of the VM
    pub names: Vec<String>,
    /// Do not let the guest finish; needs --grace-period
    #[arg(long)]
    pub force: bool,
    /// Seconds that the guest has to power off; needs --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `virtctl restart`.
#[derive(Debug, Args)]
pub struct Restart {
    /// Name of the VM
    pub names: Vec<String>,
    /// Do not let the guest finish; needs --grace-period
    #[arg(long)]
    pub force: bool,
    /// Seconds that the guest has to power off, 0 alone is allowed; needs --force
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `virtctl pause` and `virtctl unpause`.
#[derive(Debug, Args)]
pub struct Pause {
    /// vm or vmi, and its name
    pub names: Vec<String>,
    /// Check everything and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A command that takes the name of a VMI.
#[derive(Debug, Args)]
pub struct Names {
    /// Name of the VMI
    pub names: Vec<String>,
}

/// `virtctl delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// KIND NAME..., or KIND/NAME...
    #[arg(required = true)]
    pub what: Vec<String>,
    /// Seconds to wait until they are gone
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Do not wait until they are gone
    #[arg(long)]
    pub no_wait: bool,
}

/// The arguments of a command that takes so many.
///
/// # Errors
/// In the words that users of virtctl know.
pub fn exactly<const N: usize>(names: &[String]) -> anyhow::Result<[&str; N]> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let count = names.len();
    names.try_into().map_err(|_| anyhow::anyhow!("accepts {N} arg(s), received {count}"))
}

/// Shows what is wrong with the command line, or the help that was asked for.
pub fn refuse(error: &clap::Error) -> ExitCode {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    match (error.kind(), text(ContextKind::InvalidSubcommand)) {
        (ErrorKind::DisplayHelp, _) => {
            // Nothing is left to do where standard output is closed.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        (ErrorKind::InvalidSubcommand, Some(unknown)) => {
            eprintln!("unknown command \"{unknown}\" for \"virtctl\"");
            if let Some(meant) = text(ContextKind::SuggestedSubcommand) {
                eprintln!("\nDid you mean this?\n\t{meant}\n");
            }
            ExitCode::FAILURE
        }
        _ => {
            let _ = error.print();
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let parsed = Cli::try_parse_from(["virtctl", "stop", "--standalone", "v", "--grace-period", "-1"]).unwrap();
        assert!(parsed.server.standalone);
        assert_eq!(exactly::<2>(&["a".into()]).unwrap_err().to_string(), "accepts 2 arg(s), received 1");
    }
}
