//! One VM of a pool (pure).

use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstanceSpec, VirtualMachinePool, VirtualMachineSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};

use super::REVISION_LABEL;
use crate::sets::owner;

/// What tells one state of a pool's template from another.
pub(super) fn revision(pool: &VirtualMachinePool) -> serde_json::Result<String> {
    let template = serde_json::to_vec(&(&pool.spec.virtual_machine_template, &pool.spec.name_generation))?;
    let digest = hex::encode(&Sha256::digest(template)[..5]);
    let name: String = pool.metadata.name.as_deref().unwrap_or_default().chars().take(63 - 11).collect();
    Ok(format!("{name}-{digest}"))
}

/// Name of the VM with that number.
pub(super) fn name(pool: &VirtualMachinePool, index: u32) -> String {
    format!("{}-{index}", pool.metadata.name.as_deref().unwrap_or_default())
}

/// The number in a VM's name.
pub(super) fn index(vm: &VirtualMachine) -> Option<u32> {
    vm.metadata.name.as_deref()?.rsplit_once('-')?.1.parse().ok()
}

/// The VM with that number.
pub(super) fn member(pool: &VirtualMachinePool, index: u32, revision: &str) -> serde_json::Result<VirtualMachine> {
    let template = pool.spec.virtual_machine_template.metadata.clone().unwrap_or_default();
    let mut labels = template.labels.unwrap_or_default();
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let metadata = ObjectMeta {
        name: Some(name(pool, index)),
        namespace: pool.metadata.namespace.clone(),
        labels: Some(labels),
        annotations: template.annotations,
        owner_references: Some(vec![owner("pool.kubevirt.io/v1beta1", "VirtualMachinePool", &pool.metadata)]),
        ..ObjectMeta::default()
    };
    Ok(VirtualMachine { metadata, spec: spec(pool, index, revision), status: None })
}

/// A VM with the pool's present template. Who started or stopped it by hand is not overruled, and its identity stays.
pub(super) fn updated(
    pool: &VirtualMachinePool,
    vm: &VirtualMachine,
    revision: &str,
) -> serde_json::Result<VirtualMachine> {
    let mut updated = vm.clone();
    let labels = updated.metadata.labels.get_or_insert_default();
    let template = pool.spec.virtual_machine_template.metadata.clone().unwrap_or_default();
    labels.extend(template.labels.unwrap_or_default());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    if let Some(annotations) = template.annotations {
        updated.metadata.annotations.get_or_insert_default().extend(annotations);
    }
    let mut spec = spec(pool, index(vm).unwrap_or_default(), revision);
    (spec.run_strategy, spec.running) = (vm.spec.run_strategy.clone(), vm.spec.running);
    let firmware = vm.spec.template.spec.as_ref().and_then(|spec| spec.domain.firmware.clone());
    if let (Some(old), Some(new)) = (firmware, &mut spec.template.spec) {
        let new = new.domain.firmware.get_or_insert_default();
        new.uuid = new.uuid.take().or(old.uuid);
        new.serial = new.serial.take().or(old.serial);
    }
    updated.spec = spec;
    Ok(updated)
}

fn spec(pool: &VirtualMachinePool, index: u32, revision: &str) -> VirtualMachineSpec {
    let mut spec = pool.spec.virtual_machine_template.spec.clone().unwrap_or_default();
    let template = spec.template.metadata.get_or_insert_default();
    template.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let instance = spec.template.spec.get_or_insert_default();
    for data_volume in &mut spec.data_volume_templates {
        let meta = data_volume.metadata.get_or_insert_default();
        let old = meta.name.clone().unwrap_or_default();
        let new = format!("{old}-{index}");
        rename_claims(instance, &old, &new);
        meta.name = Some(new);
    }
    let options = pool.spec.name_generation.clone().unwrap_or_default();
    for volume in &mut instance.volumes {
        if options.append_index_to_config_map_refs == Some(true)
            && let Some(name) = volume.config_map.as_mut().and_then(|source| source.name.as_mut())
        {
            *name = format!("{name}-{index}");
        }
        if options.append_index_to_secret_refs == Some(true)
            && let Some(name) = volume.secret.as_mut().and_then(|source| source.secret_name.as_mut())
        {
            *name = format!("{name}-{index}");
        }
    }
    spec
}

/// A volume of a DataVolume that each VM has for itself.
fn rename_claims(spec: &mut VirtualMachineInstanceSpec, old: &str, new: &str) {
    for volume in &mut spec.volumes {
        if let Some(source) = volume.data_volume.as_mut().filter(|source| source.name == old) {
            source.name = new.to_owned();
        }
        if let Some(source) = volume.persistent_volume_claim.as_mut().filter(|source| source.claim_name == old) {
            source.claim_name = new.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn pool() -> VirtualMachinePool {
        serde_json::from_value(json!({
            "apiVersion": "pool.kubevirt.io/v1beta1", "kind": "VirtualMachinePool",
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"selector": {}, "nameGeneration": {"appendIndexToSecretRefs": true},
                "virtualMachineTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {
                    "runStrategy": "Always",
                    "dataVolumeTemplates": [{"metadata": {"name": "root"}, "spec": {}}],
                    "template": {"spec": {"domain": {"devices": {}}, "volumes": [
                        {"name": "root", "dataVolume": {"name": "root"}},
                        {"name": "s", "secret": {"secretName": "sec"}},
                        {"name": "c", "configMap": {"name": "conf"}}]}}}}}}))
        .unwrap()
    }

    #[test]
    fn each_has_what_is_its_own() {
        let pool = pool();
        let revision = revision(&pool).unwrap();
        let vm = member(&pool, 3, &revision).unwrap();
        assert_eq!((vm.metadata.name.as_deref(), index(&vm)), (Some("p-3"), Some(3)));
        let labels = vm.metadata.labels.clone().unwrap();
        assert_eq!((labels["a"].as_str(), labels[REVISION_LABEL].as_str()), ("b", revision.as_str()));
        let spec = serde_json::to_value(&vm.spec).unwrap();
        assert_eq!(spec["dataVolumeTemplates"][0]["metadata"]["name"], "root-3");
        let volumes = &spec["template"]["spec"]["volumes"];
        assert_eq!(volumes[0]["dataVolume"]["name"], "root-3");
        assert_eq!(volumes[1]["secret"]["secretName"], "sec-3");
        assert_eq!(volumes[2]["configMap"]["name"], "conf");
        assert_eq!(spec["template"]["metadata"]["labels"][REVISION_LABEL], revision);
    }

    #[test]
    fn an_update_leaves_a_vm_its_identity_and_whether_it_runs() {
        let mut pool = pool();
        let mut vm = member(&pool, 0, "old").unwrap();
        vm.spec.run_strategy = Some("Halted".into());
        let firmware = json!({"uuid": "1", "serial": "2"});
        vm.spec.template.spec.as_mut().unwrap().domain.firmware = serde_json::from_value(firmware).ok();
        pool.spec.virtual_machine_template.spec.as_mut().unwrap().template.spec.as_mut().unwrap().hostname =
            Some("h".into());
        let revision = revision(&pool).unwrap();
        let updated = updated(&pool, &vm, &revision).unwrap();
        assert_eq!(updated.spec.run_strategy.as_deref(), Some("Halted"));
        let spec = updated.spec.template.spec.unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.domain.firmware.unwrap().uuid.as_deref()), (Some("h"), Some("1")));
        assert_eq!(updated.metadata.labels.unwrap()[REVISION_LABEL], revision);
    }
}
