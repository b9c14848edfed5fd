//! A holdfastd for tests: VMs and VMIs in memory, and upstream's rules and words for the verbs on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// What the console does with whoever connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serial {
    /// Says [`greeting`], keeps what it is told, and ends when the other side does.
    #[default]
    Listens,
    /// Hangs up at once.
    HangsUp,
}

/// What the server knows.
#[derive(Default)]
pub struct World {
    /// VMs by name.
    pub vms: BTreeMap<String, Value>,
    /// VMIs by name.
    pub vmis: BTreeMap<String, Value>,
    /// Events.
    pub events: Vec<Value>,
    /// Text of the warning that lists come with.
    pub warning: Option<String>,
    /// What the console does.
    pub serial: Serial,
    /// What the console was told.
    pub told: Vec<u8>,
    /// How often a console is refused because its VMI does not run yet.
    pub not_yet: u32,
    /// How often a deleted object is still there.
    pub lingers: u32,
    /// Bodies of verbs, in order.
    pub bodies: Vec<Value>,
}

/// A server; it ends with the test's runtime.
pub struct Server {
    folder: TempDir,
    /// What it knows.
    pub world: Arc<Mutex<World>>,
}

/// Every byte, from the last to the first.
pub fn greeting() -> Vec<u8> {
    (0..=255).rev().collect()
}

impl Server {
    /// Starts one that has a VM `v1` in this state: `halted`, `running`, `paused` or `restarting`.
    pub fn start(state: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("api.sock")).unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let strategy = if state == "halted" { "Halted" } else { "Always" };
        world.lock().unwrap().vms.insert("v1".into(), vm("v1", strategy));
        if state != "halted" {
            let mut vmi = vmi("v1");
            vmi["status"]["paused"] = json!(state == "paused");
            vmi["status"]["restarting"] = json!(state == "restarting");
            world.lock().unwrap().vmis.insert("v1".into(), vmi);
        }
        let router = Router::new().fallback(handle).with_state(Arc::clone(&world));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { folder, world }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    /// The folder of its socket.
    pub fn run(&self) -> &Path {
        self.folder.path()
    }
}

fn vm(name: &str, strategy: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {
            "name": name, "namespace": "default", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"holdfast.io/manifest": "vms.yaml"},
        },
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": {}}}},
        "status": {"printableStatus": if strategy == "Halted" { "Stopped" } else { "Running" }},
    })
}

fn vmi(name: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}-1")},
        "spec": {"domain": {}}, "status": {"phase": "Running"},
    })
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

fn not_found(resource: &str, name: &str) -> Response {
    status(404, "NotFound", &format!("{resource} \"{name}\" not found"))
}

fn conflict(kind: &str, name: &str, why: &str) -> Response {
    status(409, "Conflict", &format!("Operation cannot be fulfilled on {kind}.kubevirt.io \"{name}\": {why}"))
}

