//! Rules on networks.

use super::{Causes, Context, Rule};
use crate::nad::network_name;

pub(super) const RULES: &[Rule] = &[one_pod_network, one_type_each, multus_names, no_pod_beside_default];

fn one_pod_network(context: &Context, causes: &mut Causes) {
    if context.spec.networks.iter().filter(|network| network.pod.is_some()).count() > 1 {
        let field = context.path("interfaces");
        let message = format!("more than one interface is connected to a pod network in {field}");
        causes.duplicate(field, message);
    }
}

fn one_type_each(context: &Context, causes: &mut Causes) {
    for (index, network) in context.spec.networks.iter().enumerate() {
        let types = [network.pod.is_some(), network.multus.is_some(), network.resource_claim.is_some()];
        let field = context.path(format_args!("networks[{index}]"));
        match types.into_iter().filter(|set| *set).count() {
            0 => causes.required(field, "should have a network type"),
            1 => {}
            _ => causes.required(field, "should have only one network type"),
        }
    }
}

fn multus_names(context: &Context, causes: &mut Causes) {
    for (index, network) in context.spec.networks.iter().enumerate() {
        let Some(multus) = &network.multus else { continue };
        let field = context.path(format_args!("networks[{index}]"));
        let name = &multus.network_name;
        if name.is_empty() {
            causes.required(field, "CNI delegating plugin must have a networkName");
        } else if let Err(error) = network_name(name, "") {
            causes.invalid(format!("{field}.multus.networkName"), error.to_string());
        }
    }
}

fn no_pod_beside_default(context: &Context, causes: &mut Causes) {
    let networks = &context.spec.networks;
    let defaults = networks.iter().filter(|network| {
        let multus = network.multus.as_ref();
        multus.is_some_and(|multus| multus.default == Some(true))
    });
    let field = context.path("networks");
    let defaults = defaults.count();
    if defaults > 1 {
        causes.invalid(field.clone(), "Multus CNI should only have one default network");
    }
    if defaults > 0 && networks.iter().any(|network| network.pod.is_some()) {
        causes.invalid(field, "Pod network cannot be defined when Multus default network is defined");
    }
}
