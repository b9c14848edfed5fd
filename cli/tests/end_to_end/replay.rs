//! Each call that upstream's virtctl was seen to answer, with the same arguments in the same state.

use serde_json::Value;

use crate::server::Server;
use crate::virtctl::{Ran, command, on, run};

/// What is between quotes is another program's; the form is the same.
fn without_quoted(text: &str) -> String {
    text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

#[tokio::test]
async fn answers_are_upstreams() {
    let lines: Vec<Value> =
        include_str!("observed.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 20);
    for line in lines {
        let server = Server::start(line["state"].as_str().unwrap());
        let arguments: Vec<&str> = line["args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let mut ran = Vec::new();
        // The flags may stand before the command or after it, or be in the environment.
        ran.push(run(on(&server.socket(), &arguments)).await);
        if arguments[0] == "start" {
            let mut after = command(&arguments);
            after.arg("--run").arg(server.run()).env("HOLDFAST_STANDALONE", "1");
            ran.push(run(after).await);
        }
        for mut ran in ran {
            let mut expected = Ran {
                code: line["exit"].as_i64().and_then(|code| i32::try_from(code).ok()),
                stdout: line["stdout"].as_str().unwrap().to_owned(),
                stderr: line["stderr"].as_str().unwrap().to_owned(),
            };
            if arguments[0] == "version" {
                (ran.stdout, expected.stdout) = (without_quoted(&ran.stdout), without_quoted(&expected.stdout));
            }
            if ran.stderr.starts_with("Successfully connected") {
                // What the guest says depends on the guest.
                ran.stdout.clear();
            }
            assert_eq!(ran, expected, "{line}");
        }
    }
}
