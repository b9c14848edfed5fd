//! Keeps the console's log within bounds: a guest decides how much it prints.

use std::path::Path;

/// Most that the log may hold before it becomes the old one, which there is one of.
const MOST: u64 = 2 << 20;

/// Moves a log that has grown too large aside. The hypervisor appends, so that it goes on at the start of the emptied
/// file; what it prints between copy and cut is lost.
pub fn bound(log: &Path) {
    let too_large = std::fs::metadata(log).is_ok_and(|metadata| metadata.len() > MOST);
    if !too_large {
        return;
    }
    let done = std::fs::copy(log, old(log))
        .and_then(|_| std::fs::OpenOptions::new().write(true).open(log))
        .and_then(|file| file.set_len(0));
    if let Err(error) = done {
        tracing::warn!(%error, log = %log.display(), "failed to bound the console's log");
    }
}

fn old(log: &Path) -> std::path::PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".0");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_a_large_log_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("virt-serial0-log");
        std::fs::write(&log, vec![b'x'; MOST as usize + 1]).unwrap();
        bound(&log);
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(folder.path().join("virt-serial0-log.0")).unwrap().len(), MOST + 1);
        std::fs::write(&log, b"little").unwrap();
        bound(&log);
        assert_eq!(std::fs::read(&log).unwrap(), b"little");
    }
}
