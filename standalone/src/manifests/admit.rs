//! What an API server does with an object before it stores it: refuse, default, validate.

use holdfast_api::config::ClusterConfig;
use holdfast_api::defaults::{default_vm, default_vmi, stable_identities};
use holdfast_api::honoured;
use holdfast_api::kubevirt::{VirtualMachine, VirtualMachineInstance};
use holdfast_api::nad::NetworkAttachmentDefinition;
use holdfast_api::underlay::UnderlayNetwork;
use holdfast_api::validate::{validate_vm, validate_vmi};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use uuid::Uuid;

use crate::store::Stored;

/// A kind that manifests hold.
pub trait Manifested: Stored + kube::Resource<DynamicType = ()> + PartialEq {
    /// Makes a new object of what its author wrote, or says why not. Its uid is set. Returns warnings.
    fn admit(&mut self, uid: Uuid, config: &ClusterConfig) -> Result<Vec<String>, String>;

    /// Takes over what the author of `wanted`, admitted, says now; says why it cannot.
    fn take(&mut self, wanted: Self) -> Result<(), String>;

    /// Leaves out what is no author's business.
    fn forget_status(&mut self) {}
}

impl Manifested for VirtualMachine {
    fn admit(&mut self, uid: Uuid, config: &ClusterConfig) -> Result<Vec<String>, String> {
        let findings = honoured::check_vm(&self.spec);
        findings.refusal().map_or(Ok(()), Err)?;
        default_vm(self, config, &mut stable_identities(uid));
        validate_vm(self, config).map_err(|error| error.message)?;
        Ok(findings.warnings.iter().map(ToString::to_string).collect())
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        self.spec = wanted.spec;
        Ok(())
    }

    fn forget_status(&mut self) {
        self.status = None;
    }
}

impl Manifested for VirtualMachineInstance {
    fn admit(&mut self, uid: Uuid, config: &ClusterConfig) -> Result<Vec<String>, String> {
        let findings = honoured::check(&self.spec, "spec");
        findings.refusal().map_or(Ok(()), Err)?;
        default_vmi(self, config, &mut stable_identities(uid), Timestamp::now());
        validate_vmi(self, config).map_err(|error| error.message)?;
        Ok(findings.warnings.iter().map(ToString::to_string).collect())
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        if super::is_placeholder(&self.metadata) {
            self.spec = wanted.spec;
            self.status = wanted.status;
            self.metadata.finalizers = wanted.metadata.finalizers;
            return Ok(());
        }
        if self.spec == wanted.spec {
            return Ok(());
        }
        Err("update of VMI object is restricted: delete it and apply it anew, or use a VirtualMachine".to_owned())
    }

    fn forget_status(&mut self) {
        self.status = None;
    }
}

impl Manifested for NetworkAttachmentDefinition {
    fn admit(&mut self, _uid: Uuid, _config: &ClusterConfig) -> Result<Vec<String>, String> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        crate::cni::NetworkList::parse(&self.spec.config, name)
            .map_err(|error| format!("spec.config: {}", crate::host::chain(&error)))?;
        Ok(Vec::new())
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        self.spec = wanted.spec;
        Ok(())
    }
}

impl Manifested for UnderlayNetwork {
    fn admit(&mut self, _uid: Uuid, _config: &ClusterConfig) -> Result<Vec<String>, String> {
        let problems = holdfast_api::underlay::problems(self).into_iter();
        let problems: Vec<String> = problems
            .map(|cause| format!("{}: {}", cause.field.unwrap_or_default(), cause.message.unwrap_or_default()))
            .collect();
        if problems.is_empty() { Ok(Vec::new()) } else { Err(problems.join(", ")) }
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        self.spec = wanted.spec;
        Ok(())
    }

    fn forget_status(&mut self) {
        self.status = None;
    }
}

impl Manifested for ConfigMap {
    fn admit(&mut self, _uid: Uuid, _config: &ClusterConfig) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        (self.data, self.binary_data, self.immutable) = (wanted.data, wanted.binary_data, wanted.immutable);
        Ok(())
    }
}

impl Manifested for Secret {
    fn admit(&mut self, _uid: Uuid, _config: &ClusterConfig) -> Result<Vec<String>, String> {
        for (key, text) in self.string_data.take().into_iter().flatten() {
            self.data.get_or_insert_default().insert(key, ByteString(text.into_bytes()));
        }
        self.type_.get_or_insert_with(|| "Opaque".to_owned());
        Ok(Vec::new())
    }

    fn take(&mut self, wanted: Self) -> Result<(), String> {
        (self.data, self.type_, self.immutable) = (wanted.data, wanted.type_, wanted.immutable);
        Ok(())
    }
}
