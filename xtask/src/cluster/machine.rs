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
        // One that was killed has no namespaces any more, and stays until all its processes are reaped.
        self.init_or_rest().filter(|init| Path::new(&format!("/proc/{}/ns/net", init.pid)).exists())
    }

    /// Its init, where that runs or is about to end.
    fn init_or_rest(&self) -> Option<Record> {
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
        if let Some(init) = self.init_or_rest() {
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
    let mut log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("failed to open {}", log.display()))?;
    log.write_all(logs::START.as_bytes()).context("failed to write to a log")?;
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
    let mut child = std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            enter()?;
            command.spawn().with_context(|| format!("failed to start {name}"))
        });
        child.join().unwrap_or_else(|_| bail!("failed to start {name}: the thread ended"))
    })?;
    let record = Record::of(child.id())?;
    // A zombie would hold up the end of its pid namespace. The thread is gone at the latest when this process is.
    std::thread::spawn(move || child.wait());
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Cluster;
    use super::super::network;
    use super::*;

    /// Takes the machines down also where the test fails.
    struct Down<'a>(Cluster<'a>);

    impl Drop for Down<'_> {
        fn drop(&mut self) {
            let _ = super::super::down::down(self.0);
            let _ = fs::remove_dir_all(self.0.logs());
        }
    }

    /// Digits in number: no name begins another.
    fn unique(what: &str) -> String {
        format!("{what}{:07}", std::process::id())
    }

    fn number(path: &str) -> String {
        fs::read_link(path).unwrap().display().to_string()
    }

    #[test]
    fn ends_with_all_that_it_runs() {
        let name = unique("end");
        let down = Down(Cluster { name: &name });
        let machine = down.0.control_plane();
        network::make_namespace(&machine.netns()).unwrap();
        machine.start(include_str!("control-plane.sh"), &[]).unwrap();
        let init = machine.running().unwrap();
        let other = machine.spawn("other", "sleep", &["infinity".to_owned()]).unwrap();
        for namespace in ["net", "pid", "mnt", "uts", "cgroup"] {
            let [mine, of_init, of_other] = [
                number(&format!("/proc/self/ns/{namespace}")),
                number(&format!("/proc/{}/ns/{namespace}", init.pid)),
                number(&format!("/proc/{}/ns/{namespace}", other.pid)),
            ];
            assert!(mine != of_init && of_init == of_other, "{namespace}: {mine} {of_init} {of_other}");
        }
        // A lost record does not save it.
        fs::remove_dir_all(machine.records()).unwrap();
        machine.end().unwrap();
        process::wait_for("all to be gone", DEADLINE, || Ok((!init.is_alive() && !other.is_alive()).then_some(())))
            .unwrap();
        assert!(!Path::new("/run/netns").join(machine.netns()).exists());
        machine.end().unwrap();
    }

    #[test]
    fn a_node_writes_to_places_of_its_own() {
        let name = unique("own");
        let down = Down(Cluster { name: &name });
        let machine = down.0.node(1).machine;
        network::make_namespace(&machine.netns()).unwrap();
        fs::create_dir_all(machine.folder()).unwrap();
        let folder = machine.folder().display().to_string();
        let mut arguments = vec![machine.name.clone(), folder, "/usr/bin".to_owned()];
        arguments.extend(cgroup::hierarchies().unwrap().iter().map(cgroup::Hierarchy::word));
        machine.start(include_str!("node.sh"), &arguments).unwrap();
        let places = ["/etc", "/opt", "/run", "/tmp", "/var/lib", "/var/run"].map(|place| format!("{place}/{name}"));
        machine.program("touch").unwrap().args(&places).output().unwrap();
        for place in places {
            assert!(!Path::new(&place).exists(), "{place} came out on the host");
        }
        assert_eq!(machine.program("hostname").unwrap().output().unwrap().trim(), machine.name);
        let mounts = machine.program("cat").unwrap().arg("/proc/self/mountinfo").output().unwrap();
        assert!(!mounts.contains(" - nsfs "), "it keeps namespaces of others alive:\n{mounts}");
    }
}
