//! The networks of a sandbox whose VM runs, joined and left as NICs of its VMI come and go.
//!
//! Level-triggered, by the VMI's spec, the sandbox's record and the task's report, each of which a crash leaves as it is.
//! Invariants: a network is joined before its NIC is plugged, and left after the guest has let the NIC go; the NIC leaves
//! the VMI's spec last, so that whoever finds it there knows that something may be left of it.

use std::path::Path;

use holdfast_agent::vmi::{NicInput, VmiReport};
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_api::run_strategy::{Nics, is_absent};
use holdfast_ipam::nic::{Wanted, wanted};

use super::setup::announce;
use super::status::Teller;
use super::{SetupError, network, nics};
use crate::host::{Host, chain};
use crate::sandbox::Record;

/// The NICs whose networks the sandbox has joined.
pub fn joined(record: &Record) -> Vec<NicInput> {
    let joined = |ifname: &str| record.attached.iter().any(|a| a.ifname == ifname && a.result.is_some());
    record.nics.iter().filter(|nic| joined(nic.ifname.as_str())).map(NicInput::from).collect()
}

/// Joins and leaves what is due. Of several NICs, one that fails keeps none of those before it.
pub async fn fit(
    host: &Host,
    vmi: &VirtualMachineInstance,
    report: &VmiReport,
    record: &mut Record,
    folder: &Path,
    teller: &Teller<'_>,
) -> Result<(), SetupError> {
    let netns = host.netns.join(&record.id);
    let leaving = |name: &str| vmi.spec.domain.devices.interfaces.iter().any(|nic| nic.name == name && is_absent(nic));
    let gone: Vec<_> = record.nics.iter().filter(|nic| leaving(&nic.interface)).cloned().collect();
    for nic in &gone {
        let was_joined = joined(record).iter().any(|joined| joined.interface == nic.interface);
        if was_joined && !report.unplugged.contains(&nic.interface) {
            continue;
        }
        leave(host, record, folder, &netns, nic.ifname.as_str()).await?;
        record.nics.retain(|other| other.interface != nic.interface);
        network::write(record, folder)?;
        announce(host, record);
        tracing::info!(interface = nic.interface, "unplugged");
    }
    let left = |record: &Record, name: &str| record.nics.iter().all(|nic| nic.interface != name);
    if vmi.spec.domain.devices.interfaces.iter().any(|nic| is_absent(nic) && left(record, &nic.name)) {
        teller.modify(|vmi| {
            Nics::of(&vmi.spec).without(|nic| is_absent(nic) && left(record, &nic.name)).put(&mut vmi.spec);
        });
    }
    for nic in wanted(vmi)? {
        let is_joined = joined(record).iter().any(|joined| joined.interface == nic.interface);
        // The report is of the NIC before this one until the task has heard that it is gone.
        if !is_joined && !report.unplugged.contains(&nic.interface) {
            plug(host, vmi, record, folder, &netns, &nic).await?;
        }
    }
    Ok(())
}

/// Joins the network of a NIC, from the start where an earlier attempt ended half way.
async fn plug(
    host: &Host,
    vmi: &VirtualMachineInstance,
    record: &mut Record,
    folder: &Path,
    netns: &Path,
    nic: &Wanted,
) -> Result<(), SetupError> {
    leave(host, record, folder, netns, nic.ifname.as_str()).await?;
    let planned = nics::one(host, vmi, nic).await?;
    record.nics.retain(|other| other.interface != nic.interface);
    record.nics.push(planned.nic.clone());
    network::write(record, folder)?;
    announce(host, record);
    network::join_one(host, record, folder, netns, &planned).await?;
    tracing::info!(interface = nic.interface, "joined the network of a NIC to plug");
    Ok(())
}

/// Leaves the network behind an interface of the sandbox; one that was never joined is left already.
async fn leave(host: &Host, record: &mut Record, folder: &Path, netns: &Path, ifname: &str) -> Result<(), SetupError> {
    let found: Vec<_> = record.attached.iter().filter(|attached| attached.ifname == ifname).cloned().collect();
    for attached in found {
        host.cni.del(record, &attached, netns).await.map_err(|error| {
            let message = format!("failed to leave network `{}`: {}", attached.network, chain(&error));
            SetupError::new("FailedDetachNetwork", message)
        })?;
        record.attached.retain(|other| other.ifname != ifname);
        network::write(record, folder)?;
    }
    Ok(())
}
