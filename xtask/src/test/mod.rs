//! `cargo xtask test`: everything that can be tested on this machine, with a leak scan around each suite.

mod probes;
mod run;
mod suites;

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};

use crate::leaks::{self, Snapshot};
use crate::workspace::{self, Profile};
use crate::{guest, process, setup};
use run::Run;
use suites::Suite;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Suites to run; all of them where none is named
    suite: Vec<String>,
    /// List the suites, run nothing
    #[arg(long)]
    list: bool,
}

/// The chore. A failure of a suite is in the exit code and above cargo's own summary, for that comes last.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let suites = suites::choose(suites::all()?, &arguments.suite)?;
    if arguments.list {
        for suite in &suites {
            println!("{:12} {} ({})", suite.name, suite.about, suite.selection.join(" "));
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::require_root("tests make network namespaces, which")?;
    setup::ensure(&mut |line| println!("setup: {line}"))?;
    workspace::build_programs(Profile::Dev)?;
    workspace::build_tests()?;
    let guest = guest::ensure(false)?;
    println!("guest: {}", guest.disk.display());
    probes::print();

    process::catch_signals()?;
    let mut runs = Vec::new();
    for suite in suites {
        println!("\n=== suite {}: {}", suite.name, suite.about);
        let before = Snapshot::take()?;
        let run = run::suite(&suite);
        let leaks = leaks::none_since(&before, &format!("suite `{}`", suite.name));
        if let Err(error) = &leaks {
            println!("{error:#}");
        }
        process::check_signals()?;
        runs.push((suite, run, leaks));
    }
    Ok(if print_summary(&runs) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The table, and after it, as the last lines, what cargo itself said.
/// Returns whether all succeeded.
fn print_summary(runs: &[(Suite, Run, Result<()>)]) -> bool {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["suite", "seconds", "passed", "failed", "leaks", ""]);
    for (suite, run, leaks) in runs {
        let mut notes: Vec<String> = [&run.outcome, leaks]
            .into_iter()
            .filter_map(|outcome| outcome.as_ref().err().map(|error| format!("{error:#}")))
            // What leaked was listed when the suite ended.
            .map(|text| text.lines().next().unwrap_or_default().trim_end_matches(':').to_owned())
            .collect();
        notes.extend(run.skipped.iter().cloned());
        table.add_row([
            suite.name.clone(),
            format!("{:.1}", run.seconds),
            run.count("passed").to_string(),
            run.count("failed").to_string(),
            if leaks.is_ok() { "none".to_owned() } else { "FOUND".to_owned() },
            notes.join("\n"),
        ]);
    }
    println!("\n{table}\n");
    let failed = |(_, run, leaks): &&(Suite, Run, Result<()>)| run.outcome.is_err() || leaks.is_err();
    let failed: Vec<_> = runs.iter().filter(failed).map(|(suite, ..)| suite.name.as_str()).collect();
    if !failed.is_empty() {
        println!("These suites failed: {}\n", failed.join(", "));
    }
    for (suite, run, _) in runs {
        println!("suite {}", suite.name);
        run.summary.iter().for_each(|line| println!("{line}"));
    }
    failed.is_empty()
}
