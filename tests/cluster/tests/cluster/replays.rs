//! What upstream was seen to answer, asked again.

use std::path::{Path, PathBuf};

use holdfast_cluster_tests::api::Api;
use holdfast_cluster_tests::replay::{self, Outcome, Purposes};

const GATES: [&str; 6] =
    ["HostDisk", "HostDevices", "Sidecar", "VSOCK", "DownwardMetrics", "ExperimentalIgnitionSupport"];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The list of differences on purpose names each, and no more.
fn judge(kind: &str, outcome: &Outcome) {
    let purposes = Purposes::read(&file("differences.yaml")).unwrap();
    let problems = purposes.judge(kind, outcome);
    assert!(problems.is_empty(), "{} problems\n{}", problems.len(), problems.join("\n"));
    assert!(outcome.compared > 40, "{} compared", outcome.compared);
}

#[tokio::test]
async fn verdicts() {
    let api = Api::connect().await.unwrap();
    judge("verdicts", &replay::verdicts(&api, &file("../../api/tests/data/verdicts.jsonl"), &GATES).await.unwrap());
}

#[tokio::test]
async fn subresources() {
    let api = Api::connect().await.unwrap();
    judge("subresources", &replay::subresources(&api, &file("data/subresources.jsonl")).await.unwrap());
}

#[tokio::test]
async fn life() {
    let api = Api::connect().await.unwrap();
    judge("lifecycle", &replay::lifecycle(&api, &file("../../api/tests/data/lifecycle.jsonl")).await.unwrap());
}

#[tokio::test]
async fn virtctl() {
    let api = Api::connect().await.unwrap();
    let program = crate::world::virtctl();
    judge("virtctl", &replay::virtctl(&api, &file("data/virtctl.jsonl"), &program).await.unwrap());
}

#[tokio::test]
async fn installation() {
    let api = Api::connect().await.unwrap();
    judge("install", &replay::install(&api, &file("data/install.json")).await.unwrap());
}
