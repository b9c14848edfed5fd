//! virtctl: calls, each in a named state of one VM, with what they print and their exit codes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use super::stage::{Stage, State};
use super::{Difference, Outcome, lines};
use crate::api::Api;

/// Longest call: a console that waits takes a minute.
const CALL: Duration = Duration::from_secs(90);
/// What leaves a running VM in another state.
const CHANGES: [&str; 5] = ["start", "stop", "restart", "pause", "unpause"];

/// Replays a file of calls with the program `virtctl`.
///
/// # Errors
/// Where it cannot be started, or the VM does not come into a state.
pub async fn virtctl(api: &Api, path: &Path, program: &Path) -> Result<Outcome> {
    let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
    // Some commands write a file where they are.
    let folder = std::env::temp_dir().join(Uuid::new_v4().to_string());
    std::fs::create_dir(&folder).context("failed to make a folder")?;
    let outcome = replay(api, path, &program, &folder).await;
    std::fs::remove_dir_all(&folder).context("failed to remove a folder")?;
    outcome
}

async fn replay(api: &Api, path: &Path, program: &Path, folder: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut stage = Stage::new(api, "v1");
    for line in lines(path)? {
        stage.bring(state(&line)?).await?;
        let arguments: Vec<String> = serde_json::from_value(line["args"].clone()).context("a line has no `args`")?;
        let ours = call(program, folder, &arguments).await?;
        if ours["exit"] == 0 && CHANGES.iter().any(|verb| arguments[0] == *verb) {
            stage.forget();
        }
        outcome.compared += 1;
        let told = |of: &Value| json!({"exit": of["exit"], "out": lasting(&of["stdout"]), "err": of["stderr"]});
        let (seen, ours) = (told(&line), told(&ours));
        if seen != ours {
            let state = line["state"].as_str().unwrap_or_default();
            outcome.differences.push(Difference::new(format!("{} ({state})", arguments.join(" ")), &seen, &ours));
        }
    }
    stage.bring(State::Absent).await?;
    Ok(outcome)
}

/// The state in which a call was made. The record names the one that the call before should have led to; where it
/// had not yet, the answer tells.
fn state(line: &Value) -> Result<State> {
    let error = line["stderr"].as_str().unwrap_or_default();
    if error.contains("VMI is paused") {
        Ok(State::Paused)
    } else if error.contains("already underway") {
        Ok(State::Restarting)
    } else {
        State::named(line["state"].as_str().unwrap_or_default())
    }
}

async fn call(program: &Path, folder: &Path, arguments: &[String]) -> Result<Value> {
    let child =
        Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true).output();
    let Ok(output) = timeout(CALL, child).await else {
        return Ok(json!({"exit": "timeout", "stdout": "", "stderr": ""}));
    };
    let output = output.with_context(|| format!("failed to run {}", program.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(json!({"exit": output.status.code(), "stdout": text(&output.stdout), "stderr": text(&output.stderr)}))
}

/// An output without what another build says: the values of a version, but not their names.
fn lasting(output: &Value) -> String {
    let output = output.as_str().unwrap_or_default();
    if !output.contains("version.Info{") {
        return output.to_owned();
    }
    output.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_form() {
        let upstream = json!("Client Version: version.Info{GitVersion:\"a\", Platform:\"b\"}\n");
        assert_eq!(lasting(&upstream), "Client Version: version.Info{GitVersion:\"\", Platform:\"\"}\n");
        assert_eq!(lasting(&json!("say \"x\"")), "say \"x\"");
    }

    #[test]
    fn an_answer_tells_the_state() {
        let line = |state: &str, error: &str| json!({"state": state, "stderr": error});
        assert_eq!(state(&line("running", "x: VMI is paused\n")).unwrap(), State::Paused);
        assert_eq!(state(&line("running", "stop/start already underway")).unwrap(), State::Restarting);
        assert_eq!(state(&line("running", "")).unwrap(), State::Running("Always"));
        assert!(state(&line("nonsense", "")).is_err());
    }
}
