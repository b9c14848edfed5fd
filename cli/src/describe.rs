//! `virtctl describe`: an object in words, and its events.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::age::since;
use crate::args::{Describe, Server};
use crate::client::Client;
use crate::get::{Named, explained, name_of, named};
use crate::kinds::Kind;
use crate::table::Table;

/// Describes objects.
pub async fn run(client: &Client, server: &Server, describe: &Describe) -> anyhow::Result<()> {
    let mut texts = Vec::new();
    for named in named(&describe.what)? {
        let kind = named.kind();
        let objects = match named {
            Named::One(_, name) => {
                vec![client.get(&kind.path(Some(&server.namespace), Some(&name))).await.map_err(explained)?]
            }
            Named::All(_) => {
                let list = client.get(&kind.path(Some(&server.namespace), None)).await.map_err(explained)?;
                list["items"].as_array().cloned().unwrap_or_default()
            }
        };
        for object in objects {
            texts.push(format!("{}{}", in_words(&object), events(client, server, kind, &object).await?));
        }
    }
    print!("{}", texts.join("\n\n"));
    Ok(())
}

/// Width of the first column.
const LABEL: usize = 14;

fn line(label: &str, text: &str) -> String {
    format!("{:<LABEL$}{text}\n", format!("{label}:"))
}

fn in_words(object: &Value) -> String {
    let meta = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut words = line("Name", name_of(object));
    if meta["namespace"].is_string() {
        words.push_str(&line("Namespace", &text(&meta["namespace"])));
    }
    words.push_str(&pairs("Labels", &meta["labels"], "="));
    words.push_str(&pairs("Annotations", &meta["annotations"], ": "));
    words.push_str(&line("API Version", &text(&object["apiVersion"])));
    words.push_str(&line("Kind", &text(&object["kind"])));
    let mut rest = object.as_object().cloned().unwrap_or_default();
    for shown in ["apiVersion", "kind"] {
        rest.remove(shown);
    }
    if let Some(Value::Object(meta)) = rest.get_mut("metadata") {
        for shown in ["name", "namespace", "labels", "annotations", "managedFields"] {
            meta.remove(shown);
        }
    }
    if object["kind"] == "Secret"
        && let Some(Value::Object(data)) = rest.get_mut("data")
    {
        // As kubectl: how long, not what. The length of base64 is that of the content, about.
        for value in data.values_mut() {
            let bytes = value.as_str().unwrap_or_default().trim_end_matches('=').len() * 3 / 4;
            *value = Value::String(format!("{bytes} bytes"));
        }
    }
    fields(&mut words, &rest, 0);
    words
}

fn pairs(label: &str, values: &Value, between: &str) -> String {
    let Some(values) = values.as_object().filter(|values| !values.is_empty()) else { return line(label, "<none>") };
    let texts = values.iter().map(|(name, value)| format!("{name}{between}{}", value.as_str().unwrap_or_default()));
    let texts: Vec<String> = texts.collect();
    line(label, &texts.join(&format!("\n{}", " ".repeat(LABEL))))
}

fn fields(words: &mut String, fields: &Map<String, Value>, depth: usize) {
    let indent = "  ".repeat(depth);
    let widest = fields.iter().filter(|(_, v)| is_plain(v)).map(|(name, _)| title(name).len()).max().unwrap_or(0);
    for (name, value) in fields {
        let label = format!("{}:", title(name));
        match value {
            Value::Object(inner) if inner.is_empty() => words.push_str(&format!("{indent}{label}\n")),
            Value::Object(inner) => {
                words.push_str(&format!("{indent}{label}\n"));
                self::fields(words, inner, depth + 1);
            }
            Value::Array(items) => {
                words.push_str(&format!("{indent}{label}\n"));
                list(words, items, depth + 1);
            }
            plain => words.push_str(&format!("{indent}{label:<width$}  {}\n", text_of(plain), width = widest + 1)),
        }
    }
}

fn list(words: &mut String, items: &[Value], depth: usize) {
    for item in items {
        match item {
            Value::Object(inner) => fields(words, inner, depth),
            Value::Array(inner) => list(words, inner, depth + 1),
            plain => words.push_str(&format!("{}{}\n", "  ".repeat(depth), text_of(plain))),
        }
    }
}

fn is_plain(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().replace('\n', "\n  "),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

/// `lastTransitionTime` as `Last Transition Time`, `ipAddress` as `Ip Address`.
fn title(name: &str) -> String {
    let mut words = String::new();
    let mut before_is_lower = false;
    for (position, c) in name.chars().enumerate() {
        if position == 0 {
            words.extend(c.to_uppercase());
        } else if c.is_uppercase() && before_is_lower {
            words.push(' ');
            words.push(c);
        } else {
            words.push(c);
        }
        before_is_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    words
}

async fn events(client: &Client, server: &Server, kind: &Kind, object: &Value) -> anyhow::Result<String> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&server.namespace);
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    let selector = format!("involvedObject.name={},involvedObject.uid={uid}", name_of(object));
    let path = format!("{}?fieldSelector={selector}", Kind::find("events")?.path(Some(namespace), None));
    let found = client.get(&path).await.map_err(explained)?;
    let items = found["items"].as_array().cloned().unwrap_or_default();
    let items: Vec<&Value> = items.iter().filter(|event| event["involvedObject"]["kind"] == kind.name).collect();
    if items.is_empty() {
        return Ok(line("Events", "<none>"));
    }
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    let mut table = Table::new(Some(row(["Type", "Reason", "Age", "From", "Message"])));
    table.row(row(["----", "------", "----", "----", "-------"]));
    let now = Timestamp::now();
    for event in items {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (first, last) = (since(Some(text("/firstTimestamp")), now), since(Some(text("/lastTimestamp")), now));
        let age = match event["count"].as_i64() {
            Some(count) if count > 1 => format!("{last} (x{count} over {first})"),
            _ => last,
        };
        table.row(row([text("/type"), text("/reason"), &age, text("/source/component"), text("/message")]));
    }
    let indented: String = table.text().lines().map(|row| format!("  {row}\n")).collect();
    Ok(format!("Events:\n{indented}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_told_in_words() {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "s", "namespace": "n", "labels": {"a": "b", "c": "d"}, "uid": "u"},
            "data": {"key": "aGVsbG8="},
            "status": {"conditions": [{"lastTransitionTime": null, "status": "True"}], "empty": {}},
        });
        let words = in_words(&object);
        let expected = "Name:         s\nNamespace:    n\nLabels:       a=b\n              c=d\nAnnotations:  <none>\n\
                        API Version:  v1\nKind:         Secret\nData:\n  Key:  5 bytes\nMetadata:\n  Uid:  u\nStatus:\n  \
                        Conditions:\n    Last Transition Time:  <nil>\n    Status:                True\n  Empty:\n";
        assert_eq!(words, expected);
    }
}
