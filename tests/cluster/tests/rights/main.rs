//! The rights of the components, judged by what the suite made the components ask for: it runs after the suite `cluster`,
//! on the same cluster, and reads the API server's log of their requests.
#![allow(clippy::unwrap_used, reason = "a test that meets an error shall end")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use holdfast_cluster_tests::api::Api;
use holdfast_cluster_tests::rights::{self, INSTALLATION, Record};

const COMPONENTS: [&str; 4] = ["kubevirt-operator", "kubevirt-apiserver", "kubevirt-controller", "kubevirt-handler"];

/// The log that the API server of the test cluster keeps.
fn record() -> Record {
    let cluster = std::env::var("HOLDFAST_CLUSTER").unwrap_or_else(|_| "cluster".to_owned());
    rights::read(&PathBuf::from(format!("/var/lib/holdfast-{cluster}/audit/log"))).unwrap()
}

#[tokio::test]
async fn each_right_of_a_component_is_needed() {
    let api = Api::connect().await.unwrap();
    let record = record();
    let mut unneeded = Vec::new();
    for component in COMPONENTS {
        let mut asked = record.asked.get(component).cloned().unwrap_or_default();
        assert!(!asked.is_empty(), "{component} has asked for nothing");
        if component == "kubevirt-operator" {
            asked.extend(rights::granted(&api).await.unwrap());
        }
        let roles = rights::of(&api, component).await.unwrap();
        assert!(!roles.is_empty(), "{component} has no role");
        let found = rights::unneeded(&api, &roles, &asked).await.unwrap();
        unneeded.extend(found.into_iter().map(|right| format!("{component}: {right}")));
    }
    assert!(unneeded.is_empty(), "{} rights that nothing needed:\n{}", unneeded.len(), unneeded.join("\n"));
}

#[test]
fn no_component_was_refused_anything() {
    let refused = record().refused;
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test]
async fn nobody_else_in_the_installation_has_rights() {
    let api = Api::connect().await.unwrap();
    let accounts = api.get(&format!("/api/v1/namespaces/{INSTALLATION}/serviceaccounts")).await.unwrap().unwrap();
    let mut names = BTreeSet::new();
    for account in accounts["items"].as_array().unwrap() {
        let name = account["metadata"]["name"].as_str().unwrap().to_owned();
        if !COMPONENTS.contains(&name.as_str()) {
            let roles = rights::of(&api, &name).await.unwrap();
            assert!(roles.is_empty(), "{name}: {roles:?}");
        }
        names.insert(name);
    }
    assert!(COMPONENTS.iter().all(|component| names.contains(*component)), "{names:?}");
}
