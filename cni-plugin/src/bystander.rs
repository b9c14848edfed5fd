//! Pods that are none of ours: they do not wait for an agent that is away.
//!
//! Behind a cluster's primary network each pod of the node comes by, and most of them join no further network. The
//! runtime (containerd, CRI-O) tells a pod's annotations, as kubelet starts it, to whoever declares the capability
//! [`ANNOTATIONS`]: so what is not among them was not asked for. Invariant: where they are not told, nothing is known,
//! and the pod waits, for a VM must never start without one of its NICs.

use serde_json::Value;

/// The capability, and the key in `runtimeConfig`.
pub const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// The annotation by which a pod asks for networks.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// Whether it is certain that the pod asks for no network. Takes the annotations out of the configuration: the agent
/// has its own, and they are many.
pub fn asks_for_nothing(config: &mut Value) -> bool {
    let told = config.get_mut("runtimeConfig").and_then(Value::as_object_mut);
    match told.and_then(|told| told.remove(ANNOTATIONS)) {
        // kubelet adds some of its own to each pod: where there are none, nothing was told.
        Some(Value::Object(all)) => !all.is_empty() && !all.contains_key(NETWORKS),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_told_is_known() {
        for (told, expected) in [
            (json!({"runtimeConfig": {ANNOTATIONS: {"kubernetes.io/config.source": "api"}}}), true),
            (json!({"runtimeConfig": {ANNOTATIONS: {"kubernetes.io/config.source": "api", NETWORKS: "lan"}}}), false),
            (json!({"runtimeConfig": {ANNOTATIONS: {"kubernetes.io/config.source": "api", NETWORKS: ""}}}), false),
            (json!({"runtimeConfig": {ANNOTATIONS: {}}}), false),
            (json!({"runtimeConfig": {ANNOTATIONS: null}}), false),
            (json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}}), false),
            (json!({}), false),
        ] {
            let mut config = told.clone();
            assert_eq!(asks_for_nothing(&mut config), expected, "{told}");
            assert_eq!(config.pointer(&format!("/runtimeConfig/{ANNOTATIONS}")), None);
        }
    }
}
