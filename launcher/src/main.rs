//! virt-launcher. Checks that it is confined, splits off the reaper, and serves its VM.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::Context;
use clap::Parser;
use holdfast_launcher::paths::Paths;
use holdfast_launcher::vm::{Identity, Message, Vm};
use holdfast_launcher::{allocator, confinement, libvirt, probe, reaper, server, taps};
use nix::sys::signal::{SigSet, Signal};

/// The argument that makes it a probe.
const PROBE: &str = "probe";

/// Runs one virtual machine. As `virt-launcher probe`, asks libvirt once what QEMU can do on this node.
#[derive(Debug, Parser)]
#[command(name = "virt-launcher", version)]
struct Launch {
    /// Name of the VirtualMachineInstance.
    #[arg(long)]
    name: String,
    /// Its namespace.
    #[arg(long)]
    namespace: String,
    /// Its UID.
    #[arg(long)]
    uid: String,
    /// Seconds that the guest has to power off when this process is asked to end.
    #[arg(long, default_value_t = 30)]
    grace_period_seconds: u64,
    /// Where to listen for the agent.
    #[arg(long, default_value = "/var/run/kubevirt/sockets/launcher.sock")]
    socket: PathBuf,
    #[command(flatten)]
    paths: Paths,
}

/// Asks libvirt what QEMU can do on this node.
#[derive(Debug, Parser)]
#[command(name = "virt-launcher probe", version)]
struct Probe {
    #[command(flatten)]
    probe: probe::Options,
}

fn main() -> anyhow::Result<ExitCode> {
    let name = std::env::args_os().next();
    if name.is_some_and(|name| std::path::Path::new(&name).file_name() == Some(taps::HELPER.as_ref())) {
        taps::help(std::env::args())?;
        return Ok(ExitCode::SUCCESS);
    }
    // Not clap's subcommands: a launcher's arguments are those of upstream, which has none, and all needed.
    let mut arguments = std::env::args_os();
    if arguments.nth(1).is_some_and(|first| first == PROBE) {
        let options = Probe::parse_from(std::iter::once("virt-launcher probe".into()).chain(arguments));
        // libvirt waits for the end of each QEMU that it asked, and they are orphans.
        reaper::split().context("failed to split off the reaper")?;
        log();
        probe::run(&options.probe)?;
        return Ok(ExitCode::SUCCESS);
    }
    launch(Launch::parse())
}

fn log() {
    // RUST_LOG, or what matters to an operator.
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}

fn launch(options: Launch) -> anyhow::Result<ExitCode> {
    confinement::check()?;
    allocator::be_sparing();
    reaper::split().context("failed to split off the reaper")?;
    log();
    let (outbox, inbox) = mpsc::channel();
    forward_sigterm(outbox.clone())?;
    libvirt::run_event_loop().context("failed to start libvirt's event loop")?;
    let identity = Identity {
        namespace: options.namespace,
        name: options.name,
        uid: options.uid,
        grace_seconds: options.grace_period_seconds,
    };
    let uid = identity.uid.clone();
    let vm = Vm::new(identity, options.paths, inbox, outbox.clone()).context("failed to start")?;
    server::serve(&options.socket, &uid, outbox)?;
    Ok(if vm.run() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Turns SIGTERM and SIGINT into messages. Called before any other thread, which inherit the blocked signals.
fn forward_sigterm(outbox: mpsc::Sender<Message>) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().context("failed to block signals")?;
    let wait = move || {
        while signals.wait().is_ok() {
            if outbox.send(Message::Terminate).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
    Ok(())
}
