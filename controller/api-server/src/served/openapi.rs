//! OpenAPI documents of the subresources, in versions 2 and 3.

use axum::http::Method;
use serde_json::{Map, Value, json};

use crate::verbs::{GROUP, VERSIONS, Verb};

/// OpenAPI 2, of all versions.
pub fn v2() -> Value {
    let mut paths = Map::new();
    for version in VERSIONS {
        paths.insert(format!("/apis/{GROUP}/{version}/"), json!({"get": list(version, &["application/json"])}));
        for verb in Verb::ALL {
            let mut operation = json!({
                "description": description(verb),
                "operationId": id(version, verb),
                "responses": responses(verb),
                "schemes": ["https"],
            });
            operation["parameters"] = parameters(
                |name, about| json!({"name": name, "in": "path", "required": true, "type": "string", "description": about}),
            );
            if let Some(options) = options(verb) {
                let body = json!({"name": "body", "in": "body", "schema": options});
                operation["parameters"].as_array_mut().map(|list| list.push(body)).unwrap_or_default();
                operation["consumes"] = json!(["*/*"]);
            }
            paths.insert(path(version, verb), json!({method(verb): operation}));
        }
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": {}})
}

/// Where the documents of OpenAPI 3 are.
pub fn v3() -> Value {
    let entry = |version: &str| {
        let path = format!("apis/{GROUP}/{version}");
        let url = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={}", env!("CARGO_PKG_VERSION"))});
        (path, url)
    };
    json!({"paths": Map::from_iter(VERSIONS.map(entry))})
}

/// OpenAPI 3, of one version.
pub fn v3_of(version: &str) -> Value {
    let mut paths = Map::new();
    let mut listing = list(version, &[]);
    if let Some(fields) = listing.as_object_mut() {
        fields.remove("produces");
        fields.remove("schemes");
    }
    paths.insert(format!("/apis/{GROUP}/{version}/"), json!({"get": listing}));
    for verb in Verb::ALL {
        let mut operation = json!({
            "description": description(verb),
            "operationId": id(version, verb),
            "responses": responses(verb),
        });
        operation["parameters"] = parameters(
            |name, about| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}, "description": about}),
        );
        if let Some(options) = options(verb) {
            operation["requestBody"] = json!({"content": {"*/*": {"schema": options}}});
        }
        paths.insert(path(version, verb), json!({method(verb): operation}));
    }
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": {}}})
}

