//! Leases in memory: by name, and by who has them, for each ADD asks for those of one among thousands.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_api::lease::Claim;

use super::{Lease, LeaseKind};

/// Which lease: its kind and its name.
pub(super) type Key = (LeaseKind, String);

/// Leases by name and by claim. A lease has one claim for as long as it is there.
#[derive(Debug, Default)]
pub(super) struct Table {
    leases: BTreeMap<Key, Lease>,
    /// By a claim's id.
    claims: HashMap<String, BTreeSet<Key>>,
}

impl Table {
    pub(super) fn get(&self, key: &Key) -> Option<&Lease> {
        self.leases.get(key)
    }

    pub(super) fn insert(&mut self, key: Key, lease: Lease) {
        self.claims.entry(lease.claim().id()).or_default().insert(key.clone());
        self.leases.insert(key, lease);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(claim) = self.leases.remove(key).map(|lease| lease.claim().id()) else { return };
        if let Some(keys) = self.claims.get_mut(&claim) {
            keys.remove(key);
            if keys.is_empty() {
                self.claims.remove(&claim);
            }
        }
    }

    /// All leases, by kind and name.
    pub(super) fn values(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The leases of a claim, by kind and name.
    pub(super) fn of(&self, claim: &Claim) -> impl Iterator<Item = &Lease> {
        self.claims.get(&claim.id()).into_iter().flatten().filter_map(|key| self.leases.get(key))
    }
}
