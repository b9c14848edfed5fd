//! What a number of CPUs is to a guest: sockets, cores and threads.

use thiserror::Error;

use crate::kubevirt::VirtualMachinePreferenceSpec;

/// CPUs of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Sockets.
    pub sockets: i64,
    /// Cores of each socket.
    pub cores: i64,
    /// Threads of each core.
    pub threads: i64,
}

/// Why CPUs cannot be spread.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{guest} vCPUs provided by the instance type are not divisible by {by}, over which the preference spreads them"
)]
pub struct TopologyError {
    guest: i64,
    by: i64,
}

/// How many cores a socket, and how many threads a core has, where CPUs are spread.
const RATIO: i64 = 2;

impl Topology {
    /// The topology that a preference gives `guest` CPUs. Each is a socket where it says nothing.
    pub fn of(guest: i64, preference: Option<&VirtualMachinePreferenceSpec>) -> Result<Self, TopologyError> {
        let cpu = preference.and_then(|preference| preference.cpu.as_ref());
        let one = Self { sockets: 1, cores: 1, threads: 1 };
        match cpu.and_then(|cpu| cpu.preferred_cpu_topology.as_deref()) {
            Some("cores" | "preferCores") => Ok(Self { cores: guest, ..one }),
            Some("threads" | "preferThreads") => Ok(Self { threads: guest, ..one }),
            Some("spread" | "preferSpread") => {
                let options = cpu.and_then(|cpu| cpu.spread_options.as_ref());
                let older = preference.and_then(|preference| preference.prefer_spread_socket_to_core_ratio);
                let ratio = options.and_then(|options| options.ratio).or(older).filter(|ratio| *ratio > 0);
                spread(guest, options.and_then(|options| options.across.as_deref()), ratio.unwrap_or(RATIO))
            }
            _ => Ok(Self { sockets: guest, ..one }),
        }
    }
}

fn spread(guest: i64, across: Option<&str>, ratio: i64) -> Result<Topology, TopologyError> {
    let divided = |by: i64| if guest % by == 0 { Ok(guest / by) } else { Err(TopologyError { guest, by }) };
    match across {
        Some("SocketsCoresThreads") => {
            Ok(Topology { sockets: divided(ratio.saturating_mul(RATIO))?, cores: ratio, threads: RATIO })
        }
        Some("CoresThreads") => Ok(Topology { sockets: 1, cores: divided(ratio)?, threads: ratio }),
        _ => Ok(Topology { sockets: divided(ratio)?, cores: ratio, threads: 1 }),
    }
}
