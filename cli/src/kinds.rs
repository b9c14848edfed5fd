//! The kinds of objects: their names, where the API has them, and the columns that tables show.
//!
//! Written down here, for to make a CRD takes much longer than a command may; a test holds them against the CRDs.

use anyhow::{Result, bail};
use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{Cell, Column, column, wide};

/// A kind of object.
#[derive(Debug)]
pub struct Kind {
    /// Group of its API; empty for the core group.
    group: &'static str,
    /// Version of its API.
    version: &'static str,
    /// Name in URLs, such as `virtualmachines`.
    plural: &'static str,
    /// Name in lower case, such as `virtualmachine`.
    singular: &'static str,
    /// Other names; those of its CRD first.
    short: &'static [&'static str],
    categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    columns: &'static [Column],
}

const AGE: Column = column("Age", Cell::Age, ".metadata.creationTimestamp");
const READY: Column = column("Ready", Cell::Text, ".status.conditions[?(@.type=='Ready')].status");
const LEASE: &[Column] = &[
    column("Segment", Cell::Text, ".spec.segment"),
    column("Address", Cell::Text, ".spec.address"),
    column("Namespace", Cell::Text, ".spec.claim.namespace"),
    column("Holder", Cell::Text, ".spec.claim.name"),
    column("Network", Cell::Text, ".spec.claim.network"),
    column("Node", Cell::Text, ".status.node"),
    AGE,
];

/// A namespaced kind of version v1, in no category.
const fn plain(
    (group, plural, singular): (&'static str, &'static str, &'static str),
    short: &'static [&'static str],
    columns: &'static [Column],
) -> Kind {
    Kind { group, version: "v1", plural, singular, short, categories: &[], namespaced: true, columns }
}

/// A kind of ours, which is in no namespace.
const fn ours(
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    columns: &'static [Column],
) -> Kind {
    let (group, version) = ("holdfast.io", "v1alpha1");
    Kind { group, version, plural, singular, short, categories: &["holdfast"], namespaced: false, columns }
}

/// All kinds that holdfastd keeps.
static KINDS: [Kind; 9] = [
    Kind {
        categories: &["all"],
        ..plain(
            ("kubevirt.io", "virtualmachines", "virtualmachine"),
            &["vm", "vms"],
            &[AGE, column("Status", Cell::Text, ".status.printableStatus"), READY],
        )
    },
    Kind {
        categories: &["all"],
        ..plain(
            ("kubevirt.io", "virtualmachineinstances", "virtualmachineinstance"),
            &["vmi", "vmis"],
            &[
                AGE,
                column("Phase", Cell::Text, ".status.phase"),
                column("IP", Cell::Text, ".status.interfaces[0].ipAddress"),
                column("NodeName", Cell::Text, ".status.nodeName"),
                READY,
                wide("Live-Migratable", Cell::Text, ".status.conditions[?(@.type=='LiveMigratable')].status"),
                wide("Paused", Cell::Text, ".status.conditions[?(@.type=='Paused')].status"),
            ],
        )
    },
    ours(
        "underlaynetworks",
        "underlaynetwork",
        &["unet", "unets"],
        &[
            column("Segment", Cell::Text, ".spec.segment"),
            column("Backend", Cell::Text, ".spec.backend"),
            column("Used", Cell::Text, ".status.addresses.used"),
            column("Total", Cell::Text, ".status.addresses.total"),
            AGE,
        ],
    ),
    ours("ipleases", "iplease", &["ipl"], LEASE),
    ours("macleases", "maclease", &["macl"], LEASE),
    plain(
        ("k8s.cni.cncf.io", "network-attachment-definitions", "network-attachment-definition"),
        &["net-attach-def", "nad", "nads", "networkattachmentdefinition"],
        &[AGE],
    ),
    plain(
        ("", "events", "event"),
        &["ev"],
        &[
            column("Last Seen", Cell::Age, ".lastTimestamp"),
            column("Type", Cell::Text, ".type"),
            column("Reason", Cell::Text, ".reason"),
            column("Object", Cell::Object, ".involvedObject"),
            column("Message", Cell::Text, ".message"),
        ],
    ),
    plain(("", "configmaps", "configmap"), &["cm"], &[column("Data", Cell::Count, ".data"), AGE]),
    plain(
        ("", "secrets", "secret"),
        &[],
        &[column("Type", Cell::Text, ".type"), column("Data", Cell::Count, ".data"), AGE],
    ),
];

