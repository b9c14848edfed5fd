//! What was found changed behind our back, and mended: told to whoever makes events of it.

use tokio::sync::broadcast;

/// How many may be told that somebody has not heard yet; what is more is lost to them.
const UNHEARD: usize = 64;

/// Something of a pod was not as it shall be, and is again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Its sandbox.
    pub container_id: String,
    /// UID of the pod; empty where the runtime has told none.
    pub pod_uid: String,
    /// What had to be done.
    pub what: String,
}

/// Tells of repairs. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Repairs(broadcast::Sender<Repair>);

impl Default for Repairs {
    fn default() -> Self {
        Self(broadcast::Sender::new(UNHEARD))
    }
}

impl Repairs {
    pub(crate) fn tell(&self, repair: Repair) {
        // Nobody need listen.
        let _ = self.0.send(repair);
    }

    /// The repairs from now on.
    pub fn heard(&self) -> Heard {
        Heard(self.0.subscribe())
    }
}

/// Hears of repairs.
#[derive(Debug)]
pub struct Heard(broadcast::Receiver<Repair>);

impl Heard {
    /// The next one. Never returns once nobody can tell any.
    pub async fn next(&mut self) -> Repair {
        loop {
            match self.0.recv().await {
                Ok(repair) => return repair,
                Err(broadcast::error::RecvError::Lagged(lost)) => tracing::warn!(lost, "repairs are not told"),
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
