//! The network of the cluster with our plugin behind it. Pure.

use std::path::Path;

use serde_json::{Map, Value, json};

/// Our file. Its name comes before that of any other that begins with a digit or letter, as runtimes sort them: `-` is
/// less than both.
pub const FILE: &str = "0-holdfast.conflist";
/// The type of our plugin.
pub const PLUGIN: &str = "holdfast";
/// By this the runtime tells our plugin a pod's annotations: pods that join no network of ours need not wait for an agent
/// that is away.
const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
/// Plugins that call ours themselves, for each network of a pod's annotation (Multus, as one program and as two).
const META_PLUGINS: [&str; 2] = ["multus", "multus-shim"];
/// What a runtime reads.
const EXTENSIONS: [&str; 3] = ["conflist", "conf", "json"];

/// Why there is no chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No network of the cluster is there yet.
    #[error("there is no network to stand behind in `{0}`: install the cluster's network")]
    NoPrimary(String),
}

/// Whether a runtime would read a file of this name, and it is not ours.
#[must_use]
pub fn is_candidate(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    name != FILE && !name.starts_with('.') && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// The network that a runtime would choose (the first by name that can be read), with our plugin behind it, as text.
/// None where the choice has our plugin already, for somebody put it there himself, and where it is a meta plugin: behind
/// one, a pod would join each of its networks twice.
///
/// # Errors
/// [`ChainError::NoPrimary`].
pub fn behind(files: &[(String, String)], folder: &Path, socket: &Path) -> Result<Option<String>, ChainError> {
    let mut files: Vec<_> = files.iter().filter(|(name, _)| is_candidate(name)).collect();
    files.sort();
    let primary = files.into_iter().find_map(|(name, text)| list(name, text));
    let mut list = primary.ok_or_else(|| ChainError::NoPrimary(folder.display().to_string()))?;
    let Some(plugins) = list.get_mut("plugins").and_then(Value::as_array_mut) else { return Ok(None) };
    let calls_ours = |kind: &str| kind == PLUGIN || META_PLUGINS.contains(&kind);
    if plugins.iter().any(|plugin| plugin["type"].as_str().is_some_and(calls_ours)) {
        return Ok(None);
    }
    let capabilities = json!({ ANNOTATIONS: true });
    plugins.push(json!({ "type": PLUGIN, "chained": true, "agentSocket": socket, "capabilities": capabilities }));
    let text = serde_json::to_string_pretty(&list).unwrap_or_default();
    Ok(Some(text + "\n"))
}

/// A file as a list of plugins; none where a runtime would pass it over.
fn list(name: &str, text: &str) -> Option<Map<String, Value>> {
    let Ok(Value::Object(found)) = serde_json::from_str(text) else { return None };
    if name.ends_with(".conflist") {
        let plugins = found.get("plugins")?.as_array()?;
        return (!plugins.is_empty()).then_some(found);
    }
    found.get("type")?.as_str().filter(|kind| !kind.is_empty())?;
    // A single plugin: the list takes over what belongs to the network.
    let mut plugin = found;
    let mut list = Map::new();
    for key in ["cniVersion", "name", "disableCheck"] {
        list.extend(plugin.remove(key).map(|value| (key.to_owned(), value)));
    }
    list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(plugin)]));
    Some(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const FLANNEL: &str =
        r#"{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#;

    fn chain(files: &[(&str, &str)]) -> Result<Option<Value>, ChainError> {
        let files: Vec<_> = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let text = behind(&files, Path::new("/etc/cni/net.d"), Path::new("/run/holdfast/cni.sock"))?;
        Ok(text.map(|text| serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn stands_behind_the_network_that_a_runtime_would_choose() {
        let other = FLANNEL.replace("cbr0", "other");
        let ours = json!({"type": "holdfast", "chained": true, "agentSocket": "/run/holdfast/cni.sock",
            "capabilities": {"io.kubernetes.cri.pod-annotations": true}});
        let files = [
            ("20-other.conflist", other.as_str()),
            (FILE, &other),
            ("05-broken.conflist", "{"),
            ("06-empty.conflist", r#"{"plugins": []}"#),
            (".hidden.conflist", &other),
            ("README", "text"),
            ("10-flannel.conflist", FLANNEL),
        ];
        let list = chain(&files).unwrap().unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("cbr0"), &json!("1.0.0")));
        assert_eq!(list["plugins"], json!([{"type": "flannel"}, {"type": "portmap"}, ours]));
    }

    #[test]
    fn makes_a_list_of_a_single_plugin() {
        let bridge = r#"{"cniVersion": "0.4.0", "name": "net", "type": "bridge", "ipam": {"type": "host-local"}}"#;
        let list = chain(&[("10-bridge.conf", bridge)]).unwrap().unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("net"), &json!("0.4.0")));
        assert_eq!(list["plugins"][0], json!({"type": "bridge", "ipam": {"type": "host-local"}}));
        assert_eq!(list["plugins"][1]["type"], "holdfast");
    }

    #[test]
    fn leaves_a_network_alone_that_has_our_plugin() {
        let own = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp"}, {"type": "holdfast"}]}"#;
        assert_eq!(chain(&[("10-own.conflist", own), ("20.conflist", FLANNEL)]), Ok(None));
    }

    #[test]
    fn leaves_a_meta_plugin_alone() {
        let multus = r#"{"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus",
            "delegates": [{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]}]}"#;
        let shim = multus.replace("\"multus\"", "\"multus-shim\"");
        for text in [multus, &shim] {
            assert_eq!(chain(&[("00-multus.conf", text), ("10-flannel.conflist", FLANNEL)]), Ok(None));
        }
        let list = r#"{"cniVersion": "1.0.0", "name": "m", "plugins": [{"type": "multus"}, {"type": "tuning"}]}"#;
        assert_eq!(chain(&[("00-multus.conflist", list)]), Ok(None));
        // One that the runtime does not choose.
        assert!(chain(&[("10-flannel.conflist", FLANNEL), ("20-multus.conf", multus)]).unwrap().is_some());
    }

    #[test]
    fn says_that_there_is_no_network_yet() {
        let error = chain(&[(FILE, FLANNEL), ("99-loopback.conf", "{}")]).unwrap_err();
        assert!(error.to_string().contains("`/etc/cni/net.d`"), "{error}");
    }

    #[test]
    fn comes_first() {
        assert!(
            ["00-a.conflist", "0.conf", "05-cilium.conflist", "A.conf", "calico.conflist"]
                .iter()
                .all(|name| FILE < *name)
        );
    }
}
