//! Which thread of the hypervisor serves which disk.

use holdfast_api::kubevirt::{Disk, DomainSpec};

use super::disk;

/// Threads of a VM: a pool that disks share, then one for each disk that has its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct IoThreads {
    pool: u32,
    dedicated: u32,
    /// Disks placed so far: on the pool, on threads of their own.
    placed: (u32, u32),
}

/// Plans the threads: none without a policy and a disk that asks for its own; `shared` pools all others on one;
/// `auto` gives as many as there are disks, within two for each vCPU.
pub(super) fn plan(spec: &DomainSpec, vcpus: u32) -> IoThreads {
    let own = |disk: &&Disk| disk.dedicated_io_thread == Some(true);
    let disks = &spec.devices.disks;
    let dedicated = disks.iter().filter(own).count() as u32;
    let shared = disks.len() as u32 - dedicated;
    let pool = match spec.io_threads_policy.as_deref() {
        None if dedicated == 0 => 0,
        Some("auto") => shared.min((vcpus * 2).saturating_sub(dedicated)).max(u32::from(shared > 0)),
        _ => 1,
    };
    IoThreads { pool, dedicated, placed: (0, 0) }
}

impl IoThreads {
    /// How many threads the domain has; none where it uses none.
    pub(super) fn count(&self) -> Option<u32> {
        Some(self.pool + self.dedicated).filter(|count| *count > 0)
    }

    /// The thread for the next disk, from 1. Only virtio disks can have one.
    pub(super) fn next(&mut self, disk: &Disk) -> Option<u32> {
        if self.count().is_none() || disk::bus(disk) != "virtio" {
            return None;
        }
        if disk.dedicated_io_thread == Some(true) {
            self.placed.1 += 1;
            return Some(self.pool + self.placed.1);
        }
        self.placed.0 += 1;
        Some((self.placed.0 - 1) % self.pool.max(1) + 1)
    }
}
