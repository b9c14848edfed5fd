//! `holdfast`, the CNI plugin: it carries the runtime's call to the agent and prints what comes back.
//!
//! It takes no decision, touches no device, and keeps nothing (but see [`note`] and [`bystander`]): whatever goes wrong
//! is an error object of the CNI specification on standard output and exit code 1. Each step has a deadline. It is
//! started for each call, so it is small, static and has no runtime.

mod bystander;
mod call;
mod env;
mod note;

use std::io::{Read, Write};
use std::process::ExitCode;

use holdfast_agent_api::PROTOCOL_VERSION;
use holdfast_agent_api::cni::{CniError, Request, Response, SUPPORTED_VERSIONS, Verb, code};
use serde_json::{Value, json};

use crate::env::{Command, Invocation};

/// The version that is spoken where the configuration tells none.
const NEWEST: &str = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1];

fn main() -> ExitCode {
    let mut version = NEWEST.to_owned();
    match run(&mut version) {
        Ok(Value::Null) => ExitCode::SUCCESS,
        Ok(result) => print(&result, ExitCode::SUCCESS),
        Err(error) => {
            let mut object = json!({"cniVersion": version, "code": error.code, "msg": error.msg});
            if !error.details.is_empty() {
                object["details"] = error.details.into();
            }
            print(&object, ExitCode::FAILURE)
        }
    }
}

/// A runtime that does not read must not be told of a success that it has not seen.
fn print(value: &Value, done: ExitCode) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{value}").and_then(|()| out.flush()) {
        Ok(()) => done,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Serves one call. `version` becomes the configuration's own as soon as it is known, for the error object.
fn run(version: &mut String) -> Result<Value, CniError> {
    // Read before anything is refused, so that the refusal has its version and the runtime its pipe.
    let config = read_config();
    if let Some(told) = config.as_ref().ok().and_then(|config| config.get("cniVersion")?.as_str()) {
        told.clone_into(version);
    }
    let invocation = Invocation::from_env()?;
    let mut config = config?;
    let verb = match invocation.command {
        Command::Version => return Ok(json!({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS})),
        Command::Agent(verb) => verb,
    };
    let socket = call::socket(&config)?;
    let asks_for_nothing = bystander::asks_for_nothing(&mut config);
    let request = Request {
        version: PROTOCOL_VERSION,
        verb,
        container_id: invocation.container_id,
        netns: invocation.netns,
        ifname: invocation.ifname,
        args: invocation.args,
        netns_override: invocation.netns_override,
        config,
    };
    match call::ask(&socket, &request) {
        Ok(Response::Done(result)) => Ok(result),
        Ok(Response::Failed(error)) => Err(error),
        Err(away) if verb == Verb::Del && away.not_sent => {
            note::leave(&socket, &request).map(|()| Value::Null).map_err(|error| CniError {
                details: format!("{}; and no note could be left for it: {error}", away.error.details),
                ..away.error
            })
        }
        Err(away) if verb == Verb::Add && away.not_sent && asks_for_nothing && request.is_chained() => {
            request.config.get("prevResult").cloned().ok_or(away.error)
        }
        // Behind a primary plugin it is the node's readiness that is asked for: that shall not depend on an agent that
        // is just being replaced, for the ADD of a new pod is tried again.
        Err(_) if verb == Verb::Status && request.is_chained() => Ok(Value::Null),
        Err(away) => Err(away.error),
    }
}

fn read_config() -> Result<Value, CniError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| CniError {
        code: code::IO,
        msg: "failed to read the network configuration from standard input".to_owned(),
        details: error.to_string(),
    })?;
    let config: Value = serde_json::from_str(&text).map_err(|error| CniError {
        code: code::DECODE,
        msg: "failed to decode the network configuration: it must be a JSON object".to_owned(),
        details: error.to_string(),
    })?;
    if config.is_object() {
        return Ok(config);
    }
    Err(CniError {
        code: code::DECODE,
        msg: "the network configuration is not a JSON object".to_owned(),
        details: String::new(),
    })
}
