//! Subresources: requests, each in a named state of one VM.

use std::path::Path;

use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};

use super::stage::{Stage, State};
use super::{Difference, Outcome, lines};
use crate::api::{Answer, Api};

/// Replays a file of requests.
///
/// # Errors
/// Where the cluster does not answer, or the VM does not come into a state.
pub async fn subresources(api: &Api, path: &Path) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut stage = Stage::new(api, "w1");
    for line in lines(path)? {
        let field = |name: &str| line[name].as_str().unwrap_or_default();
        let state = field("state").trim_start_matches("missing-vmi:");
        stage.bring(State::named(state)?).await?;
        let method = Method::from_bytes(field("method").as_bytes())?;
        let answer = api.call(method.clone(), field("path"), &line["body"]).await?;
        // What changes nothing leaves the state as it was.
        if method != Method::GET && answer.code < 300 {
            stage.forget();
        }
        outcome.compared += 1;
        let (seen, ours) = (json!({"code": line["code"], "body": observed(&line)}), shape(&line, &answer));
        if seen != ours {
            let what = format!("{} ({})", field("step"), if state.is_empty() { field("path") } else { state });
            outcome.differences.push(Difference::new(what, &seen, &ours));
        }
    }
    stage.bring(State::Absent).await?;
    Ok(outcome)
}

/// What of a recorded answer is compared. Objects and other programs' texts are compared by their code alone.
fn observed(line: &Value) -> Value {
    match &line["response"] {
        Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "Status") => line["response"].clone(),
        Value::Object(_) => json!("an object"),
        Value::String(text) if text.starts_with("Bad Request\n") || text == "ok" => json!("not compared"),
        other => other.clone(),
    }
}

fn shape(line: &Value, answer: &Answer) -> Value {
    let body = match observed(line) {
        Value::String(text) if text == "not compared" => json!("not compared"),
        Value::String(text) if text == "an object" && answer.body.is_object() && answer.body["kind"] != "Status" => {
            json!("an object")
        }
        // Its signature, as text that is not UTF-8.
        _ if answer.body.as_str().is_some_and(|text| text.starts_with("\u{fffd}PNG\r\n")) => json!("PNG image"),
        _ => answer.body.clone(),
    };
    json!({"code": answer.code, "body": body})
}
