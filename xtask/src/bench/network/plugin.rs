//! CNI plugins, called as a runtime calls them, ours and others by the same code: what is measured is from the start of
//! the program to its end.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use super::bed::Bed;
use crate::cluster;
use crate::process;

/// Longest wait for the end of a program; runtimes wait longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// A plugin with the network that it is called for.
pub struct Plugin {
    program: PathBuf,
    folder: PathBuf,
    config: String,
}

/// What an ADD came to.
pub struct Added {
    /// Milliseconds.
    pub took: f64,
    /// The host's end of what it made.
    pub port: String,
}

impl Plugin {
    /// Ours, on a bridge of this backend. A /16, so that the pool is not what is measured.
    pub fn ours(bed: &Bed, backend: &str, bridge: &str) -> Self {
        let config = json!({
            "cniVersion": "1.0.0", "name": backend, "segment": backend, "type": "holdfast",
            "agentSocket": bed.socket(), "backend": backend, "bridge": bridge, "subnets": [{"cidr": "10.77.0.0/16"}],
        });
        Self::new(bed.plugin(), config)
    }

    /// The reference bridge plugin with host-local, which keeps its leases on the same disk as we do.
    pub fn reference(bed: &Bed, bridge: &str) -> Self {
        let config = json!({
            "cniVersion": "1.0.0", "name": "reference", "type": "bridge", "bridge": bridge,
            "ipam": {"type": "host-local", "dataDir": bed.state().join("host-local"),
                "ranges": [[{"subnet": "10.78.0.0/16"}]]},
        });
        Self::new(cluster::programs().join("bridge"), config)
    }

    fn new(program: PathBuf, config: Value) -> Self {
        let folder = program.parent().unwrap_or(Path::new("/")).to_owned();
        Self { program, folder, config: config.to_string() }
    }

    /// ADD of the interface `net1` of the pod at `netns`.
    pub fn add(&self, netns: &Path) -> Result<Added> {
        let (took, printed) = self.call("ADD", netns)?;
        let result: Value = serde_json::from_slice(&printed).context("the plugin's result is no JSON")?;
        // The reference plugin names the bridge first; of ours and of its own, the host's end has no sandbox.
        let ends = result["interfaces"].as_array().into_iter().flatten();
        let mut port =
            ends.filter(|end| end["sandbox"].as_str().is_none_or(str::is_empty)).filter_map(|end| end["name"].as_str());
        let port = port.next_back().context("the plugin's result names no port")?.to_owned();
        Ok(Added { took, port })
    }

    /// DEL of the same; milliseconds.
    pub fn del(&self, netns: &Path) -> Result<f64> {
        self.call("DEL", netns).map(|(took, _)| took)
    }

    fn call(&self, verb: &str, netns: &Path) -> Result<(f64, Vec<u8>)> {
        let pod = netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let environment = BTreeMap::from([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("CNI_PATH", self.folder.display().to_string()),
            ("CNI_COMMAND", verb.to_owned()),
            ("CNI_NETNS", netns.display().to_string()),
            ("CNI_IFNAME", "net1".to_owned()),
            ("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}")),
            ("CNI_CONTAINERID", pod),
        ]);
        exec(&self.program, &environment, &self.config)
            .with_context(|| format!("{verb} of {} failed", self.program.display()))
    }
}

/// Starts a program, gives it its input, and waits for its end: milliseconds, and what it printed.
pub fn exec(program: &Path, environment: &BTreeMap<&str, String>, input: &str) -> Result<(f64, Vec<u8>)> {
    let mut command = Command::new(program);
    command.env_clear().envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let begin = Instant::now();
    let mut child = command.spawn().with_context(|| format!("failed to start {}", program.display()))?;
    let talked = (|| {
        let mut printed = Vec::new();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(mut stdin) = stdin {
            match stdin.write_all(input.as_bytes()) {
                // It has no use for it.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                result => result?,
            }
        }
        let Some(mut stdout) = stdout else { return Ok(printed) };
        let mut chunk = [0; 4096];
        loop {
            let left = DEADLINE.saturating_sub(begin.elapsed());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) => bail!("it did not end within {} s", DEADLINE.as_secs()),
                Err(nix::errno::Errno::EINTR) => process::check_signals()?,
                result => drop(result?),
            }
            match stdout.read(&mut chunk)? {
                0 => return Ok(printed),
                read => printed.extend_from_slice(&chunk[..read]),
            }
        }
    })();
    if talked.is_err() {
        process::end(&mut child);
    }
    let printed = talked?;
    // Its output has ended: so has it, or will at once.
    let status = child.wait()?;
    let took = begin.elapsed().as_secs_f64() * 1e3;
    if !status.success() {
        bail!("{status}: {}", String::from_utf8_lossy(&printed).trim());
    }
    Ok((took, printed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_input_and_takes_output() {
        let (took, printed) = exec(Path::new("/bin/cat"), &BTreeMap::new(), "a").unwrap();
        assert!(took > 0.0);
        assert_eq!(printed, b"a");
        let (_, printed) = exec(Path::new("/bin/true"), &BTreeMap::new(), "nobody reads this").unwrap();
        assert!(printed.is_empty());
        let error = exec(Path::new("/bin/false"), &BTreeMap::new(), "").unwrap_err().to_string();
        assert!(error.contains("exit status: 1"), "{error}");
    }
}
