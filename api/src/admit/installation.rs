//! KubeVirt objects: there is one, it can be carried out, and it does not go while it is in use.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;

use super::read::typed;
use super::{Allowed, Others, Review};
use crate::error_status::ErrorStatus;
use crate::kubevirt::{CustomizeComponents, KubeVirtConfiguration, KubeVirtSpec};
use crate::validate::Causes;

const EVICTION_STRATEGIES: [&str; 4] = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];
/// An unknown one must not pass for the first: it may be meant to keep an installation.
const UNINSTALL_STRATEGIES: [&str; 3] = ["", "RemoveWorkloads", "BlockUninstallIfWorkloadsExist"];
const PULL_POLICIES: [&str; 4] = ["", "Always", "IfNotPresent", "Never"];
const PATCH_TYPES: [&str; 3] = ["strategic", "merge", "json"];

/// A cluster has one installation.
pub(super) fn validate_create(review: &Review, others: &dyn Others) -> Result<Allowed, ErrorStatus> {
    if !others.kubevirts().is_empty() {
        return Err(ErrorStatus::unreadable("Kubevirt is already created"));
    }
    check(review)
}

/// A change must be one that can be carried out.
pub(super) fn validate_update(review: &Review) -> Result<Allowed, ErrorStatus> {
    if review.keeps("spec") {
        return Ok(Allowed::default());
    }
    check(review)
}

/// An installation that is to outlast its machines is not deleted before them.
pub(super) fn validate_delete(review: &Review, others: &dyn Others) -> Result<Allowed, ErrorStatus> {
    let blocks = review.old["spec"]["uninstallStrategy"] == "BlockUninstallIfWorkloadsExist";
    match others.workloads().filter(|_| blocks) {
        None => Ok(Allowed::default()),
        Some(kind) => Err(ErrorStatus::unreadable(format!(
            "Rejecting the uninstall request, since there are still {kind} present. Either delete all KubeVirt related \
             workloads or change the uninstall strategy before uninstalling KubeVirt."
        ))),
    }
}

fn check(review: &Review) -> Result<Allowed, ErrorStatus> {
    let spec: KubeVirtSpec = typed(&review.object["spec"])?;
    let mut causes = check_spec(&spec);
    if let Some(customize) = &spec.customize_components {
        check_patches(customize, &mut causes);
    }
    causes.into_result()?;
    Ok(Allowed::default())
}

/// What is wrong with the spec of a KubeVirt object, but for its patches.
pub fn installation_problems(spec: &KubeVirtSpec) -> Vec<StatusCause> {
    check_spec(spec).into()
}

fn check_spec(spec: &KubeVirtSpec) -> Causes {
    let mut causes = Causes::default();
    if let Some(configuration) = &spec.configuration {
        check_configuration(configuration, &mut causes);
    }
    for (at, component) in [("infra", &spec.infra), ("workloads", &spec.workloads)] {
        if let Some(replicas) = component.as_ref().and_then(|component| component.replicas)
            && !(0..=255).contains(&replicas)
        {
            causes.invalid(format!("spec.{at}.replicas"), format!("{replicas} is not from 0 to 255"));
        }
    }
    let configured = spec.configuration.as_ref().and_then(|given| given.image_pull_policy.as_deref());
    for (at, policy) in [("spec", spec.image_pull_policy.as_deref()), ("spec.configuration", configured)] {
        if let Some(policy) = policy.filter(|name| !PULL_POLICIES.contains(name)) {
            let known = PULL_POLICIES[1..].join(", ");
            causes.invalid(
                format!("{at}.imagePullPolicy"),
                format!("unknown imagePullPolicy {policy}: there are {known}"),
            );
        }
    }
    if let Some(strategy) = spec.uninstall_strategy.as_deref().filter(|name| !UNINSTALL_STRATEGIES.contains(name)) {
        let known = UNINSTALL_STRATEGIES[1..].join(" or ");
        causes.invalid("spec.uninstallStrategy", format!("unknown uninstallStrategy {strategy}: it must be {known}"));
    }
    causes
}

fn check_configuration(given: &KubeVirtConfiguration, causes: &mut Causes) {
    let at = "spec.configuration";
    if let Some(developer) = &given.developer_configuration {
        let disabled = &developer.disabled_feature_gates;
        for gate in developer.feature_gates.iter().filter(|gate| disabled.contains(gate)) {
            let field = format!("{at}.developerConfiguration.featureGates");
            causes.invalid(field, format!("feature gate {gate} is both enabled and disabled"));
        }
    }
    if let Some(strategy) = given.eviction_strategy.as_deref().filter(|name| !EVICTION_STRATEGIES.contains(name)) {
        causes.invalid(format!("{at}.evictionStrategy"), format!("unknown evictionStrategy {strategy}"));
    }
    if let Some(ratio) = given.additional_guest_memory_overhead_ratio.as_deref().filter(|ratio| !ratio.is_empty())
        && !ratio.parse::<f64>().is_ok_and(|ratio| ratio.is_finite() && ratio >= 0.0)
    {
        let field = format!("{at}.additionalGuestMemoryOverheadRatio");
        causes.invalid(field, format!("{ratio} is not a number that memory can be multiplied by"));
    }
    if let Some(tls) = &given.tls_configuration
        && tls.min_tls_version.as_deref() == Some("VersionTLS13")
        && !tls.ciphers.is_empty()
    {
        let message = "You cannot specify ciphers when spec.configuration.tlsConfiguration.minTLSVersion is empty or \
                       VersionTLS13";
        causes.invalid(format!("{at}.tlsConfiguration.ciphers"), message);
    }
}

fn check_patches(customize: &CustomizeComponents, causes: &mut Causes) {
    for (index, patch) in customize.patches.iter().enumerate() {
        let at = format!("spec.customizeComponents.patches[{index}]");
        if !PATCH_TYPES.contains(&patch.r#type.as_str()) {
            causes.invalid(format!("{at}.type"), format!("unknown patch type {}", patch.r#type));
        }
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&patch.patch) {
            causes.invalid(format!("{at}.patch"), format!("patch is not JSON: {error}"));
        }
    }
}
