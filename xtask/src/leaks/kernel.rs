//! Links, nft tables and named network namespaces of this process's own network namespace and mounts.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Program;

/// Names of links. By /proc, for /sys shows the namespace that it was mounted in.
pub fn links() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/net/dev").context("failed to list the links")?;
    Ok(text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect())
}

/// Names of nft tables, with their family.
pub fn nft_tables() -> Result<Vec<String>> {
    let text = Program::new("nft").args(["-j", "list", "tables"]).output().context("failed to list the nft tables")?;
    let listed: Value = serde_json::from_str(&text).context("failed to parse the list of nft tables")?;
    let tables = listed["nftables"].as_array().into_iter().flatten().filter_map(|item| {
        let table = item.get("table")?;
        Some(format!("{} {}", table["family"].as_str()?, table["name"].as_str()?))
    });
    Ok(tables.collect())
}

/// Files that stand for network namespaces in the place where `ip netns` keeps them.
pub fn named_namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.map(|entry| entry.path().display().to_string()).collect()
}
