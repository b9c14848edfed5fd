//! Which VMs and VMIs are refused, and in which words.
//!
//! Rules are small functions, each in a list by its topic; a rule adds a [`StatusCause`] for each thing
//! that it finds wrong. The lists are run in order and all that is wrong is reported at once, as
//! the webhooks of KubeVirt do, whose messages, field paths (odd ones included) and order clients
//! see and match on. Objects are validated after defaulting.
//!
//! Invariant: pure, and without knowledge of other objects.

mod addresses;
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

pub(crate) use addresses::asked_of_a_machine;
pub use decoding::decoding_error;
pub(crate) use decoding::fields_error;
pub(crate) use metadata::RESERVED_LABELS;
pub(crate) use schema::check_spec as check_values;
use vm::check_inference;
pub(crate) use vm::{conflict, conflicts};

use std::fmt::Display;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, StatusCause};

use crate::config::ClusterConfig;
use crate::defaults::defaulted_template;
use crate::error_status::ErrorStatus;
use crate::kubevirt::{
    VirtualMachine, VirtualMachineInstance, VirtualMachineInstanceSpec, VirtualMachineInstanceTemplateSpec,
    VirtualMachineSpec,
};

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
pub(crate) enum Reason {
    Invalid,
    Required,
    Duplicate,
    NotSupported,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
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
pub(crate) struct Causes(Vec<StatusCause>);

impl Causes {
    pub(crate) fn add(&mut self, reason: Reason, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(StatusCause {
            field: Some(field.into()),
            message: Some(message.into()),
            reason: Some(reason.as_str().to_owned()),
        });
    }

    pub(crate) fn invalid(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Invalid, field, message);
    }

    pub(crate) fn required(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Required, field, message);
    }

    pub(crate) fn duplicate(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::Duplicate, field, message);
    }

    pub(crate) fn not_supported(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Reason::NotSupported, field, message);
    }

    /// A cause that no field has to do with.
    pub(crate) fn not_supported_anywhere(&mut self, message: impl Into<String>) {
        self.0.push(StatusCause {
            field: None,
            message: Some(message.into()),
            reason: Some(Reason::NotSupported.as_str().to_owned()),
        });
    }

    /// The refusal, where there is any cause.
    pub(crate) fn into_result(self) -> Result<(), ErrorStatus> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    /// The refusal for these causes.
    pub(crate) fn into_error(self) -> ErrorStatus {
        ErrorStatus::invalid(self.0)
    }
}

impl From<Causes> for Vec<StatusCause> {
    fn from(causes: Causes) -> Self {
        causes.0
    }
}

const VMI_MUTATOR: &str = "virtualmachineinstances-mutator.kubevirt.io";
const VMI_VALIDATOR: &str = "virtualmachineinstances-create-validator.kubevirt.io";
const VM_MUTATOR: &str = "virtualmachines-mutator.kubevirt.io";
const VM_VALIDATOR: &str = "virtualmachine-validator.kubevirt.io";

/// Rules on NICs, networks and disks.
const DEVICE_RULES: [&[Rule]; 3] = [networks::RULES, interfaces::RULES, disks::RULES];
/// Rules on the rest of the spec.
const SPEC_RULES: [&[Rule]; 8] = [
    placement::RULES,
    compute::RULES,
    firmware::RULES,
    devices::RULES,
    probes::RULES,
    volumes::RULES,
    interfaces::BOOT_ORDER_RULES,
    addresses::RULES,
];
/// Rules that hold for a VMI and not yet for a template.
const INSTANCE_RULES: [&[Rule]; 2] = [disks::VOLUME_RULES, metadata::RULES];

/// Whether a new VMI, already defaulted, is accepted.
pub fn validate_vmi(vmi: &VirtualMachineInstance, config: &ClusterConfig) -> Result<(), ErrorStatus> {
    metadata::check_name("VirtualMachineInstance", &vmi.metadata)?;
    check_values(&vmi.spec, "spec").map_err(|error| error.denied_by(VMI_MUTATOR))?;
    vmi_rules(vmi, config).into_result().map_err(|error| error.denied_by(VMI_VALIDATOR))
}

/// Whether a new VM, already defaulted, is accepted.
pub fn validate_vm(vm: &VirtualMachine, config: &ClusterConfig) -> Result<(), ErrorStatus> {
    metadata::check_name("VirtualMachine", &vm.metadata)?;
    check_machine(&vm.spec).map_err(|error| error.denied_by(VM_MUTATOR))?;
    let mut causes = vm_rules(&vm.spec, "spec", config, Age::New);
    asked_of_a_machine(vm, &mut causes);
    causes.into_result().map_err(|error| error.denied_by(VM_VALIDATOR))
}

/// Refuses a VM that no rule can look at: unreadable values, and what cannot be inferred.
pub(crate) fn check_machine(spec: &VirtualMachineSpec) -> Result<(), ErrorStatus> {
    if let Some(template) = &spec.template.spec {
        check_values(template, "spec.template.spec")?;
    }
    check_inference(spec)
}

/// Whether what is validated is there already. Some rules are for new objects only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    New,
    Old,
}

/// What the rules find wrong with a VMI.
pub(crate) fn vmi_rules(vmi: &VirtualMachineInstance, config: &ClusterConfig) -> Causes {
    let context = Context { at: "spec", spec: &vmi.spec, metadata: &vmi.metadata, config };
    let mut causes = Causes::default();
    // KubeVirt applies the rules on devices before the others and once more after them, and its
    // answers show both.
    run(&[interfaces::DISCONTINUED_RULES], &context, &mut causes);
    run(&DEVICE_RULES, &context, &mut causes);
    run(&SPEC_RULES, &context, &mut causes);
    run(&INSTANCE_RULES, &context, &mut causes);
    run(&DEVICE_RULES, &context, &mut causes);
    causes
}

/// What the rules find wrong with a VM whose spec stands at `at`.
pub(crate) fn vm_rules(spec: &VirtualMachineSpec, at: &str, config: &ClusterConfig, age: Age) -> Causes {
    let mut causes = Causes::default();
    template_rules(&spec.template, &format!("{at}.template"), config, age, &mut causes);
    for rule in vm::RULES {
        rule(at, spec, &mut causes);
    }
    causes
}

/// What the rules find wrong with a template of instances that stands at `at`.
pub(crate) fn template_rules(
    template: &VirtualMachineInstanceTemplateSpec,
    at: &str,
    config: &ClusterConfig,
    age: Age,
    causes: &mut Causes,
) {
    let Some(spec) = defaulted_template(template, config) else { return };
    let metadata = template.metadata.clone().unwrap_or_default();
    let context = Context { at: &format!("{at}.spec"), spec: &spec, metadata: &metadata, config };
    if age == Age::New {
        run(&[interfaces::DISCONTINUED_RULES], &context, causes);
    }
    run(&DEVICE_RULES, &context, causes);
    run(&SPEC_RULES, &context, causes);
}

fn run(lists: &[&[Rule]], context: &Context, causes: &mut Causes) {
    for rule in lists.iter().copied().flatten() {
        rule(context, causes);
    }
}

#[cfg(test)]
mod tests;
