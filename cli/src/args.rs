//! The command line: commands, flags and help.
//!
//! Commands that upstream's virtctl has keep its names, flags and defaults. Positional arguments are taken as they
//! come and counted by [`exactly`], so that a wrong number of them is told in upstream's words.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::client::ClusterArgs;
use crate::duration::duration;

/// Where holdfastd's folder of sockets is unless it is told otherwise.
const RUN: &str = "/run/holdfast";

const EXAMPLES: &str = "\
Examples:
  # Start a VM of the cluster that the kubeconfig names
  virtctl start db1

  # Log in on its serial console; leave with Ctrl+]
  virtctl console db1

  # Its screen, in a VNC viewer
  virtctl vnc db1

  # Without a cluster: what the holdfastd of this host runs, and where it is reached
  virtctl --standalone get vm,vmi -o wide

--standalone is also turned on by HOLDFAST_STANDALONE=1 in the environment. Installed as kubectl-virt in the PATH,
this program is `kubectl virt`.";

/// Controls the virtual machines of Holdfast
#[derive(Debug, Parser)]
#[command(name = "virtctl", bin_name = "virtctl", after_help = EXAMPLES)]
#[command(arg_required_else_help = true, subcommand_required = true, disable_version_flag = true)]
pub struct Cli {
    /// What all commands take.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of all commands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Speak to the holdfastd of this host
    #[arg(long, global = true, display_order = 100)]
    pub standalone: bool,
    /// Folder of holdfastd's sockets (its --run)
    #[arg(long, global = true, value_name = "DIR", default_value = RUN, display_order = 101)]
    pub run: PathBuf,
    /// holdfastd's API socket, where it is not api.sock in --run
    #[arg(long, global = true, value_name = "PATH", display_order = 102)]
    pub socket: Option<PathBuf>,
    /// Namespace of the objects; that of the kubeconfig's context, or `default`, where not given
    #[arg(short, long, global = true, display_order = 103)]
    pub namespace: Option<String>,
    /// How long one request may take, such as 500ms, 30s or 2m
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    #[arg(display_order = 104)]
    pub request_timeout: Duration,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl Global {
    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run.join("api.sock"))
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show objects of this host: vm, vmi, nad, underlaynetwork, iplease, maclease, events, configmap, secret
    #[command(after_help = "\
Examples:
  virtctl --standalone get vm
  virtctl --standalone get vm,vmi -A -o wide
  virtctl --standalone get vmi db1 -o yaml
  virtctl --standalone get vm/db1 vmi/db1")]
    Get(Get),
    /// Show a VM or VMI of this host with its NICs, volumes, conditions and events
    #[command(override_usage = "virtctl describe vm|vmi [NAME...] [flags]")]
    Describe {
        /// Kind, and names; all of the kind where none is given
        #[arg(value_name = "KIND NAME")]
        target: Vec<String>,
    },
    /// Connect to a VM's serial console; leave with Ctrl+]
    #[command(override_usage = "virtctl console (VMI) [flags]")]
    #[command(
        after_help = "Input that is no terminal is passed on byte by byte, Ctrl+] too, and the command ends with \
        it:\n  (echo; sleep 2) | virtctl --standalone console db1"
    )]
    Console {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
        /// The number of minutes to wait for the VMI to run
        #[arg(long, value_name = "MINUTES", default_value_t = 5)]
        timeout: u32,
    },
    /// Connect a VNC viewer to a VM's screen
    #[command(override_usage = "virtctl vnc (VMI) [flags]\n       virtctl vnc screenshot (VMI) [flags]")]
    #[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
    Vnc(Vnc),
    /// Show whether the nodes of the cluster can run virtual machines, and what they lack
    #[command(override_usage = "virtctl check [NODE...] [flags]")]
    Check(Check),
    /// Show what the guest agent tells of the guest's operating system
    #[command(name = "guestosinfo", override_usage = "virtctl guestosinfo (VMI) [flags]")]
    GuestOsInfo {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
    },
    /// Show who is logged in to the guest
    #[command(name = "userlist", override_usage = "virtctl userlist (VMI) [flags]")]
    UserList {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
    },
    /// Show the guest's file systems
    #[command(name = "fslist", override_usage = "virtctl fslist (VMI) [flags]")]
    FsList {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
    },
    /// Start a virtual machine
    #[command(override_usage = "virtctl start (VM) [flags]")]
    Start {
        /// The VM
        #[arg(value_name = "VM")]
        name: Vec<String>,
        /// Leave the guest paused, at its first instruction
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
        #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
        paused: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Stop a virtual machine
    #[command(override_usage = "virtctl stop (VM) [flags]")]
    Stop(Force),
    /// Restart a virtual machine
    #[command(override_usage = "virtctl restart (VM) [flags]")]
    Restart(Force),
    /// Pause a virtual machine: its CPUs stop, its memory stays
    #[command(override_usage = "virtctl pause vm|vmi (VM)|(VMI) [flags]")]
    Pause(Pause),
    /// Let a paused virtual machine go on
    #[command(override_usage = "virtctl unpause vm|vmi (VM)|(VMI) [flags]")]
    Unpause(Pause),
    /// Ask the guest to reboot
    #[command(override_usage = "virtctl soft-reboot (VMI) [flags]")]
    SoftReboot {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
    },
    /// Press the machine's reset button
    #[command(override_usage = "virtctl reset (VMI) [flags]")]
    Reset {
        /// The VMI
        #[arg(value_name = "VMI")]
        name: Vec<String>,
    },
    /// Delete objects of this host, with their documents in holdfastd's folder of manifests
    #[command(override_usage = "virtctl delete KIND NAME... [flags]\n       virtctl delete KIND/NAME... [flags]")]
    Delete(Delete),
    /// Show the versions of virtctl and of what it speaks to
    #[command(override_usage = "virtctl version [flags]")]
    Version {
        /// That of virtctl only
        #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
        #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
        client: bool,
    },
    /// Write a shell's completion script
    #[command(after_help = "Examples:\n  source <(virtctl completion bash)\n  \
        virtctl completion zsh > ~/.zfunc/_virtctl\n  \
        virtctl completion fish > ~/.config/fish/completions/virtctl.fish")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Flags of `get`.
#[derive(Debug, Args)]
#[command(override_usage = "virtctl get KIND[,KIND...] [NAME...] [flags]\n       virtctl get KIND/NAME... [flags]")]
pub struct Get {
    /// Kinds and names, or KIND/NAME
    #[arg(value_name = "KIND NAME")]
    pub target: Vec<String>,
    /// What to show; a table where not given
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Leave out the headers of tables
    #[arg(long)]
    pub no_headers: bool,
}

/// What `get` shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The object as YAML
    Yaml,
    /// The object as JSON
    Json,
    /// A table with more columns
    Wide,
    /// Kind and name
    Name,
}

