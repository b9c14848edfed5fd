//! `get`, `describe` and `delete`.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::server::Server;
use crate::virtctl::{ok, on, run};

#[tokio::test]
async fn objects_are_shown() {
    let server = Server::start("running");
    let socket = server.socket();
    let table = ok(&socket, &["get", "vm,vmi"]).await;
    let firsts: Vec<&str> = table.lines().map(|line| line.split_whitespace().next().unwrap_or("")).collect();
    assert_eq!(firsts, ["NAME", "virtualmachine.kubevirt.io/v1", "", "NAME", "virtualmachineinstance.kubevirt.io/v1"]);
    let vm: Value = serde_json::from_str(&ok(&socket, &["get", "vm", "v1", "-o", "json"]).await).unwrap();
    assert_eq!(vm, server.world.lock().unwrap().vms["v1"]);
    let yaml = ok(&socket, &["get", "vms", "-o", "yaml"]).await;
    assert!(
        yaml.starts_with("apiVersion: v1\nitems:\n- apiVersion: kubevirt.io/v1\n  kind: VirtualMachine\n"),
        "{yaml}"
    );
    let names = ok(&socket, &["get", "vm/v1", "vmi/v1", "-o", "name"]).await;
    assert_eq!(names, "virtualmachine.kubevirt.io/v1\nvirtualmachineinstance.kubevirt.io/v1\n");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let server = Server::start("halted");
    let none = run(on(&server.socket(), &["get", "vmi"])).await;
    let said = (none.code, none.stdout.as_str(), none.stderr.as_str());
    assert_eq!(said, (Some(0), "", "No resources found in default namespace.\n"));
    // What is there is shown all the same.
    let some = run(on(&server.socket(), &["get", "vm", "no", "v1"])).await;
    assert_eq!(some.code, Some(1));
    assert_eq!(some.stderr, "Error from server (NotFound): virtualmachines.kubevirt.io \"no\" not found\n");
    assert!(some.stdout.contains("\nv1 "), "{}", some.stdout);
    let json = run(on(&server.socket(), &["get", "vm", "no", "-o", "json"])).await;
    assert_eq!((json.code, json.stdout.as_str()), (Some(1), ""));
    let kind = run(on(&server.socket(), &["get", "pods"])).await;
    assert_eq!(kind.code, Some(1));
    assert!(kind.stderr.starts_with("error: the server doesn't have a resource type \"pods\""), "{}", kind.stderr);
}

#[tokio::test]
async fn a_warning_is_shown_once() {
    let server = Server::start("running");
    server.world.lock().unwrap().warning = Some(r#"a.yaml: field \"x\" is unknown"#.to_owned());
    let ran = run(on(&server.socket(), &["get", "vm,vmi", "-o", "name"])).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "Warning: a.yaml: field \"x\" is unknown\n"));
}

#[tokio::test]
async fn a_vm_is_described_with_its_events() {
    let server = Server::start("running");
    let event = |uid: &str, reason: &str| {
        json!({
            "involvedObject": {"uid": uid}, "reason": reason, "type": "Warning", "message": "m",
            "lastTimestamp": "2026-01-01T00:00:00Z", "source": {"component": "virt-handler"},
        })
    };
    server.world.lock().unwrap().events = vec![event("uid-v1", "OfTheVm"), event("uid-v1-1", "OfTheVmi")];
    let vm = ok(&server.socket(), &["describe", "vm", "v1"]).await;
    assert!(vm.starts_with("Name:         v1\n") && vm.contains("Instance:      v1 (Running"), "{vm}");
    assert!(vm.contains("OfTheVm ") && !vm.contains("OfTheVmi"), "{vm}");
    let vmi = ok(&server.socket(), &["describe", "vmi"]).await;
    assert!(vmi.contains("OfTheVmi") && !vmi.contains("OfTheVm "), "{vmi}");
    let other = run(on(&server.socket(), &["describe", "nad", "x"])).await;
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("get -o yaml"), "{}", other.stderr);
}

#[tokio::test]
async fn deleting_waits_until_it_is_done() {
    let server = Server::start("halted");
    server.world.lock().unwrap().lingers = 2;
    let ran = run(on(&server.socket(), &["delete", "vm", "v1", "no"])).await;
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, "virtualmachine.kubevirt.io \"v1\" deleted from default namespace\n");
    assert_eq!(
        ran.stderr,
        "Its document was taken out of vms.yaml in the folder of manifests.\n\
         Error from server (NotFound): virtualmachines.kubevirt.io \"no\" not found\n"
    );
    assert!(server.world.lock().unwrap().vms.is_empty());
    let nothing = run(on(&server.socket(), &["delete", "vm"])).await;
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(1), ""));
}

#[tokio::test]
async fn waiting_can_be_bounded_or_left_out() {
    let server = Server::start("halted");
    server.world.lock().unwrap().lingers = u32::MAX;
    let bounded = run(on(&server.socket(), &["delete", "vm/v1", "--timeout=300ms"])).await;
    assert_eq!(bounded.code, Some(1));
    assert!(bounded.stderr.contains("timed out waiting until virtualmachine.kubevirt.io \"v1\" is gone"));
    let left_out = run(on(&server.socket(), &["delete", "vm/v1", "--wait=false"])).await;
    assert_eq!(left_out.code, Some(0));
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_error() {
    let server = Server::start("running");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut get = on(&server.socket(), &["get", "vm", "-o", "yaml"]);
    let output = get.stdout(Stdio::from(writer)).stderr(Stdio::piped()).spawn().unwrap().wait_with_output();
    let output = output.await.unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}
