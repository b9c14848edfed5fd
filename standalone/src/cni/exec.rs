//! One execution of one plugin.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::ConfigError;

/// Longest that a plugin may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How much of a plugin's output is shown where it is no error object.
const SHOWN: usize = 500;

/// Why a network could not be joined or left.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no such plugin.
    #[error("CNI plugin `{plugin}` is in none of {}", .paths.join(", "))]
    Missing {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        paths: Vec<String>,
    },
    /// It could not be executed.
    #[error("failed to execute CNI plugin `{plugin}`")]
    Execute {
        /// Its type.
        plugin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not end in time, and was killed.
    #[error("CNI plugin `{plugin}` did not end within {} s of {verb}", DEADLINE.as_secs())]
    Deadline {
        /// Its type.
        plugin: String,
        /// What it was to do.
        verb: &'static str,
    },
    /// It says that it failed.
    #[error("CNI plugin `{plugin}` failed to {verb}: {message}")]
    Failed {
        /// Its type.
        plugin: String,
        /// What it was to do.
        verb: &'static str,
        /// CNI's error code, if it gave one.
        code: Option<u64>,
        /// What it says.
        message: String,
    },
    /// ADD succeeded and said nothing.
    #[error("the CNI plugins of network `{network}` gave no result")]
    NoResult {
        /// Which network.
        network: String,
    },
}

impl CniError {
    /// Whether only a change of the configuration can help (CNI's codes 1 to 7 tell of a wrong one).
    pub fn needs_change(&self) -> bool {
        match self {
            Self::Config(_) => true,
            Self::Failed { code, .. } => code.is_some_and(|code| (1..=7).contains(&code)),
            Self::Missing { .. } | Self::Execute { .. } | Self::Deadline { .. } | Self::NoResult { .. } => false,
        }
    }
}

/// What a plugin is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Join.
    Add,
    /// Leave.
    Del,
}

impl Verb {
    const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

/// One execution.
pub struct Call<'a> {
    pub verb: Verb,
    pub plugin: &'a str,
    pub paths: &'a [PathBuf],
    pub container: &'a str,
    /// Empty where the namespace is gone.
    pub netns: &'a Path,
    pub ifname: &'a str,
    pub arguments: String,
}

impl Call<'_> {
    /// Executes the plugin; returns its result, if it printed one.
    pub async fn run(&self, input: &Value) -> Result<Option<Value>, CniError> {
        let plugin = self.plugin.to_owned();
        let folders = || self.paths.iter().map(|path| path.display().to_string()).collect();
        let program = self.paths.iter().map(|path| path.join(self.plugin)).find(|path| path.is_file());
        let program = program.ok_or_else(|| CniError::Missing { plugin: plugin.clone(), paths: folders() })?;
        let output = match timeout(DEADLINE, self.execute(&program, input)).await {
            Ok(result) => result.map_err(|source| CniError::Execute { plugin: plugin.clone(), source })?,
            Err(_) => return Err(CniError::Deadline { plugin, verb: self.verb.text() }),
        };
        if output.status.success() {
            // DEL prints nothing; an ADD that prints nothing useful is caught by the caller.
            return Ok(serde_json::from_slice(&output.stdout).ok());
        }
        let (code, message) = failure(&output.stdout, &output.stderr);
        Err(CniError::Failed { plugin, verb: self.verb.text(), code, message })
    }

    async fn execute(&self, program: &Path, input: &Value) -> io::Result<std::process::Output> {
        let paths = std::env::join_paths(self.paths).map_err(io::Error::other)?;
        let mut child = Command::new(program)
            .env("CNI_COMMAND", self.verb.text())
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_ARGS", &self.arguments)
            .env("CNI_PATH", paths)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            let written = stdin.write_all(input.to_string().as_bytes()).await;
            // A plugin need not read its input before it fails; its own words tell more.
            if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        child.wait_with_output().await
    }
}

/// CNI's error object, or else what was printed.
fn failure(stdout: &[u8], stderr: &[u8]) -> (Option<u64>, String) {
    if let Ok(error) = serde_json::from_slice::<Value>(stdout)
        && let Some(message) = error["msg"].as_str()
    {
        let details = error["details"].as_str().filter(|text| !text.is_empty());
        let text = details.map_or_else(|| message.to_owned(), |details| format!("{message}: {details}"));
        return (error["code"].as_u64(), text);
    }
    let printed = [stderr, stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    let text = printed.into_iter().find(|text| !text.is_empty()).unwrap_or_else(|| "it gave no reason".to_owned());
    (None, text.chars().take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    fn plugin(folder: &Path, script: &str) {
        let path = folder.join("fake");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    async fn run(folder: &Path, name: &str) -> Result<Option<Value>, CniError> {
        let call = Call {
            verb: Verb::Add,
            plugin: name,
            paths: &[folder.to_owned()],
            container: "c",
            netns: Path::new("/n"),
            ifname: "eth0",
            arguments: "A=B".into(),
        };
        call.run(&json!({"type": name})).await
    }

    #[tokio::test]
    async fn a_plugin_gets_its_environment_and_its_input() {
        let folder = tempfile::tempdir().unwrap();
        plugin(
            folder.path(),
            r#"in=$(cat); echo "{\"seen\":\"$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS\",\"in\":$in}""#,
        );
        let result = run(folder.path(), "fake").await.unwrap().unwrap();
        assert_eq!(result, json!({"seen": "ADD c /n eth0 A=B", "in": {"type": "fake"}}));
    }

    #[tokio::test]
    async fn failures_say_what_the_plugin_said() {
        let folder = tempfile::tempdir().unwrap();
        plugin(folder.path(), r#"echo '{"code":7,"msg":"no","details":"why"}'; exit 1"#);
        let error = run(folder.path(), "fake").await.unwrap_err();
        assert!(error.needs_change());
        assert!(error.to_string().ends_with("failed to ADD: no: why"), "{error}");
        plugin(folder.path(), "echo oops >&2; exit 3");
        let error = run(folder.path(), "fake").await.unwrap_err();
        assert!(error.to_string().ends_with("oops") && !error.needs_change(), "{error}");
        let error = run(folder.path(), "none").await.unwrap_err();
        assert!(matches!(error, CniError::Missing { .. }), "{error}");
    }
}
