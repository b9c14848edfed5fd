//! `cargo xtask cluster`: a real Kubernetes on this machine. Its nodes are namespaces; docs/development/test-cluster.md
//! tells of it.

mod cgroup;
mod component;
mod control_plane;
mod down;
mod go;
mod image;
mod layout;
mod logs;
mod machine;
mod network;
mod node;
mod pki;
mod probe;
mod programs;
mod record;
mod shell;
mod status;
mod traces;
mod up;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use nix::fcntl::{Flock, FlockArg};

use self::component::Component;
use self::pki::Pki;
use crate::install;
use crate::process::Program;
use crate::{process, setup, workspace};

pub use self::control_plane::kubectl;
pub use self::image::{BUSYBOX, PAUSE, busybox, digest, import, on as images_on};
pub use self::layout::{Cluster, Machine, Node, programs};
pub use self::probe::missing;
pub use self::programs::build_cni;
pub use self::traces::Traces;
pub use self::up::nodes;

/// Name of the cluster unless a call says another.
pub const DEFAULT: &str = "cluster";

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Name of the cluster: several can be up at once
    #[arg(long, value_name = "NAME", default_value = DEFAULT, global = true, value_parser = name)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring it up, or repair it; where it is up, do nothing
    Up {
        /// How many nodes [default: those that it has, or 2]
        #[arg(long, value_name = "N")]
        nodes: Option<u8>,
    },
    /// Build the images, load them, and install the product with the manifests of deploy/; again: what has changed
    Install,
    /// Take it down; only the programs and the logs stay
    Down,
    /// Show machines, components and nodes; fails where one does not run
    Status,
    /// Import images into every node
    Load {
        /// OCI archives
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
    },
    /// Open a shell with kubectl, and virtctl where the product is installed, or run a command there
    Shell {
        /// Where: cp (the control plane's network), lan (the host on the underlay), or a node
        #[arg(long, value_name = "PLACE", default_value = "cp")]
        on: String,
        /// The command [default: $SHELL]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Show the log of a component; without one, list all logs
    Logs {
        /// The component
        component: Option<String>,
        /// Of this machine only: cp or a node
        machine: Option<String>,
        /// How many lines
        #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
        lines: usize,
    },
    /// Let a node fail, or start it again
    Node {
        /// What to do
        #[arg(value_enum)]
        action: Action,
        /// The node
        node: String,
    },
    /// Let a component fail, or start it again
    Component {
        /// What to do
        #[arg(value_enum)]
        action: Action,
        /// The component
        component: String,
        /// Where it runs: cp or a node
        #[arg(default_value = "cp")]
        machine: String,
    },
    /// Write a kubeconfig for a user
    Kubeconfig {
        /// Name of the user
        #[arg(long)]
        user: String,
        /// A group of the user
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// End it at once, as if the power had failed
    Kill,
    /// Start it
    Start,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cluster = Cluster { name: &arguments.name };
    setup::require_root("the test cluster")?;
    match &arguments.command {
        Command::Up { nodes } => {
            process::catch_signals()?;
            setup::ensure(&mut |line| println!("cluster: {line}"))?;
            bring_up(cluster, *nodes)?;
            let call = if cluster.name == DEFAULT { String::new() } else { format!("--name {} ", cluster.name) };
            // The API server can be reached in there only.
            println!("  cargo xtask cluster {call}shell                         # a shell with kubectl");
            println!("  cargo xtask cluster {call}shell -- kubectl get nodes    # or one command");
            println!("  cargo xtask cluster {call}install                       # the product; virtctl for the shell");
        }
        Command::Install => {
            process::catch_signals()?;
            setup::ensure(&mut |line| println!("cluster: {line}"))?;
            install::ensure(cluster, &mut |line| println!("cluster: {line}"))?;
        }
        Command::Down => {
            take_down(cluster)?;
            println!("cluster: down");
        }
        Command::Status => return Ok(if status::show(cluster)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Command::Load { archives } => load(cluster, archives)?,
        Command::Shell { on, command } => shell::run(cluster, on, command)?,
        Command::Logs { component, machine, lines } => {
            logs::show(&cluster, component.as_deref(), machine.as_deref(), *lines)?;
        }
        Command::Node { action, node } => {
            let _lock = lock(cluster)?;
            let node = find_node(cluster, node)?;
            match action {
                Action::Kill => node.machine.end()?,
                Action::Start => up::start_node(cluster, &node)?,
            }
        }
        Command::Component { action, component, machine } => {
            let (machine, component) = find_component(cluster, machine, component)?;
            match action {
                Action::Kill => component.kill(&machine)?,
                Action::Start => drop(component.start(&machine)?),
            }
        }
        Command::Kubeconfig { user, groups } => {
            let file = cluster.kubeconfig(&format!("user-{user}"));
            Pki::of(cluster)?.user(user, groups, &file)?;
            println!("{}", file.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings a cluster up, or repairs it.
pub fn bring_up(cluster: Cluster<'_>, nodes: Option<u8>) -> Result<()> {
    let _lock = lock(cluster)?;
    up::up(cluster, nodes)
}

/// Takes a cluster down.
pub fn take_down(cluster: Cluster<'_>) -> Result<()> {
    let _lock = lock(cluster)?;
    down::down(cluster)
}

/// What a program needs in its environment to find kubectl and the API server.
pub fn environment(cluster: Cluster<'_>) -> [(&'static str, OsString); 2] {
    let own = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{own}", layout::programs().display());
    [("KUBECONFIG", cluster.kubeconfig("admin").into()), ("PATH", path.into())]
}

/// A program in the network of one of a cluster's namespaces that are no machine: `cp` or `lan`. Everything else is
/// that of this process.
pub fn inside(cluster: Cluster<'_>, place: &str, program: impl AsRef<std::ffi::OsStr>) -> Program {
    let namespace = format!("--net=/run/netns/{}", cluster.netns(place));
    let program = Program::new("nsenter").args([&namespace, "--"]).arg(program);
    environment(cluster).into_iter().fold(program, |program, (name, value)| program.env(name, value))
}

/// Puts a program beside kubectl, where a shell finds it.
pub fn offer(program: &Path) -> Result<()> {
    workspace::place(program, &layout::programs())
}

/// Imports archives into all nodes at once.
fn load(cluster: Cluster<'_>, archives: &[PathBuf]) -> Result<()> {
    let nodes = up::nodes(cluster)?;
    std::thread::scope(|scope| {
        let import = |node: &Node<'_>| archives.iter().try_for_each(|archive| image::import(node, archive));
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || import(node))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread ended")))
    })
}

fn find_node<'a>(cluster: Cluster<'a>, name: &str) -> Result<Node<'a>> {
    let found = up::nodes(cluster)?.into_iter().find(|node| node.machine.name == name);
    found.with_context(|| format!("there is no node `{name}`"))
}

fn find_component<'a>(cluster: Cluster<'a>, machine: &str, name: &str) -> Result<(Machine<'a>, Component)> {
    let control_plane = cluster.control_plane();
    let (machine, components) = if machine == control_plane.name {
        (control_plane, control_plane::components(cluster, &Pki::of(cluster)?).to_vec())
    } else {
        let node = find_node(cluster, machine)?;
        let components = node::components(&node).to_vec();
        (node.machine, components)
    };
    let names: Vec<_> = components.iter().map(|component| component.name).collect();
    let missing = format!("`{}` has no `{name}`, but {}", machine.name, names.join(", "));
    let found = components.into_iter().find(|component| component.name == name);
    Ok((machine, found.context(missing)?))
}

/// Keeps others from changing the cluster for as long as it lives.
fn lock(cluster: Cluster<'_>) -> Result<Flock<File>> {
    let path = Path::new("/run/lock").join(cluster.mark());
    let file = File::create(&path).with_context(|| format!("failed to open {}", path.display()))?;
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Ok(lock),
        Err((file, _)) => file,
    };
    println!("cluster: waiting for another call to end");
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("failed to lock {}", path.display()))
}

/// A name becomes part of names of links' namespaces and folders.
pub fn name(text: &str) -> Result<String, String> {
    let fits =
        (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if fits { Ok(text.to_owned()) } else { Err("a name has 1 to 16 characters of a-z and 0-9".to_owned()) }
}
