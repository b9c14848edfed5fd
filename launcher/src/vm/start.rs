//! From a `Sync` to a running domain; every step finds what an earlier attempt has done.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use holdfast_agent_api::launcher::{FailureClass, Response, Sync};
use holdfast_api::kubevirt::VirtualMachineInstance;
use holdfast_net::model::GuestNic;

use super::{Vm, chain, failed};
use crate::console_log::{self, From};
use crate::domain::{self, Domain, DomainError, Input};
use crate::libvirt::{Hypervisor, LibvirtError, Observed, ShutOff};
use crate::taps::Taps;
use crate::{dhcp, disks};

impl Vm {
    /// Makes the domain what is described; of one that is there only the NICs change.
    pub(super) fn sync(&mut self, sync: &Sync, sockets: Vec<OwnedFd>) -> Response {
        if self.ended.is_some() {
            return Response::Domain(Box::new(self.status.clone()));
        }
        let vmi: VirtualMachineInstance = match serde_json::from_value(sync.vmi.clone()) {
            Ok(vmi) => vmi,
            Err(error) => {
                return failed(FailureClass::Invalid, "InvalidSpec", format!("failed to read the VMI: {error}"));
            }
        };
        let uid = vmi.metadata.uid.as_deref().unwrap_or_default();
        if uid != self.identity.uid {
            let message = format!("this launcher runs the VMI with UID {}, not {uid}", self.identity.uid);
            return failed(FailureClass::Conflict, "WrongVMI", message);
        }
        self.acpi = super::end::has_acpi(&vmi);
        if self.stopping.is_none()
            && let Err(response) = self.take(sync, &vmi, sockets).and_then(|()| self.run_domain(sync, &vmi))
        {
            return response;
        }
        self.refresh();
        // What was made of the description is not needed again.
        crate::allocator::trim();
        Response::Domain(Box::new(self.status.clone()))
    }

    /// Takes the descriptors of this `Sync` instead of those before: answers DHCP on the sockets, and keeps the macvtaps
    /// for the start.
    fn take(&mut self, sync: &Sync, vmi: &VirtualMachineInstance, mut sockets: Vec<OwnedFd>) -> Result<(), Response> {
        let with_lease = sync.nics.iter().filter(|nic| nic.dhcp_v4.is_some()).count();
        let macvtaps: Vec<&GuestNic> = sync.nics.iter().filter(|nic| nic.macvtap).collect();
        if sockets.len() != with_lease && sockets.len() != with_lease + macvtaps.len() {
            let message = format!(
                "{with_lease} NICs have a DHCP lease and {} a macvtap, but {} descriptors came",
                macvtaps.len(),
                sockets.len()
            );
            return Err(failed(FailureClass::Bug, "WrongSockets", message));
        }
        self.macvtaps = macvtaps.iter().map(|nic| nic.tap.to_string()).zip(sockets.drain(with_lease..)).collect();
        let interfaces = &vmi.spec.domain.devices.interfaces;
        let leases = sync.nics.iter().filter_map(|nic| {
            let options = interfaces.iter().find(|interface| interface.name == nic.name);
            dhcp::Lease::of(nic, options.and_then(|interface| interface.dhcp_options.as_ref()))
        });
        self.dhcp = None;
        let served = dhcp::Server::start(leases.zip(sockets).collect());
        let failure = |error| failed(FailureClass::Retry, "DHCPFailed", chain(&error));
        self.dhcp = Some(served.map_err(failure)?);
        Ok(())
    }

