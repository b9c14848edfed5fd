//! Rules on CPUs, memory, machine and architecture.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{Causes, Context, Rule};
use crate::kubevirt::{CPU, ResourceRequirements};
use crate::quantity::{Parsed, parse, parse_text};

pub(super) const RULES: &[Rule] = &[
    resources_not_negative,
    requests_within_limits,
    huge_pages,
    machine,
    whole_dedicated_cpus,
    numa,
    isolated_emulator,
    cpu_features,
    sockets,
    realtime,
    architecture,
    io_threads,
];

const POLICIES: [&str; 5] = ["force", "require", "optional", "disable", "forbid"];

fn cpu<'a>(context: &'a Context) -> Option<&'a CPU> {
    context.spec.domain.cpu.as_ref()
}

/// A resource by its section and name, with what was written. What cannot be read is refused
/// before any rule runs.
fn resource<'a>(context: &'a Context, section: &str, name: &str) -> Option<(Parsed, &'a Quantity)> {
    let resources: &ResourceRequirements = context.spec.domain.resources.as_ref()?;
    let map = if section == "limits" { &resources.limits } else { &resources.requests };
    let quantity = map.get(name)?;
    Some((parse(quantity).ok()?, quantity))
}

fn resources_not_negative(context: &Context, causes: &mut Causes) {
    for name in ["memory", "cpu"] {
        for section in ["requests", "limits"] {
            if let Some((value, Quantity(text))) = resource(context, section, name)
                && value.is_negative()
            {
                let field = context.path(format_args!("domain.resources.{section}.{name}"));
                let message = format!("{field} '{text}': must be greater than or equal to 0.");
                causes.invalid(field, message);
            }
        }
    }
}

fn requests_within_limits(context: &Context, causes: &mut Causes) {
    for name in ["memory", "cpu"] {
        let (Some((request, Quantity(asked))), Some((limit, Quantity(most)))) =
            (resource(context, "requests", name), resource(context, "limits", name))
        else {
            continue;
        };
        if !limit.is_zero() && request > limit {
            let at = context.path("domain.resources");
            let message = format!("{at}.requests.{name} '{asked}' is greater than {at}.limits.{name} '{most}'");
            causes.invalid(format!("{at}.requests.{name}"), message);
        }
    }
}

fn huge_pages(context: &Context, causes: &mut Causes) {
    let pages = context.spec.domain.memory.as_ref().and_then(|memory| memory.hugepages.as_ref());
    let Some(size) = pages.and_then(|pages| pages.page_size.as_deref()) else { return };
    if let Err(error) = parse_text(size) {
        let field = context.path("domain.memory.hugepages.pageSize");
        let message = format!("{field} '{size}': {error}");
        causes.invalid(field, message);
    }
}

fn machine(context: &Context, causes: &mut Causes) {
    let Some(machine) = context.spec.domain.machine.as_ref().and_then(|machine| machine.r#type.as_deref()) else {
        return;
    };
    let architecture = context.spec.architecture.as_deref().unwrap_or_default();
    let allowed = &context.config.machines(architecture).allowed;
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => machine.starts_with(prefix),
        None => machine == *pattern,
    };
    if !allowed.iter().any(matches) {
        let field = context.path("domain.machine.type");
        let message = format!("{field} is not supported: {machine} (allowed values: [{}])", allowed.join(" "));
        causes.invalid(field, message);
    }
}

fn whole_dedicated_cpus(context: &Context, causes: &mut Causes) {
    if cpu(context).and_then(|cpu| cpu.dedicated_cpu_placement) != Some(true) {
        return;
    }
    for section in ["limits", "requests"] {
        if let Some((value, _)) = resource(context, section, "cpu")
            && value.milli() % 1000 != 0
        {
            let field = context.path(format_args!("domain.resources.{section}.cpu"));
            causes.invalid(field, format!("provided resources CPU {section} must be an interger"));
        }
    }
}

fn numa(context: &Context, causes: &mut Causes) {
    let Some(cpu) = cpu(context) else { return };
    if cpu.numa.as_ref().and_then(|numa| numa.guest_mapping_passthrough.as_ref()).is_none() {
        return;
    }
    let field = context.path("domain.cpu.numa.guestMappingPassthrough");
    if cpu.dedicated_cpu_placement != Some(true) {
        let placement = context.path("domain.cpu.dedicatedCpuPlacement");
        let message = format!("{placement} must be set to true when NUMA topology strategy is set in {field}");
        causes.invalid(field.clone(), message);
    }
    if context.spec.domain.memory.as_ref().and_then(|memory| memory.hugepages.as_ref()).is_none() {
        let pages = context.path("domain.memory.hugepages");
        let message = format!("{pages} must be requested when NUMA topology strategy is set in {field}");
        causes.invalid(field, message);
    }
}

fn isolated_emulator(context: &Context, causes: &mut Causes) {
    let Some(cpu) = cpu(context) else { return };
    if cpu.isolate_emulator_thread == Some(true) && cpu.dedicated_cpu_placement != Some(true) {
        let message = "IsolateEmulatorThread should be only set in combination with DedicatedCPUPlacement";
        causes.invalid(context.path("domain.cpu.isolateEmulatorThread"), message);
    }
}

fn cpu_features(context: &Context, causes: &mut Causes) {
    let features = cpu(context).map(|cpu| cpu.features.as_slice()).unwrap_or_default();
    for (index, feature) in features.iter().enumerate() {
        let policy = feature.policy.as_deref().filter(|policy| !policy.is_empty());
        if let Some(policy) = policy.filter(|policy| !POLICIES.contains(policy)) {
            let field = context.path(format_args!("domain.cpu.features[{index}].policy"));
            let name = &feature.name;
            causes.not_supported(field, format!("CPU feature {name} uses policy {policy} that is not supported."));
        }
    }
}

fn sockets(context: &Context, causes: &mut Causes) {
    let Some(cpu) = cpu(context) else { return };
    let (Some(sockets), Some(most)) = (cpu.sockets, cpu.max_sockets) else { return };
    if sockets > most {
        let message = "Number of sockets in CPU topology is greater than the maximum sockets allowed";
        causes.invalid(context.path("domain.cpu.sockets"), message);
    }
}

fn realtime(context: &Context, causes: &mut Causes) {
    let Some(cpu) = cpu(context) else { return };
    if cpu.realtime.is_none() {
        return;
    }
    let at = context.path("domain.cpu");
    if cpu.dedicated_cpu_placement != Some(true) {
        let field = format!("{at}.dedicatedCpuPlacement");
        let message = format!("{field} must be set to true when {at}.realtime is used");
        causes.required(field, message);
    }
    if cpu.numa.as_ref().and_then(|numa| numa.guest_mapping_passthrough.as_ref()).is_none() {
        let field = format!("{at}.numa.guestMappingPassthrough");
        let message = format!("{field} must be defined when {at}.realtime is used");
        causes.required(field, message);
    }
}

fn architecture(context: &Context, causes: &mut Causes) {
    let architecture = context.spec.architecture.as_deref().unwrap_or_default();
    if !["amd64", "arm64", "s390x"].contains(&architecture) {
        let message = format!("unsupported architecture: {architecture}");
        causes.invalid(context.path("architecture"), message);
    }
}

fn io_threads(context: &Context, causes: &mut Causes) {
    let policy = context.spec.domain.io_threads_policy.as_deref();
    if let Some(policy) = policy.filter(|policy| !["shared", "auto", "supplementalPool"].contains(policy)) {
        let message = format!("Invalid IOThreadsPolicy ({policy})");
        causes.invalid(context.path("domain.ioThreadsPolicy"), message);
    }
}
