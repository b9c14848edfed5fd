//! Objects that a decision needs besides the one that it is about.
//!
//! A decision is pure and asks for them as it goes. So it is made with what is known, what it asked for in vain is
//! looked up, and it is made again, until it asks for nothing more: exactly what is needed is read, as it is now,
//! and nothing is kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use holdfast_api::admit::Others;
use holdfast_api::instancetype::is_cluster_wide;
use holdfast_api::kubevirt::{
    VirtualMachineClusterInstancetype, VirtualMachineClusterPreference, VirtualMachineInstance,
    VirtualMachineInstanceMigration, VirtualMachineInstancePreset, VirtualMachineInstancetype,
    VirtualMachineInstancetypeSpec, VirtualMachinePreference, VirtualMachinePreferenceSpec,
};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::ListParams;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use holdfast_api::names::is_dns_subdomain;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    Instance { namespace: String, name: String },
    Instancetype { namespace: String, kind: String, name: String },
    Preference { namespace: String, kind: String, name: String },
    Revision { namespace: String, name: String },
    Migrations { namespace: String },
    Presets { namespace: String },
}

/// What was found.
enum Found {
    Instance(Option<Box<VirtualMachineInstance>>),
    Instancetype(Option<Box<VirtualMachineInstancetypeSpec>>),
    Preference(Option<Box<VirtualMachinePreferenceSpec>>),
    Revision(Option<Box<ControllerRevision>>),
    Migrations(Vec<VirtualMachineInstanceMigration>),
    Presets(Vec<VirtualMachineInstancePreset>),
}

/// What is known so far.
#[derive(Default)]
pub struct Known {
    found: BTreeMap<Wanted, Found>,
    missing: RefCell<BTreeSet<Wanted>>,
}

impl Known {
    /// Looks up what was asked for in vain. Whether there was anything.
    pub async fn look(&mut self, client: &Client) -> Result<bool, kube::Error> {
        let missing = std::mem::take(self.missing.get_mut());
        let any = !missing.is_empty();
        for wanted in missing {
            let found = wanted.look(client).await?;
            self.found.insert(wanted, found);
        }
        Ok(any)
    }

    fn get(&self, wanted: Wanted) -> Option<&Found> {
        let found = self.found.get(&wanted);
        if found.is_none() {
            self.missing.borrow_mut().insert(wanted);
        }
        found
    }
}

impl Wanted {
    async fn look(&self, client: &Client) -> Result<Found, kube::Error> {
        Ok(match self {
            Self::Instance { namespace, name } => Found::Instance(get(client, namespace, name).await?),
            Self::Revision { namespace, name } => Found::Revision(get(client, namespace, name).await?),
            Self::Instancetype { kind, name, .. } if is_cluster_wide(kind) => {
                let found = get_cluster::<VirtualMachineClusterInstancetype>(client, name).await?;
                Found::Instancetype(found.map(|object| Box::new(object.spec.0)))
            }
            Self::Instancetype { namespace, name, .. } => {
                let found = get::<VirtualMachineInstancetype>(client, namespace, name).await?;
                Found::Instancetype(found.map(|object| Box::new(object.spec)))
            }
            Self::Preference { kind, name, .. } if is_cluster_wide(kind) => {
                let found = get_cluster::<VirtualMachineClusterPreference>(client, name).await?;
                Found::Preference(found.map(|object| Box::new(object.spec.0)))
            }
            Self::Preference { namespace, name, .. } => {
                let found = get::<VirtualMachinePreference>(client, namespace, name).await?;
                Found::Preference(found.map(|object| Box::new(object.spec)))
            }
            Self::Migrations { namespace } => Found::Migrations(list(client, namespace).await?),
            Self::Presets { namespace } => Found::Presets(list(client, namespace).await?),
        })
    }
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> Result<Option<Box<K>>, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !is_dns_subdomain(namespace) || !is_dns_subdomain(name) {
        return Ok(None);
    }
    Ok(Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await?.map(Box::new))
}

async fn list<K>(client: &Client, namespace: &str) -> Result<Vec<K>, kube::Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !is_dns_subdomain(namespace) {
        return Ok(Vec::new());
    }
    Ok(Api::<K>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items)
}

async fn get_cluster<K>(client: &Client, name: &str) -> Result<Option<K>, kube::Error>
where
    K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !is_dns_subdomain(name) {
        return Ok(None);
    }
    Api::<K>::all(client.clone()).get_opt(name).await
}

impl Others for Known {
    fn instance(&self, namespace: &str, name: &str) -> Option<VirtualMachineInstance> {
        match self.get(Wanted::Instance { namespace: namespace.to_owned(), name: name.to_owned() }) {
            Some(Found::Instance(found)) => found.as_deref().cloned(),
            _ => None,
        }
    }

    fn instancetype(&self, namespace: &str, kind: &str, name: &str) -> Option<VirtualMachineInstancetypeSpec> {
        let (namespace, kind, name) = (namespace.to_owned(), kind.to_owned(), name.to_owned());
        match self.get(Wanted::Instancetype { namespace, kind, name }) {
            Some(Found::Instancetype(found)) => found.as_deref().cloned(),
            _ => None,
        }
    }

    fn preference(&self, namespace: &str, kind: &str, name: &str) -> Option<VirtualMachinePreferenceSpec> {
        let (namespace, kind, name) = (namespace.to_owned(), kind.to_owned(), name.to_owned());
        match self.get(Wanted::Preference { namespace, kind, name }) {
            Some(Found::Preference(found)) => found.as_deref().cloned(),
            _ => None,
        }
    }

    fn revision(&self, namespace: &str, name: &str) -> Option<ControllerRevision> {
        match self.get(Wanted::Revision { namespace: namespace.to_owned(), name: name.to_owned() }) {
            Some(Found::Revision(found)) => found.as_deref().cloned(),
            _ => None,
        }
    }

    fn migrations(&self, namespace: &str, vmi: &str) -> Vec<VirtualMachineInstanceMigration> {
        match self.get(Wanted::Migrations { namespace: namespace.to_owned() }) {
            Some(Found::Migrations(found)) => {
                found.iter().filter(|migration| migration.spec.vmi_name.as_deref() == Some(vmi)).cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    fn presets(&self, namespace: &str) -> Vec<VirtualMachineInstancePreset> {
        match self.get(Wanted::Presets { namespace: namespace.to_owned() }) {
            Some(Found::Presets(found)) => found.clone(),
            _ => Vec::new(),
        }
    }
}
