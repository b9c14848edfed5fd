//! Components: the programs that a machine runs all the time.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::Machine;
use super::logs;
use super::record::Record;
use crate::process;

/// A program of a machine, and how it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name, that of its log too.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Component {
    /// One with arguments that are separated by white space.
    pub fn new(name: &'static str, arguments: &str) -> Self {
        Self { name, arguments: arguments.split_whitespace().map(str::to_owned).collect() }
    }

    /// Its process on a machine, where it runs.
    pub fn running(&self, machine: &Machine<'_>) -> Option<Record> {
        Record::read(&machine.records().join(self.name)).filter(Record::is_alive)
    }

    /// When it was started last.
    pub fn started(&self, machine: &Machine<'_>) -> Option<SystemTime> {
        std::fs::metadata(machine.records().join(self.name)).and_then(|data| data.modified()).ok()
    }

    /// Starts it where it does not run, and says whether that was so.
    pub fn start(&self, machine: &Machine<'_>) -> Result<bool> {
        if self.running(machine).is_some() {
            return Ok(false);
        }
        machine.spawn(self.name, self.name, &self.arguments)?;
        Ok(true)
    }

    /// Ends it at once.
    pub fn kill(&self, machine: &Machine<'_>) -> Result<()> {
        let Some(record) = self.running(machine) else { return Ok(()) };
        // It may end between the look and the call.
        let _ = kill(Pid::from_raw(record.pid), Signal::SIGKILL);
        let what = format!("{} of `{}` to end", self.name, machine.name);
        process::wait_for(&what, Duration::from_secs(10), || Ok((!record.is_alive()).then_some(())))
    }

    /// An error with the telling lines of its log where it has ended.
    pub fn check(&self, machine: &Machine<'_>) -> Result<()> {
        if self.running(machine).is_none() {
            bail!("{} of `{}` ended:\n{}", self.name, machine.name, self.explanation(machine));
        }
        Ok(())
    }

    /// The telling lines of its log.
    pub fn explanation(&self, machine: &Machine<'_>) -> String {
        logs::explanation(&machine.log(self.name))
    }

    /// Waits until it is ready, for as long as it runs. A failure holds the telling lines of its log.
    pub fn wait(&self, machine: &Machine<'_>, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} of `{}`", self.name, machine.name);
        let waited = process::wait_for(&what, deadline, || {
            if ready() {
                return Ok(Some(()));
            }
            self.check(machine)?;
            Ok(None)
        });
        match waited {
            Err(error) if self.running(machine).is_some() => bail!("{error:#}\n{}", self.explanation(machine)),
            other => other,
        }
    }
}
