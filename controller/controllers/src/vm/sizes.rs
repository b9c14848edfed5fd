//! Instance types and preferences: each is kept as a ControllerRevision when a VM first names it, so that the VM stays
//! what it was; the VM's status says which one. A VMI is made from the VM and what is kept.

use holdfast_api::instancetype::{self, Sizes, is_cluster_wide, stored_instancetype, stored_preference};
use holdfast_api::kubevirt::{ControllerRevisionRef, InstancetypeStatusRef, VirtualMachine, VirtualMachineInstance};
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use super::VmError;
use crate::api;
use crate::context::Context;
use crate::engine::Key;
use crate::patch::guarded;

/// What came of looking for them.
pub(super) enum Found {
    /// They are these, and the VM says so.
    There(Box<Sizes>),
    /// The VM was changed: look again.
    Step,
    /// They cannot be had, for this reason.
    Refused(String),
}

/// A matcher, whichever it is.
struct Matcher<'a> {
    /// `Instancetype` or `Preference`.
    what: &'static str,
    name: &'a str,
    kind: &'a str,
    /// The revision that the VM names, or its status.
    revision: Option<&'a str>,
}

impl Matcher<'_> {
    fn is_cluster_wide(&self) -> bool {
        is_cluster_wide(self.kind)
    }

    /// The kind of the object.
    fn kind(&self) -> String {
        format!("Virtual{}{}", if self.is_cluster_wide() { "MachineCluster" } else { "Machine" }, self.what)
    }
}

/// A matcher that names something.
fn of<'a>(
    what: &'static str,
    name: Option<&'a str>,
    kind: Option<&'a str>,
    given: Option<&'a str>,
    status: Option<&'a InstancetypeStatusRef>,
) -> Option<Matcher<'a>> {
    let name = name.filter(|name| !name.is_empty())?;
    let of_it = status.filter(|status| status.name.as_deref() == Some(name));
    let kept = of_it.and_then(|status| status.controller_revision_ref.as_ref()?.name.as_deref());
    let revision = given.filter(|given| !given.is_empty()).or(kept);
    Some(Matcher { what, name, kind: kind.unwrap_or_default(), revision })
}

fn matchers(vm: &VirtualMachine) -> [Option<Matcher<'_>>; 2] {
    let status = vm.status.as_ref();
    [
        vm.spec.instancetype.as_ref().and_then(|m| {
            let status = status.and_then(|status| status.instancetype_ref.as_ref());
            of("Instancetype", m.name.as_deref(), m.kind.as_deref(), m.revision_name.as_deref(), status)
        }),
        vm.spec.preference.as_ref().and_then(|m| {
            let status = status.and_then(|status| status.preference_ref.as_ref());
            of("Preference", m.name.as_deref(), m.kind.as_deref(), m.revision_name.as_deref(), status)
        }),
    ]
}

/// Finds both, and keeps them where that has not been done.
pub(super) async fn find(context: &Context, vm: &VirtualMachine) -> Result<Found, VmError> {
    let key = Key::of(&vm.metadata);
    let [instancetype, preference] = matchers(vm);
    let mut sizes = Sizes::default();
    let mut references = serde_json::Map::new();
    for (matcher, field) in [(instancetype, "instancetypeRef"), (preference, "preferenceRef")] {
        let Some(matcher) = matcher else { continue };
        let revision = match matcher.revision {
            Some(name) => match api::get::<ControllerRevision>(&context.client, &key.beside(name)).await? {
                Some(revision) => revision,
                None => return Ok(Found::Refused(format!("ControllerRevision `{name}` of the VM does not exist"))),
            },
            None => match keep(context, vm, &matcher).await? {
                Ok(revision) => revision,
                Err(why) => return Ok(Found::Refused(why)),
            },
        };
        let named = vm.status.as_ref().and_then(|status| match field {
            "instancetypeRef" => status.instancetype_ref.as_ref(),
            _ => status.preference_ref.as_ref(),
        });
        let wanted = InstancetypeStatusRef {
            name: Some(matcher.name.to_owned()),
            kind: Some(matcher.kind()),
            controller_revision_ref: Some(ControllerRevisionRef { name: revision.metadata.name.clone() }),
            ..named.cloned().unwrap_or_default()
        };
        if named != Some(&wanted) {
            references.insert(field.to_owned(), serde_json::to_value(wanted)?);
        }
        let read = match field {
            "instancetypeRef" => stored_instancetype(&revision).map(|spec| sizes.instancetype = Some(spec)),
            _ => stored_preference(&revision).map(|spec| sizes.preference = Some(spec)),
        };
        if let Err(error) = read {
            return Ok(Found::Refused(holdfast_kubernetes::chain(&error)));
        }
    }
    let policy = context.settings().kubevirt.spec.configuration.as_ref().and_then(|configuration| {
        configuration.instancetype.as_ref().and_then(|instancetype| instancetype.reference_policy.clone())
    });
    let fresh = !references.is_empty();
    match policy.as_deref() {
        Some("expandAll") if sizes != Sizes::default() => expand(context, vm, &sizes).await,
        Some("expand") if fresh => expand(context, vm, &sizes).await,
        _ if fresh => {
            let change = json!({
                "metadata": {"resourceVersion": vm.metadata.resource_version},
                "status": Value::Object(references),
            });
            let written: VirtualMachine = api::patch_status(&context.client, &key, &change).await?;
            context.vms.wrote(&written.metadata.clone(), written);
            Ok(Found::Step)
        }
        _ => Ok(Found::There(Box::new(sizes))),
    }
}

