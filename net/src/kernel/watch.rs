//! Open vSwitch's end, and its database's: what either has forgotten has to be told anew.

use std::future::pending;

use tokio::sync::watch;

use super::Wiring;
use super::openflow::Connection;
use super::ovsdb::Version;

/// Sees the switch end, from the moment at which this was made.
pub struct SwitchWatch {
    /// The database, and how many connections there have been to it.
    database: Option<(watch::Receiver<Version>, u64)>,
    /// One of its bridges: a switch is one process for all of them.
    bridge: Option<Connection>,
}

impl Wiring {
    /// Watches Open vSwitch, as far as it can be reached now.
    pub async fn watch_switch(&self) -> SwitchWatch {
        let Some(ovs) = &self.ovs else { return SwitchWatch { database: None, bridge: None } };
        let database = Some(ovs.connections());
        for name in ovs.bridges().await.unwrap_or_default() {
            if let Ok(bridge) = ovs.connect(&name).await {
                return SwitchWatch { database, bridge: Some(bridge) };
            }
        }
        SwitchWatch { database, bridge: None }
    }
}

impl SwitchWatch {
    /// Returns when the switch has ended, or the database has come back. Never where there is neither.
    pub async fn over(mut self) {
        let switch = async {
            match &mut self.bridge {
                Some(bridge) => bridge.over().await,
                None => pending().await,
            }
        };
        let database = async {
            let Some((version, known)) = &mut self.database else { return pending().await };
            // The first connection of all forgot nothing.
            let known = (*known).max(1);
            if version.wait_for(|version| version.connections > known).await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = switch => {}
            () = database => {}
        }
    }
}
