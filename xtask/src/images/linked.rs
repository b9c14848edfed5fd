//! What programs and libraries are linked to, as readelf tells it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Program;

/// What files need to be loaded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The dynamic loader.
    pub loaders: BTreeSet<PathBuf>,
    /// Names of libraries.
    pub libraries: BTreeSet<String>,
    /// Folders to look for them in, besides the usual ones.
    pub folders: BTreeSet<PathBuf>,
}

/// What these files need, all together; those that are no ELF files need nothing.
pub fn needs(files: &[PathBuf]) -> Result<Needs> {
    let files: Vec<&PathBuf> = files.iter().filter(|file| is_elf(file)).collect();
    if files.is_empty() {
        return Ok(Needs::default());
    }
    let text = Program::new("readelf")
        .args(["--wide", "--dynamic", "--program-headers"])
        .args(files)
        .env("LC_ALL", "C")
        .deadline(Duration::from_secs(120))
        .output()
        .context("failed to read what programs are linked to")?;
    Ok(parse(&text))
}

fn is_elf(file: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok_and(|()| &magic == b"\x7fELF")
}

/// What readelf says.
fn parse(text: &str) -> Needs {
    let mut needs = Needs::default();
    let value = |line: &str, before: &str| Some(line.split_once(before)?.1.trim_end_matches(']').to_owned());
    for line in text.lines() {
        if let Some(library) = value(line, "Shared library: [") {
            needs.libraries.insert(library);
        } else if let Some(folders) = value(line, "Library runpath: [").or_else(|| value(line, "Library rpath: [")) {
            needs.folders.extend(folders.split(':').map(PathBuf::from));
        } else if let Some(loader) = value(line, "Requesting program interpreter: ") {
            needs.loaders.insert(PathBuf::from(loader));
        }
    }
    needs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_readelf_prints() {
        let text = "
  INTERP 0x000318 0x0000000000000318 0x0000000000000318 0x00001c 0x00001c R   0x1
      [Requesting program interpreter: /lib64/ld-linux-x86-64.so.2]
 0x0000000000000001 (NEEDED)             Shared library: [libvirt.so.0]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x000000000000001d (RUNPATH)            Library runpath: [/usr/lib/a:/usr/lib/b]
 0x000000000000000c (INIT)               0x1000";
        let expected = Needs {
            loaders: ["/lib64/ld-linux-x86-64.so.2".into()].into(),
            libraries: ["libc.so.6".to_owned(), "libvirt.so.0".to_owned()].into(),
            folders: ["/usr/lib/a".into(), "/usr/lib/b".into()].into(),
        };
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn knows_a_program_of_this_machine() {
        let needs = needs(&["/bin/sh".into(), "/etc/passwd".into()]).unwrap();
        assert_eq!(needs.loaders.len(), 1);
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{needs:?}");
        assert_eq!(super::needs(&["/etc/passwd".into()]).unwrap(), Needs::default());
    }
}
