//! The sandbox's first process: holdfastd itself, executed anew, becomes what the plan says and then the program.
//!
//! It is single-threaded (it runs before any runtime starts). What it reports goes through one pipe: a line with
//! the pid of the program-to-be, then either nothing (the pipe closes by itself when the program is executed) or
//! the error. It waits for a word from holdfastd before it executes the program, and ends when holdfastd went
//! away instead: no program ever runs that is not written down.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, execve, fork, sethostname, setsid};

use super::plan::{Plan, QEMU_ID};
use super::privileges;
use super::root::{self, StepError};

/// The argument that makes holdfastd a sandbox's first process.
pub const SUBCOMMAND: &str = "sandbox-init";

/// What holdfastd says when the process is written down.
pub const GO: [u8; 2] = *b"go";

/// Carries the plan out. Returns the process's exit code; on success it never returns in the inner process.
pub fn main(plan: &str) -> i32 {
    // From now on standard output is the report's pipe and nothing else, and the program must not inherit it.
    let report = match io::stdout().as_fd().try_clone_to_owned() {
        Ok(fd) => File::from(fd),
        Err(_) => return 1,
    };
    let result = serde_json::from_str(plan)
        .map_err(|error| ("read the plan".to_owned(), io::Error::from(error)))
        .and_then(|plan: Plan| become_sandbox(&plan, &report));
    let Err((what, error)) = result else { return 0 };
    // Nobody is left to be told when this fails.
    let _ = writeln!(&report, "error failed to {what}: {error}");
    1
}

fn become_sandbox(plan: &Plan, report: &File) -> Result<(), StepError> {
    let step = |what: &str, result: io::Result<()>| result.map_err(|error| (what.to_owned(), error));
    let flag = fcntl(report, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map(drop);
    step("prepare the report", flag.map_err(io::Error::from))?;
    for procs in &plan.cgroups {
        step(&format!("enter cgroup `{}`", procs.display()), fs::write(procs, "0"))?;
    }
    // Away from holdfastd's session: no signal to its terminal reaches the VM. (Not the leader of a group yet
    // unless something is odd, and then it is its own session already.)
    let _ = setsid();
    let netns = File::open(&plan.netns).map_err(|error| (format!("open `{}`", plan.netns.display()), error))?;
    step("join the network namespace", setns(&netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from))?;
    let namespaces =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    step("leave the host's namespaces", unshare(namespaces).map_err(io::Error::from))?;
    step("set the host name", sethostname(&plan.hostname).map_err(io::Error::from))?;
    let log = open_log(plan).map_err(|error| (format!("open log `{}`", plan.log.display()), error))?;
    root::assemble(plan)?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    match unsafe { fork() }.map_err(|errno| ("fork".to_owned(), errno.into()))? {
        ForkResult::Parent { child } => {
            step("report", writeln!(&*report, "pid {child}"))?;
            // Stay its parent until it is held: until then its pid must not be given to another.
            wait_for_go();
            Ok(())
        }
        ForkResult::Child => {
            root::enter(&plan.root)?;
            if !wait_for_go() {
                return Err(("start".to_owned(), io::Error::other("holdfastd went away")));
            }
            run(plan, &log).map(|never| match never {})
        }
    }
}

/// Each of the two processes takes one byte; an end of file means that holdfastd is gone.
fn wait_for_go() -> bool {
    let mut byte = [0];
    matches!(io::stdin().as_fd().try_clone_to_owned().map(File::from).and_then(|mut f| f.read(&mut byte)), Ok(1))
}

fn open_log(plan: &Plan) -> io::Result<File> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&plan.log)?;
    Ok(log)
}

fn run(plan: &Plan, log: &File) -> Result<Infallible, StepError> {
    let failed = |what: &str, error: io::Error| (what.to_owned(), error);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| failed("open /dev/null", error))?;
    // The launcher's log is what it writes to standard error; to standard output it copies its guest's console, of
    // which the guest decides how much it is, and which is in a bounded file anyway.
    let outputs = dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(log));
    outputs.map_err(|errno| failed("redirect output", errno.into()))?;
    let text = |s: &str| CString::new(s).map_err(|error| failed("prepare the command", error.into()));
    let arguments: Vec<CString> = plan.command.iter().map(|s| text(s)).collect::<Result<_, _>>()?;
    let environment: Vec<CString> =
        plan.environment.iter().map(|(name, value)| text(&format!("{name}={value}"))).collect::<Result<_, _>>()?;
    let program = arguments.first().ok_or_else(|| failed("find the program", io::ErrorKind::InvalidInput.into()))?;
    let name = program.to_string_lossy().into_owned();
    privileges::drop_to(QEMU_ID, QEMU_ID).map_err(|error| failed("give up privileges", error))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
    execve(program, &arguments, &environment).map_err(|errno| failed(&format!("execute {name}"), errno.into()))
}
