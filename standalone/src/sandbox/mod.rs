//! The sandbox that stands for a pod: network, mount, pid, uts and ipc namespaces, control groups, and in it one
//! unprivileged program, the VM's launcher.
//!
//! Reading order: [`plan`] says what a sandbox shall be, [`mod@spawn`] asks for it, [`enter`] (holdfastd executed
//! anew) builds it by [`root`] and [`privileges`] and becomes the launcher, [`process`] holds that from outside,
//! [`record`] remembers it over restarts, [`mod@remove`] takes it down.
//!
//! Invariants: a sandbox outlives holdfastd; nothing runs in one that is not recorded; taking one down is
//! idempotent and may start from any point at which a crash stopped.

mod cgroup;
pub mod enter;
mod netns;
mod plan;
mod privileges;
mod process;
mod record;
mod remove;
mod root;
mod spawn;

pub use cgroup::Cgroups;
pub use netns::{NetnsError, is_netns, make as make_netns, remove as remove_netns};
pub use plan::{Bind, Device, FileId, Plan, QEMU_ID};
pub use process::{Process, ProcessId};
pub use record::{Attached, Record, RecordError};
pub use remove::{Ground, RemoveError, remove};
pub use root::{own, own_folder};
pub use spawn::{SpawnError, spawn};
