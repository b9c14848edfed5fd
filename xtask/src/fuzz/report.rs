//! What came of the runs: libFuzzer's own figures, a table, and how to run a finding again.

use std::path::PathBuf;

use comfy_table::{Table, presets};

/// What came of one target.
pub struct Run {
    /// The target.
    pub target: String,
    /// How long it took.
    pub seconds: f64,
    /// What libFuzzer counted.
    pub statistics: Statistics,
    /// Inputs in the repository.
    pub corpus: usize,
    /// Inputs besides, found by this run and earlier ones.
    pub grown: usize,
    /// The input that failed; none where all passed.
    pub finding: Option<PathBuf>,
    /// What libFuzzer printed.
    pub log: PathBuf,
}

/// What libFuzzer counts: a line `stat::NAME: NUMBER` each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Inputs that were tried.
    pub inputs: u64,
    /// Memory at its largest, in MiB.
    pub memory: u64,
}

impl Statistics {
    /// Reads its output; 0 where it says nothing, for one that was ended counts no more.
    pub fn read(text: &str) -> Self {
        let number = |name: &str| {
            let value =
                |line: &str| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok();
            text.lines().find_map(value).unwrap_or_default()
        };
        Self { inputs: number("number_of_executed_units"), memory: number("peak_rss_mb") }
    }
}

/// A row for each target.
pub fn table(runs: &[Run]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["target", "inputs", "seconds", "inputs/s", "MiB", "corpus", "findings"]);
    for Run { target, seconds, statistics, corpus, grown, finding, .. } in runs {
        table.add_row([
            target.clone(),
            statistics.inputs.to_string(),
            format!("{seconds:.1}"),
            format!("{:.0}", statistics.inputs as f64 / seconds.max(f64::MIN_POSITIVE)),
            statistics.memory.to_string(),
            format!("{corpus} + {grown}"),
            usize::from(finding.is_some()).to_string(),
        ]);
    }
    table
}

/// What a target found: where it is, how to see it again, and where it shall stay.
pub fn findings(run: &Run) -> Option<String> {
    let Run { target, log, .. } = run;
    let input = run.finding.as_ref()?.display();
    Some(format!(
        "{target}: {input}\n  what it did: {}\n  to run it again: cargo fuzz run --sanitizer none {target} {input}\n  \
         once it is mended: move it to fuzz/corpus/{target}, and add a test beside the code",
        log.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#12 DONE cov: 3\nstat::number_of_executed_units: 1000000\nstat::new_units_added: 7\n\
                       stat::peak_rss_mb:              44\n";

    fn run(finding: Option<&str>) -> Run {
        Run {
            target: "dhcp".to_owned(),
            seconds: 32.0,
            statistics: Statistics::read(LOG),
            corpus: 6,
            grown: 7,
            finding: finding.map(PathBuf::from),
            log: PathBuf::from("dhcp.log"),
        }
    }

    #[test]
    fn a_row_has_what_libfuzzer_counted() {
        let text = table(&[run(None)]).to_string();
        let row: Vec<&str> = text.lines().last().unwrap().split(['|', ' ']).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(row, ["dhcp", "1000000", "32.0", "31250", "44", "6", "+", "7", "0"]);
        assert_eq!(Statistics::read("killed"), Statistics::default());
    }

    #[test]
    fn a_finding_is_told_with_how_to_see_it_again() {
        assert_eq!(findings(&run(None)), None);
        let told = findings(&run(Some("fuzz/artifacts/dhcp/crash-1"))).unwrap();
        assert!(told.contains("cargo fuzz run --sanitizer none dhcp fuzz/artifacts/dhcp/crash-1\n"), "{told}");
    }
}
