//! What users write about VMs: manifests, and the network data in them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_api::config::ClusterConfig;
use holdfast_api::decode::{Document, Object, decode_documents, decode_value, decode_yaml};
use holdfast_api::defaults::{default_vm, default_vmi, stable_identities};
use holdfast_api::honoured;
use holdfast_api::kubevirt::{CloudInitNoCloudSource, VirtualMachineInstance, Volume};
use holdfast_api::underlay::problems;
use holdfast_api::validate::{validate_vm, validate_vmi};
use holdfast_ipam::nic;
use holdfast_launcher::disks::cloud_init_files;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

/// Where no Secrets are.
const NO_SECRETS: &str = "/nonexistent";

/// A text with manifests, as holdfastd reads it from its folder.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut end = 0;
    for (index, document) in decode_documents(text).into_iter().enumerate() {
        let Document { index: told, range, object, .. } = document;
        assert!(told == index && end <= range.start && range.end <= text.len());
        end = range.end;
        match object {
            Ok(object) => {
                assert_eq!(decode_yaml(&text[range]).as_ref(), Ok(&object));
                admit(object);
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// What is made of an object on its way in.
fn admit(object: Object) {
    let config = ClusterConfig::default();
    match object {
        Object::VirtualMachine(mut vm) => {
            written("kubevirt.io/v1", "VirtualMachine", &*vm, &Object::VirtualMachine(vm.clone()));
            let _ = honoured::check_vm(&vm.spec);
            default_vm(&mut vm, &config, &mut stable_identities(Uuid::nil()));
            let _ = validate_vm(&vm, &config);
        }
        Object::VirtualMachineInstance(mut vmi) => {
            let same = Object::VirtualMachineInstance(vmi.clone());
            written("kubevirt.io/v1", "VirtualMachineInstance", &*vmi, &same);
            let _ = honoured::check(&vmi.spec, "spec");
            default_vmi(&mut vmi, &config, &mut stable_identities(Uuid::nil()), Timestamp::UNIX_EPOCH);
            let valid = validate_vmi(&vmi, &config).is_ok();
            let nics = nic::wanted(&vmi);
            assert!(!valid || nics.is_ok(), "what is admitted has no NICs: {nics:?}");
        }
        Object::UnderlayNetwork(network) => {
            written("holdfast.io/v1alpha1", "UnderlayNetwork", &*network, &Object::UnderlayNetwork(network.clone()));
            let _ = problems(&network);
        }
        Object::NetworkAttachmentDefinition(_) | Object::ConfigMap(_) | Object::Secret(_) => {}
    }
}

/// An object that is written and read again is the same.
fn written(version: &str, kind: &str, object: &impl Serialize, same: &Object) {
    let mut tree = serde_json::to_value(object).unwrap();
    tree["apiVersion"] = version.into();
    tree["kind"] = kind.into();
    assert_eq!(decode_value(tree).as_ref(), Ok(same));
}

/// Network data of cloud-init, as plain text and in base64: the guest gets the bytes that the user gave.
pub fn network_data(bytes: &[u8]) {
    let encoded = STANDARD.encode(bytes);
    let given = (!bytes.is_empty()).then_some(bytes);
    assert_eq!(told(None, Some(&encoded)).unwrap().as_deref(), given);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(told(Some(text), None).unwrap().as_deref(), given);
    // A user's own base64.
    if let Some(decoded) = told(None, Some(text)).ok().flatten() {
        assert_eq!(STANDARD.encode(decoded), text.trim_end());
    }
}

/// The file with network data that cloud-init sees.
fn told(plain: Option<&str>, encoded: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    let source = CloudInitNoCloudSource {
        network_data: plain.map(str::to_owned),
        network_data_base64: encoded.map(str::to_owned),
        ..Default::default()
    };
    let volume = Volume { name: "init".to_owned(), cloud_init_no_cloud: Some(source), ..Default::default() };
    let files = cloud_init_files(&VirtualMachineInstance::default(), &volume, Path::new(NO_SECRETS));
    let files = files.map_err(|error| error.to_string())?;
    Ok(files.into_iter().find(|(name, _)| *name == "network-config").map(|(_, contents)| contents))
}