/// `--dry-run`.
#[derive(Debug, Args)]
pub struct DryRun {
    /// Have the request checked, and change nothing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub dry_run: bool,
}

/// What `stop` and `restart` take.
#[derive(Debug, Args)]
pub struct Force {
    /// The VM
    #[arg(value_name = "VM")]
    pub name: Vec<String>,
    /// Do not wait for the guest to shut down by itself; needs --grace-period
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub force: bool,
    /// Seconds that the guest has to shut down, in place of its own; needs --force
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub grace_period: Option<i64>,
    /// `--dry-run`
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// What `pause` and `unpause` take.
#[derive(Debug, Args)]
pub struct Pause {
    /// vm or vmi, and its name
    #[arg(value_name = "KIND NAME")]
    pub target: Vec<String>,
    /// `--dry-run`
    #[command(flatten)]
    pub dry_run: DryRun,
}

/// What `check` takes.
#[derive(Debug, Args)]
pub struct Check {
    /// Nodes; all of them where none is given
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// For scripts: json or yaml
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Document>,
}

/// A form that scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Document {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What `vnc` takes.
#[derive(Debug, Args)]
pub struct Vnc {
    /// What else there is to do with a screen
    #[command(subcommand)]
    pub command: Option<VncCommand>,
    /// The VMI
    #[arg(value_name = "VMI")]
    pub name: Vec<String>,
    /// Address to listen on for the viewer
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
    /// Port to listen on; any that is free where it is 0
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub port: u16,
    /// Listen, print the port as JSON, and leave the viewer to you
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub proxy_only: bool,
    /// Be refused where another viewer is connected, instead of taking its place
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub preserve_session: bool,
    /// Kind of the viewer: tiger, remote-viewer or tight; the first that is installed where not given
    #[arg(long, value_name = "KIND")]
    pub vnc_type: Option<String>,
    /// Path of the viewer
    #[arg(long, value_name = "PATH")]
    pub vnc_path: Option<PathBuf>,
}

/// What there is to do with a screen but to look at it.
#[derive(Debug, Subcommand)]
pub enum VncCommand {
    /// Take a picture of a VM's screen, as PNG
    #[command(override_usage = "virtctl vnc screenshot (VMI) [flags]")]
    Screenshot(Screenshot),
}

/// What `vnc screenshot` takes.
#[derive(Debug, Args)]
pub struct Screenshot {
    /// The VMI
    #[arg(value_name = "VMI")]
    pub name: Vec<String>,
    /// Where to write it; `-` is the standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Move the pointer first, which wakes a guest that has switched its screen off
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = false, default_missing_value = "true", hide_default_value = true)]
    pub move_cursor: bool,
}

/// What `delete` takes.
#[derive(Debug, Args)]
pub struct Delete {
    /// Kind and names, or KIND/NAME
    #[arg(value_name = "KIND NAME")]
    pub target: Vec<String>,
    /// Whether to wait until the objects are gone: a VM shuts down first
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    #[arg(default_value_t = true, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait for that, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// The arguments, of which there must be `N`.
pub fn exactly<const N: usize>(arguments: &[String]) -> Result<[&str; N]> {
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.try_into() {
        Ok(texts) => Ok(texts),
        Err(texts) => bail!("accepts {N} arg(s), received {}", texts.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_go_style_boolean_is_taken() {
        let force = |flag: &str| match Cli::try_parse_from(["virtctl", "stop", "v", flag]).map(|cli| cli.command) {
            Ok(Command::Stop(stop)) => stop.force,
            other => panic!("{other:?}"),
        };
        assert!(force("--force") && force("--force=true") && !force("--force=false"));
    }

    #[test]
    fn arguments_are_counted() {
        let texts = ["a".to_owned(), "b".to_owned()];
        assert_eq!(exactly::<2>(&texts).unwrap(), ["a", "b"]);
        assert_eq!(exactly::<1>(&texts).unwrap_err().to_string(), "accepts 1 arg(s), received 2");
    }
}
