//! Processes of the programs that Holdfast runs, and any process in another network namespace.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::clusters;

/// How the file names of such programs begin.
const PROGRAMS: &[&str] = &[
    "dnsmasq",
    "holdfast",
    "libvirtd",
    "ovs",
    "qemu-system",
    "virt-handler",
    "virt-launcher",
    "virtlogd",
    "virtqemud",
];

/// A process, as the kernel tells of it.
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Path of its program.
    pub program: String,
    /// Its arguments, the first one being its name for itself.
    pub arguments: Vec<String>,
    namespace: String,
}

impl Process {
    fn read(folder: &Path) -> Option<Self> {
        let arguments = fs::read(folder.join("cmdline")).ok()?;
        Some(Self {
            pid: folder.file_name()?.to_str()?.parse().ok()?,
            // Threads of the kernel have no program; nor have processes that are gone but for being waited for.
            program: fs::read_link(folder.join("exe")).ok()?.display().to_string(),
            arguments: arguments
                .split(|byte| *byte == 0)
                .map(|argument| String::from_utf8_lossy(argument).into_owned())
                .filter(|argument| !argument.is_empty())
                .collect(),
            namespace: fs::read_link(folder.join("ns/net")).ok()?.display().to_string(),
        })
    }

    fn file_name(&self) -> &str {
        self.program.rsplit('/').next().unwrap_or(&self.program)
    }
}

/// All processes of the machine, but for those inside of test clusters.
pub fn all() -> Vec<Process> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    folders
        .filter(|folder| !clusters::holds(folder) || clusters::is_machine(folder))
        .filter_map(|folder| Process::read(&folder))
        .collect()
}

/// Those that could be ours.
pub fn processes() -> Result<Vec<String>> {
    let own = fs::read_link("/proc/self/ns/net").context("failed to read the own network namespace")?;
    let own = own.display().to_string();
    let ours = |process: &Process| {
        process.namespace != own || PROGRAMS.iter().any(|program| process.file_name().starts_with(program))
    };
    Ok(all()
        .iter()
        .filter(|process| ours(process))
        .map(|process| format!("{} {} {}", process.pid, process.program, process.namespace))
        .collect())
}
