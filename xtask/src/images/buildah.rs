//! buildah: builds and pushes images without a daemon, with a storage of its own that ends with it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::Program;

/// Images are ours, or come from files that we wrote.
const POLICY: &str = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;

/// A storage for images.
pub struct Buildah {
    folder: TempDir,
}

impl Buildah {
    /// A storage in a new folder below `parent`.
    pub fn new(parent: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(parent).context("failed to make a folder for buildah")?;
        std::fs::write(folder.path().join("policy.json"), POLICY).context("failed to write buildah's policy")?;
        Ok(Self { folder })
    }

    /// Builds `containerfile` over the folder `context`, and writes the image as an OCI layout to `layout`.
    ///
    /// The same context makes the same image: all times become `epoch`, and a layer's entries are sorted.
    pub fn build(&self, containerfile: &Path, context: &Path, tag: &str, epoch: u64, layout: &Path) -> Result<()> {
        self.call("build")
            .args([
                "--layers",
                "--format",
                "oci",
                "--identity-label=false",
                "--timestamp",
                &epoch.to_string(),
                "--quiet",
            ])
            .args(["--label", &format!("org.opencontainers.image.version={tag}"), "--tag", "image", "--file"])
            .args([containerfile, context])
            .output()
            .with_context(|| format!("failed to build {}", containerfile.display()))?;
        self.call("push")
            .args(["--quiet", "image", &format!("oci:{}:image", layout.display())])
            .output()
            .with_context(|| format!("failed to write {}", layout.display()))?;
        Ok(())
    }

    /// Pushes the image in an OCI archive to a registry under the name `to`.
    pub fn push(&self, archive: &Path, to: &str) -> Result<()> {
        let id = self.call("pull").args(["--quiet", &format!("oci-archive:{}", archive.display())]).output()?;
        self.call("push")
            .args([id.trim(), &format!("docker://{to}")])
            .show()
            .with_context(|| format!("failed to push {to}"))
    }

    fn call(&self, command: &str) -> Program {
        let below = |name: &str| -> PathBuf { self.folder.path().join(name) };
        // Not overlayfs, which not every machine lets stack.
        Program::new("buildah")
            .arg("--root")
            .arg(below("root"))
            .arg("--runroot")
            .arg(below("run"))
            .args(["--storage-driver", "vfs", command, "--signature-policy"])
            .arg(below("policy.json"))
            .deadline(Duration::from_secs(900))
    }
}
