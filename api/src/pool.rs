//! The addresses of a subnet that may be given out, and the order in which a claim tries them.
//!
//! Pure. A pool is kept as the intervals that are left when ranges lose what is excluded, so a /8
//! or an IPv6 /64 costs no more than a /28. The order depends on nothing but the pool and the
//! claim's UID: two claims rarely want the same address first, and the same claim, asked again
//! after a crash, tries the same ones and so finds its own lease.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use sha2::{Digest, Sha256};

use crate::names::format_mac;
use crate::underlay::Subnet;

/// The addresses of one subnet that may be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    v6: bool,
    /// First and last address of each interval; sorted, disjoint, none empty.
    intervals: Vec<(u128, u128)>,
}

impl Pool {
    /// The pool of `subnet`: its ranges within its prefix, or the whole prefix where it has none,
    /// without excluded addresses, the gateways and name servers it names, and the addresses that
    /// mean the subnet itself (network and broadcast of IPv4, the all-zero host of IPv6; not for
    /// prefixes of two addresses or one).
    ///
    /// What is of the other family or outside the prefix has no effect.
    pub fn of(subnet: &Subnet) -> Self {
        let v6 = subnet.cidr.is_ipv6();
        let (first, last) = bounds(&subnet.cidr);
        let mut intervals: Vec<_> = if subnet.ranges.is_empty() {
            vec![(first, last)]
        } else {
            subnet
                .ranges
                .iter()
                .filter(|range| range.start.is_ipv6() == v6 && range.end.is_ipv6() == v6)
                .map(|range| (number(range.start).max(first), number(range.end).min(last)))
                .filter(|(start, end)| start <= end)
                .collect()
        };
        merge(&mut intervals);
        for (start, end) in taken(subnet) {
            subtract(&mut intervals, start, end);
        }
        Self { v6, intervals }
    }

    /// The same pool without what `other` keeps back, a subnet of another network on the segment.
    #[must_use]
    pub fn beside(mut self, other: &Subnet) -> Self {
        if other.cidr.is_ipv6() == self.v6 {
            for (start, end) in taken(other) {
                subtract(&mut self.intervals, start, end);
            }
        }
        self
    }

    /// How many addresses the pool has; the largest number where there are 2^128.
    pub fn len(&self) -> u128 {
        self.intervals.iter().fold(0_u128, |sum, (start, end)| sum.saturating_add((end - start).saturating_add(1)))
    }

    /// Whether the pool has no address at all.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Whether `address` is in the pool.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6
            && self.intervals.iter().any(|(start, end)| (*start..=*end).contains(&number(address)))
    }

    /// The first address that the pool has of a prefix.
    pub fn first_in(&self, prefix: IpNetwork) -> Option<IpAddr> {
        let (first, last) = bounds(&prefix);
        let inside = self.intervals.iter().map(|(start, end)| (first.max(*start), last.min(*end)));
        let (start, _) = inside.into_iter().find(|(start, end)| prefix.is_ipv6() == self.v6 && start <= end)?;
        Some(address(start, self.v6))
    }

    /// Every address of the pool once, in the order of the claim `uid`.
    pub fn candidates(&self, uid: &str) -> impl Iterator<Item = IpAddr> + use<> {
        let pool = self.clone();
        cycle("ip", uid, self.len()).filter_map(move |index| pool.at(index))
    }

    fn at(&self, mut index: u128) -> Option<IpAddr> {
        for (start, end) in &self.intervals {
            if index <= end - start {
                return Some(address(start + index, self.v6));
            }
            index -= end - start + 1;
        }
        None
    }
}

/// Whether a subnet keeps `address` back, from whoever asks for it.
pub fn keeps_back(subnet: &Subnet, address: IpAddr) -> bool {
    subnet.cidr.is_ipv6() == address.is_ipv6()
        && taken(subnet).iter().any(|(start, end)| (*start..=*end).contains(&number(address)))
}

/// MAC addresses for the claim `uid`, each once: locally administered unicast ones that begin with
/// `02`, without `02:00:00:00:00:00`, which is the masquerade gateway's.
pub fn mac_candidates(uid: &str) -> impl Iterator<Item = String> + use<> {
    // Indices 0.. stand for the values 1.. of the five octets after `02`.
    cycle("mac", uid, (1 << 40) - 1).map(|index| {
        let [.., b, c, d, e, f] = (index + 1).to_be_bytes();
        format_mac([2, b, c, d, e, f])
    })
}

/// The numbers from 0 to `size - 1`, each once, beginning at a place and going on by a step that
/// come from a hash of `uid`. The step has no factor in common with `size`, hence the full round.
fn cycle(purpose: &str, uid: &str, size: u128) -> impl Iterator<Item = u128> + use<> {
    let hash = Sha256::digest(format!("{purpose}/{uid}"));
    let (offset, step) = hash.split_at(16);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |n, b| n << 8 | u128::from(*b));
    let modulus = size.max(1);
    let first = number(offset) % modulus;
    let mut step = number(step) % modulus;
    while gcd(step, modulus) != 1 {
        step = (step + 1) % modulus;
    }
    let mut left = size;
    let mut next = first;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let current = next;
        // (next + step) % modulus, without leaving 128 bits.
        next = if step >= modulus - next { step - (modulus - next) } else { next + step };
        Some(current)
    })
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Intervals of the subnet that must not be given out.
fn taken(subnet: &Subnet) -> Vec<(u128, u128)> {
    let v6 = subnet.cidr.is_ipv6();
    let (first, last) = bounds(&subnet.cidr);
    let mut taken = Vec::new();
    if last - first > 1 {
        taken.push((first, first));
        if !v6 {
            taken.push((last, last));
        }
    }
    let prefixes = subnet.exclude.iter().filter(|p| p.is_ipv6() == v6);
    taken.extend(prefixes.map(bounds));
    let servers = subnet.dns.iter().flat_map(|dns| &dns.servers).copied();
    let hops = subnet.routes.iter().filter_map(|route| route.gw);
    taken.extend(
        servers
            .chain(hops)
            .chain(subnet.gateway)
            .filter(|address| address.is_ipv6() == v6)
            .map(|address| (number(address), number(address))),
    );
    taken
}

/// Sorts the intervals, and makes one of those that overlap.
fn merge(intervals: &mut Vec<(u128, u128)>) {
    intervals.sort_unstable();
    intervals.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

/// Takes the numbers from `start` to `end` out of the intervals.
fn subtract(intervals: &mut Vec<(u128, u128)>, start: u128, end: u128) {
    *intervals = intervals
        .iter()
        .flat_map(|&(low, high)| {
            if end < low || high < start {
                return [Some((low, high)), None];
            }
            [(low < start).then(|| (low, start - 1)), (end < high).then(|| (end + 1, high))]
        })
        .flatten()
        .collect();
}

/// First and last address of a prefix. Computed from the mask, as the address may have host bits.
fn bounds(prefix: &IpNetwork) -> (u128, u128) {
    (number(prefix.network()), number(prefix.broadcast()))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    } else {
        // Intervals of an IPv4 subnet stay within 32 bits.
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    }
}
