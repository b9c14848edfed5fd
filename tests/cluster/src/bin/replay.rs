//! Replays files of what upstream was seen to answer against the cluster of `KUBECONFIG`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use holdfast_cluster_tests::api::Api;
use holdfast_cluster_tests::replay::{self, Outcome, Purposes};

/// Compares a cluster with recorded answers
#[derive(Parser)]
#[command(name = "replay")]
struct Arguments {
    /// List of differences on purpose
    #[arg(long, value_name = "FILE", default_value = "tests/cluster/differences.yaml")]
    differences: PathBuf,
    /// Feature gates for those verdicts that were recorded with gates on
    #[arg(long, value_name = "GATE", value_delimiter = ',')]
    #[arg(default_value = "HostDisk,HostDevices,Sidecar,VSOCK,DownwardMetrics,ExperimentalIgnitionSupport")]
    gates: Vec<String>,
    /// The program that calls are made with
    #[arg(long, value_name = "PROGRAM", default_value = "target/debug/virtctl")]
    virtctl: PathBuf,
    /// What the file holds
    #[arg(value_parser = ["verdicts", "subresources", "lifecycle", "install", "virtctl"])]
    kind: String,
    /// The file
    file: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let purposes = Purposes::read(&arguments.differences)?;
    let api = Api::connect().await?;
    let gates: Vec<&str> = arguments.gates.iter().map(String::as_str).collect();
    let outcome: Outcome = match arguments.kind.as_str() {
        "verdicts" => replay::verdicts(&api, &arguments.file, &gates).await?,
        "subresources" => replay::subresources(&api, &arguments.file).await?,
        "lifecycle" => replay::lifecycle(&api, &arguments.file).await?,
        "virtctl" => replay::virtctl(&api, &arguments.file, &arguments.virtctl).await?,
        _ => replay::install(&api, &arguments.file).await?,
    };
    let problems = purposes.judge(&arguments.kind, &outcome);
    for problem in &problems {
        println!("{problem}");
    }
    println!(
        "{}: {} compared, {} differ, {} of them not on purpose",
        arguments.kind,
        outcome.compared,
        outcome.differences.len(),
        problems.len()
    );
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
