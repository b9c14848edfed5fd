//! `cargo xtask setup`: makes a Debian machine able to build Holdfast, to run its tests and the demo.
//!
//! Safe to run again: what is there is left alone.

pub mod packages;

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

/// Options of the chore.
#[derive(Args)]
pub struct Arguments {
    /// Say what is missing, install nothing; fails where something is missing
    #[arg(long)]
    check: bool,
    /// List all packages with the reason for each
    #[arg(long)]
    list: bool,
}

/// The chore.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for package in packages::PACKAGES {
            println!("{:28} {}", package.name, package.reason);
        }
        return Ok(());
    }
    if arguments.check {
        let missing = packages::missing()?;
        missing.iter().for_each(|package| println!("setup: {} is missing: {}", package.name, package.reason));
        if !missing.is_empty() {
            bail!("{} packages are missing; `cargo xtask setup` installs them", missing.len());
        }
    }
    let installed = ensure(&mut |line| println!("setup: {line}"))?;
    println!("setup: {} packages are there, {installed} of them new", packages::PACKAGES.len());
    Ok(())
}

/// Installs what is missing, and returns how many packages that was. `tell` is told what goes on.
pub fn ensure(tell: &mut dyn FnMut(&str)) -> Result<usize> {
    let missing = packages::missing()?;
    if missing.is_empty() {
        return Ok(0);
    }
    let codename = debian_codename(Path::new("/etc/os-release"))?;
    require_root("installing packages")?;
    for package in &missing {
        tell(&format!("apt-get install {}: {}", package.name, package.reason));
    }
    packages::install(&packages::to_install(&missing, &codename))?;
    let still: Vec<_> = packages::missing()?.iter().map(|package| package.name).collect();
    if !still.is_empty() {
        bail!("apt-get succeeded, and yet these packages are missing: {}", still.join(" "));
    }
    Ok(missing.len())
}

/// An error unless this process is root. `what` begins the sentence.
pub fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { bail!("{what} needs root: run this as root, or with sudo") }
}

/// The code name of the running Debian; an error on any other system.
fn debian_codename(os_release: &Path) -> Result<String> {
    let text = std::fs::read_to_string(os_release)
        .with_context(|| format!("failed to read {}: is this a Debian?", os_release.display()))?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    let id = value("ID").unwrap_or_default();
    let version: u32 = value("VERSION_ID").and_then(|text| text.parse().ok()).unwrap_or(0);
    if id != "debian" || version < 12 {
        bail!("this is `{id}` {version}; setup knows Debian 12 and newer. Install what `--list` names by other means");
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no /usr/bin/apt-get to install packages with");
    }
    Ok(value("VERSION_CODENAME").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_debian_from_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("os-release");
        std::fs::write(&file, "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n").unwrap();
        assert_eq!(debian_codename(&file).unwrap(), "bookworm");
        std::fs::write(&file, "ID=debian\nVERSION_ID=\"11\"\n").unwrap();
        assert!(debian_codename(&file).unwrap_err().to_string().contains("`debian` 11"));
        std::fs::write(&file, "ID=fedora\nVERSION_ID=40\n").unwrap();
        assert!(debian_codename(&file).unwrap_err().to_string().contains("`fedora` 40"));
    }
}
