//! Which addresses a claim gets: those it asks for, those it has, or the first free ones of the pools.
//!
//! Invariants: a claim that asks again gets what it has; what one call has created is gone again when the call
//! fails; an address that was asked for is never replaced by another; what any UnderlayNetwork of the segment keeps back is
//! not given out. Quarantine keeps an address from strangers: a
//! VM that was deleted and made again under its name gets what it asks for at once.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use holdfast_api::lease::{
    Claim, IPLease, IPLeaseSpec, LeaseNameError, MACLease, MACLeaseSpec, lease_name, mac_lease_name,
};
use holdfast_api::pool::{Pool, mac_candidates};
use holdfast_api::underlay::Subnet;
use holdfast_net::model::MacAddr;
use ipnetwork::IpNetwork;

use super::quarantine::{is_quarantined, quarantined, released_at, restored};
use super::refusal::{AllocateError, Holder};
use super::status::write_status;
use super::{Lease, LeaseError, LeaseKind, LeaseStore};
use crate::network::{Addressing, pool};

/// What a claim asks for.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// On which network.
    pub network: &'a Addressing,
    /// For whom.
    pub claim: &'a Claim,
    /// This Ethernet address, or any.
    pub mac: Option<MacAddr>,
    /// These addresses; of a family that none is asked of, any.
    pub ips: &'a [IpAddr],
    /// Labels for new leases (`holdfast.io/node` on those of a plain pod).
    pub labels: &'a [(&'a str, &'a str)],
}

/// The addresses that a claim holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Its addresses with the prefix of their subnet: at most one per family, or those it asked for.
    pub addresses: Vec<IpNetwork>,
}

/// How often an allocation whose leases change under it begins anew.
const ATTEMPTS: usize = 5;

/// Gives `request.claim` its addresses and returns them once the leases outlive a power cut.
///
/// # Errors
/// [`AllocateError`]; nothing that this call has created is left then, unless it cannot be kept: that stays the claim's.
pub async fn allocate(store: &dyn LeaseStore, request: &Request<'_>) -> Result<Allocation, AllocateError> {
    let allocation = reserve(store, request).await?;
    keep(store, &request.network.segment, request.claim).await?;
    Ok(allocation)
}

/// Returns when all that a claim holds on a segment outlives a power cut.
///
/// # Errors
/// [`LeaseError::Store`].
async fn keep(store: &dyn LeaseStore, segment: &str, claim: &Claim) -> Result<(), LeaseError> {
    let mut held = store.held(LeaseKind::Ip, segment, claim).await?;
    held.extend(store.held(LeaseKind::Mac, segment, claim).await?);
    store.keep(held).await
}

/// Gives `request.claim` its addresses, which nobody else gets from then on. A power cut may undo it: it is for claims that
/// a power cut ends, those of plain pods.
///
/// # Errors
/// [`AllocateError`]; nothing that this call has created is left then.
pub async fn reserve(store: &dyn LeaseStore, request: &Request<'_>) -> Result<Allocation, AllocateError> {
    for _ in 1..ATTEMPTS {
        match once(store, request).await {
            // A lease of this claim's own whose quarantine ended just now: the next look finds it gone.
            Err(AllocateError::Store(LeaseError::Changed { .. })) => {}
            result => return result,
        }
    }
    once(store, request).await
}

async fn once(store: &dyn LeaseStore, request: &Request<'_>) -> Result<Allocation, AllocateError> {
    if request.network.deleting && !holds(store, request).await? {
        let Addressing { underlay, name, .. } = request.network;
        return Err(AllocateError::Deleting { network: underlay.as_ref().unwrap_or(name).clone() });
    }
    let call = Call { store, request, created: Mutex::default() };
    // Both to their end, whatever becomes of the other: each waits for the disk, and what is created must be known.
    let (addresses, mac) = futures::join!(call.addresses(), call.mac());
    let result = addresses.and_then(|addresses| Ok(Allocation { mac: mac?, addresses }));
    if let Ok(allocation) = &result {
        give_up_others(store, request, allocation).await?;
    } else {
        for lease in call.created.into_inner().unwrap_or_else(PoisonError::into_inner) {
            // Nobody has used it: no quarantine. One that cannot be deleted stays the claim's own.
            let name = lease.name().to_owned();
            if let Err(error) = store.delete(lease).await {
                tracing::warn!(lease = name, %error, "an unused lease stays behind");
            }
        }
    }
    result
}

