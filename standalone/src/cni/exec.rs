//! One execution of one plugin.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::ConfigError;
use crate::sandbox::RecordError;

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
    #[error("CNI plugin `{plugin}` is in none of {} as an executable file: install it there", .paths.join(", "))]
    Missing {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        paths: Vec<String>,
    },
    /// It could not be executed: it did nothing.
    #[error("failed to execute CNI plugin `{plugin}`")]
    Execute {
        /// Its type.
        plugin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It runs, and could not be given its input or its output could not be read.
    #[error("failed to exchange data with CNI plugin `{plugin}`")]
    Exchange {
        /// Its type.
        plugin: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was begun could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
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
            Self::Missing { .. }
            | Self::Execute { .. }
            | Self::Exchange { .. }
            | Self::Record(_)
            | Self::Deadline { .. }
            | Self::NoResult { .. } => false,
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

/// The program of a plugin: the first executable file of its name.
pub fn find(plugin: &str, paths: &[PathBuf]) -> Result<PathBuf, CniError> {
    let executable = |path: &PathBuf| {
        // Follows links.
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    paths.iter().map(|path| path.join(plugin)).find(executable).ok_or_else(|| CniError::Missing {
        plugin: plugin.to_owned(),
        paths: paths.iter().map(|path| path.display().to_string()).collect(),
    })
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
        let program = find(self.plugin, self.paths)?;
        let child = self.spawn(&program).map_err(|source| CniError::Execute { plugin: plugin.clone(), source })?;
        let output = match timeout(DEADLINE, exchange(child, input)).await {
            Ok(result) => result.map_err(|source| CniError::Exchange { plugin: plugin.clone(), source })?,
            Err(_) => return Err(CniError::Deadline { plugin, verb: self.verb.text() }),
        };
        if output.status.success() {
            // DEL prints nothing; an ADD that prints nothing useful is caught by the caller.
            return Ok(serde_json::from_slice(&output.stdout).ok());
        }
        let (code, message) = failure(&output.stdout, &output.stderr);
        Err(CniError::Failed { plugin, verb: self.verb.text(), code, message })
    }

    fn spawn(&self, program: &Path) -> io::Result<Child> {
        let paths = std::env::join_paths(self.paths).map_err(io::Error::other)?;
        Command::new(program)
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
            .spawn()
    }
}

async fn exchange(mut child: Child, input: &Value) -> io::Result<Output> {
    if let Some(mut stdin) = child.stdin.take() {
        let written = stdin.write_all(input.to_string().as_bytes()).await;
        // A plugin need not read its input before it fails; its own words tell more.
        if written.is_err_and(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    child.wait_with_output().await
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

/// Puts a program into a folder. Another process writes it: a file that is open for writing here, or in what another
/// test's thread forks meanwhile, cannot be executed.
#[cfg(test)]
pub fn install(folder: &Path, name: &str, program: &str) {
    let source = folder.join(format!("{name}.source"));
    std::fs::write(&source, program).unwrap();
    let installed = std::process::Command::new("install").arg("-m755").arg(source).arg(folder.join(name)).status();
    assert!(installed.unwrap().success());
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    fn plugin(folder: &Path, script: &str) {
        install(folder, "fake", &format!("#!/bin/sh\n{script}\n"));
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
        fs::set_permissions(folder.path().join("fake"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = run(folder.path(), "fake").await.unwrap_err().to_string();
        let expected = format!("`fake` is in none of {} as an executable file", folder.path().display());
        assert!(error.contains(&expected), "{error}");
    }
}
