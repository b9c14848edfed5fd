//! The VMI objects of this node, as the API server has them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_api::kubevirt::VirtualMachineInstance;
use kube::ResourceExt;
use tokio::sync::watch;

use crate::follow::{Change, Key};

/// What is known of a VMI object; none where it is not this node's, or not there.
pub type Seen = Option<Arc<VirtualMachineInstance>>;

/// The objects. Cheap to clone.
#[derive(Clone, Default)]
pub struct Vmis(Arc<Mutex<BTreeMap<Key, watch::Sender<Seen>>>>);

impl Vmis {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, watch::Sender<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the watch tells.
    pub fn take(&self, change: Change<VirtualMachineInstance>) {
        let mut rows = self.rows();
        match change {
            Change::Set(vmi) => {
                let key = (vmi.namespace().unwrap_or_default(), vmi.name_any());
                rows.entry(key).or_default().send_replace(Some(Arc::from(vmi)));
            }
            Change::Gone(key) => {
                if let Some(row) = rows.get(&key) {
                    row.send_replace(None);
                }
            }
            Change::Only(keys) => {
                for (_, row) in rows.iter().filter(|(key, _)| !keys.contains(key)) {
                    row.send_if_modified(|seen| seen.take().is_some());
                }
            }
        }
        // Nobody asks for them, and they are not there.
        rows.retain(|_, row| row.receiver_count() > 0 || row.borrow().is_some());
    }

    /// Follows one object.
    pub fn follow(&self, namespace: &str, name: &str) -> watch::Receiver<Seen> {
        self.rows().entry((namespace.to_owned(), name.to_owned())).or_default().subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn vmi(name: &str) -> VirtualMachineInstance {
        serde_json::from_value(json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
            "metadata": {"name": name, "namespace": "lab"}, "spec": {"domain": {"devices": {}}},
        }))
        .unwrap()
    }

    #[test]
    fn who_follows_sees_what_comes_and_goes() {
        let vmis = Vmis::default();
        let (a, b) = (vmis.follow("lab", "a"), vmis.follow("lab", "b"));
        vmis.take(Change::Set(Box::new(vmi("a"))));
        vmis.take(Change::Set(Box::new(vmi("b"))));
        assert!(a.borrow().is_some() && b.borrow().is_some());
        vmis.take(Change::Only([("lab".to_owned(), "b".to_owned())].into()));
        assert!(a.borrow().is_none() && b.borrow().is_some());
        drop(a);
        vmis.take(Change::Gone(("lab".to_owned(), "b".to_owned())));
        assert!(b.borrow().is_none());
        assert_eq!(vmis.rows().len(), 1);
    }
}
