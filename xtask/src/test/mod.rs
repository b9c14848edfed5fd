//! `cargo xtask test`: everything that can be tested on this machine, with a leak scan around each suite.

mod cluster;
mod lane;
mod probes;
mod run;
mod suites;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};

use crate::leaks::{self, Snapshot, Trace};
use crate::workspace::{self, Profile};
use crate::{guest, process, setup};
use lane::Lane;
use run::{Run, Setting};
use suites::Suite;

/// The suite that drives our plugin by the reference runtime, and in lists with the reference plugins.
const CNI: &str = "cni-plugin";

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Suites to run; all of them where none is named
    suite: Vec<String>,
    /// List the suites, run nothing
    #[arg(long)]
    list: bool,
    /// The cluster that the suite `cluster` runs on; brought up for it, and down again, unless it is up
    #[arg(long, value_name = "NAME", default_value = crate::cluster::DEFAULT, value_parser = crate::cluster::name)]
    cluster: String,
    /// Where the tests run: on this machine, or in a VM with a distribution's kernel
    #[arg(long, value_enum, default_value_t)]
    lane: Lane,
    /// Run only tests whose name holds this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

/// The chore. A failure of a suite is in the exit code and above cargo's own summary, for that comes last.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let suites = suites::choose(arguments.lane.suites(suites::all()?), &arguments.suite)?;
    if arguments.list {
        for suite in &suites {
            println!("{:12} {} ({})", suite.name, suite.about, suite.selection.join(" "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::require_root("tests make network namespaces, which")?;
    setup::ensure(&mut |line| println!("setup: {line}"))?;
    if suites.iter().any(|suite| suite.name != cluster::SUITE) {
        match arguments.lane {
            Lane::Machine => {
                workspace::build_programs(Profile::Dev)?;
                workspace::build_tests()?;
            }
            Lane::NodeVm => lane::build(&suites)?,
        }
        let guest = guest::ensure(false)?;
        println!("guest: {}", guest.disk.display());
    }
    if suites.iter().any(|suite| suite.name == CNI) {
        crate::cluster::build_cni(&mut |line| println!("reference plugins: {line}"))?;
    }

    process::catch_signals()?;
    let vm = match arguments.lane {
        Lane::Machine => None,
        Lane::NodeVm => Some(lane::boot()?),
    };
    let setting = match &vm {
        None => Setting::default(),
        Some(vm) => lane::setting(vm)?,
    };
    let filter = arguments.filter.iter().cloned();
    let setting = Setting { arguments: filter.chain(setting.arguments).collect(), ..setting };
    if vm.is_none() {
        probes::print();
    }
    let mut runs = Vec::new();
    for suite in suites {
        println!("\n=== suite {}: {}", suite.name, suite.about);
        let before = Snapshot::take()?;
        let run = match suite.name.as_str() {
            cluster::SUITE => cluster::run(&suite, &arguments.cluster),
            _ => run::suite(&suite, &setting),
        };
        let leaks = leaks::since(&before);
        process::check_signals()?;
        runs.push(Done { suite, run, leaks: leaks? });
    }
    if let Some(vm) = vm.filter(|_| runs.iter().any(|done| !done.ok())) {
        println!("\nThe node VM said:\n{}", vm.said());
    }
    Ok(if print_summary(&runs) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A suite that ran, and what it left behind.
struct Done {
    suite: Suite,
    run: Run,
    leaks: Vec<Trace>,
}

impl Done {
    fn ok(&self) -> bool {
        self.run.outcome.is_ok() && self.leaks.is_empty()
    }
}

/// The table, below it what leaked and once more what failed, and as the last lines what cargo itself said.
/// Returns whether all succeeded.
fn print_summary(runs: &[Done]) -> bool {
    println!("\n{}\n", table(runs));
    for Done { suite, leaks, .. } in runs.iter().filter(|done| !done.leaks.is_empty()) {
        println!("suite {} left behind:", suite.name);
        leaks.iter().for_each(|leak| println!("  {leak}"));
        println!();
    }
    for Done { suite, run, .. } in runs.iter().filter(|done| !done.run.failures.is_empty()) {
        println!("suite {}, {}\n", suite.name, run.failures.join("\n"));
    }
    let failed: Vec<_> = runs.iter().filter(|done| !done.ok()).map(|done| done.suite.name.as_str()).collect();
    if !failed.is_empty() {
        println!("These suites failed: {}\n", failed.join(", "));
    }
    for Done { suite, run, .. } in runs {
        println!("suite {}", suite.name);
        run.summary.iter().for_each(|line| println!("{line}"));
    }
    failed.is_empty()
}

/// A row for each suite.
fn table(runs: &[Done]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["suite", "seconds", "passed", "failed", "leaks", ""]);
    for Done { suite, run, leaks } in runs {
        let failure = run.outcome.as_ref().err().map(|error| format!("{error:#}"));
        // The first line says it; the rest was printed when it happened.
        let failure = failure.and_then(|text| text.lines().next().map(|line| line.trim_end_matches(':').to_owned()));
        let notes: Vec<String> = failure.into_iter().chain(run.skipped.iter().cloned()).collect();
        table.add_row([
            suite.name.clone(),
            format!("{:.1}", run.seconds),
            run.count("passed").to_string(),
            run.count("failed").to_string(),
            leaks.len().to_string(),
            notes.join("\n"),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaks_are_counted_and_fail_a_suite() {
        let suite = Suite { name: "net".to_owned(), about: String::new(), selection: Vec::new() };
        let summary = vec!["test result: ok. 3 passed; 0 failed; 0 ignored".to_owned()];
        let run = Run { summary, ..Run::without_tests(1.0, Ok(())) };
        let leaks = serde_json::from_str(r#"[{"kind": "link", "name": "a"}, {"kind": "mount", "name": "b"}]"#).unwrap();
        let mut done = Done { suite, run, leaks };
        assert!(!done.ok());
        let text = table(std::slice::from_ref(&done)).to_string();
        let row: Vec<&str> = text.lines().last().unwrap().split(['|', ' ']).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(row, ["net", "1.0", "3", "0", "2"]);
        done.leaks.clear();
        assert!(done.ok());
    }
}
