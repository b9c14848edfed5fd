//! Instance types and preferences: what does not go together.

use super::read::typed;
use super::{Allowed, Review};
use crate::error_status::ErrorStatus;
use crate::kubevirt::{VirtualMachineInstancetypeSpec, VirtualMachinePreferenceSpec};
use crate::validate::Causes;

/// What CPUs may be to a guest, and the older name of each.
const TOPOLOGIES: [(&str, &str); 5] = [
    ("sockets", "preferSockets"),
    ("cores", "preferCores"),
    ("threads", "preferThreads"),
    ("spread", "preferSpread"),
    ("any", "preferAny"),
];
const ACROSS: [&str; 3] = ["SocketsCoresThreads", "SocketsCores", "CoresThreads"];

/// The rules for an instance type.
pub(super) fn validate_instancetype(review: &Review) -> Result<Allowed, ErrorStatus> {
    let spec: VirtualMachineInstancetypeSpec = typed(&review.object["spec"])?;
    let mut causes = Causes::default();
    if spec.memory.overcommit_percent.is_some_and(|percent| percent != 0) && spec.memory.hugepages.is_some() {
        let at = "spec.memory.overcommitPercent";
        causes.invalid(at, format!("{at} and spec.memory.hugepages should not be requested together."));
    }
    causes.into_result()?;
    Ok(Allowed::default())
}

/// The rules for a preference, and what is said of older names in it.
pub(super) fn validate_preference(review: &Review) -> Result<Allowed, ErrorStatus> {
    let spec: VirtualMachinePreferenceSpec = typed(&review.object["spec"])?;
    let mut causes = Causes::default();
    let mut warnings = Vec::new();
    let cpu = spec.cpu.as_ref();
    let topology = cpu.and_then(|cpu| cpu.preferred_cpu_topology.as_deref()).unwrap_or("sockets");
    let field = "spec.cpu.preferredCPUTopology";
    match TOPOLOGIES.iter().find(|(name, older)| *name == topology || *older == topology) {
        None => causes.invalid(field, format!("unknown preferredCPUTopology {topology}")),
        Some((name, older)) if *older == topology => {
            warnings.push(format!("{field}: {older} is an older name of {name}"));
        }
        Some(_) => {}
    }
    let options = cpu.and_then(|cpu| cpu.spread_options.as_ref());
    if matches!(topology, "spread" | "preferSpread")
        && let Some(options) = options
    {
        let at = "spec.cpu.spreadOptions";
        match options.across.as_deref() {
            Some(across) if !ACROSS.contains(&across) => {
                causes.invalid(format!("{at}.across"), format!("across {across} is not supported"));
            }
            Some("CoresThreads") if options.ratio.is_some_and(|ratio| ratio != 0 && ratio != 2) => {
                let message = "only a ratio of 2 (1 core 2 threads) is allowed when spreading vCPUs over cores and \
                               threads";
                causes.invalid(format!("{at}.ratio"), message);
            }
            _ => {}
        }
    }
    causes.into_result()?;
    Ok(Allowed { object: None, warnings })
}
