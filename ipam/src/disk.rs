//! Small files, of leases and of records.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work that waits for files, where it is called: what this thread has besides is done elsewhere, if there are other
/// threads. For what takes less than to hand it to another thread and to wait for that.
pub fn here<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Whether a file is what a power cut leaves of one that was never synced: its name is there, its bytes are not.
pub fn is_without_content(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
