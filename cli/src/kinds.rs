//! The kinds of objects: their names, where the API has them, and the columns that tables show.
//!
//! What is known of our own kinds is read from their CRDs; the rest is written down here.

use anyhow::{Result, bail};
use holdfast_api::crd::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::age::age;
use crate::json_path::JsonPath;
use crate::table::one_line;

/// A kind of object.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Group of its API; empty for the core group.
    group: String,
    /// Version of its API.
    version: String,
    /// Name in URLs, such as `virtualmachines`.
    plural: String,
    /// Name in lower case, such as `virtualmachine`.
    singular: String,
    short: Vec<String>,
    categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    columns: Vec<Column>,
}

/// A column of a kind's table, after the name.
#[derive(Clone, Debug)]
struct Column {
    header: String,
    wide: bool,
    cell: Cell,
}

#[derive(Clone, Debug)]
enum Cell {
    /// The value at a path.
    Text(JsonPath),
    /// How long ago the time at a path was.
    Age(JsonPath),
    /// How many entries the map at a path has.
    Count(JsonPath),
    /// The object that an event is about.
    About,
}

impl Kind {
    /// All kinds that holdfastd keeps.
    pub fn all() -> Vec<Self> {
        let age = ("Age", "date", ".metadata.creationTimestamp");
        let mut kinds: Vec<Self> = crds().iter().map(Self::of_crd).collect();
        kinds.extend([
            Self::new(
                ("k8s.cni.cncf.io", "network-attachment-definitions", "network-attachment-definition"),
                &["nad", "nads", "net-attach-def", "networkattachmentdefinition"],
                &[age],
            ),
            Self::new(
                ("", "events", "event"),
                &["ev"],
                &[
                    ("Last Seen", "date", ".lastTimestamp"),
                    ("Type", "string", ".type"),
                    ("Reason", "string", ".reason"),
                    ("Object", "about", ".involvedObject"),
                    ("Message", "string", ".message"),
                ],
            ),
            Self::new(("", "configmaps", "configmap"), &["cm"], &[("Data", "count", ".data"), age]),
            Self::new(("", "secrets", "secret"), &[], &[("Type", "string", ".type"), ("Data", "count", ".data"), age]),
        ]);
        kinds
    }

    fn new((group, plural, singular): (&str, &str, &str), short: &[&str], columns: &[(&str, &str, &str)]) -> Self {
        let columns = columns.iter().filter_map(|(name, form, path)| Column::new(name, form, path, false));
        Self {
            group: group.to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            singular: singular.to_owned(),
            short: short.iter().map(|&name| name.to_owned()).collect(),
            categories: Vec::new(),
            namespaced: true,
            columns: columns.collect(),
        }
    }

    fn of_crd(crd: &CustomResourceDefinition) -> Self {
        let names = &crd.spec.names;
        let version = crd.spec.versions.iter().find(|version| version.storage);
        let columns = version.and_then(|version| version.additional_printer_columns.as_deref()).unwrap_or_default();
        let columns = columns.iter().filter_map(|column| {
            Column::new(&column.name, &column.type_, &column.json_path, column.priority.is_some_and(|p| p > 0))
        });
        Self {
            group: crd.spec.group.clone(),
            version: version.map(|version| version.name.clone()).unwrap_or_default(),
            plural: names.plural.clone(),
            singular: names.kind.to_lowercase(),
            short: names.short_names.clone().unwrap_or_default(),
            categories: names.categories.clone().unwrap_or_default(),
            namespaced: crd.spec.scope == "Namespaced",
            columns: columns.collect(),
        }
    }

    fn is_called(&self, name: &str) -> bool {
        let own = [&self.plural, &self.singular];
        let mut names = own.into_iter().chain(&self.short).chain(&self.categories);
        names.any(|known| known == name) || format!("{}.{}", self.plural, self.group) == name
    }

