//! CNI configurations: one plugin or a list of them, as NetworkAttachmentDefinitions hold them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::PLUGIN_TYPE;

/// Plugins whose interface is no way to a guest behind it, and why.
const WITHOUT_GUESTS: &[(&str, &str)] = &[
    ("macvlan", "which takes in frames for its own Ethernet address alone, and so none for a guest"),
    ("ipvlan", "which has one Ethernet address for all, and so none for a guest"),
    ("ptp", "which leads to its host and to no network"),
    ("dummy", "which leads nowhere"),
    ("loopback", "which leads nowhere"),
];

/// The version that a configuration without `cniVersion` is taken for; every plugin in use speaks it.
const DEFAULT_VERSION: &str = "0.3.1";

/// Why a text is no CNI configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing is there.
    #[error("the CNI configuration is empty: give a plugin (an object with `type`) or a list (`plugins`)")]
    Empty,
    /// Not JSON.
    #[error("the CNI configuration is not JSON")]
    Json(#[source] serde_json::Error),
    /// Not what the specification asks for.
    #[error("the CNI configuration has `{field}` = {found}: it must be {valid}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it holds.
        found: Value,
        /// What would be valid.
        valid: &'static str,
    },
}

/// A list of plugins.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkList {
    /// Name of the network.
    pub name: String,
    /// Version that its plugins are spoken to in.
    pub cni_version: String,
    /// The plugins in order, each an object with `type`.
    pub plugins: Vec<Value>,
}

impl NetworkList {
    /// Reads a configuration as text; `name` stands in where it gives none.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Err(ConfigError::Empty);
        }
        Self::read(&serde_json::from_str(text).map_err(ConfigError::Json)?, name)
    }

    /// Reads what [`Self::to_value`] wrote.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn of_recorded(value: &Value) -> Result<Self, ConfigError> {
        Self::read(value, "")
    }

    /// Reads a configuration; `name` stands in where it gives none.
    ///
    /// # Errors
    /// [`ConfigError`] names the field that is wrong.
    pub fn read(value: &Value, name: &str) -> Result<Self, ConfigError> {
        let wrong = |field, found: &Value, valid| Err(ConfigError::Field { field, found: found.clone(), valid });
        let Some(object) = value.as_object() else { return wrong("(root)", value, "an object") };
        let plugins = match object.get("plugins") {
            Some(Value::Array(plugins)) if !plugins.is_empty() => plugins.clone(),
            Some(other) => return wrong("plugins", other, "a list of at least one plugin"),
            None => vec![value.clone()],
        };
        for plugin in &plugins {
            match &plugin["type"] {
                // It becomes a file name: nothing may lead out of the plugins' folders.
                Value::String(kind) if !matches!(kind.as_str(), "" | "." | "..") && !kind.contains('/') => {}
                other => return wrong("type", other, "the name of a plugin, without `/`"),
            }
        }
        let text = |field: &'static str, default: &str| match object.get(field) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => Err(ConfigError::Field { field, found: other.clone(), valid: "a string that is not empty" }),
        };
        Ok(Self { name: text("name", name)?, cni_version: text("cniVersion", DEFAULT_VERSION)?, plugins })
    }

    /// The list as a value that [`Self::read`] understands.
    pub fn to_value(&self) -> Value {
        json!({ "cniVersion": self.cni_version, "name": self.name, "plugins": self.plugins })
    }

    /// What a plugin of the list gets on its standard input.
    pub fn input(&self, plugin: &Value, capabilities: &Value, previous: Option<&Value>) -> Value {
        let mut input = plugin.as_object().cloned().unwrap_or_default();
        input.insert("name".into(), json!(self.name));
        input.insert("cniVersion".into(), json!(self.cni_version));
        let declared = input.remove("capabilities");
        let granted: Map<String, Value> = capabilities
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| declared.as_ref().is_some_and(|d| d[name.as_str()] == json!(true)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !granted.is_empty() {
            input.insert("runtimeConfig".into(), Value::Object(granted));
        }
        if let Some(previous) = previous {
            input.insert("prevResult".into(), previous.clone());
        }
        Value::Object(input)
    }

    /// The list with our agent's socket in each plugin of ours that names none.
    #[must_use]
    pub fn with_agent_socket(mut self, socket: &Path) -> Self {
        for plugin in self.plugins.iter_mut().filter(|plugin| plugin["type"] == PLUGIN_TYPE) {
            if plugin["agentSocket"].is_null() {
                plugin["agentSocket"] = json!(socket);
            }
        }
        self
    }

    /// The first plugin of the list, which makes its interface, and why no guest can stand behind that; none where one
    /// can, as far as is known.
    pub fn without_guests(&self) -> Option<(&'static str, &'static str)> {
        let first = self.plugins.first()?;
        // In this mode it takes in everything.
        let passes = first["type"] == "macvlan" && first["mode"] == "passthru";
        WITHOUT_GUESTS.iter().find(|(kind, _)| first["type"] == *kind && !passes).copied()
    }

    /// The plugin of the list that is ours, if one is.
    pub fn ours(&self) -> Option<Value> {
        let plugin = self.plugins.iter().find(|plugin| plugin["type"] == PLUGIN_TYPE)?;
        Some(self.input(plugin, &Value::Null, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plugin_is_a_list_of_one_and_gets_a_name() {
        let list = NetworkList::parse(r#"{"type":"bridge","cniVersion":"1.0.0"}"#, "nad").unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("nad", 1));
        assert_eq!(NetworkList::of_recorded(&list.to_value()).unwrap(), list);
    }

    #[test]
    fn plugins_get_what_they_declare_and_the_result_before_them() {
        let text = r#"{"name":"n","plugins":[{"type":"a","capabilities":{"mac":true,"ips":false}},{"type":"b"}]}"#;
        let list = NetworkList::parse(text, "x").unwrap();
        let capabilities = json!({"mac": "02:00:00:00:00:01", "ips": ["192.0.2.1/24"]});
        let first = list.input(&list.plugins[0], &capabilities, None);
        let expected = json!({"cniVersion":"0.3.1","name":"n","type":"a","runtimeConfig":{"mac":"02:00:00:00:00:01"}});
        assert_eq!(first, expected);
        let second = list.input(&list.plugins[1], &capabilities, Some(&json!({"ips":[]})));
        assert_eq!(second, json!({"cniVersion":"0.3.1","name":"n","type":"b","prevResult":{"ips":[]}}));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "empty"),
            ("{", "not JSON"),
            ("[]", "an object"),
            (r#"{"plugins":[]}"#, "at least one"),
            (r#"{"name":"n"}"#, "`type` = null"),
            (r#"{"type":"../sh"}"#, "without `/`"),
            (r#"{"type":"."}"#, "the name of a plugin"),
            (r#"{"type":"a","name":1}"#, "`name` = 1"),
        ] {
            let error = NetworkList::parse(text, "x").unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