    fn run_domain(&mut self, sync: &Sync, vmi: &VirtualMachineInstance) -> Result<(), Response> {
        let not_ready = |message| failed(FailureClass::Retry, "LibvirtNotReady", message);
        self.connect().map_err(not_ready)?;
        let Some(hypervisor) = self.hypervisor.clone() else { return Ok(()) };
        let libvirt = |error: LibvirtError| failed(FailureClass::Retry, "HypervisorFailed", chain(&error));
        if let Some(guest) = hypervisor.guest().map_err(libvirt)? {
            match guest.state().map_err(libvirt)? {
                Observed::ShutOff(ShutOff::NeverRan | ShutOff::NotStarted) => guest.undefine().map_err(libvirt)?,
                Observed::ShutOff(_) => return Ok(()),
                _ => {
                    self.macvtaps.clear();
                    self.follow_console(vmi, From::Now);
                    self.learn_targets(sync, vmi);
                    return self.fit_nics(&guest, sync, vmi);
                }
            }
        }
        if let Err(error) = self.daemon.warm(&sync.capabilities) {
            tracing::warn!(error = chain(&error), "failed to fill libvirt's cache; it asks QEMU itself");
        }
        let domain = self.describe(sync, vmi)?;
        self.status.volume_targets = domain.volume_targets();
        self.offer_macvtaps().map_err(|error| failed(FailureClass::Retry, "FileSystem", chain(&error)))?;
        let started = start(&hypervisor, &domain, vmi);
        // A running domain has its macvtaps, and a start that failed is given new ones.
        self.taps.iter().for_each(|taps| taps.put(BTreeMap::new()));
        started?;
        self.follow_console(vmi, From::Start);
        Ok(())
    }

    /// Lets libvirt have the macvtaps that came for the start.
    fn offer_macvtaps(&mut self) -> std::io::Result<()> {
        if self.macvtaps.is_empty() {
            return Ok(());
        }
        let taps = match self.taps.take() {
            Some(taps) => taps,
            None => Taps::serve(&self.paths.libvirt)?,
        };
        taps.put(std::mem::take(&mut self.macvtaps));
        self.taps = Some(taps);
        Ok(())
    }

    /// Copies what the guest prints to our own standard output, unless the spec does not want it kept.
    fn follow_console(&mut self, vmi: &VirtualMachineInstance, from: From) {
        let devices = &vmi.spec.domain.devices;
        let kept = devices.autoattach_serial_console != Some(false) && devices.log_serial_console != Some(false);
        if !kept || self.console_followed {
            return;
        }
        self.console_followed = true;
        let log = self.paths.sockets(&self.identity.uid).join("virt-serial0-log");
        if let Err(error) = console_log::follow(log, from) {
            tracing::warn!(error = chain(&error), "failed to follow the guest's console");
        }
    }

    /// Names the targets of a domain that a launcher before us started.
    fn learn_targets(&mut self, sync: &Sync, vmi: &VirtualMachineInstance) {
        if self.status.volume_targets.is_empty()
            && let Ok(domain) = self.describe(sync, vmi)
        {
            self.status.volume_targets = domain.volume_targets();
        }
    }

    fn describe(&self, sync: &Sync, vmi: &VirtualMachineInstance) -> Result<Domain, Response> {
        let images = disks::prepare(vmi, &self.paths).map_err(|error| {
            let class = if error.is_invalid() { FailureClass::Invalid } else { FailureClass::Retry };
            failed(class, error.reason(), chain(&error))
        })?;
        let sockets = self.paths.sockets(&self.identity.uid);
        std::fs::create_dir_all(&sockets).map_err(|error| {
            let message = format!("failed to make `{}`: {error}", sockets.display());
            failed(FailureClass::Retry, "FileSystem", message)
        })?;
        let input = Input { vmi, nics: &sync.nics, images: &images, emulation: sync.emulation, sockets: &sockets };
        domain::build(&input).map_err(|error| {
            let (class, reason) = match &error {
                DomainError::NotWired(_) => (FailureClass::Bug, "NotWired"),
                DomainError::Xml(_) => (FailureClass::Bug, "DomainXML"),
                DomainError::Refused(_) => (FailureClass::Invalid, "NotSupported"),
                DomainError::NoImage(_) | DomainError::Quantity { .. } => (FailureClass::Invalid, "InvalidSpec"),
            };
            failed(class, reason, chain(&error))
        })
    }
}

fn start(hypervisor: &Hypervisor, domain: &Domain, vmi: &VirtualMachineInstance) -> Result<(), Response> {
    let xml = domain.to_xml().map_err(|error| failed(FailureClass::Bug, "DomainXML", chain(&error)))?;
    let refused = |error: LibvirtError| failed(FailureClass::Invalid, "DomainRefused", chain(&error));
    let guest = hypervisor.define(&xml).map_err(refused)?;
    let paused = vmi.spec.start_strategy.as_deref() == Some("Paused");
    guest.start(paused).map_err(|error| failed(FailureClass::Retry, "StartFailed", chain(&error)))
}
