//! The API server, through `kubectl proxy` on a socket: a request costs no program's start, and the answer to a watch
//! is there when it comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::{self, Cluster};
use crate::process;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(60);

/// The way to an API server. It ends with this.
pub struct Api {
    proxy: Child,
    folder: TempDir,
}

impl Api {
    /// Opens it.
    pub fn open(cluster: Cluster<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("holdfast-bench-").tempdir().context("failed to make a folder")?;
        let proxy = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", cluster.netns("cp")))
            .args(["--", "kubectl", "proxy", "--reject-methods=^$", "--reject-paths=^$"])
            .arg(format!("--unix-socket={}", folder.path().join("api").display()))
            .envs(cluster::environment(cluster))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("failed to start kubectl proxy")?;
        let api = Self { proxy, folder };
        process::wait_for("kubectl proxy", Duration::from_secs(20), || Ok(api.get("/readyz").is_ok().then_some(())))?;
        Ok(api)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    /// Reads what is at a path.
    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(path)?).unwrap_or_default())
    }

    /// Reads a text.
    pub fn text(&self, path: &str) -> Result<String> {
        self.call("GET", path, "")
    }

    /// Creates an object.
    pub fn post(&self, path: &str, object: &Value) -> Result<()> {
        self.call("POST", path, &object.to_string()).map(drop)
    }

    /// Deletes an object.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.call("DELETE", path, "").map(drop)
    }

    fn call(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let mut answer = String::new();
        let mut reader = self.send(method, path, body, ANSWER)?;
        let code = head(&mut reader).with_context(|| format!("failed to {method} {path}"))?;
        reader.read_to_string(&mut answer).with_context(|| format!("failed to read the answer to {method} {path}"))?;
        if code >= 300 {
            bail!("{method} {path}: {code}: {answer}");
        }
        Ok(answer)
    }

    /// The lines of the answer to a watch, each an event.
    pub fn watch(&self, path: &str) -> Result<impl Iterator<Item = Value> + Send + use<>> {
        let mut reader = self.send("GET", path, "", Duration::from_secs(3600))?;
        let code = head(&mut reader)?;
        anyhow::ensure!(code == 200, "GET {path}: {code}");
        Ok(reader.lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()))
    }

    /// By HTTP/1.0, whose answers are bare up to the end of the connection.
    fn send(&self, method: &str, path: &str, body: &str, patience: Duration) -> Result<BufReader<UnixStream>> {
        let mut stream = UnixStream::connect(self.socket()).context("failed to reach kubectl proxy")?;
        stream.set_read_timeout(Some(patience))?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}"
        );
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).context("failed to ask kubectl proxy")?;
        Ok(BufReader::new(stream))
    }
}

/// Reads the head of an answer; its code.
fn head(reader: &mut BufReader<UnixStream>) -> Result<u16> {
    let mut code = None;
    for line in reader.lines() {
        let line = line.context("there is no answer")?;
        if line.is_empty() {
            break;
        }
        if code.is_none() {
            code = Some(line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("the answer is no HTTP")?);
        }
    }
    code.context("the answer is empty")
}

impl Drop for Api {
    fn drop(&mut self) {
        process::end(&mut self.proxy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_head_of_an_answer() {
        let (mut server, client) = UnixStream::pair().unwrap();
        server.write_all(b"HTTP/1.0 201 Created\r\nA: b\r\n\r\n{}\n{}").unwrap();
        drop(server);
        let mut reader = BufReader::new(client);
        assert_eq!(head(&mut reader).unwrap(), 201);
        let mut body = String::new();
        reader.read_to_string(&mut body).unwrap();
        assert_eq!(body, "{}\n{}");
    }
}
