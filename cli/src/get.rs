//! `virtctl get`, and what several commands need to name objects.

use anyhow::{anyhow, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::{Get, Output, Server};
use crate::client::{Client, Refused};
use crate::kinds::Kind;
use crate::table::Table;

/// What arguments name: kinds as a whole, or objects.
#[derive(Debug)]
pub enum Named {
    /// All objects of a kind.
    All(&'static Kind),
    /// One object.
    One(&'static Kind, String),
}

/// Reads `KIND[,KIND...] [NAME...]` and `KIND/NAME...`.
pub fn named(what: &[String]) -> anyhow::Result<Vec<Named>> {
    let Some((first, rest)) = what.split_first() else { bail!("name a kind") };
    if first.contains('/') {
        let one = |text: &String| {
            let (kind, name) = text.split_once('/').ok_or_else(|| anyhow!("`{text}` is not of the form KIND/NAME"))?;
            Ok(Named::One(Kind::find(kind)?, name.to_owned()))
        };
        return what.iter().map(one).collect();
    }
    let kinds: Vec<&Kind> = first.split(',').map(Kind::find).collect::<Result<_, _>>()?;
    if rest.is_empty() {
        return Ok(kinds.into_iter().map(Named::All).collect());
    }
    let pairs = kinds.iter().flat_map(|kind| rest.iter().map(|name| Named::One(kind, name.clone())));
    Ok(pairs.collect())
}

/// An error in kubectl's words.
pub fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<Refused>() {
        Some(refused) => anyhow!("{}", refused.from_server()),
        None => error,
    }
}

/// Shows objects.
pub async fn run(client: &Client, server: &Server, get: &Get) -> anyhow::Result<()> {
    let namespace = (!get.all_namespaces).then_some(server.namespace.as_str());
    let named = named(&get.what)?;
    let mut groups: Vec<(&Kind, Vec<Value>)> = Vec::new();
    let mut errors = Vec::new();
    let single = matches!(named.as_slice(), [Named::One(..)]);
    let several = {
        let mut kinds: Vec<&str> = named.iter().map(|named| named.kind().name).collect();
        kinds.dedup();
        kinds.len() > 1
    };
    for wanted in &named {
        match fetch(client, wanted, namespace).await {
            Ok((kind, objects)) => match groups.last_mut().filter(|(last, _)| last.name == kind.name) {
                Some((_, known)) => known.extend(objects),
                None => groups.push((kind, objects)),
            },
            Err(error) => errors.push(explained(error)),
        }
    }
    let all: Vec<&Value> = groups.iter().flat_map(|(_, objects)| objects).collect();
    match get.output {
        Some(Output::Name) => groups.iter().for_each(|(kind, objects)| {
            objects.iter().for_each(|object| println!("{}", kind.full_name(name_of(object))));
        }),
        Some(Output::Json) if !all.is_empty() || !single => {
            println!("{}", serde_json::to_string_pretty(&whole(&all, single))?);
        }
        Some(Output::Yaml) if !all.is_empty() || !single => {
            print!("{}", serde_norway::to_string(&whole(&all, single))?);
        }
        Some(Output::Json | Output::Yaml) => {}
        Some(Output::Wide) | None if all.is_empty() && errors.is_empty() => match namespace {
            Some(namespace) if named.iter().all(|named| named.kind().is_namespaced()) => {
                eprintln!("No resources found in {namespace} namespace.");
            }
            _ => eprintln!("No resources found"),
        },
        Some(Output::Wide) | None => {
            let tables = groups.iter().filter(|(_, objects)| !objects.is_empty());
            let tables: Vec<String> = tables.map(|(kind, objects)| table(get, kind, objects, several)).collect();
            print!("{}", tables.join("\n"));
        }
    }
    match errors.split_last() {
        None => Ok(()),
        Some((last, others)) => {
            others.iter().for_each(|error| eprintln!("{error:#}"));
            Err(anyhow!("{last:#}"))
        }
    }
}

impl Named {
    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::All(kind) | Self::One(kind, _) => kind,
        }
    }
}

async fn fetch(client: &Client, named: &Named, namespace: Option<&str>) -> anyhow::Result<(&'static Kind, Vec<Value>)> {
    match named {
        Named::One(kind, name) => {
            if namespace.is_none() && kind.is_namespaced() {
                bail!("a resource cannot be retrieved by name across all namespaces");
            }
            Ok((kind, vec![client.get(&kind.path(namespace, Some(name))).await?]))
        }
        Named::All(kind) => {
            let list = client.get(&kind.path(namespace, None)).await?;
            let items = list["items"].as_array().cloned().unwrap_or_default();
            // Objects in lists do not name their kind.
            Ok((kind, items))
        }
    }
}

/// What `-o json` and `-o yaml` show: the object, or a list of all.
fn whole(objects: &[&Value], single: bool) -> Value {
    match objects {
        [one] if single => Value::clone(one),
        all => json!({"apiVersion": "v1", "items": all, "kind": "List", "metadata": {"resourceVersion": ""}}),
    }
}

/// `metadata.name` of an object.
pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn table(get: &Get, kind: &Kind, objects: &[Value], several: bool) -> String {
    let wide = get.output == Some(Output::Wide);
    let place = get.all_namespaces && kind.is_namespaced();
    let mut headings: Vec<String> = Vec::new();
    headings.extend(place.then(|| "NAMESPACE".to_owned()));
    headings.extend(kind.shows_names().then(|| "NAME".to_owned()));
    headings.extend(kind.columns(wide).map(|(heading, ..)| (*heading).to_owned()));
    let mut table = Table::new((!get.no_headers).then_some(headings));
    let now = Timestamp::now();
    for object in objects {
        let mut row: Vec<String> = Vec::new();
        row.extend(place.then(|| object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned()));
        let name = name_of(object);
        let name = if several { kind.full_name(name) } else { name.to_owned() };
        row.extend(kind.shows_names().then_some(name));
        row.extend(kind.columns(wide).map(|(_, cell, _)| cell.text(object, now)));
        table.row(row);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_as_for_kubectl() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(matches!(named(&words("vm,vmi")).unwrap().as_slice(), [Named::All(_), Named::All(_)]));
        assert!(matches!(named(&words("vm a b")).unwrap().as_slice(), [Named::One(..), Named::One(..)]));
        let one = named(&words("vmi/a")).unwrap();
        assert!(matches!(&one[..], [Named::One(kind, name)] if kind.name == "VirtualMachineInstance" && name == "a"));
        assert!(named(&words("vm/a b")).is_err());
    }
}