impl Kind {
    fn is_called(&self, name: &str) -> bool {
        let own = [&self.plural, &self.singular];
        let mut names = own.into_iter().chain(self.short).chain(self.categories);
        names.any(|known| *known == name) || format!("{}.{}", self.plural, self.group) == name
    }

    /// What it is called in messages, such as `virtualmachine.kubevirt.io`.
    pub fn full_name(&self) -> String {
        match self.group {
            "" => self.singular.to_owned(),
            group => format!("{}.{group}", self.singular),
        }
    }

    /// The path of its objects: all of them, those of a namespace, or one.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        let scope = namespace.filter(|_| self.namespaced).map(|n| format!("/namespaces/{n}")).unwrap_or_default();
        let name = name.map(|name| format!("/{name}")).unwrap_or_default();
        format!("{root}{scope}/{}{name}", self.plural)
    }

    /// Headers of its table after the name.
    pub fn headers(&self, wide: bool) -> Vec<String> {
        self.shown(wide).map(|column| column.name.to_uppercase()).collect()
    }

    /// An object's cells after the name.
    pub fn cells(&self, object: &Value, wide: bool, now: Timestamp) -> Vec<String> {
        self.shown(wide).map(|column| column.text(object, now)).collect()
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
pub fn named(names: &str) -> Result<Vec<&'static Kind>> {
    let mut found = Vec::new();
    for name in names.split(',') {
        let lower = name.to_lowercase();
        let before = found.len();
        found.extend(KINDS.iter().filter(|kind| kind.is_called(&lower)));
        if found.len() == before {
            let known: Vec<&str> = KINDS.iter().map(|kind| *kind.short.first().unwrap_or(&kind.plural)).collect();
            bail!("error: the server doesn't have a resource type \"{name}\"; it has {}", known.join(", "));
        }
    }
    Ok(found)
}

/// The one kind that a user names.
pub fn one(name: &str) -> Result<&'static Kind> {
    match named(name)?.as_slice() {
        [kind] => Ok(kind),
        _ => bail!("error: \"{name}\" names several kinds, and one is needed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json_path::JsonPath;
    use holdfast_api::crd::crds;

    #[test]
    fn our_kinds_are_as_their_crds_say() {
        // holdfastd has no more kinds; those of a cluster alone are kubectl's to show.
        let mut compared = 0;
        for crd in crds() {
            let names = &crd.spec.names;
            let version = crd.spec.versions.iter().find(|version| version.storage).unwrap();
            let Ok(kind) = one(&names.plural) else { continue };
            compared += 1;
            assert_eq!((kind.group, kind.version), (crd.spec.group.as_str(), version.name.as_str()));
            assert_eq!((kind.singular, kind.namespaced), (&*names.kind.to_lowercase(), crd.spec.scope == "Namespaced"));
            assert_eq!(kind.short, names.short_names.clone().unwrap_or_default());
            assert_eq!(kind.categories, names.categories.clone().unwrap_or_default());
            let declared = version.additional_printer_columns.iter().flatten();
            let declared: Vec<_> = declared
                .map(|c| (c.name.as_str(), c.priority.is_some_and(|p| p > 0), c.type_ == "date", c.json_path.as_str()))
                .collect();
            let shown = kind.columns.iter().map(|c| (c.name, c.wide, c.cell == Cell::Age, c.path));
            assert_eq!(shown.collect::<Vec<_>>(), declared, "{}", names.kind);
        }
        assert_eq!(compared, 5);
    }

    #[test]
    fn each_path_can_be_read() {
        for column in KINDS.iter().flat_map(|kind| kind.columns) {
            assert!(JsonPath::parse(column.path).is_some(), "{}", column.path);
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
        let names: Vec<_> = named("all").unwrap().into_iter().map(Kind::full_name).collect();
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
