//! Rules on what a VM asks of its networks.

use kube::core::ObjectMeta;

use super::{Causes, Context, Rule};
use crate::addresses::{BY_NETWORK, problem};
use crate::kubevirt::{Network, VirtualMachine};

pub(super) const RULES: &[Rule] = &[asked_of_the_template];

fn asked_of_the_template(context: &Context, causes: &mut Causes) {
    let at = context.at.strip_suffix("spec").unwrap_or_default();
    check(context.metadata, &format!("{at}metadata"), &context.spec.networks, causes);
}

/// A VM may ask for addresses itself as well as in its template.
pub(crate) fn asked_of_a_machine(vm: &VirtualMachine, causes: &mut Causes) {
    let networks = vm.spec.template.spec.as_ref().map(|spec| spec.networks.as_slice()).unwrap_or_default();
    check(&vm.metadata, "metadata", networks, causes);
}

fn check(metadata: &ObjectMeta, at: &str, networks: &[Network], causes: &mut Causes) {
    let all = metadata.annotations.as_ref();
    let asked = BY_NETWORK.into_iter().filter_map(|annotation| Some((annotation, all?.get(annotation)?)));
    for message in asked.filter_map(|(annotation, text)| problem(annotation, text, networks)) {
        causes.invalid(format!("{at}.annotations"), message);
    }
}
