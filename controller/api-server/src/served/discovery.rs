//! Discovery: groups, versions, and the subresources that this release has.

use serde_json::{Value, json};

use crate::verbs::{GROUP, VERSIONS, Verb};

/// The paths that there are.
pub fn root() -> Value {
    let mut paths = vec!["/apis".to_owned(), "/apis/".to_owned(), format!("/apis/{GROUP}")];
    paths.extend(VERSIONS.map(|version| format!("/apis/{GROUP}/{version}")));
    paths.extend(["/healthz", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz"].map(str::to_owned));
    json!({"paths": paths})
}

/// The groups.
pub fn groups() -> Value {
    let mut group = group();
    if let Some(fields) = group.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
}

/// The one group.
pub fn group() -> Value {
    let version = |version: &str| json!({"groupVersion": format!("{GROUP}/{version}"), "version": version});
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": VERSIONS.map(version),
        "preferredVersion": version(VERSIONS[0]),
    })
}

/// The subresources of a version. They have neither kind nor verbs there: so do clients know them.
pub fn resources(version: &str) -> Value {
    let resource = |verb: Verb| {
        json!({
            "name": format!("{}/{}", verb.kind().plural(), verb.name()),
            "singularName": "",
            "namespaced": true,
            "kind": "",
            "verbs": null,
        })
    };
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": format!("{GROUP}/{version}"),
        "resources": Verb::ALL.map(resource),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroup, APIGroupList};

    use super::*;

    #[test]
    fn what_clients_read_of_it() {
        let groups: APIGroupList = serde_json::from_value(groups()).unwrap();
        let group: APIGroup = serde_json::from_value(group()).unwrap();
        assert_eq!(groups.groups, std::slice::from_ref(&group));
        assert_eq!(group.preferred_version.unwrap().version, "v1");
        let list = resources("v1alpha3");
        assert_eq!(list["groupVersion"], "subresources.kubevirt.io/v1alpha3");
        let names: Vec<_> = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"virtualmachines/restart") && names.contains(&"virtualmachineinstances/vnc"));
        assert_eq!(names.len(), Verb::ALL.len());
    }
}
