//! `cargo xtask test`: everything that can be tested on this machine, with a leak scan around each suite.

mod probes;
mod run;
mod suites;

use anyhow::{Result, bail};
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

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    let suites = suites::choose(suites::all()?, &arguments.suite)?;
    if arguments.list {
        for suite in &suites {
            println!("{:12} {} ({})", suite.name, suite.about, suite.selection.join(" "));
        }
        return Ok(());
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
        process::check_signals()?;
        runs.push((suite, run, leaks));
    }
    print_summary(&runs);
    let failed: Vec<_> = runs
        .iter()
        .filter(|(_, run, leaks)| run.outcome.is_err() || leaks.is_err())
        .map(|(suite, ..)| suite.name.as_str())
        .collect();
    if !failed.is_empty() {
        bail!("these suites failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The table, and after it, as the last lines, what cargo itself said.
fn print_summary(runs: &[(Suite, Run, Result<()>)]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["suite", "seconds", "passed", "failed", "leaks", ""]);
    for (suite, run, leaks) in runs {
        let mut notes: Vec<String> = [&run.outcome, leaks]
            .into_iter()
            .filter_map(|outcome| outcome.as_ref().err().map(|error| format!("{error:#}")))
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
    for (suite, run, _) in runs {
        println!("suite {}", suite.name);
        run.summary.iter().for_each(|line| println!("{line}"));
    }
}