/// Writes down what the VM names, as it is now.
async fn keep(
    context: &Context,
    vm: &VirtualMachine,
    matcher: &Matcher<'_>,
) -> Result<Result<ControllerRevision, String>, VmError> {
    let kind = matcher.kind();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("instancetype.kubevirt.io", "v1beta1", &kind));
    let namespace = vm.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = if matcher.is_cluster_wide() {
        Api::all_with(context.client.clone(), &resource)
    } else {
        Api::namespaced_with(context.client.clone(), namespace, &resource)
    };
    let key = Key::new(if matcher.is_cluster_wide() { "" } else { namespace }, matcher.name);
    let Some(object) = api::dynamic("get", &kind, &key, api.get_opt(matcher.name)).await? else {
        return Ok(Err(format!("{kind} `{key}` does not exist")));
    };
    let Some(revision) = instancetype::revision(vm, &serde_json::to_value(object)?) else {
        return Ok(Err(format!("{kind} `{key}` has no identity yet")));
    };
    match api::create(&context.client, &revision).await {
        Ok(created) => Ok(Ok(created)),
        // The same name is the same content.
        Err(error) if error.code() == Some(409) => Ok(Ok(revision)),
        Err(error) => Err(error.into()),
    }
}

/// Writes what both stand for into the VM.
async fn expand(context: &Context, vm: &VirtualMachine, sizes: &Sizes) -> Result<Found, VmError> {
    let mut expanded = vm.clone();
    if let Err(fields) = instancetype::expand(&mut expanded, sizes.instancetype.as_ref(), sizes.preference.as_ref()) {
        return Ok(Found::Refused(conflict(&fields)));
    }
    if let Some(change) = guarded(vm, &expanded)? {
        let key = Key::of(&vm.metadata);
        let written: VirtualMachine = api::patch(&context.client, &key, &change).await?;
        context.vms.wrote(&written.metadata.clone(), written);
    }
    Ok(Found::Step)
}

/// Applies both to a VMI that is being made, and says on it what they were.
pub(super) fn apply(vm: &VirtualMachine, sizes: &Sizes, vmi: &mut VirtualMachineInstance) -> Result<(), String> {
    let (metadata, spec) = (&mut vmi.metadata, &mut vmi.spec);
    instancetype::apply(sizes.instancetype.as_ref(), sizes.preference.as_ref(), metadata, spec)
        .map_err(|fields| conflict(&fields))?;
    for matcher in matchers(vm).into_iter().flatten() {
        let scope = if matcher.is_cluster_wide() { "cluster-" } else { "" };
        let annotation = format!("kubevirt.io/{scope}{}-name", matcher.what.to_ascii_lowercase());
        vmi.metadata.annotations.get_or_insert_default().insert(annotation, matcher.name.to_owned());
    }
    Ok(())
}

fn conflict(fields: &[String]) -> String {
    format!("VM field(s) {} conflicts with selected instance type", fields.join(", "))
}
