//! The sheets of a VM and of a VMI.

use jiff::Timestamp;
use serde_json::Value;

use super::parts::{conditions, events, interfaces, volumes};
use super::sheet::Sheet;
use super::value::{items, map, since, text};

/// The sheet of a VM. `vmi` is its instance (null where it has none), `list` the VM's events.
pub fn vm(vm: &Value, vmi: &Value, list: &Value, now: Timestamp) -> String {
    let template = vm.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    let status = vmi.get("status").unwrap_or(&Value::Null);
    let mut sheet = Sheet::default();
    metadata(&mut sheet, vm, now);
    let instance = match text(status, "/phase").as_str() {
        "" => "<none>".to_owned(),
        phase => format!("{} ({phase}, {} old)", text(vmi, "/metadata/name"), since_created(vmi, now)),
    };
    let wanted = text(vm, "/spec/runStrategy");
    let running = text(vm, "/spec/running");
    let strategy = if wanted.is_empty() && !running.is_empty() { format!("running: {running}") } else { wanted };
    let failures = text(vm, "/status/startFailure/consecutiveFailCount");
    sheet.section(
        "Status",
        &[
            ("Status", text(vm, "/status/printableStatus")),
            ("Ready", text(vm, "/status/ready")),
            ("Run Strategy", strategy),
            ("Instance", instance),
            ("Node", text(status, "/nodeName")),
            ("Failed Starts In A Row", failures),
            ("Next Start Not Before", text(vm, "/status/startFailure/retryAfterTimestamp")),
        ],
    );
    machine(&mut sheet, template);
    interfaces(&mut sheet, template, status);
    volumes(&mut sheet, template, status);
    conditions(&mut sheet, vm, now);
    events(&mut sheet, list, now);
    sheet.text()
}

/// The sheet of a VMI; `list` are its events.
pub fn vmi(vmi: &Value, list: &Value, now: Timestamp) -> String {
    let null = Value::Null;
    let (spec, status) = (vmi.get("spec").unwrap_or(&null), vmi.get("status").unwrap_or(&null));
    let mut sheet = Sheet::default();
    metadata(&mut sheet, vmi, now);
    let phase = text(status, "/phase");
    let begun = items(status, "/phaseTransitionTimestamps").find(|begun| begun["phase"] == *phase);
    let begun = begun.map(|begun| format!(" (since {})", since(begun, "/phaseTransitionTimestamp", now)));
    sheet.section(
        "Status",
        &[
            ("Phase", format!("{phase}{}", begun.unwrap_or_default())),
            ("Reason", text(status, "/reason")),
            ("Node", text(status, "/nodeName")),
            ("Guest OS", text(status, "/guestOSInfo/prettyName")),
            ("Machine Type", text(status, "/machine/type")),
            ("Memory Of Guest", text(status, "/memory/guestCurrent")),
            ("User Of QEMU", text(status, "/runtimeUser")),
        ],
    );
    machine(&mut sheet, spec);
    interfaces(&mut sheet, spec, status);
    volumes(&mut sheet, spec, status);
    conditions(&mut sheet, vmi, now);
    events(&mut sheet, list, now);
    sheet.text()
}

fn metadata(sheet: &mut Sheet, object: &Value, now: Timestamp) {
    let owner = items(object, "/metadata/ownerReferences").find(|owner| owner["controller"] == true);
    let owner = owner.map(|owner| format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    let deleted = since(object, "/metadata/deletionTimestamp", now);
    let created = match text(object, "/metadata/creationTimestamp") {
        none if none.is_empty() => none,
        time => format!("{time} ({} ago)", since_created(object, now)),
    };
    sheet.fields(&[
        ("Name", text(object, "/metadata/name")),
        ("Namespace", text(object, "/metadata/namespace")),
        ("Labels", map(object, "/metadata/labels", "=")),
        ("Annotations", map(object, "/metadata/annotations", ": ")),
        ("API Version", text(object, "/apiVersion")),
        ("Kind", text(object, "/kind")),
        ("UID", text(object, "/metadata/uid")),
        ("Controlled By", owner.unwrap_or_default()),
        ("Created", created),
        ("Being Deleted", if deleted.is_empty() { deleted } else { format!("since {deleted}") }),
    ]);
}

fn since_created(object: &Value, now: Timestamp) -> String {
    since(object, "/metadata/creationTimestamp", now)
}

/// What the machine is made of; `spec` is that of a VMI.
fn machine(sheet: &mut Sheet, spec: &Value) {
    let memory = match text(spec, "/domain/memory/guest") {
        none if none.is_empty() => text(spec, "/domain/resources/requests/memory"),
        guest => guest,
    };
    let grace = text(spec, "/terminationGracePeriodSeconds");
    sheet.section(
        "Spec",
        &[
            ("CPU", cpu(spec)),
            ("Memory", memory),
            ("Machine", text(spec, "/domain/machine/type")),
            ("Architecture", text(spec, "/architecture")),
            ("Firmware UUID", text(spec, "/domain/firmware/uuid")),
            ("Host Name", text(spec, "/hostname")),
            ("Grace Period", if grace.is_empty() { grace } else { format!("{grace}s") }),
        ],
    );
}

fn cpu(spec: &Value) -> String {
    let count = |field: &str| spec.pointer(&format!("/domain/cpu/{field}")).and_then(Value::as_u64).unwrap_or(1);
    let (sockets, cores, threads) = (count("sockets"), count("cores"), count("threads"));
    let model = text(spec, "/domain/cpu/model");
    let model = if model.is_empty() { model } else { format!(", model {model}") };
    let all = sockets.saturating_mul(cores).saturating_mul(threads);
    format!("{all} (sockets {sockets}, cores {cores}, threads {threads}{model})")
}
