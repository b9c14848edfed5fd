//! What verbs change, what they send, and what is said where there is no server to ask.

use serde_json::json;
use tokio::net::UnixListener;

use crate::server::Server;
use crate::virtctl::{command, ok, on, run};

#[tokio::test]
async fn a_vm_goes_through_its_life() {
    let server = Server::start("halted");
    let socket = server.socket();
    let strategy = || server.world.lock().unwrap().vms["v1"]["spec"]["runStrategy"].clone();
    let paused = || server.world.lock().unwrap().vmis["v1"]["status"]["paused"] == true;
    assert_eq!(ok(&socket, &["start", "v1", "--dry-run"]).await, "Dry Run execution\nVM v1 was scheduled to start\n");
    assert_eq!(strategy(), "Halted");
    assert_eq!(ok(&socket, &["start", "v1", "--paused"]).await, "VM v1 was scheduled to start\n");
    assert_eq!(strategy(), "Always");
    assert_eq!(ok(&socket, &["pause", "vmi", "v1"]).await, "VMI v1 was scheduled to pause\n");
    assert!(paused());
    assert_eq!(ok(&socket, &["unpause", "vm", "v1"]).await, "VMI v1 was scheduled to unpause\n");
    assert!(!paused());
    assert_eq!(ok(&socket, &["soft-reboot", "v1"]).await, "VMI v1 was scheduled to soft reboot\n");
    assert_eq!(ok(&socket, &["restart", "v1"]).await, "VM v1 was scheduled to restart\n");
    let forced = ok(&socket, &["stop", "v1", "--force=true", "--grace-period=0"]).await;
    assert_eq!(forced, "VM v1 was scheduled to stop\n");
    assert_eq!(strategy(), "Halted");
    let bodies = server.world.lock().unwrap().bodies.clone();
    let empty = json!({});
    let expected =
        [json!({"dryRun": ["All"]}), json!({"paused": true}), empty.clone(), empty.clone(), empty.clone(), empty];
    assert_eq!(bodies[..6], expected);
    assert_eq!(bodies[6], json!({"gracePeriod": 0}));
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let server = Server::start("running");
    for (arguments, expected) in [
        (
            &["start", "v1"][..],
            "Error starting VirtualMachine Operation cannot be fulfilled on virtualmachine.kubevirt.io \"v1\": VM is \
             already running\n",
        ),
        (&["stop", "no"], "error stopping VirtualMachine virtualmachine.kubevirt.io \"no\" not found\n"),
        (&["pause", "vm", "no"], "Error getting VirtualMachine no: virtualmachines.kubevirt.io \"no\" not found\n"),
        (
            &["pause", "vmi", "no"],
            "Error pausing VirtualMachineInstance no: virtualmachineinstance.kubevirt.io \"no\" not found\n",
        ),
        (&["pause", "pod", "v1"], "unsupported resource type \"pod\", must be vm or vmi\n"),
        (&["pause", "v1"], "accepts 2 arg(s), received 1\n"),
        (
            &["unpause", "vmi", "v1"],
            "Error unpausing VirtualMachineInstance v1: Operation cannot be fulfilled on \
             virtualmachineinstance.kubevirt.io \"v1\": VMI is not paused\n",
        ),
        (
            &["reset", "no"],
            "Error resetting VirtualMachineInstance no: virtualmachineinstance.kubevirt.io \"no\" not found\n",
        ),
    ] {
        let ran = run(on(&server.socket(), arguments)).await;
        assert_eq!((ran.code, ran.stderr.as_str(), ran.stdout.as_str()), (Some(1), expected, ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn without_a_server_it_is_said_what_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    for exists in [false, true] {
        if exists {
            // A socket that nobody listens on any more.
            drop(UnixListener::bind(&socket).unwrap());
        }
        let mut get = command(&["--standalone", "get", "vm", "--run"]);
        get.arg(folder.path());
        let ran = run(get).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        for part in [socket.to_str().unwrap(), "holdfastd --manifests DIR", "--run DIR"] {
            assert!(ran.stderr.contains(part), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    for arguments in [&["get", "vm"][..], &["start", "v1"], &["console", "v1"]] {
        let mut arguments = arguments.to_vec();
        arguments.push("--request-timeout=200ms");
        let ran = run(on(&socket, &arguments)).await;
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("within 200ms (--request-timeout)"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn without_standalone_it_is_said_how() {
    let ran = run(command(&["get", "vm"])).await;
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("--standalone") && ran.stderr.contains("HOLDFAST_STANDALONE=1"), "{}", ran.stderr);
    for needs_no_server in [&["version", "--client"][..], &["completion", "bash"], &["start", "--help"]] {
        assert_eq!(run(command(needs_no_server)).await.code, Some(0), "{needs_no_server:?}");
    }
}

#[tokio::test]
async fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(command(&["completion", shell])).await;
        assert!(ran.stdout.contains("soft-reboot") && ran.stdout.contains("grace-period"), "{shell}");
    }
}
