//! Other programs: each call has a deadline, and its failure says what the program said.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal, kill};
use nix::unistd::Pid;

/// How often a wait looks at what it waits for.
pub const POLL: Duration = Duration::from_millis(20);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupted_by(_: nix::libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// From now on SIGINT, SIGTERM and SIGHUP end the waits of this module with an error instead of ending the
/// process, so that what was set up can be taken down.
pub fn catch_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(interrupted_by), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { signal::sigaction(signal, &action) }.context("failed to catch signals")?;
    }
    Ok(())
}

/// Forgets a signal that was caught, so that the taking down can wait again.
pub fn forget_signals() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// An error once a signal was caught.
pub fn check_signals() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) { bail!("interrupted") } else { Ok(()) }
}

/// Waits until `ready` gives a value, at most for `deadline`. `what` completes "timed out waiting for".
pub fn wait_for<T>(what: &str, deadline: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        check_signals()?;
        if Instant::now() >= end {
            bail!("timed out waiting for {what} after {} s", deadline.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// The program `name` without what cargo tells xtask of its own package: some build scripts look at these variables,
/// and would be run again, with all that depends on them, whenever xtask is started in another way than before.
pub fn command(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    let of_package = |name: &OsStr| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_package(name)) {
        command.env_remove(name);
    }
    command
}

/// A program to run to its end.
pub struct Program {
    command: Command,
    deadline: Duration,
}

impl Program {
    /// The program `name`, looked up in PATH, with a deadline of 30 seconds.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = command(name);
        command.stdin(Stdio::null());
        Self { command, deadline: Duration::from_secs(30) }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.command.args(args);
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in `folder`.
    pub fn folder(mut self, folder: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// Gives it a file to read as its standard input.
    pub fn stdin(mut self, file: File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Gives it a file to write its standard error to.
    pub fn stderr(mut self, file: File) -> Self {
        self.command.stderr(file);
        self
    }

    /// Gives it another deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it and returns its standard output; a failure holds the end of its standard error.
    pub fn output(mut self) -> Result<String> {
        let mut out = tempfile::tempfile().context("failed to make a temporary file")?;
        let mut err = tempfile::tempfile().context("failed to make a temporary file")?;
        self.command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let status = self.wait().map_err(|error| with_tail(error, &mut err))?;
        if !status.success() {
            return Err(with_tail(anyhow::anyhow!("`{self}` failed: {status}"), &mut err));
        }
        read_from_start(&mut out)
    }

    /// Runs it with this process's own standard output and error.
    pub fn show(mut self) -> Result<()> {
        let status = self.wait()?;
        if !status.success() {
            bail!("`{self}` failed: {status}");
        }
        Ok(())
    }

    /// Starts it; its output is dropped. Whoever starts it ends it.
    pub fn start(mut self) -> Result<Child> {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.command.spawn().with_context(|| format!("failed to start `{self}`"))
    }

    /// Whether it runs and exits with 0; its output is dropped.
    pub fn succeeds(mut self) -> bool {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self.wait().is_ok_and(|status| status.success())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.command.spawn().with_context(|| format!("failed to start `{self}`"))?;
        let status = wait_for(&format!("`{self}`"), self.deadline, || Ok(child.try_wait()?));
        if status.is_err() {
            end(&mut child);
        }
        status
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.command.get_program().to_string_lossy())?;
        self.command.get_args().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

/// Ends a child of ours at once and reaps it.
pub fn end(child: &mut Child) {
    // Both fail only where the child is gone already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// Asks the process of a pid file to end, and ends it where it does not. A pid that now belongs to another program
/// is left alone.
pub fn end_by_pidfile(file: &Path, program: &str, deadline: Duration) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
    let pid: i32 = text.trim().parse().with_context(|| format!("failed to parse {}", file.display()))?;
    let alive = || {
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with(program)))
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if !alive() {
            break;
        }
        // It may end between the look and the call.
        let _ = kill(Pid::from_raw(pid), signal);
        let gone = wait_for(program, deadline, || Ok((!alive()).then_some(())));
        if signal == Signal::SIGKILL {
            gone.with_context(|| format!("failed to end {program} ({pid})"))?;
        }
    }
    Ok(())
}

fn read_from_start(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The error with the last lines of what the program wrote to its standard error.
fn with_tail(error: anyhow::Error, err: &mut File) -> anyhow::Error {
    let text = read_from_start(err).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return error;
    }
    anyhow::anyhow!("{error:#}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_output() {
        assert_eq!(Program::new("echo").args(["a", "b"]).output().unwrap(), "a b\n");
    }

    #[test]
    fn failure_says_what_the_program_said() {
        let error = Program::new("sh").args(["-c", "echo why >&2; exit 3"]).output().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
    }

    #[test]
    fn deadline_ends_the_program() {
        let start = Instant::now();
        let program = Program::new("sleep").args(["60"]).deadline(Duration::from_millis(100));
        assert!(program.output().unwrap_err().to_string().contains("timed out"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