fn info() -> Value {
    json!({
        "title": "Holdfast: subresources of virtual machines",
        "version": concat!("v", env!("CARGO_PKG_VERSION")),
        "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    })
}

fn list(version: &str, produces: &[&str]) -> Value {
    json!({
        "description": "Lists the subresources of this version.",
        "operationId": format!("{version}ListSubresources"),
        "produces": produces,
        "schemes": ["https"],
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
    })
}

fn path(version: &str, verb: Verb) -> String {
    format!("/apis/{GROUP}/{version}/namespaces/{{namespace}}/{}/{{name}}/{}", verb.kind().plural(), verb.name())
}

fn method(verb: Verb) -> String {
    verb.method().as_str().to_ascii_lowercase()
}

fn id(version: &str, verb: Verb) -> String {
    format!("{version}{}/{}", verb.kind().plural(), verb.name())
}

fn parameters(parameter: impl Fn(&str, &str) -> Value) -> Value {
    json!([
        parameter("namespace", "The namespace that the virtual machine is in."),
        parameter("name", "The name of the virtual machine."),
    ])
}

fn responses(verb: Verb) -> Value {
    let done = match (verb.method(), verb) {
        (_, Verb::Start | Verb::Stop | Verb::Restart) => ("202", "Accepted: it is being done."),
        (_, Verb::Console | Verb::Vnc) => ("101", "The connection becomes a websocket with binary messages."),
        (_, Verb::VncScreenshot) => ("200", "The picture, as PNG."),
        (Method::GET, _) => ("200", "What the guest agent says."),
        _ => ("200", "Done."),
    };
    let mut responses = Map::new();
    responses.insert(done.0.to_owned(), json!({"description": done.1}));
    for (code, about) in [
        ("401", "Nobody says who asks."),
        ("403", "The user may not do this."),
        ("404", "There is no such virtual machine."),
        ("409", "The state of the virtual machine does not allow it."),
    ] {
        responses.insert(code.to_owned(), json!({"description": about}));
    }
    responses.into()
}

fn description(verb: Verb) -> &'static str {
    match verb {
        Verb::Vnc => "Opens the screen of a running virtual machine: a websocket that carries RFB.",
        Verb::VncScreenshot => "Takes a picture of the screen of a running virtual machine.",
        Verb::Console => "Opens the serial console of a running virtual machine: a websocket that carries its bytes.",
        Verb::Pause => "Stops the CPUs of a virtual machine until it is unpaused.",
        Verb::Unpause => "Lets the CPUs of a paused virtual machine go on.",
        Verb::Reset => "Resets a virtual machine, as its reset button would.",
        Verb::SoftReboot => "Asks the guest to reboot, by its agent or by ACPI.",
        Verb::Start => "Starts a virtual machine.",
        Verb::Stop => "Stops a virtual machine.",
        Verb::Restart => "Stops a running virtual machine and starts it again.",
        Verb::GuestOsInfo => "Tells what the guest agent says of operating system, users and file systems.",
        Verb::UserList => "Lists the users who are logged in to the guest, as its agent tells them.",
        Verb::FilesystemList => "Lists the file systems of the guest, as its agent tells them.",
    }
}

/// The schema of the options that a verb takes.
fn options(verb: Verb) -> Option<Value> {
    let seconds = |about: &str| json!({"type": "integer", "format": "int64", "description": about});
    let own = match verb {
        Verb::Start => Some(("paused", json!({"type": "boolean", "description": "Start with the CPUs stopped."}))),
        Verb::Stop => Some(("gracePeriod", seconds("How long the guest may take to shut down, in seconds."))),
        Verb::Restart => Some(("gracePeriodSeconds", seconds("0: do not wait for the guest to shut down."))),
        Verb::Pause | Verb::Unpause => None,
        Verb::Vnc
        | Verb::VncScreenshot
        | Verb::Console
        | Verb::Reset
        | Verb::SoftReboot
        | Verb::GuestOsInfo
        | Verb::UserList
        | Verb::FilesystemList => return None,
    };
    let dry_run = json!({
        "type": "array",
        "items": {"type": "string"},
        "description": "`All`: nothing is changed, the answer is as if it were.",
    });
    let mut properties = Map::from_iter([("dryRun".to_owned(), dry_run)]);
    properties.extend(own.map(|(name, schema)| (name.to_owned(), schema)));
    Some(json!({"type": "object", "properties": properties}))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_verb_of_each_version_is_described_once() {
        let document = v2();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), VERSIONS.len() * (Verb::ALL.len() + 1));
        let mut ids = BTreeSet::new();
        for (path, item) in paths {
            let (method, operation) = item.as_object().unwrap().iter().next().unwrap();
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
            let body =
                operation["parameters"].as_array().map_or(0, |list| list.iter().filter(|p| p["in"] == "body").count());
            assert!(body <= usize::from(method == "put"), "{path}");
        }
        let start = &paths["/apis/subresources.kubevirt.io/v1/namespaces/{namespace}/virtualmachines/{name}/start"];
        assert_eq!(start["put"]["parameters"][2]["schema"]["properties"]["paused"]["type"], "boolean");
        assert!(start["put"]["responses"]["202"].is_object());
    }

    #[test]
    fn version_3_has_a_document_for_each_version() {
        for version in VERSIONS {
            let url = v3()["paths"][format!("apis/subresources.kubevirt.io/{version}")]["serverRelativeURL"].clone();
            let path = format!("/openapi/v3/apis/subresources.kubevirt.io/{version}?");
            assert!(url.as_str().unwrap().starts_with(&path), "{url}");
            let document = v3_of(version);
            assert_eq!(document["paths"].as_object().unwrap().len(), Verb::ALL.len() + 1);
            assert!(document["paths"].as_object().unwrap().values().all(|item| {
                item.as_object().unwrap().values().all(|operation| operation.get("schemes").is_none())
            }));
        }
    }
}
