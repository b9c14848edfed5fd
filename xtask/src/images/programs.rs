//! The programs that images hold, and how they are built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::workspace;

/// A program in an image.
pub struct Program {
    /// Its file in cargo's folder.
    pub file: &'static str,
    /// Where it is in the image.
    pub path: &'static str,
    /// Other names in the same folder.
    pub names: &'static [&'static str],
}

impl Program {
    /// Where it is built.
    pub fn built(&self) -> PathBuf {
        workspace::image_programs().join(self.file)
    }
}

/// Puts programs below `root`, which is not there yet.
pub fn place(programs: &[Program], root: &Path) -> Result<()> {
    for program in programs {
        let target = root.join(program.path.trim_start_matches('/'));
        let folder = target.parent().unwrap_or(root);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::copy(program.built(), &target))
            .with_context(|| format!("failed to place {}", program.path))?;
        for name in program.names {
            std::fs::hard_link(&target, folder.join(name)).with_context(|| format!("failed to link {name}"))?;
        }
    }
    Ok(())
}
