//! `virt-launcher probe`: asks libvirt once what QEMU can do on this node, for the node's labels, and keeps libvirt's
//! own cache of QEMU's answers, so that no launcher on this node has to ask again.
//!
//! What QEMU can do depends on whether it may use KVM, so it is asked as a launcher with KVM would ask it, and as one
//! without. Run as root (which it needs to be to show and hide the device), each question is asked by a child that is
//! confined as a launcher is, in a mount namespace of its own: no device of anybody else changes. Invariant: a folder
//! of answers appears complete or not at all.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use crate::libvirt::{Daemon, Host};
use crate::{confinement, tool};

/// User and group of launchers.
const USER: u32 = 107;
/// Longest that libvirt and QEMU may take for all answers about one accelerator.
const DEADLINE: Duration = Duration::from_secs(60);
const KVM: &str = "/dev/kvm";
/// The machine that VMs have unless they ask for another.
const MACHINE: &str = if cfg!(target_arch = "aarch64") { "virt" } else { "q35" };

/// Asks libvirt what QEMU can do on this node.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder for the answers: one folder in it for each accelerator.
    #[arg(long)]
    output: PathBuf,
    /// Folder for libvirt's sockets, state and settings while it is asked. Short, for it holds sockets.
    #[arg(long, default_value = "/var/run/libvirt")]
    libvirt_dir: PathBuf,
    /// Only this accelerator, in this process.
    #[arg(long, hide = true)]
    accelerator: Option<Accelerator>,
}

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// QEMU itself.
    Emulation,
    /// The kernel.
    Kvm,
}

impl Accelerator {
    fn folder(self) -> &'static str {
        match self {
            Self::Emulation => "emulation",
            Self::Kvm => "kvm",
        }
    }

    /// libvirt's name for it.
    fn domain_type(self) -> &'static str {
        match self {
            Self::Emulation => "qemu",
            Self::Kvm => "kvm",
        }
    }
}

/// Asks about each accelerator that this process can show to a launcher.
///
/// # Errors
/// When nothing can be told about emulation, which works everywhere. A KVM that fails is logged: the node's agent
/// finds out by itself whether it can be used.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(accelerator) = options.accelerator {
        return ask(options, accelerator).with_context(|| format!("failed to ask about {accelerator:?}"));
    }
    let mut accelerators = vec![Accelerator::Emulation];
    if Path::new(KVM).exists() {
        accelerators.push(Accelerator::Kvm);
    }
    for accelerator in accelerators {
        let mut command = Command::new("/proc/self/exe");
        command.arg("probe").arg("--output").arg(&options.output).arg("--libvirt-dir").arg(&options.libvirt_dir);
        command.args(["--accelerator", accelerator.folder()]);
        match tool::run(&mut command, DEADLINE) {
            Err(error) if accelerator == Accelerator::Kvm => tracing::warn!(%error, "failed to ask about KVM"),
            other => other?,
        }
    }
    Ok(())
}

fn ask(options: &Options, accelerator: Accelerator) -> anyhow::Result<()> {
    let folder = options.output.join(accelerator.folder());
    let new = options.output.join(format!("{}.new", accelerator.folder()));
    let libvirt = options.libvirt_dir.join(accelerator.folder());
    for old in [&new, &libvirt] {
        match fs::remove_dir_all(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("failed to remove `{}`", old.display()));
            }
            _ => fs::create_dir_all(old).with_context(|| format!("failed to make `{}`", old.display()))?,
        }
    }
    if geteuid().is_root() {
        for own in [&options.output, &new, &libvirt] {
            chown(own, Some(USER), Some(USER)).with_context(|| format!("failed to give `{}` away", own.display()))?;
        }
        show_devices(&libvirt, accelerator).context("failed to prepare the devices")?;
        drop_privileges().context("failed to give up privileges")?;
    }
    confinement::check()?;
    let mut daemon = Daemon::new(&libvirt);
    let answers = answers(&mut daemon, accelerator, &new);
    daemon.end();
    answers?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::rename(&new, &folder),
    }
    .with_context(|| format!("failed to replace `{}`", folder.display()))
}

/// Writes everything that is to be known into `folder`.
fn answers(daemon: &mut Daemon, accelerator: Accelerator, folder: &Path) -> anyhow::Result<()> {
    daemon.ensure()?;
    let kind = accelerator.domain_type();
    let host = Host::open(daemon.socket(), MACHINE, kind)?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))
    };
    let domain = host.domain_capabilities()?;
    write(&format!("domcapabilities-{MACHINE}-{kind}.xml"), &domain)?;
    if let Some(cpu) = host.host_model(&domain)? {
        write(&format!("host-model-{MACHINE}-{kind}.xml"), &cpu)?;
    }
    // Now it is about the one emulator that VMs use; the host's capabilities ask all others, too.
    let cache = folder.join("cache");
    fs::create_dir_all(&cache).with_context(|| format!("failed to make `{}`", cache.display()))?;
    for entry in fs::read_dir(daemon.cache()).context("failed to list libvirt's cache")? {
        let entry = entry.context("failed to list libvirt's cache")?;
        fs::copy(entry.path(), cache.join(entry.file_name())).context("failed to copy libvirt's cache")?;
    }
    write("capabilities.xml", &host.capabilities()?)
}

/// Makes /dev/kvm what a launcher sees of it, for this process and its children only.
fn show_devices(scratch: &Path, accelerator: Accelerator) -> anyhow::Result<()> {
    let Ok(device) = fs::metadata(KVM) else { return Ok(()) };
    unshare(CloneFlags::CLONE_NEWNS).context("failed to make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("failed to make mounts private")?;
    let devices = scratch.join("dev");
    fs::create_dir_all(&devices).context("failed to make a folder")?;
    // A file system of its own, for the one below may not allow devices.
    mount(Some("tmpfs"), &devices, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=64k"))
        .context("failed to mount a file system")?;
    let node = devices.join("kvm");
    match accelerator {
        Accelerator::Emulation => drop(fs::File::create(&node).context("failed to make a file")?),
        Accelerator::Kvm => {
            mknod(&node, SFlag::S_IFCHR, Mode::empty(), device.rdev()).context("failed to make a device node")?;
            chown(&node, Some(USER), Some(USER)).context("failed to give the device node away")?;
        }
    }
    let mode = if accelerator == Accelerator::Kvm { 0o600 } else { 0o000 };
    fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(mode)).context("failed to set a mode")?;
    mount(Some(&node), KVM, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("failed to show the device node")
}

fn drop_privileges() -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    // From root to an ordinary user: the kernel takes all capabilities away.
    setresuid(user, user, user)?;
    nix::sys::prctl::set_no_new_privs()
}
