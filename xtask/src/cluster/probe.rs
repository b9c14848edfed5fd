//! What a machine must have for a cluster, tried before one is begun: a machine without it runs everything else.

use std::path::Path;

use crate::process::Program;

/// What this machine lacks for a cluster, as the end of a sentence; nothing where it has all.
pub fn missing() -> Option<&'static str> {
    let namespaces = ["--net", "--mount", "--uts", "--cgroup", "--pid", "--fork"];
    let apart = |script: &str| Program::new("unshare").args(namespaces).args(["sh", "-e", "-c", script]).succeeds();
    // Where the files of nodes are, for what a file system can carry is its own.
    let scratch = tempfile::Builder::new().prefix("holdfast-probe-").tempdir_in("/var/lib");
    let overlay = |folder: &Path| {
        let make = format!("cd {}; mkdir lower upper work merged", folder.display());
        apart(&format!("{make}; mount -t overlay o -o lowerdir=lower,upperdir=upper,workdir=work merged"))
    };
    if !apart("true") {
        return Some("namespaces: `unshare --net --mount --uts --cgroup --pid` is refused");
    }
    if !apart("ip link add t0 type veth peer name t1; ip link add t2 type bridge") {
        return Some("veth and bridge: `ip link add` is refused");
    }
    if !scratch.is_ok_and(|folder| overlay(folder.path())) {
        return Some("overlayfs on the file system of /var/lib");
    }
    None
}

#[cfg(test)]
mod tests {
    #[test]
    fn leaves_nothing_and_says_what_is_missing() {
        let missing = super::missing();
        assert!(missing.is_none_or(|what| !what.is_empty()));
        let left = std::fs::read_dir("/var/lib").unwrap().flatten();
        let own = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("holdfast-probe-"));
        assert_eq!(own.count(), 0);
    }
}