async fn handle(State(world): State<Arc<Mutex<World>>>, mut request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    match (&method, parts.as_slice()) {
        (&Method::GET, ["version"]) => json!({"gitVersion": "v9", "platform": "linux/x"}).to_string().into_response(),
        (&Method::GET, ["apis", "kubevirt.io", "v1", "namespaces", "default", plural]) => {
            list(&world.lock().unwrap(), plural)
        }
        (&Method::GET, ["apis", "kubevirt.io", "v1", "namespaces", "default", plural, name]) => {
            let mut world = world.lock().unwrap();
            read(&mut world, plural, name)
        }
        (&Method::DELETE, ["apis", "kubevirt.io", "v1", "namespaces", "default", "virtualmachines", name]) => {
            let mut world = world.lock().unwrap();
            match world.vms.get_mut(*name) {
                Some(vm) => {
                    vm["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    json!({"kind": "Status", "status": "Success"}).to_string().into_response()
                }
                None => not_found("virtualmachines.kubevirt.io", name),
            }
        }
        (&Method::GET, ["api", "v1", "namespaces", "default", "events"]) => {
            let world = world.lock().unwrap();
            let query = uri.query().unwrap_or_default().replace("%3D", "=");
            let uid = query.strip_prefix("fieldSelector=involvedObject.uid=").unwrap_or_default();
            let items: Vec<_> = world.events.iter().filter(|event| event["involvedObject"]["uid"] == *uid).collect();
            json!({"items": items}).to_string().into_response()
        }
        (_, ["apis", "subresources.kubevirt.io", "v1", "namespaces", "default", _, name, "console"]) => {
            console(&world, name, &mut request)
        }
        (&Method::PUT, ["apis", "subresources.kubevirt.io", "v1", "namespaces", "default", plural, name, verb]) => {
            let body = to_bytes(request.into_body(), 1 << 16).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let mut world = world.lock().unwrap();
            world.bodies.push(body.clone());
            let answer = if *plural == "virtualmachines" { vm_verb } else { vmi_verb };
            answer(&mut world, name, verb, body["dryRun"] == json!(["All"]))
        }
        _ => status(404, "NotFound", "the server could not find the requested resource"),
    }
}

fn list(world: &World, plural: &str) -> Response {
    let of = if plural == "virtualmachines" { &world.vms } else { &world.vmis };
    let items: Vec<&Value> = of.values().collect();
    let mut response = json!({"kind": "List", "items": items}).to_string().into_response();
    if let Some(text) = &world.warning {
        response.headers_mut().insert(header::WARNING, format!("299 - \"{text}\"").parse().unwrap());
    }
    response
}

/// An object; one that is deleted is seen a few times more.
fn read(world: &mut World, plural: &str, name: &str) -> Response {
    let of = if plural == "virtualmachines" { &mut world.vms } else { &mut world.vmis };
    if of.get(name).is_some_and(|object| object["metadata"].get("deletionTimestamp").is_some()) {
        match world.lingers {
            0 => drop(of.remove(name)),
            _ => world.lingers -= 1,
        }
    }
    let of = if plural == "virtualmachines" { &world.vms } else { &world.vmis };
    let found = of.get(name).map(|object| object.to_string().into_response());
    found.unwrap_or_else(|| not_found(&format!("{plural}.kubevirt.io"), name))
}

fn vm_verb(world: &mut World, name: &str, verb: &str, dry_run: bool) -> Response {
    let kind = "virtualmachine";
    let Some(vm) = world.vms.get_mut(name) else { return not_found("virtualmachine.kubevirt.io", name) };
    let halted = vm["spec"]["runStrategy"] == "Halted";
    let restarting = world.vmis.get(name).is_some_and(|vmi| vmi["status"]["restarting"] == true);
    match verb {
        "start" if !halted => return conflict(kind, name, "VM is already running"),
        "restart" if halted => {
            return conflict(kind, name, "RunStategy Halted does not support manual restart requests");
        }
        "restart" if restarting => {
            let why = "Internal error occurred: unable to complete request: stop/start already underway";
            return status(500, "InternalError", why);
        }
        _ if dry_run => {}
        "start" => {
            vm["spec"]["runStrategy"] = json!("Always");
            world.vmis.insert(name.to_owned(), vmi(name));
        }
        "stop" => {
            vm["spec"]["runStrategy"] = json!("Halted");
            world.vmis.remove(name);
        }
        "restart" => world.vmis.get_mut(name).unwrap()["status"]["restarting"] = json!(true),
        other => panic!("{other}"),
    }
    StatusCode::ACCEPTED.into_response()
}

fn vmi_verb(world: &mut World, name: &str, verb: &str, dry_run: bool) -> Response {
    let kind = "virtualmachineinstance";
    let Some(vmi) = world.vmis.get_mut(name) else { return not_found("virtualmachineinstance.kubevirt.io", name) };
    match (verb, vmi["status"]["paused"] == true) {
        ("pause", true) => return conflict(kind, name, "VMI is already paused"),
        ("unpause", false) => return conflict(kind, name, "VMI is not paused"),
        ("softreboot", true) => return conflict(kind, name, "VMI is paused"),
        _ if dry_run => {}
        ("pause" | "unpause", paused) => vmi["status"]["paused"] = json!(!paused),
        ("softreboot" | "reset", _) => {}
        (other, _) => panic!("{other}"),
    }
    StatusCode::OK.into_response()
}

fn console(shared: &Arc<Mutex<World>>, name: &str, request: &mut Request) -> Response {
    let mut world = shared.lock().unwrap();
    if !world.vmis.contains_key(name) {
        return not_found("virtualmachineinstance.kubevirt.io", name);
    }
    if world.not_yet > 0 {
        world.not_yet -= 1;
        return conflict("virtualmachineinstance", name, "VMI is not running");
    }
    assert_eq!(request.headers()[header::UPGRADE], "plain.kubevirt.io");
    let (serial, shared) = (world.serial, Arc::clone(shared));
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        if serial == Serial::HangsUp {
            return;
        }
        stream.write_all(&greeting()).await.unwrap();
        let mut chunk = [0; 512];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            shared.lock().unwrap().told.extend(&chunk[..length]);
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, "Upgrade".parse().unwrap());
    response.headers_mut().insert(header::UPGRADE, "plain.kubevirt.io".parse().unwrap());
    response
}
