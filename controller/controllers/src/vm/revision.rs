//! What a VMI was made from: a ControllerRevision with the VM's spec, named after the VM and its generation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceTemplateSpec};
use holdfast_api::run_strategy::{GENERATION_ANNOTATION, revision_name};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Client;
use serde_json::json;

use crate::api::{self, ApiError};
use crate::engine::Key;

/// Label of a revision: UID of its VM.
const OWNER_LABEL: &str = "holdfast.io/revision-of";

/// The templates of VMs that were changed since they started, by the VM's UID: the name of the revision and what it
/// holds. Others need none.
#[derive(Debug, Default)]
pub struct Revisions(Mutex<HashMap<String, (String, Arc<VirtualMachineInstanceTemplateSpec>)>>);

impl Revisions {
    /// Writes down what a VMI is about to be made from, and removes what the ones before it were.
    pub async fn keep(&self, client: &Client, vm: &VirtualMachine) -> Result<(), ApiError> {
        let revision = revision(vm);
        let key = Key::of(&revision.metadata);
        match api::create(client, &revision).await {
            Ok(_) => {}
            // The same name is the same spec.
            Err(error) if error.code() == Some(409) => return Ok(()),
            Err(error) => return Err(error),
        }
        let ran_before = vm.status.as_ref().is_some_and(|status| status.run_strategy.is_some());
        if !ran_before {
            return Ok(());
        }
        let uid = vm.metadata.uid.as_deref().unwrap_or_default();
        let all = api::list::<ControllerRevision>(client, &key.namespace, &format!("{OWNER_LABEL}={uid}")).await?;
        for old in all.iter().map(|revision| &revision.metadata).filter(|meta| Key::of(meta) != key) {
            let uid = old.uid.as_deref().unwrap_or_default();
            api::delete::<ControllerRevision>(client, &Key::of(old), uid, None).await?;
        }
        Ok(())
    }

    /// The template that the VMI was made from; the VM's own where that has not changed since.
    pub async fn started(
        &self,
        client: &Client,
        vm: &VirtualMachine,
        vmi: &VirtualMachineInstance,
    ) -> Result<Option<Arc<VirtualMachineInstanceTemplateSpec>>, ApiError> {
        let generation = vmi.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
        if generation
            .is_some_and(|generation| Some(generation) == vm.metadata.generation.map(|g| g.to_string()).as_ref())
        {
            return Ok(Some(Arc::new(vm.spec.template.clone())));
        }
        let named = vmi.status.as_ref().and_then(|status| status.virtual_machine_revision_name.clone());
        let Some(name) = named else { return Ok(None) };
        let uid = vm.metadata.uid.clone().unwrap_or_default();
        if let Some((known, template)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&uid)
            && *known == name
        {
            return Ok(Some(template.clone()));
        }
        let key = Key::of(&vm.metadata).beside(&name);
        let Some(revision) = api::get::<ControllerRevision>(client, &key).await? else { return Ok(None) };
        let template = revision.data.and_then(|data| template_of(data.0)).map(Arc::new);
        if let Some(template) = &template {
            let entry = (name, template.clone());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, entry);
        }
        Ok(template)
    }

    /// Forgets a VM that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// The revision of a VM as it is now.
fn revision(vm: &VirtualMachine) -> ControllerRevision {
    let meta = &vm.metadata;
    let uid = meta.uid.clone().unwrap_or_default();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(revision_name(vm)),
            namespace: meta.namespace.clone(),
            labels: Some([(OWNER_LABEL.to_owned(), uid.clone())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "kubevirt.io/v1".to_owned(),
                kind: "VirtualMachine".to_owned(),
                name: meta.name.clone().unwrap_or_default(),
                uid,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        revision: meta.generation.unwrap_or_default(),
        data: Some(RawExtension(json!({"spec": vm.spec}))),
    }
}

/// The template in a revision.
fn template_of(mut data: serde_json::Value) -> Option<VirtualMachineInstanceTemplateSpec> {
    serde_json::from_value(data.get_mut("spec")?.get_mut("template")?.take()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_revision_holds_what_the_vmi_is_made_from() {
        let vm: VirtualMachine = serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
            "metadata": {"name": "w1", "namespace": "default", "uid": "u", "generation": 9},
            "spec": {"runStrategy": "Always", "template": {"spec": {"domain": {"devices": {}}, "hostname": "h"}}},
        }))
        .unwrap();
        let revision = revision(&vm);
        assert_eq!(revision.metadata.name.as_deref(), Some("revision-start-vm-u-9"));
        assert_eq!(revision.revision, 9);
        assert_eq!(template_of(revision.data.unwrap().0).unwrap(), vm.spec.template);
    }
}
