//! A sandbox's networks: its namespace, and each network joined by CNI.

use std::path::Path;

use super::SetupError;
use super::nics::Planned;
use crate::cni::CniError;
use crate::host::Host;
use crate::sandbox::{Attached, Record, make_netns};

/// Makes the namespace and joins every network, the pod's own first, as a pod's are. Each is recorded before it is
/// begun.
pub async fn join(
    host: &Host,
    record: &mut Record,
    folder: &Path,
    netns: &Path,
    planned: &[Planned],
) -> Result<(), SetupError> {
    make_netns(netns).map_err(|error| SetupError::of("FailedCreatePodSandBox", &error))?;
    let mut ordered: Vec<&Planned> = planned.iter().collect();
    ordered.sort_by_key(|planned| planned.nic.ifname.as_str() != "eth0");
    for planned in ordered {
        join_one(host, record, folder, netns, planned).await?;
    }
    Ok(())
}

/// Joins one network. It is recorded before it is begun.
pub async fn join_one(
    host: &Host,
    record: &mut Record,
    folder: &Path,
    netns: &Path,
    planned: &Planned,
) -> Result<(), SetupError> {
    let attached = Attached {
        network: planned.nic.network.clone(),
        ifname: planned.nic.ifname.to_string(),
        config: planned.list.to_value(),
        capabilities: planned.capabilities.clone(),
        begun: 0,
        result: None,
    };
    host.cni.add(record, attached, folder, netns).await.map_err(|error| failed(planned, &error))
}

/// Writes a record.
pub fn write(record: &Record, folder: &Path) -> Result<(), SetupError> {
    record.write(folder).map_err(|error| SetupError::of("FailedCreatePodSandBox", &error))
}

fn failed(planned: &Planned, error: &CniError) -> SetupError {
    let message = format!(
        "failed to join network `{}` ({}): {}",
        planned.nic.network,
        planned.list.name,
        crate::host::chain(error)
    );
    SetupError::new("FailedAttachNetwork", message)
}
