//! Verbs, with the codes, bodies and effects that clients know.

use axum::http::Method;
use serde_json::{Value, json};

use super::world::{World, subresource, vm, vmi};

fn message(body: &str) -> String {
    let status: Value = serde_json::from_str(body).unwrap();
    assert_eq!(status["kind"], "Status");
    status["message"].as_str().unwrap().to_owned()
}

fn object(world: &World, path: &str) -> Value {
    world.api_server.objects.lock().unwrap()[path].clone()
}

#[tokio::test]
async fn start_and_stop_exchange_the_strategy() {
    let (path, halted) = vm("w1", "Halted");
    let world = World::new(&[(&path, halted)]).await;
    let start = subresource("virtualmachines", "w1", "start");
    assert_eq!(world.ask(Method::PUT, &start, br#"{"dryRun": ["All"]}"#).await, (202, String::new()));
    assert_eq!(object(&world, &path)["spec"]["runStrategy"], "Halted");
    let (method, asked, _) = world.asked().last().unwrap().clone();
    assert_eq!(method, Method::PATCH);
    assert!(asked.contains("dryRun=All") && asked.contains("fieldManager=virt-api"), "{asked}");

    assert_eq!(world.ask(Method::PUT, &start, br#"{"foo": 1}"#).await, (202, String::new()));
    assert_eq!(object(&world, &path)["spec"]["runStrategy"], "Always");
    let (code, body) = world.ask(Method::PUT, &start, b"").await;
    assert_eq!(code, 409);
    assert!(message(&body).ends_with("Always does not support manual start requests"), "{body}");
    let stop = subresource("virtualmachines", "w1", "stop");
    assert_eq!(world.ask(Method::PUT, &stop, b"").await.0, 202);
    assert_eq!(object(&world, &path)["spec"]["runStrategy"], "Halted");

    let (code, body) = world.ask(Method::PUT, &start, b"{nonsense").await;
    assert_eq!(code, 400);
    assert!(message(&body).starts_with("Can not unmarshal Request body to struct, error: json: offset 2:"), "{body}");
    let nope = subresource("virtualmachines", "nope", "start");
    let (code, body) = world.ask(Method::PUT, &nope, b"{}").await;
    assert_eq!((code, message(&body)), (404, "virtualmachine.kubevirt.io \"nope\" not found".to_owned()));
}

#[tokio::test]
async fn restart_leaves_requests_in_the_status() {
    let ((vm_path, vm), (vmi_path, vmi)) = (vm("w1", "Always"), vmi("w1", "Running", json!([])));
    let world = World::new(&[(&vm_path, vm), (&vmi_path, vmi)]).await;
    let restart = subresource("virtualmachines", "w1", "restart");
    assert_eq!(world.ask(Method::PUT, &restart, br#"{"gracePeriodSeconds": 0}"#).await.0, 202);
    assert_eq!(
        object(&world, &vm_path)["status"]["stateChangeRequests"],
        json!([{"action": "Stop", "uid": "i"}, {"action": "Start"}])
    );
    assert_eq!(object(&world, &vmi_path)["spec"]["terminationGracePeriodSeconds"], 1);
    let patches: Vec<_> = world.asked().into_iter().filter(|(method, ..)| method == Method::PATCH).collect();
    assert!(patches[0].1.starts_with(&vmi_path), "the VMI first: the VM's change may end it at once");
    assert!(patches[1].1.starts_with(&format!("{vm_path}/status")));
    let (code, body) = world.ask(Method::PUT, &restart, b"{}").await;
    assert_eq!(code, 500);
    assert!(message(&body).contains("stop/start already underway"), "{body}");
}

#[tokio::test]
async fn commands_go_to_the_node() {
    let (path, running) = vmi("w1", "Running", json!([]));
    let (gone_path, gone) = vmi("gone", "Running", json!([]));
    let (broken_path, broken) = vmi("broken", "Running", json!([]));
    let world = World::new(&[(&path, running), (&gone_path, gone), (&broken_path, broken)]).await;
    let put = async |name: &str, verb: &str, body: &[u8]| {
        world.ask(Method::PUT, &subresource("virtualmachineinstances", name, verb), body).await
    };
    assert_eq!(put("w1", "pause", br#"{"dryRun": ["All"]}"#).await, (200, String::new()));
    assert_eq!(*world.handled.lock().unwrap(), [] as [String; 0]);
    assert_eq!(put("w1", "pause", b"{}").await, (200, String::new()));
    assert_eq!(put("w1", "softreboot", b"no options here").await, (200, String::new()));
    assert_eq!(put("w1", "reset", b"").await.0, 200);
    let (code, body) = put("w1", "unpause", b"{}").await;
    assert_eq!((code, message(&body).ends_with(": VMI is not paused")), (409, true), "{body}");
    let at = "PUT /v1/namespaces/default/virtualmachineinstances/w1";
    assert_eq!(*world.handled.lock().unwrap(), ["pause", "softreboot", "reset"].map(|verb| format!("{at}/{verb}")));

    // virt-handler looked later.
    let (code, body) = put("gone", "pause", b"{}").await;
    assert_eq!((code, message(&body).ends_with("\"gone\": VMI is not running")), (409, true), "{body}");
    let (code, body) = put("broken", "reset", b"").await;
    assert_eq!(code, 500);
    let known = "Internal error occurred: unexpected return code 400 (400 Bad Request), message: no such thing";
    assert_eq!(message(&body), known);
}

#[tokio::test]
async fn the_agent_tells_of_the_guest() {
    let (path, silent) = vmi("w1", "Running", json!([]));
    let (other_path, talking) = vmi("w2", "Running", json!([{"type": "AgentConnected", "status": "True"}]));
    let world = World::new(&[(&path, silent), (&other_path, talking)]).await;
    let get = async |name: &str, verb: &str| {
        world.ask(Method::GET, &subresource("virtualmachineinstances", name, verb), b"").await
    };
    assert_eq!(get("w2", "guestosinfo").await, (200, r#"{"hostname":"guest"}"#.to_owned()));
    let conflict = "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"w1\": \
                    VMI does not have guest agent connected";
    for verb in ["guestosinfo", "userlist", "filesystemlist"] {
        assert_eq!(get("w1", verb).await, (500, conflict.to_owned()));
        assert_eq!(get("nope", verb).await, (500, "virtualmachineinstance.kubevirt.io \"nope\" not found".to_owned()));
    }
}
