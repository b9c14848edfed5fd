//! Refuses to work with more power than a launcher may have.

/// What the kernel says about this process that must be otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// /proc does not tell.
    #[error("failed to read `/proc/self/status`")]
    Unknown(#[from] std::io::Error),
    /// A line of it is not what it must be.
    #[error("refusing to run: {line} is {found} and must be {must}")]
    TooPowerful {
        /// The line of /proc/self/status.
        line: &'static str,
        /// What it says.
        found: String,
        /// What it would have to say.
        must: &'static str,
    },
}

/// Checks that this process is not root, has no capability, cannot get any by execve, and cannot gain privileges.
///
/// # Errors
/// [`ConfinementError`] naming the first line that is wrong.
pub fn check() -> Result<(), ConfinementError> {
    judge(&std::fs::read_to_string("/proc/self/status")?)
}

fn judge(status: &str) -> Result<(), ConfinementError> {
    let value = |line: &str| {
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    };
    let too_powerful = |line, found, must| Err(ConfinementError::TooPowerful { line, found, must });
    let uids = value("Uid");
    if uids.is_empty() || uids.split_whitespace().any(|uid| uid == "0") {
        return too_powerful("Uid", uids, "that of an ordinary user");
    }
    for line in ["CapEff", "CapPrm", "CapAmb"] {
        let found = value(line);
        if u64::from_str_radix(&found, 16) != Ok(0) {
            return too_powerful(line, found, "0");
        }
    }
    let found = value("NoNewPrivs");
    if found != "1" {
        return too_powerful("NoNewPrivs", found, "1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: &str, caps: &str, no_new_privs: &str) -> String {
        format!(
            "Name:\tx\nUid:\t{uid}\nCapInh:\t0\nCapPrm:\t{caps}\nCapEff:\t{caps}\nCapAmb:\t0000\nNoNewPrivs:\t{no_new_privs}\n"
        )
    }

    #[test]
    fn wants_an_ordinary_user_without_power() {
        assert!(judge(&status("107\t107\t107\t107", "0000000000000000", "1")).is_ok());
        for (uid, caps, no_new_privs, line) in [
            ("0\t0\t0\t0", "0", "1", "Uid"),
            ("107\t107\t0\t107", "0", "1", "Uid"),
            ("107\t107\t107\t107", "0000000000001000", "1", "CapEff"),
            ("107\t107\t107\t107", "0", "0", "NoNewPrivs"),
        ] {
            let error = judge(&status(uid, caps, no_new_privs)).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
        assert!(judge("").is_err());
    }
}