/// Whether the claim has anything on the segment that it has not given up.
async fn holds(store: &dyn LeaseStore, request: &Request<'_>) -> Result<bool, LeaseError> {
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        let held = store.held(kind, &request.network.segment, request.claim).await?;
        if held.iter().any(|lease| !is_quarantined(lease)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives up what the claim held and does not ask for any more, unless it is in use somewhere: then the next
/// call does.
async fn give_up_others(
    store: &dyn LeaseStore,
    request: &Request<'_>,
    allocation: &Allocation,
) -> Result<(), LeaseError> {
    for kind in [LeaseKind::Ip, LeaseKind::Mac] {
        for lease in store.held(kind, &request.network.segment, request.claim).await? {
            let wanted = match &lease {
                Lease::Ip(lease) => allocation.addresses.iter().any(|address| address.ip() == lease.spec.address),
                Lease::Mac(lease) => lease.spec.address == allocation.mac.to_string(),
            };
            let in_use = lease.status().is_some_and(|status| status.container_id.is_some());
            if !wanted && !in_use {
                write_status(store, lease, quarantined).await?;
            }
        }
    }
    Ok(())
}

struct Call<'a> {
    store: &'a dyn LeaseStore,
    request: &'a Request<'a>,
    created: Mutex<Vec<Lease>>,
}

impl Call<'_> {
    async fn addresses(&self) -> Result<Vec<IpNetwork>, AllocateError> {
        let Request { network, ips, .. } = *self.request;
        let mut addresses = Vec::new();
        for ip in ips {
            let subnet = network.subnet_of(*ip).ok_or_else(|| AllocateError::Outside {
                address: *ip,
                network: network.name.clone(),
                subnets: network.subnets.iter().map(|subnet| subnet.cidr).collect(),
            })?;
            // Ranges say what is given out unasked; what must never be given out stays so.
            if !Pool::of(&Subnet { ranges: Vec::new(), ..subnet.clone() }).contains(*ip) {
                return Err(AllocateError::Reserved { address: *ip, subnet: subnet.cidr });
            }
            if let Some(neighbour) = network.kept_back_by(*ip) {
                let (segment, keeper) = (network.segment.clone(), neighbour.name.clone());
                return Err(AllocateError::KeptBack { address: *ip, segment, keeper });
            }
            self.take(self.ip_lease(*ip)?).await?;
            addresses.push(with_prefix(*ip, subnet));
        }
        for v6 in [false, true] {
            let subnets: Vec<_> = network.subnets.iter().filter(|subnet| subnet.cidr.is_ipv6() == v6).collect();
            if !subnets.is_empty() && !ips.iter().any(|ip| ip.is_ipv6() == v6) {
                addresses.push(self.pick(&subnets).await?);
            }
        }
        Ok(addresses)
    }

    async fn pick(&self, subnets: &[&Subnet]) -> Result<IpNetwork, AllocateError> {
        let Request { network, claim, .. } = *self.request;
        for lease in self.store.held(LeaseKind::Ip, &network.segment, claim).await? {
            let Lease::Ip(IPLease { spec, .. }) = &lease else { continue };
            if let Some(subnet) = subnets.iter().find(|subnet| subnet.cidr.contains(spec.address)) {
                let address = with_prefix(spec.address, subnet);
                write_status(self.store, lease, restored).await?;
                return Ok(address);
            }
        }
        for subnet in subnets {
            for address in pool(subnet, &network.neighbours).candidates(&claim.id()) {
                match self.take(self.ip_lease(address)?).await {
                    Ok(()) => return Ok(with_prefix(address, subnet)),
                    Err(AllocateError::Taken { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Err(AllocateError::Exhausted {
            network: network.name.clone(),
            subnets: subnets.iter().map(|subnet| subnet.cidr).collect(),
            keepers: network.kept_back_from(subnets),
        })
    }

    async fn mac(&self) -> Result<MacAddr, AllocateError> {
        let Request { network, claim, .. } = *self.request;
        if let Some(mac) = self.request.mac {
            self.take(self.mac_lease(&mac.to_string())?).await?;
            return Ok(mac);
        }
        if let Some(lease) = self.store.held(LeaseKind::Mac, &network.segment, claim).await?.into_iter().next() {
            let mac = lease.address();
            write_status(self.store, lease, restored).await?;
            return mac.parse().map_err(|_| AllocateError::Name(LeaseNameError::Mac(mac)));
        }
        for mac in mac_candidates(&claim.id()) {
            match self.take(self.mac_lease(&mac)?).await {
                Ok(()) => return mac.parse().map_err(|_| AllocateError::Name(LeaseNameError::Mac(mac))),
                Err(AllocateError::Taken { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(AllocateError::Exhausted { network: network.name.clone(), subnets: Vec::new(), keepers: Vec::new() })
    }

    /// Makes `lease` the claim's, if it is nobody else's.
    async fn take(&self, lease: Lease) -> Result<(), AllocateError> {
        let mut taken = self.store.create(lease.clone()).await;
        if let Err(LeaseError::Exists(present)) = &taken
            && is_quarantined(present)
            && is_successor(self.request.claim, present.claim())
        {
            // Only the lease as it was looked at: one that was taken back in between stays. The lock is the creation.
            self.store.delete((**present).clone()).await?;
            taken = self.store.create(lease).await;
        }
        match taken {
            Ok(lease) => {
                self.created.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
                Ok(())
            }
            Err(LeaseError::Exists(present)) if present.claim().id() == self.request.claim.id() => {
                write_status(self.store, *present, restored).await?;
                Ok(())
            }
            Err(LeaseError::Exists(present)) => Err(AllocateError::Taken {
                address: present.address(),
                segment: present.segment().to_owned(),
                released: released_at(&present),
                holder: Box::new(Holder(present.claim().clone())),
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn ip_lease(&self, address: IpAddr) -> Result<Lease, AllocateError> {
        let Request { network, claim, .. } = *self.request;
        let name = lease_name(&network.segment, address)?;
        let spec =
            IPLeaseSpec { segment: network.segment.clone(), address: address.to_canonical(), claim: claim.clone() };
        let mut lease = IPLease::new(&name, spec);
        lease.metadata.labels = self.labels();
        Ok(Lease::Ip(lease))
    }

    fn mac_lease(&self, mac: &str) -> Result<Lease, AllocateError> {
        let Request { network, claim, .. } = *self.request;
        let name = mac_lease_name(&network.segment, mac)?;
        let spec = MACLeaseSpec { segment: network.segment.clone(), address: mac.to_owned(), claim: claim.clone() };
        let mut lease = MACLease::new(&name, spec);
        lease.metadata.labels = self.labels();
        Ok(Lease::Mac(lease))
    }

    fn labels(&self) -> Option<std::collections::BTreeMap<String, String>> {
        let labels = self.request.labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        (!self.request.labels.is_empty()).then(|| labels.collect())
    }
}

/// Whether a claim is of an object that was made again under the name of another that is gone. A lease is in quarantine
/// only when its object is gone and no pod of it is left, and there is one object of a name at a time: nobody but this
/// one can be meant by who still knows the address.
fn is_successor(claim: &Claim, former: &Claim) -> bool {
    let identity = |claim: &Claim| {
        let Claim { uid: _, kind, namespace, name, network } = claim.clone();
        (kind, namespace, name, network)
    };
    matches!(claim.kind.as_str(), "VirtualMachine" | "VirtualMachineInstance") && identity(claim) == identity(former)
}

fn with_prefix(address: IpAddr, subnet: &Subnet) -> IpNetwork {
    // A prefix length of the subnet is valid for each of its addresses.
    IpNetwork::new(address, subnet.cidr.prefix()).unwrap_or_else(|_| IpNetwork::from(address))
}
