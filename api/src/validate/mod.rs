//! Which VMs and VMIs are refused, and in which words.
//!
//! Rules are small functions, each in a list by its topic; a rule adds a [`StatusCause`] for each thing
//! that it finds wrong. The lists are run in order and all that is wrong is reported at once, as
//! the webhooks of KubeVirt do, whose messages, field paths (odd ones included) and order clients
//! see and match on. Objects are validated after defaulting.
//!
//! Invariant: pure, and without knowledge of other objects.

mod compute;
mod decoding;
mod devices;
mod disks;
mod firmware;
mod interfaces;
mod metadata;
mod names;
mod networks;
mod placement;
mod probes;
mod schema;
mod vm;
mod volumes;

pub use decoding::decoding_error;

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, StatusCause, StatusDetails};

use crate::config::ClusterConfig;
use crate::defaults::defaulted_template;
use crate::error_status::ErrorStatus;
use crate::kubevirt::{VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec};

/// What a rule looks at.
struct Context<'a> {
    /// Where the spec is: `spec`, or `spec.template.spec` in a VM.
    at: &'a str,
    spec: &'a VirtualMachineInstanceSpec,
    metadata: &'a ObjectMeta,
    config: &'a ClusterConfig,
}

impl Context<'_> {
    /// The path of a field of the spec.
    fn path(&self, field: impl Display) -> String {
        format!("{}.{field}", self.at)
    }
}

/// A rule adds what it finds wrong.
type Rule = fn(&Context, &mut Causes);

/// The kinds of wrong, as the API names them.
#[derive(Debug, Clone, Copy)]
enum Reason {
    Invalid,
    Required,
    Duplicate,
    NotSupported,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotSupported => "FieldValueNotSupported",
        }
    }
}

/// What is wrong with an object, in the order in which it was found.
#[derive(Debug, Default)]
struct Causes(Vec<StatusCause>);

impl Causes {
    fn add(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(StatusCause {
            field: Some(field.into()),
            message: Some(message.into()),
            reason: Some(reason.as_str().to_owned()),
        });
    }

    fn invalid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Invalid, field, message);
    }

    fn required(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Required, field, message);
    }

    fn duplicate(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Duplicate, field, message);
    }

    fn not_supported(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::NotSupported, field, message);
    }

    /// The refusal by a webhook, where there is any cause.
    fn into_result(self, webhook: &str) -> Result<(), ErrorStatus> {
        if self.0.is_empty() {
            return Ok(());
        }
        let messages: Vec<&str> = self.0.iter().filter_map(|cause| cause.message.as_deref()).collect();
        Err(ErrorStatus {
            code: 422,
            reason: Some("Invalid".to_owned()),
            message: denied(webhook, &messages.join(", ")),
            details: Some(Box::new(StatusDetails { causes: Some(self.0), ..StatusDetails::default() })),
        })
    }
}

/// The sentence of a request that a webhook refuses.
fn denied(webhook: &str, why: &str) -> String {
    format!("admission webhook \"{webhook}.kubevirt.io\" denied the request: {why}")
}

/// The webhooks that look at one kind, by the names that their refusals carry.
struct Webhooks {
    mutator: &'static str,
    validator: &'static str,
}

const VMI_WEBHOOKS: Webhooks =
    Webhooks { mutator: "virtualmachineinstances-mutator", validator: "virtualmachineinstances-create-validator" };
const VM_WEBHOOKS: Webhooks = Webhooks { mutator: "virtualmachines-mutator", validator: "virtualmachine-validator" };

/// Rules on NICs, networks and disks.
const DEVICE_RULES: [&[Rule]; 3] = [networks::RULES, interfaces::RULES, disks::RULES];
/// Rules on the rest of the spec.
const SPEC_RULES: [&[Rule]; 7] = [
    placement::RULES,
    compute::RULES,
    firmware::RULES,
    devices::RULES,
    probes::RULES,
    volumes::RULES,
    interfaces::BOOT_ORDER_RULES,
];
/// Rules that hold for a VMI and not yet for a template.
const INSTANCE_RULES: [&[Rule]; 2] = [disks::VOLUME_RULES, metadata::RULES];

/// Whether a new VMI, already defaulted, is accepted.
pub fn validate_vmi(vmi: &VirtualMachineInstance, config: &ClusterConfig) -> Result<(), ErrorStatus> {
    metadata::check_name("VirtualMachineInstance", &vmi.metadata)?;
    schema::check_spec(&vmi.spec, "spec", VMI_WEBHOOKS.mutator)?;
    let context = Context { at: "spec", spec: &vmi.spec, metadata: &vmi.metadata, config };
    let mut causes = Causes::default();
    // KubeVirt applies the rules on devices before the others and once more after them, and its
    // answers show both.
    run(&[interfaces::DISCONTINUED_RULES], &context, &mut causes);
    run(&DEVICE_RULES, &context, &mut causes);
    run(&SPEC_RULES, &context, &mut causes);
    run(&INSTANCE_RULES, &context, &mut causes);
    run(&DEVICE_RULES, &context, &mut causes);
    causes.into_result(VMI_WEBHOOKS.validator)
}

/// Whether a new VM, already defaulted, is accepted.
pub fn validate_vm(vm: &VirtualMachine, config: &ClusterConfig) -> Result<(), ErrorStatus> {
    metadata::check_name("VirtualMachine", &vm.metadata)?;
    if let Some(spec) = &vm.spec.template.spec {
        schema::check_spec(spec, "spec.template.spec", VM_WEBHOOKS.mutator)?;
    }
    vm::check_inference(vm)?;
    let mut causes = Causes::default();
    if let Some(spec) = defaulted_template(vm, config) {
        let metadata = vm.spec.template.metadata.clone().unwrap_or_default();
        let context = Context { at: "spec.template.spec", spec: &spec, metadata: &metadata, config };
        run(&[interfaces::DISCONTINUED_RULES], &context, &mut causes);
        run(&DEVICE_RULES, &context, &mut causes);
        run(&SPEC_RULES, &context, &mut causes);
    }
    for rule in vm::RULES {
        rule(vm, &mut causes);
    }
    causes.into_result(VM_WEBHOOKS.validator)
}

fn run(lists: &[&[Rule]], context: &Context, causes: &mut Causes) {
    for rule in lists.iter().copied().flatten() {
        rule(context, causes);
    }
}

#[cfg(test)]
mod tests;
