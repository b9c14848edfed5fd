//! Machines: a network, mount, UTS, control group and pid namespace each, held by an init.
//!
//! Invariant: whoever ends the init ends every process of the machine, the containers' among them, for they are all
//! in its pid namespace or in one below it. That is how a node is lost, and how a cluster goes down: no process is
//! looked for by name, and none outside of the machine can be hit.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{Machine, PROGRAMS_IN_NODE, programs};
use super::record::Record;
use super::{cgroup, logs};
use crate::process::{self, Program};

/// The record of a machine's init.
const INIT: &str = "init";
/// Longest wait for a machine to begin or to end.
const DEADLINE: Duration = Duration::from_secs(20);

impl Machine<'_> {
    /// Its init, where that runs.
    pub fn init(&self) -> Option<Record> {
        Record::read(&self.records().join(INIT)).filter(Record::is_alive)
    }

    /// Its init; an error where the machine does not run.
    pub fn running(&self) -> Result<Record> {
        self.init().with_context(|| format!("`{}` does not run; `cargo xtask cluster up` starts it", self.name))
    }

    /// Starts its init in the network namespace of its name, which is there: `script` is run by a shell as process 1.
    pub fn start(&self, script: &str, arguments: &[String]) -> Result<()> {
        let netns = Path::new("/run/netns").join(self.netns());
        let netns = File::open(&netns).with_context(|| format!("failed to open {}", netns.display()))?;
        let groups = cgroup::make(self, cgroup::Who::Init)?;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).args(arguments);
        let begin = move || {
            groups.iter().try_for_each(|mut group| group.write_all(b"0"))?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWCGROUP)?;
            Ok(())
        };
        let enter = || unshare(CloneFlags::CLONE_NEWPID).context("failed to make a pid namespace");
        let log = self.log(INIT);
        let init = spawn(command, &log, enter, begin)?;
        init.write(&self.records().join(INIT))?;
        process::wait_for(&format!("`{}` to begin", self.name), DEADLINE, || {
            if !init.is_alive() {
                bail!("`{}` ended as it began:\n{}", self.name, logs::explanation(&log));
            }
            let name = fs::read_to_string(format!("/proc/{}/comm", init.pid)).unwrap_or_default();
            Ok((name.trim() == "tini").then_some(()))
        })
    }

    /// Starts a program in it that goes on, and notes it as `component`.
    pub fn spawn(&self, component: &str, program: &str, arguments: &[String]) -> Result<Record> {
        let init = self.running()?;
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", init.pid);
            File::open(&path).with_context(|| format!("failed to open {path}"))
        };
        let namespaces = [open("cgroup")?, open("net")?, open("uts")?, open("mnt")?];
        let pids = open("pid")?;
        let groups = cgroup::make(self, cgroup::Who::Component)?;
        let mut command = Command::new(program);
        command.args(arguments);
        let begin = move || {
            groups.iter().try_for_each(|mut group| group.write_all(b"0"))?;
            namespaces.iter().try_for_each(|namespace| setns(namespace, CloneFlags::empty()))?;
            Ok(())
        };
        let enter = || setns(pids.as_fd(), CloneFlags::CLONE_NEWPID).context("failed to enter a pid namespace");
        let record = spawn(command, &self.log(component), enter, begin)?;
        record.write(&self.records().join(component))?;
        Ok(record)
    }

    /// A program in all its namespaces, to run to its end.
    pub fn program(&self, name: &str) -> Result<Program> {
        let init = self.running()?;
        let path = format!("PATH={}", search_path());
        Ok(Program::new("nsenter").args(enter_arguments(&init)).args(["env", &path, name]))
    }

    /// Ends it with all its processes, at once, as if its power had failed. What its processes held goes with them,
    /// its network namespace too; its files stay.
    pub fn end(&self) -> Result<()> {
        let end = |pid: i32| {
            // It may end between the look and the call.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        };
        if let Some(init) = self.init() {
            end(init.pid);
            let what = format!("the processes of `{}` to end", self.name);
            process::wait_for(&what, DEADLINE, || Ok((!init.is_alive()).then_some(())))?;
        }
        // Where the record was lost, the namespace tells.
        process::wait_for(&format!("`{}` to be left by its processes", self.netns()), DEADLINE, || {
            let left = self.members()?;
            left.iter().for_each(|pid| end(*pid));
            Ok(left.is_empty().then_some(()))
        })?;
        let _ = fs::remove_dir_all(self.records());
        cgroup::remove(&self.cgroup())?;
        super::network::remove_namespace(&self.netns())
    }

    /// Processes in its network namespace and in another pid namespace than ours: not a shell that was opened there.
    fn members(&self) -> Result<Vec<i32>> {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(netns) = fs::metadata(Path::new("/run/netns").join(self.netns())) else { return Ok(Vec::new()) };
        let own = fs::metadata("/proc/self/ns/pid")?.ino();
        let inside = |folder: &Path| {
            fs::metadata(folder.join("ns/net")).is_ok_and(|net| (net.dev(), net.ino()) == (netns.dev(), netns.ino()))
                && fs::metadata(folder.join("ns/pid")).is_ok_and(|pid| pid.ino() != own)
        };
        let entries = fs::read_dir("/proc").context("failed to list the processes")?.flatten();
        Ok(entries
            .filter(|entry| inside(&entry.path()))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect())
    }
}

/// Arguments by which nsenter(1) goes where a machine's init is.
pub fn enter_arguments(init: &Record) -> Vec<String> {
    let target = format!("--target={}", init.pid);
    [&target, "--net", "--mount", "--uts", "--pid", "--cgroup", "--wdns=/", "--"].map(str::to_owned).to_vec()
}

/// Where machines look for programs.
pub fn search_path() -> String {
    let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    format!("{PROGRAMS_IN_NODE}:{}:{system}", programs().display())
}

/// Starts a program that outlives this process and shares nothing with it but its log. `enter` runs on a thread made
/// for it; `begin` in the new process.
fn spawn(
    mut command: Command,
    log: &PathBuf,
    enter: impl FnOnce() -> Result<()> + Send,
    begin: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<Record> {
    let name = command.get_program().to_string_lossy().into_owned();
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    }
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open {}", log.display()))?;
    let mut begin = begin;
    command
        .env_clear()
        .envs([("PATH", search_path().as_str()), ("HOME", "/root"), ("LANG", "C.UTF-8")])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    // SAFETY: the closure makes system calls on files that are open already and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            begin()?;
            nix::unistd::setsid()?;
            // Whoever called us may wait for files to be closed that they left open in us.
            nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, nix::libc::CLOSE_RANGE_CLOEXEC);
            Ok(())
        })
    };
    // The pid namespace of a process's children is a property of the thread that makes them.
    let child = std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            enter()?;
            command.spawn().with_context(|| format!("failed to start {name}"))
        });
        child.join().unwrap_or_else(|_| bail!("failed to start {name}: the thread ended"))
    })?;
    Record::of(child.id())
}
