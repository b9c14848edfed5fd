//! virt-controller: Kubernetes objects to Kubernetes objects.
//!
//! Reading order: [`vm`] makes VMIs of VMs, [`vmi`] makes pods of VMIs and follows them, [`pod`] is what such a pod
//! looks like (pure); [`sets`] keep numbers of either; [`nodes`] finds nodes that nobody answers for, [`leases`] keeps
//! addresses and gives them back, [`usage`] counts them. [`engine`] is what they run on: caches that know of their own
//! writes, and queues.
//!
//! Invariants: every decision is a pure function of objects; every step is safe to do twice, and is guarded by a name,
//! a UID or a resourceVersion; a write that would change nothing is not sent. A VMI's finalizer goes only when its pod
//! object is gone, and that is the whole of fencing: nothing is started anew while the old one may run.

mod api;
mod context;
mod engine;
mod leases;
mod metrics;
mod nodes;
mod patch;
mod pod;
mod run;
mod sets;
mod usage;
mod vm;
mod vmi;

pub use run::run;
