//! One run of cargo's tests: its output passes through, and the lines that sum it up are kept.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::suites::Suite;
use crate::{process, workspace};

/// How a suite is run.
pub struct Setting {
    /// Variables of its environment.
    pub environment: Vec<(String, OsString)>,
    /// Arguments of its programs.
    pub arguments: Vec<String>,
    /// Longest run.
    pub deadline: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Self { environment: Vec::new(), arguments: Vec::new(), deadline: Duration::from_secs(900) }
    }
}

/// The variable by which cargo is told with what to run programs of tests.
pub fn runner(command: impl Into<OsString>) -> (String, OsString) {
    let triple = format!("{}_UNKNOWN_LINUX_GNU", std::env::consts::ARCH.to_uppercase());
    (format!("CARGO_TARGET_{triple}_RUNNER"), command.into())
}

/// What came of a suite.
pub struct Run {
    /// How long it took.
    pub seconds: f64,
    /// cargo's own lines: `test result: ...`, one for each program of tests.
    pub summary: Vec<String>,
    /// What the tests that failed printed, as cargo shows it.
    pub failures: Vec<String>,
    /// Lines in which tests say what they left out.
    pub skipped: Vec<String>,
    /// Whether all succeeded; the reason where not.
    pub outcome: Result<()>,
}

impl Run {
    /// One of which nothing but its outcome is known.
    pub fn without_tests(seconds: f64, outcome: Result<()>) -> Self {
        Self { seconds, summary: Vec::new(), failures: Vec::new(), skipped: Vec::new(), outcome }
    }

    /// The sum of a count in cargo's lines: `passed`, `failed`, `ignored`.
    pub fn count(&self, word: &str) -> u64 {
        self.summary.iter().filter_map(|line| count(line, word)).sum()
    }
}

/// Runs a suite. The tests were built before.
pub fn suite(suite: &Suite, setting: &Setting) -> Run {
    let start = Instant::now();
    let mut lines = Vec::new();
    let outcome = run(suite, setting, &mut lines);
    let keep = |wanted: &dyn Fn(&str) -> bool| lines.iter().filter(|line| wanted(line)).cloned().collect();
    Run {
        seconds: start.elapsed().as_secs_f64(),
        summary: keep(&|line| line.starts_with("test result: ")),
        failures: failures(&lines),
        skipped: keep(&|line| line.starts_with("skipped: ")),
        outcome,
    }
}

fn run(suite: &Suite, setting: &Setting, lines: &mut Vec<String>) -> Result<()> {
    // What a test that succeeds prints is read too: there it says what it skipped.
    let mut child = process::command(workspace::cargo())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&suite.selection)
        .args(["--", "--show-output"])
        .args(&setting.arguments)
        .envs(setting.environment.iter().map(|(name, value)| (name, value)))
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Apart, so that tests and all that they started can be ended together.
        .process_group(0)
        .spawn()
        .context("failed to start cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let reader = pass_through(output);
    let status = process::wait_for(&format!("suite `{}`", suite.name), setting.deadline, || Ok(child.try_wait()?));
    if status.is_err() {
        end_group(&mut child);
    }
    lines.extend(reader.join().unwrap_or_default());
    let status = status?;
    if !status.success() {
        bail!("cargo test failed: {status}");
    }
    Ok(())
}

/// Prints what comes, without what tests that succeeded printed, and returns all of its lines at the end.
fn pass_through(output: impl Read + Send + 'static) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut of_successes = false;
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            of_successes = is_of_successes(of_successes, &line);
            if !of_successes {
                // A closed terminal is no reason to stop the tests.
                let _ = writeln!(std::io::stdout(), "{line}");
            }
            lines.push(line);
        }
        lines
    })
}

/// Whether a line is of what stands between `successes:` and the failures or the result, from whether the one before was.
fn is_of_successes(before: bool, line: &str) -> bool {
    (before || line == "successes:") && line != "failures:" && !line.starts_with("test result: ")
}

fn end_group(child: &mut Child) {
    if let Ok(group) = i32::try_from(child.id()) {
        // Gone already is what is wanted.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    process::end(child);
}

/// What stands between `failures:` and `test result:`, of each program of tests.
fn failures(lines: &[String]) -> Vec<String> {
    let mut within = false;
    let among = |line: &&String| {
        within = (within || *line == "failures:") && !line.starts_with("test result: ");
        within
    };
    lines.iter().filter(among).cloned().collect()
}

/// `test result: ok. 3 passed; 0 failed; ...`: the number before the word.
fn count(line: &str, word: &str) -> Option<u64> {
    let words: Vec<&str> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let position = words.iter().position(|other| *other == word)?;
    words.get(position.checked_sub(1)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_successes_print_is_left_out() {
        let lines =
            ["test a ... ok", "", "successes:", "", "---- a stdout ----", "", "successes:", "    a", "", "failures:"];
        let shown = lines.iter().scan(false, |before, line| {
            *before = is_of_successes(*before, line);
            Some((!*before).then_some(*line))
        });
        assert_eq!(shown.flatten().collect::<Vec<_>>(), ["test a ... ok", "", "failures:"]);
        assert!(!is_of_successes(true, "test result: ok. 1 passed"));
    }

    #[test]
    fn failures_are_found_again() {
        let lines =
            ["test a ... ok", "failures:", "", "---- b stdout ----", "failures:", "    b", "test result: FAILED."];
        let lines: Vec<String> = lines.map(str::to_owned).to_vec();
        assert_eq!(failures(&lines), lines[1..6]);
        assert!(failures(&lines[..1]).is_empty());
    }

    #[test]
    fn counts_what_cargo_says() {
        let line = "test result: FAILED. 30 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.08s";
        assert_eq!(count(line, "passed"), Some(30));
        assert_eq!(count(line, "failed"), Some(2));
        assert_eq!(count(line, "ignored"), Some(1));
        assert_eq!(count("nothing", "passed"), None);
    }
}
