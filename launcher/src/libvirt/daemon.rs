//! A libvirtd of the VM's own, in session mode, with its settings and all of its files under one private folder.
//!
//! It is started when nobody answers on its socket, and is not tied to the launcher's life: a launcher that starts
//! again finds it there. Only its QEMU driver is loaded; the others cost memory and look for services that a
//! sandbox does not have. It asks QEMU what it can do before the first domain, which takes longer than all the rest of
//! a start, unless its cache has the answers: they are the same for all VMs of a node.

use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_agent_api::launcher::CacheFile;

use crate::{paths, taps};

/// How long libvirtd may take until it listens.
const DEADLINE: Duration = Duration::from_secs(30);
const DRIVER: &str = "libvirt_driver_qemu.so";
/// Where distributions keep libvirt's drivers.
const DRIVER_FOLDERS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver",
    "/usr/lib/aarch64-linux-gnu/libvirt/connection-driver",
    "/usr/lib64/libvirt/connection-driver",
    "/usr/lib/libvirt/connection-driver",
];

/// No security driver, cgroups or mount namespaces: the sandbox around it does that, and it may not.
const QEMU_CONF: &str = "\
security_driver = \"none\"
namespaces = []
cgroup_controllers = []
stdio_handler = \"file\"
seccomp_sandbox = 0
max_core = 0
";
/// Few threads: one client, one domain.
const LIBVIRTD_CONF: &str = "\
min_workers = 1
max_workers = 5
prio_workers = 2
admin_min_workers = 1
admin_max_workers = 1
log_outputs = \"3:stderr\"
";
/// Settings of the C library's allocator: libvirtd works in bursts, and what a thread of it once used would stay with
/// that thread for the VM's life.
const ALLOCATOR: [(&str, &str); 5] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
    ("MALLOC_TOP_PAD_", "16384"),
    // Nor does each thread keep what it has freed from being joined to its neighbours.
    ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"),
];

/// Why libvirtd is not there.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its folders or settings could not be written.
    #[error("failed to write `{path}`")]
    Settings {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be started.
    #[error("failed to start `libvirtd`")]
    Start(#[source] io::Error),
    /// It ended at once.
    #[error("`libvirtd` ended at its start: {0}")]
    Ended(std::process::ExitStatus),
    /// It does not listen.
    #[error("`libvirtd` does not listen on `{0}`")]
    Deadline(PathBuf),
}

/// The daemon and where it lives.
#[derive(Debug)]
pub struct Daemon {
    folder: PathBuf,
    socket: PathBuf,
    /// The process, where it is our child and not that of a launcher before us.
    child: Option<Child>,
}

impl Daemon {
    /// Names the daemon that has its sockets, state and settings in `folder`; starts nothing.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), socket: folder.join("run/libvirt/libvirt-sock"), child: None }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes sure that it runs and listens.
    ///
    /// # Errors
    /// [`DaemonError`]; to be tried again.
    pub fn ensure(&mut self) -> Result<(), DaemonError> {
        if UnixStream::connect(&self.socket).is_ok() {
            return Ok(());
        }
        self.end();
        self.write_settings()?;
        let mut child = self.command().spawn().map_err(DaemonError::Start)?;
        let deadline = Instant::now() + DEADLINE;
        let mut pause = Duration::from_millis(2);
        while UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = child.try_wait().map_err(DaemonError::Start)? {
                return Err(DaemonError::Ended(status));
            }
            if Instant::now() > deadline {
                self.child = Some(child);
                self.end();
                return Err(DaemonError::Deadline(self.socket.clone()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.child = Some(child);
        Ok(())
    }

    /// Puts answers of QEMU where libvirtd looks for them before it asks. What is there is newer.
    ///
    /// # Errors
    /// [`DaemonError::Settings`]; it can do without.
    pub fn warm(&self, files: &[CacheFile]) -> Result<(), DaemonError> {
        let folder = self.cache();
        let settings = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::Settings { path, source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(settings(&folder))?;
        for file in files.iter().filter(|file| !file.name.contains('/') && file.name.ends_with(".xml")) {
            let path = folder.join(&file.name);
            if !path.exists() {
                paths::replace(&path, file.contents.as_bytes()).map_err(settings(&path))?;
            }
        }
        Ok(())
    }

    /// Where libvirtd keeps what QEMU answered.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.folder.join("cache/libvirt/qemu/cache/capabilities")
    }

    /// Ends the daemon, also one that hangs, and one that a launcher before us started. Domains are not its children
    /// and run on.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended by itself cannot be killed, but must be waited for.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        let recorded = std::fs::read_to_string(self.folder.join("run/libvirt/libvirtd.pid"));
        let Some(pid) = recorded.ok().and_then(|pid| pid.trim().parse::<i32>().ok()) else { return };
        // The number may have gone to another process of this sandbox since.
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "libvirtd") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("libvirtd");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &self.folder);
        for (name, folder) in [("CONFIG", "config"), ("CACHE", "cache"), ("DATA", "data")] {
            command.env(format!("XDG_{name}_HOME"), self.folder.join(folder));
        }
        command.env("XDG_RUNTIME_DIR", self.folder.join("run")).envs(ALLOCATOR);
        command.env("LIBVIRT_DRIVER_DIR", self.folder.join("drivers"));
        command
    }

    fn write_settings(&self) -> Result<(), DaemonError> {
        let settings = |path: &Path| {
            let path = path.to_owned();
            move |source| DaemonError::Settings { path, source }
        };
        let config = self.folder.join("config/libvirt");
        let drivers = self.folder.join("drivers");
        for folder in [&config, &drivers, &self.folder.join("run"), &self.folder.join("cache")] {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(settings(folder))?;
        }
        let qemu_conf = format!("{QEMU_CONF}bridge_helper = \"{}\"\n", taps::helper(&self.folder).display());
        for (name, contents) in [("qemu.conf", qemu_conf.as_str()), ("libvirtd.conf", LIBVIRTD_CONF)] {
            let path = config.join(name);
            std::fs::write(&path, contents).map_err(settings(&path))?;
        }
        let driver = DRIVER_FOLDERS.iter().map(|folder| Path::new(folder).join(DRIVER)).find(|path| path.exists());
        let link = drivers.join(DRIVER);
        match symlink(driver.unwrap_or_else(|| Path::new(DRIVER_FOLDERS[0]).join(DRIVER)), &link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(settings(&link)(error)),
            _ => Ok(()),
        }
    }
}
