//! Whether KVM can run a guest here.
//!
//! A device node that opens, and even a vCPU that is created, prove nothing: under a hypervisor without nested
//! virtualisation KVM may offer both and then interpret each guest instruction, or fail on the first.

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmVerdict {
    /// A guest runs at the CPU's own speed.
    Usable,
    /// There is no /dev/kvm.
    Absent,
    /// It is there and cannot run a guest.
    Unusable {
        /// For people: what was tried and what came of it.
        why: String,
    },
}

impl KvmVerdict {
    /// Whether guests may use KVM.
    pub fn is_usable(&self) -> bool {
        matches!(self, Self::Usable)
    }
}
