//! Logs of the components, and the lines in them that explain a failure.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::layout::Cluster;

/// The line that begins what a process writes.
pub const START: &str = "---- started ----\n";

/// How many lines explain a failure.
const LINES: usize = 12;

/// The lines of a log that explain a failure, indented.
pub fn explanation(log: &Path) -> String {
    let Ok(text) = fs::read_to_string(log) else { return format!("  (there is no {})", log.display()) };
    let lines: Vec<String> = telling(&text).into_iter().map(|line| format!("  {line}")).collect();
    format!("{}\n  (from {})", lines.join("\n"), log.display())
}

/// The last lines since the last start that tell of errors; the last lines of all where none does.
fn telling(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.rsplit(START).next().unwrap_or(log).lines().collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| tells_of_error(line)).collect();
    let chosen = if errors.is_empty() { lines } else { errors };
    chosen[chosen.len().saturating_sub(LINES)..].to_vec()
}

/// By the ways in which the components write: klog (Kubernetes), logfmt (containerd), JSON (etcd), OVS, and plain
/// words of programs that end before they log.
fn tells_of_error(line: &str) -> bool {
    if ["level=info", "level=warning"].iter().any(|mark| line.contains(mark)) {
        return false;
    }
    let klog = line.starts_with(['E', 'F']) && line[1..].starts_with(|c: char| c.is_ascii_digit());
    let marks = ["level=error", "level=fatal", "\"level\":\"error\"", "\"level\":\"fatal\"", "|ERR|", "|EMER|"];
    let words = ["panic:", "Error:", "error:", "failed to run", "unknown flag", "not found"];
    klog || marks.iter().any(|mark| line.contains(mark))
        || words.iter().any(|word| line.starts_with(word) || line.contains(&format!(": {word}")))
}

/// The chore: shows the log of a component on one machine or on all that have it.
pub fn show(cluster: &Cluster<'_>, component: Option<&str>, machine: Option<&str>, lines: usize) -> Result<()> {
    let mut found = Vec::new();
    for folder in fs::read_dir(cluster.logs()).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            if let Some(log) = file.file_name().to_string_lossy().strip_suffix(".log") {
                found.push((name.clone(), log.to_owned(), file.path()));
            }
        }
    }
    found.sort();
    let Some(component) = component else {
        for (name, log, path) in found {
            println!("{name:8} {log:26} {}", path.display());
        }
        return Ok(());
    };
    found.retain(|(name, log, _)| log == component && machine.is_none_or(|machine| machine == name));
    if found.is_empty() {
        bail!("there is no log of `{component}`; `cargo xtask cluster logs` lists all");
    }
    for (name, log, path) in found {
        println!("==> {name} {log} ({})", path.display());
        let text = fs::read_to_string(&path)?;
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_explain() {
        let log = "I1122 07:00:00 fine\nE1122 07:00:01 broken\nI1122 07:00:02 fine\n";
        assert_eq!(telling(log), ["E1122 07:00:01 broken"]);
        assert_eq!(telling("time=x level=fatal msg=\"no\"\nlast\n"), ["time=x level=fatal msg=\"no\""]);
        assert_eq!(telling("Everything\nEnds\n"), ["Everything", "Ends"]);
    }

    #[test]
    fn what_an_earlier_process_wrote_explains_nothing() {
        let log = format!("{START}E1122 old\n{START}E1122 new\n");
        assert_eq!(telling(&log), ["E1122 new"]);
        let log = format!("{START}time=x level=info msg=skip error=\"no: failed to run x\"\nlast\n");
        assert_eq!(telling(&log).len(), 2);
    }

    #[test]
    fn the_last_errors_explain() {
        let log: String = (0..50).map(|number| format!("E{number:04} x\n")).collect();
        let lines = telling(&log);
        assert_eq!((lines.len(), lines[LINES - 1]), (LINES, "E0049 x"));
    }
}
