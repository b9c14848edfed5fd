//! `cargo xtask fuzz`: gives each parser of foreign bytes inputs that nobody thought of.
//!
//! The targets are cargo-fuzz's, and are built without a sanitizer, so that the stable toolchain will do: our code is
//! safe but for a few lines, and a panic or a failed assertion is what is looked for. New inputs are kept in fuzz/target;
//! those of fuzz/corpus are read and never written, for a person decides what stays in the repository.

mod report;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::process::{self, Program};
use crate::workspace;
use report::{Run, Statistics};

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Targets to run; all of them where none is named
    target: Vec<String>,
    /// End each target after so many inputs [default: 1000000, or 600 seconds]
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// End each target after so many seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
}

/// Where a target ends if nobody says anything: at whichever is first.
const RUNS: u64 = 1_000_000;
const SECONDS: u64 = 600;
/// Longest run that is to end after a number of inputs.
const LONGEST: Duration = Duration::from_secs(86_400);
/// Longest time between the end of a run and that of its process.
const SLACK: Duration = Duration::from_secs(60);
/// Longest build: everything is built a second time, for the fuzzer sees what its inputs reach.
const BUILD_DEADLINE: Duration = Duration::from_secs(3600);

/// Limits of one input: what takes more of anything is a finding.
const LIMITS: &[&str] = &["-timeout=5", "-rss_limit_mb=1024", "-malloc_limit_mb=256", "-max_len=4096"];

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let targets = choose(targets()?, &arguments.target)?;
    ensure_cargo_fuzz()?;
    build()?;
    process::catch_signals()?;
    let mut runs = Vec::new();
    for target in targets {
        println!("fuzz: {target}");
        runs.push(one(&target, arguments)?);
    }
    println!("\n{}", report::table(&runs));
    let findings: Vec<String> = runs.iter().flat_map(report::findings).collect();
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} of {} targets found something\n{}", findings.len(), runs.len(), findings.join("\n"));
}

fn folder() -> PathBuf {
    workspace::root().join("fuzz")
}

/// What it is built for; the product runs on nothing else.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// The names of all targets, sorted.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for path in list(&folder().join("fuzz_targets"))? {
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn choose(all: Vec<String>, names: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target `{unknown}`: there are {}", all.join(", "));
    }
    Ok(all.into_iter().filter(|name| names.is_empty() || names.contains(name)).collect())
}

fn ensure_cargo_fuzz() -> Result<()> {
    if Program::new(workspace::cargo()).args(["fuzz", "--version"]).succeeds() {
        return Ok(());
    }
    println!("fuzz: installing cargo-fuzz, which is not there");
    let install = Program::new(workspace::cargo()).args(["install", "--locked", "cargo-fuzz"]);
    install.deadline(BUILD_DEADLINE).show()
}

fn build() -> Result<()> {
    // What is looked at is what is shipped: the same versions of all crates.
    let (from, to) = (workspace::root().join("Cargo.lock"), folder().join("Cargo.lock"));
    fs::copy(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
    Program::new(workspace::cargo())
        .args(["fuzz", "build", "--sanitizer", "none", "--target", &triple(), "--target-dir"])
        .arg(folder().join("target"))
        .folder(workspace::root())
        .deadline(BUILD_DEADLINE)
        .show()
}

/// Runs a target to its end.
fn one(target: &str, arguments: &Arguments) -> Result<Run> {
    let (grown, kept) = (folder().join("target/corpus").join(target), folder().join("corpus").join(target));
    let artifacts = folder().join("artifacts").join(target);
    for made in [&grown, &artifacts] {
        fs::create_dir_all(made).with_context(|| format!("failed to make {}", made.display()))?;
    }
    let before = list(&artifacts)?;
    let log = folder().join("target").join(format!("{target}.log"));
    let written = File::create(&log).with_context(|| format!("failed to make {}", log.display()))?;

    let (limits, deadline) = ends(arguments);
    let words = folder().join("dictionaries").join(format!("{target}.dict"));
    let words = words.exists().then(|| format!("-dict={}", words.display()));
    let program = folder().join("target").join(triple()).join("release").join(target);
    let start = Instant::now();
    let outcome = Program::new(program)
        .args(limits)
        .args(LIMITS)
        .args(words)
        .args(["-print_final_stats=1".to_owned(), format!("-artifact_prefix={}/", artifacts.display())])
        // What is new goes to the first.
        .args([&grown, &kept])
        .stderr(written)
        .deadline(deadline)
        .show();
    process::check_signals()?;
    let found = list(&artifacts)?.into_iter().find(|path| !before.contains(path));
    if let (Err(error), None) = (&outcome, &found) {
        bail!("{error:#}; see {}", log.display());
    }
    let text = fs::read(&log).with_context(|| format!("failed to read {}", log.display()))?;
    Ok(Run {
        target: target.to_owned(),
        seconds: start.elapsed().as_secs_f64(),
        statistics: Statistics::read(&String::from_utf8_lossy(&text)),
        corpus: list(&kept)?.len(),
        grown: list(&grown)?.len(),
        finding: found.map(|path| path.strip_prefix(workspace::root()).unwrap_or(&path).to_owned()),
        log,
    })
}

/// When a run ends, in libFuzzer's words, and when it has hung.
fn ends(arguments: &Arguments) -> (Vec<String>, Duration) {
    let (runs, seconds) = match (arguments.runs, arguments.seconds) {
        (None, None) => (Some(RUNS), Some(SECONDS)),
        given => given,
    };
    let options = runs.map(|runs| format!("-runs={runs}"));
    let options = options.into_iter().chain(seconds.map(|seconds| format!("-max_total_time={seconds}")));
    (options.collect(), seconds.map_or(LONGEST, Duration::from_secs) + SLACK)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_refused() {
        let all = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(choose(all(), &[]).unwrap(), all());
        assert_eq!(choose(all(), &["b".to_owned()]).unwrap(), ["b"]);
        let error = choose(all(), &["c".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "there is no fuzz target `c`: there are a, b");
    }

    #[test]
    fn a_run_ends_as_it_was_told() {
        let arguments = |runs, seconds| Arguments { target: Vec::new(), runs, seconds };
        let words = |runs, seconds| ends(&arguments(runs, seconds)).0.join(" ");
        assert_eq!(words(None, None), "-runs=1000000 -max_total_time=600");
        assert_eq!(words(Some(5), None), "-runs=5");
        assert_eq!(words(None, Some(7)), "-max_total_time=7");
    }
}
