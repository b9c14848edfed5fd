//! The parts that VMs and VMIs have in common: NICs, volumes, conditions and events.

use jiff::Timestamp;
use serde_json::Value;

use super::sheet::Sheet;
use super::value::{items, list, since, text};

/// Words of an interface's spec that say how it is bound.
const BINDINGS: [&str; 7] = ["masquerade", "bridge", "sriov", "passtBinding", "slirp", "macvtap", "passt"];

/// Adds the NICs: what `spec` (of a VMI, or of a VM's template) asks for, and what `status` (of the VMI) says of it.
pub fn interfaces(sheet: &mut Sheet, spec: &Value, status: &Value) {
    let named =
        |list: &'static str, holder, name: &str| items(holder, list).find(|item| item["name"] == *name).cloned();
    let mut rows: Vec<Vec<String>> = items(spec, "/domain/devices/interfaces")
        .map(|nic| {
            let name = text(nic, "/name");
            let network = named("/networks", spec, &name).unwrap_or_default();
            let state = named("/interfaces", status, &name).unwrap_or_default();
            let own_mac = text(nic, "/macAddress");
            let mac = Some(text(&state, "/mac")).filter(|mac| !mac.is_empty()).unwrap_or(own_mac);
            row(name, network_of(&network), binding_of(nic), mac, &state)
        })
        .collect();
    // What only the guest knows has no name of ours.
    let known = |state: &&Value| items(spec, "/domain/devices/interfaces").any(|nic| nic["name"] == state["name"]);
    let others = items(status, "/interfaces").filter(|state| !known(state));
    rows.extend(
        others.map(|state| row(text(state, "/name"), String::new(), String::new(), text(state, "/mac"), state)),
    );
    let headers = ["Name", "Network", "Binding", "MAC", "Addresses", "Link", "In Guest", "Info Source"];
    sheet.table("Interfaces", &headers, &rows);
}

fn row(name: String, network: String, binding: String, mac: String, state: &Value) -> Vec<String> {
    let addresses = match list(state, "/ipAddresses") {
        none if none.is_empty() => text(state, "/ipAddress"),
        all => all,
    };
    let rest = [text(state, "/linkState"), text(state, "/interfaceName"), text(state, "/infoSource")];
    [name, network, binding, mac, addresses].into_iter().chain(rest).collect()
}

fn network_of(network: &Value) -> String {
    match text(network, "/multus/networkName") {
        name if !name.is_empty() => format!("multus {name}"),
        _ if network.get("pod").is_some() => "pod".to_owned(),
        _ => String::new(),
    }
}

fn binding_of(nic: &Value) -> String {
    let known = BINDINGS.iter().find(|binding| nic.get(**binding).is_some());
    known.map_or_else(|| text(nic, "/binding/name"), |binding| (*binding).to_owned())
}

/// Adds the volumes: what kind each is, where it comes from, and where the guest has it.
pub fn volumes(sheet: &mut Sheet, spec: &Value, status: &Value) {
    let rows: Vec<Vec<String>> = items(spec, "/volumes")
        .map(|volume| {
            let name = text(volume, "/name");
            let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
            let (kind, source) = source.map_or((String::new(), &Value::Null), |(kind, source)| (kind.clone(), source));
            let state = items(status, "/volumeStatus").find(|state| state["name"] == *name);
            let target = state.map(|state| text(state, "/target")).unwrap_or_default();
            vec![name, kind, source_of(source), target]
        })
        .collect();
    sheet.table("Volumes", &["Name", "Type", "Source", "Target"], &rows);
}

/// The one thing that tells where a volume comes from. Nothing of cloud-init: it may hold secrets.
fn source_of(source: &Value) -> String {
    let fields =
        ["/image", "/path", "/capacity", "/claimName", "/name", "/secretName", "/persistentVolumeClaim/claimName"];
    fields.iter().map(|field| text(source, field)).find(|text| !text.is_empty()).unwrap_or_default()
}

/// Adds the conditions of an object.
pub fn conditions(sheet: &mut Sheet, object: &Value, now: Timestamp) {
    let rows: Vec<Vec<String>> = items(object, "/status/conditions")
        .map(|condition| {
            let [kind, status] = ["/type", "/status"].map(|field| text(condition, field));
            let [reason, message] = ["/reason", "/message"].map(|field| text(condition, field));
            vec![kind, status, since(condition, "/lastTransitionTime", now), reason, message]
        })
        .collect();
    sheet.table("Conditions", &["Type", "Status", "Since", "Reason", "Message"], &rows);
}

/// Adds events, oldest first.
pub fn events(sheet: &mut Sheet, list: &Value, now: Timestamp) {
    let rows: Vec<Vec<String>> = items(list, "/items")
        .map(|event| {
            let mut age = since(event, "/lastTimestamp", now);
            let count = event["count"].as_i64().unwrap_or(1);
            if count > 1 {
                age = format!("{age} (x{count} over {})", since(event, "/firstTimestamp", now));
            }
            let [kind, reason] = ["/type", "/reason"].map(|field| text(event, field));
            let [from, message] = ["/source/component", "/message"].map(|field| text(event, field));
            vec![kind, reason, age, from, message]
        })
        .collect();
    sheet.table("Events", &["Type", "Reason", "Age", "From", "Message"], &rows);
}
