//! What fails around VMs: components, the API server, a node. VMs and their network do not notice, or move.

use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::process::Command;

use crate::world::{LONG, World, is_true, lan, on_lan, plain_vm, run, vm, xtask};

/// Pings from the underlay, 100 times a second, until it is ended.
fn pings(address: &str) -> tokio::process::Child {
    Command::new("nsenter")
        .args([lan().as_str(), "--", "ping", "-i", "0.01", "-W", "1", address])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Ends them, and says how many were sent and how many came back.
async fn count(child: tokio::process::Child) -> (u64, u64) {
    let id = child.id().unwrap().to_string();
    run("kill", &["-INT", &id]).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("packets transmitted")).unwrap().to_owned();
    let numbers: Vec<u64> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[tokio::test]
async fn an_outage_of_the_api_server_is_not_noticed() {
    let world = World::new("outage").await;
    let address = "192.0.2.20";
    world.post("kubevirt.io/v1", "virtualmachines", &vm("steady", address)).await;
    world.ready("steady").await;
    let answers = async || Ok(on_lan(&["ping", "-c1", "-W1", address]).await.ok());
    world.api.until("the VM answers", LONG, answers).await.unwrap();
    let pinging = pings(address);
    xtask(&["component", "kill", "kube-apiserver"]).await.unwrap();
    // The outage itself is what is tested; there is nothing to wait for in it.
    tokio::time::sleep(Duration::from_secs(60)).await;
    xtask(&["component", "start", "kube-apiserver"]).await.unwrap();
    // Everything has come back when a new VM runs.
    let back = async || Ok(world.api.get("/readyz").await.ok().flatten());
    world.api.until("the API server is back", LONG, back).await.unwrap();
    let create = async || {
        let path = world.path("kubevirt.io/v1", "virtualmachines");
        let made = world.api.call(Method::POST, &path, &plain_vm("after")).await;
        Ok(made.ok().filter(|answer| answer.code == 201))
    };
    world.api.until("a VM can be made again", LONG, create).await.unwrap();
    world.until_vmi("after", "runs", |vmi| is_true(vmi, "Ready")).await;
    let (sent, received) = count(pinging).await;
    assert!(sent > 3000, "{sent} sent");
    assert_eq!(sent - received, 0, "of {sent} pings");
    world.remove().await;
}

#[tokio::test]
async fn components_die_in_the_middle_of_many_starts() {
    const MANY: usize = 30;
    let world = World::new("burst").await;
    let name = |n: usize| format!("b{n:02}");
    for n in 0..MANY {
        let mut vm = plain_vm(&name(n));
        let spec = &mut vm["spec"]["template"]["spec"];
        spec["volumes"] = json!([]);
        spec["domain"]["devices"]["disks"] = json!([]);
        spec["domain"]["memory"]["guest"] = json!("96Mi");
        spec["terminationGracePeriodSeconds"] = json!(0);
        world.post("kubevirt.io/v1", "virtualmachines", &vm).await;
        if n == MANY / 2 {
            for label in ["virt-controller", "virt-api", "virt-handler"] {
                let selector = format!("kubevirt.io={label}");
                let kill = ["-n", "kubevirt", "delete", "pod", "-l", &selector, "--grace-period=0", "--force"];
                run("kubectl", &kill).await.unwrap();
                // Admission is served by virt-api: without it nothing is made, and nothing half.
                let ready = ["-n", "kubevirt", "rollout", "status", "deployment/virt-api", "--timeout=60s"];
                run("kubectl", &ready).await.unwrap();
            }
        }
    }
    for n in 0..MANY {
        world.until_vmi(&name(n), "runs", |vmi| vmi["status"]["phase"] == "Running").await;
    }
    let pods =
        world.api.get(&world.path("v1", "pods?labelSelector=kubevirt.io%3Dvirt-launcher")).await.unwrap().unwrap();
    assert_eq!(pods["items"].as_array().unwrap().len(), MANY);
    world.remove().await;
}