    /// What it is called in messages, such as `virtualmachine.kubevirt.io`.
    pub fn full_name(&self) -> String {
        match self.group.as_str() {
            "" => self.singular.clone(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// The path of its objects: all of them, those of a namespace, or one.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let scope = namespace.filter(|_| self.namespaced).map(|n| format!("/namespaces/{n}")).unwrap_or_default();
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{root}{scope}/{}{name}", self.plural)
    }

    /// Headers of its table after the name.
    pub fn headers(&self, wide: bool) -> Vec<String> {
        self.shown(wide).map(|column| column.header.clone()).collect()
    }

    /// An object's cells after the name.
    pub fn cells(&self, object: &Value, wide: bool, now: Timestamp) -> Vec<String> {
        self.shown(wide).map(|column| column.cell.text(object, now)).collect()
    }

    /// Whether the name comes first; an event is told by what it says.
    pub fn shows_name(&self) -> bool {
        self.plural != "events"
    }

    fn shown(&self, wide: bool) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(move |column| wide || !column.wide)
    }
}

/// The kinds that a user names, separated by commas; a category stands for its kinds.
pub fn named(names: &str) -> Result<Vec<Kind>> {
    let all = Kind::all();
    let mut found: Vec<Kind> = Vec::new();
    for name in names.split(',') {
        let lower = name.to_lowercase();
        let before = found.len();
        found.extend(all.iter().filter(|kind| kind.is_called(&lower)).cloned());
        if found.len() == before {
            let known: Vec<&str> = all.iter().map(|kind| kind.short.first().unwrap_or(&kind.plural).as_str()).collect();
            bail!("error: the server doesn't have a resource type \"{name}\"; it has {}", known.join(", "));
        }
    }
    Ok(found)
}

/// The one kind that a user names.
pub fn one(name: &str) -> Result<Kind> {
    match named(name)?.as_slice() {
        [kind] => Ok(kind.clone()),
        _ => bail!("error: \"{name}\" names several kinds, and one is needed"),
    }
}

impl Column {
    fn new(name: &str, form: &str, path: &str, wide: bool) -> Option<Self> {
        let path = JsonPath::parse(path)?;
        let cell = match form {
            "date" => Cell::Age(path),
            "count" => Cell::Count(path),
            "about" => Cell::About,
            _ => Cell::Text(path),
        };
        Some(Self { header: name.to_uppercase(), wide, cell })
    }
}

impl Cell {
    fn text(&self, object: &Value, now: Timestamp) -> String {
        match self {
            Self::Text(path) => match path.find(object) {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => one_line(text),
                Some(other) => other.to_string(),
            },
            Self::Age(path) => age(path.find(object).and_then(Value::as_str).unwrap_or_default(), now),
            Self::Count(path) => {
                path.find(object).and_then(Value::as_object).map_or(0, serde_json::Map::len).to_string()
            }
            Self::About => {
                let text = |field: &str| object["involvedObject"][field].as_str().unwrap_or_default();
                format!("{}/{}", text("kind").to_lowercase(), text("name"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_of_the_crds_is_shown() {
        for crd in crds() {
            let version = crd.spec.versions.iter().find(|version| version.storage).unwrap();
            let declared = version.additional_printer_columns.as_ref().map_or(0, Vec::len);
            assert_eq!(Kind::of_crd(&crd).headers(true).len(), declared, "{}", crd.spec.names.kind);
        }
    }

    #[test]
    fn columns_are_upstreams() {
        let vmi = one("vmi").unwrap();
        assert_eq!(vmi.headers(false), ["AGE", "PHASE", "IP", "NODENAME", "READY"]);
        assert_eq!(vmi.headers(true)[5..], ["LIVE-MIGRATABLE", "PAUSED"]);
        assert_eq!(one("vms").unwrap().headers(true), ["AGE", "STATUS", "READY"]);
    }

    #[test]
    fn kinds_have_many_names() {
        for (name, full) in [
            ("VirtualMachines", "virtualmachine.kubevirt.io"),
            ("vmis", "virtualmachineinstance.kubevirt.io"),
            ("net-attach-def", "network-attachment-definition.k8s.cni.cncf.io"),
            ("nad", "network-attachment-definition.k8s.cni.cncf.io"),
            ("underlaynetwork", "underlaynetwork.holdfast.io"),
            ("iplease", "iplease.holdfast.io"),
            ("macleases.holdfast.io", "maclease.holdfast.io"),
            ("ev", "event"),
        ] {
            assert_eq!(one(name).unwrap().full_name(), full);
        }
        let names: Vec<_> = named("all").unwrap().iter().map(Kind::full_name).collect();
        assert_eq!(names, ["virtualmachine.kubevirt.io", "virtualmachineinstance.kubevirt.io"]);
        let error = named("vm,pods").unwrap_err().to_string();
        assert!(
            error.starts_with("error: the server doesn't have a resource type \"pods\"; it has vm, vmi,"),
            "{error}"
        );
        assert!(one("all").is_err());
    }

    #[test]
    fn paths() {
        let vm = one("vm").unwrap();
        assert_eq!(vm.path(Some("n"), Some("a")), "/apis/kubevirt.io/v1/namespaces/n/virtualmachines/a");
        assert_eq!(vm.path(None, None), "/apis/kubevirt.io/v1/virtualmachines");
        let lease = one("ipl").unwrap();
        assert_eq!(lease.path(Some("n"), Some("a")), "/apis/holdfast.io/v1alpha1/ipleases/a");
        assert_eq!(one("cm").unwrap().path(Some("n"), None), "/api/v1/namespaces/n/configmaps");
    }
}
