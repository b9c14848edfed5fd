//! Which process a component is: by its id and the moment of its start, so that a later process of the same id is not
//! taken for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// A process that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its id, as the host sees it.
    pub pid: i32,
    /// Clock ticks from boot to its start.
    start: u64,
}

impl Record {
    /// That of a process that was just started.
    pub fn of(pid: u32) -> Result<Self> {
        let pid = i32::try_from(pid)?;
        let (_, start) = stat(pid).with_context(|| format!("failed to look at process {pid}"))?;
        Ok(Self { pid, start })
    }

    /// Reads one.
    pub fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// Writes it.
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        }
        fs::write(file, format!("{} {}\n", self.pid, self.start))
            .with_context(|| format!("failed to write {}", file.display()))
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }
}

/// State and start of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start in a line of proc_pid_stat(5). The name before them may hold anything, a parenthesis too.
fn parse_stat(line: &str) -> Option<(char, u64)> {
    let (_, fields) = line.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_state_and_start_behind_any_name() {
        let line = "7 (a) S (b) R 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2 3";
        assert_eq!(parse_stat(line), Some(('R', 4242)));
    }

    #[test]
    fn another_process_of_the_same_id_is_not_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids/it");
        let record = Record::of(std::process::id()).unwrap();
        record.write(&file).unwrap();
        assert_eq!(Record::read(&file), Some(record));
        assert!(record.is_alive());
        assert!(!Record { start: record.start + 1, ..record }.is_alive());
    }
}
