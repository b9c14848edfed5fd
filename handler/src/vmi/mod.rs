//! The VMIs of this node, each with the pod of its launcher.
//!
//! Reading order: [`supervisor`] keeps one [`run`] per launcher's pod; [`place`] says where a launcher's files are,
//! [`launcher`] finds its process and believes it; [`status`] writes what the agent's task of the VMI reports.
//!
//! Invariants: what a run needs is on disk before anything is wired; a launcher is believed only as a process of its
//! own pod; nothing is written into a VMI that is not this node's by its status; a run that ends, for whatever reason
//! but its pod's end, leaves the VM alone.

mod appear;
mod launcher;
mod objects;
mod place;
mod run;
mod running;
mod status;
mod supervisor;

pub use objects::Vmis;
pub use run::Node;
pub use running::Running;
pub use supervisor::supervise;
