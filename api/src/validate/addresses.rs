//! Rules on the addresses that a VM asks for.

use kube::core::ObjectMeta;

use super::{Causes, Context, Rule};
use crate::addresses::{ADDRESSES_ANNOTATION, parse_addresses, stranger};
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
    let Some(text) = metadata.annotations.as_ref().and_then(|all| all.get(ADDRESSES_ANNOTATION)) else { return };
    let wrong = match parse_addresses(text) {
        Ok(asked) => stranger(asked.keys(), networks),
        Err(message) => Some(message),
    };
    if let Some(message) = wrong {
        causes.invalid(format!("{at}.annotations"), message);
    }
}
