//! The name of a network interface.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name that the kernel takes for a link: 1 to 15 bytes, no white space, `/` or `:`, neither `.` nor `..`
/// (dev_valid_name in the kernel's net/core/dev.c; the CNI specification asks for the same).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

/// A text that the kernel would refuse as the name of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid interface name: 1 to 15 bytes without white space, `/` and `:`, and neither `.` nor `..`"
)]
pub struct IfNameError(String);

impl IfName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IfName {
    /// `prefix` and the first `digits` hexadecimal digits of the SHA-256 of `text`. The two together take at most 15
    /// bytes, and the prefix is of letters, digits and dashes.
    pub(crate) fn hashed(prefix: &str, text: &str, digits: usize) -> Self {
        debug_assert!(prefix.len() + digits <= 15);
        let hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("{prefix}{}", &hex[..digits]))
    }
}

impl FromStr for IfName {
    type Err = IfNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':');
        if valid { Ok(Self(text.to_owned())) } else { Err(IfNameError(text.to_owned())) }
    }
}

impl TryFrom<String> for IfName {
    type Error = IfNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        assert!("eth0.100".parse::<IfName>().is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
    }
}
