//! Rules on where a VM runs, how it is named there, and how it comes and goes.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::names::{label_errors, subdomain_errors};
use super::{Causes, Context, Rule};

pub(super) const RULES: &[Rule] =
    &[hostname, subdomain, start_strategy, eviction_strategy, node_affinity, topology_spread];

fn hostname(context: &Context, causes: &mut Causes) {
    let Some(hostname) = context.spec.hostname.as_deref().filter(|text| !text.is_empty()) else { return };
    let errors = label_errors(hostname);
    if !errors.is_empty() {
        let field = context.path("hostname");
        let message = format!("{field} does not conform to the kubernetes DNS_LABEL rules : {}", errors.join(", "));
        causes.invalid(field, message);
    }
}

fn subdomain(context: &Context, causes: &mut Causes) {
    let Some(subdomain) = context.spec.subdomain.as_deref().filter(|text| !text.is_empty()) else { return };
    let errors = subdomain_errors(subdomain);
    if !errors.is_empty() {
        let field = context.path("subdomain");
        let message = format!("{field} does not conform to the kubernetes DNS_SUBDOMAIN rules : {}", errors.join(", "));
        causes.invalid(field, message);
    }
}

fn start_strategy(context: &Context, causes: &mut Causes) {
    let Some(strategy) = context.spec.start_strategy.as_deref() else { return };
    let field = context.path("startStrategy");
    if strategy != "Paused" {
        let message = format!("{field} is set with an unrecognized option: {strategy}");
        causes.invalid(field, message);
    } else if context.spec.liveness_probe.is_some() {
        let message =
            "either livenessProbe or startStrategy should be provided.Pausing VMI with LivenessProbe is not supported";
        causes.invalid(field, message);
    }
}

fn eviction_strategy(context: &Context, causes: &mut Causes) {
    let known = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];
    let strategy = context.spec.eviction_strategy.as_deref();
    if let Some(strategy) = strategy.filter(|strategy| !known.contains(strategy)) {
        let field = context.path("evictionStrategy");
        let message = format!("{field} is set with an unrecognized option: {strategy}");
        causes.invalid(field, message);
    }
}

/// The path of affinity lacks the word itself, but is known so.
fn node_affinity(context: &Context, causes: &mut Causes) {
    let Some(affinity) = context.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) else { return };
    let at = context.path("nodeAffinity");
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            let at = format!("{at}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]");
            check_term(&at, term, causes);
        }
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_deref();
    for (index, preferred) in preferred.unwrap_or_default().iter().enumerate() {
        let at = format!("{at}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference");
        check_term(&at, &preferred.preference, causes);
    }
}

fn check_term(at: &str, term: &NodeSelectorTerm, causes: &mut Causes) {
    for (index, requirement) in term.match_expressions.as_deref().unwrap_or_default().iter().enumerate() {
        if let Some((field, wrong)) = wrong_requirement(requirement) {
            let field = format!("{at}.matchExpressions[{index}].{field}");
            let message = format!("{field}: {wrong}");
            causes.invalid(field, message);
        }
    }
}

fn wrong_requirement(requirement: &NodeSelectorRequirement) -> Option<(&'static str, String)> {
    let values = requirement.values.as_deref().unwrap_or_default().len();
    let wrong = match (requirement.operator.as_str(), values) {
        ("In" | "NotIn", 0) => "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ("Exists" | "DoesNotExist", 1..) => {
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        }
        ("Gt" | "Lt", 0 | 2..) => "Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => return None,
        (other, _) => {
            return Some(("operator", format!("Invalid value: \"{other}\": not a valid selector operator")));
        }
    };
    Some(("values", wrong.to_owned()))
}

fn topology_spread(context: &Context, causes: &mut Causes) {
    for (index, constraint) in context.spec.topology_spread_constraints.iter().enumerate() {
        let at = context.path(format_args!("topologySpreadConstraints[{index}]"));
        let mut add = |field: &str, wrong: String| {
            let field = format!("{at}.{field}");
            let message = format!("{field}: {wrong}");
            causes.invalid(field, message);
        };
        if constraint.max_skew < 1 {
            add("maxSkew", format!("Invalid value: {}: must be greater than zero", constraint.max_skew));
        }
        if constraint.topology_key.is_empty() {
            add("topologyKey", "Required value: can not be empty".to_owned());
        }
        let action = constraint.when_unsatisfiable.as_str();
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action) {
            let message =
                format!("Unsupported value: \"{action}\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"");
            add("whenUnsatisfiable", message);
        }
    }
}
