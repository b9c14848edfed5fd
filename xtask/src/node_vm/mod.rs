//! A VM that stands in for a node with a distribution's kernel: the programs, libraries and tests of this machine, on
//! the kernel of Debian's cloud images. For what a machine's own kernel lacks: VLANs on bridges, bonds, the kernel's
//! Open vSwitch, vhost-net, nested KVM.
//!
//! Its root is this machine's, over virtiofs and read only, with a layer in memory for what it writes. So nothing is
//! installed into it, and a test that was built here is in it at the same path.
//!
//! Invariant: it ends with the value, and with this process, and what was done in it is gone then.

pub mod execute;
mod kernel;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process;

/// Longest time until it takes commands; 12 to 20 s where nothing else runs.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
/// Its memory: guests of 128 MiB each, and what tests write.
const MEMORY: &str = "4096M";
/// What serves the machine's root; Debian 12 has it where QEMU's helpers are, later ones in a package of its own.
const VIRTIOFSD: [&str; 2] = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];

/// One that runs.
pub struct NodeVm {
    // In this order: the file server ends when QEMU has.
    qemu: Child,
    files: Child,
    folder: TempDir,
}

impl NodeVm {
    /// Boots one, and waits until it takes commands.
    pub fn boot() -> Result<Self> {
        let kernel = kernel::ensure()?;
        let folder = tempfile::Builder::new().prefix("node-vm-").tempdir().context("failed to make a folder")?;
        let files = serve_files(&folder.path().join("files"))?;
        let mut vm = match qemu(&kernel, folder.path()) {
            Ok(qemu) => Self { qemu, files, folder },
            Err(error) => {
                end(files);
                return Err(error);
            }
        };
        vm.wait_until_ready()?;
        Ok(vm)
    }

    /// Where commands are taken: the argument of [`execute::run`].
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("execute")
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let console = self.folder.path().join("console");
        let ready = process::wait_for("the node VM", BOOT_DEADLINE, || {
            if let Some(status) = self.qemu.try_wait()? {
                bail!("the node VM ended: {status}");
            }
            let said = fs::read(&console).unwrap_or_default();
            Ok(String::from_utf8_lossy(&said).lines().any(|line| line.trim() == "ready").then_some(()))
        });
        ready.with_context(|| format!("failed to boot the node VM; it said:\n{}", self.said()))
    }

    /// The end of what it and its programs said outside of commands.
    pub fn said(&self) -> String {
        let mut all = String::new();
        for name in ["qemu.log", "files.log", "console"] {
            let text = fs::read(self.folder.path().join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            all += &format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        all
    }
}

impl Drop for NodeVm {
    fn drop(&mut self) {
        process::end(&mut self.qemu);
        // It ends by itself, now that its only client is gone; where it does not, it is ended.
        let files = &mut self.files;
        let ended = process::wait_for("virtiofsd", Duration::from_secs(5), || Ok(files.try_wait()?));
        if ended.is_err() {
            process::end(files);
        }
    }
}

fn end(mut child: Child) {
    process::end(&mut child);
}

/// Serves this machine's root to the one who connects. Itself it can write nothing: its root is mounted read only.
fn serve_files(socket: &Path) -> Result<Child> {
    let Some(program) = VIRTIOFSD.into_iter().find(|path| Path::new(path).exists()) else {
        bail!("failed to find virtiofsd: neither {} is there", VIRTIOFSD.join(" nor "));
    };
    let listener = UnixListener::bind(socket).with_context(|| format!("failed to listen on {}", socket.display()))?;
    let mut command = process::command("unshare");
    command.args(["--mount", "sh", "-c", "mount -o remount,bind,ro / && exec \"$@\"", "sh", program]);
    // Descriptors are limited, and lifting that is not everybody's right. Nothing changes here while tests run.
    command.args(["--fd=0", "--rlimit-nofile=0", "-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"]);
    command.stdin(OwnedFd::from(listener));
    command.log_to(&socket.with_file_name("files.log"))?;
    command.start_bound("virtiofsd")
}

/// The machine itself. `svm` and `npt` are what KVM in it needs.
fn qemu(kernel: &kernel::Kernel, folder: &Path) -> Result<Child> {
    let at = |name: &str| folder.join(name).display().to_string();
    let mut command = process::command("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"]);
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,+svm,+npt", "-smp", "2"]);
    // Shared, for virtiofsd reads and writes it.
    command.args(["-m", MEMORY, "-object", &format!("memory-backend-memfd,id=memory,size={MEMORY},share=on")]);
    command.args(["-numa", "node,memdev=memory"]);
    command.args(["-chardev", &format!("socket,id=files,path={}", at("files"))]);
    command.args(["-device", "vhost-user-fs-pci,chardev=files,tag=machine,queue-size=1024"]);
    command.args(["-device", "virtio-serial-pci"]);
    command.args(["-chardev", &format!("socket,id=execute,path={},server=on,wait=off", at("execute"))]);
    command.args(["-device", "virtserialport,chardev=execute,name=execute"]);
    command.args(["-device", "virtio-rng-pci"]);
    command.args(["-serial", &format!("file:{}", at("console"))]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&kernel.initramfs);
    command.args(["-append", &format!("{} node_vm.modules={}", crate::guest::COMMAND_LINE, kernel.modules.display())]);
    command.stdin(Stdio::null());
    command.log_to(&folder.join("qemu.log"))?;
    command.start_bound("qemu-system-x86_64")
}

/// What a program needs that must not outlive this one.
trait Bound {
    /// Its output goes to a file.
    fn log_to(&mut self, file: &Path) -> Result<()>;
    /// Starts it; it is killed when this process ends.
    fn start_bound(&mut self, name: &str) -> Result<Child>;
}

impl Bound for Command {
    fn log_to(&mut self, file: &Path) -> Result<()> {
        let file = File::create(file).with_context(|| format!("failed to make {}", file.display()))?;
        self.stdout(file.try_clone()?).stderr(file);
        Ok(())
    }

    fn start_bound(&mut self, name: &str) -> Result<Child> {
        // SAFETY: between fork and exec it makes one system call, which is async-signal-safe.
        unsafe { self.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) };
        // Apart from the terminal's group: Ctrl-C is for this process, which ends them in order.
        self.process_group(0);
        self.spawn().with_context(|| format!("failed to start {name}"))
    }
}
