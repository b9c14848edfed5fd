//! Where something may have changed, as the kernel and Open vSwitch tell it: so that drift is seen when it happens, and
//! not at the next look.
//!
//! A hint and no more: what is told may be of somebody else, and what is lost on the way is found at the next look at
//! everything. Invariant: nothing here holds a pod's namespace, which would keep it from being freed; what happens in
//! it is told to a socket of the host's namespace (NETLINK_LISTEN_ALL_NSID, netlink(7)).

mod netlink;
mod switch;

use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::task::JoinSet;

pub(super) use self::netlink::number_of;
use super::ovsdb::Ovs;
use crate::model::IfName;

/// How many may be told that nobody has heard yet; after more, somebody hears that all may have changed.
const UNHEARD: usize = 4096;

/// Where to tell of changes.
pub(super) fn teller() -> broadcast::Sender<Place> {
    broadcast::Sender::new(UNHEARD)
}

/// Where something may have changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A link of the host: itself, its addresses, its port security, its port of Open vSwitch or the flows of that.
    Link(IfName),
    /// The host's network namespace.
    Host,
    /// Another one, by the number that it has in the host's.
    Namespace(i32),
    /// Open vSwitch: a bridge, flows of no port that is known, or that it is there at all.
    Switch,
    /// Anywhere: something was lost on the way.
    Anywhere,
}

/// Hears of changes, from when it was made.
#[derive(Debug)]
pub struct Changes(broadcast::Receiver<Place>);

impl Changes {
    /// The next change. Never returns once the wiring that it is of is gone.
    pub async fn next(&mut self) -> Place {
        match self.0.recv().await {
            Ok(place) => place,
            Err(broadcast::error::RecvError::Lagged(_)) => Place::Anywhere,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// What was told and not heard yet.
    pub fn pending(&mut self) -> Vec<Place> {
        std::iter::from_fn(|| match self.0.try_recv() {
            Ok(place) => Some(place),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(Place::Anywhere),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        })
        .collect()
    }

    /// Forgets what was told by now.
    pub fn forget(&mut self) {
        self.0 = self.0.resubscribe();
    }
}

/// What tells of changes. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Source {
    heard: broadcast::Sender<Place>,
    _tasks: JoinSet<()>,
}

impl Source {
    /// Listens in the namespace of the calling thread, and to this switch, which tells of its database itself. Without the
    /// right to it, nothing is told.
    pub(super) fn start(heard: broadcast::Sender<Place>, ovs: Option<&Ovs>) -> Arc<Self> {
        let mut tasks = JoinSet::new();
        for what in [netlink::Events::Links, netlink::Events::Tables] {
            match netlink::Listener::open(what) {
                Ok(listener) => drop(tasks.spawn(listener.follow(heard.clone()))),
                Err(error) => tracing::warn!(%error, ?what, "changes are found at the next look only"),
            }
        }
        if let Some(ovs) = ovs {
            tasks.spawn(switch::follow(ovs.clone(), heard.clone()));
        }
        Arc::new(Self { heard, _tasks: tasks })
    }

    /// Tells nothing.
    pub(super) fn silent() -> Arc<Self> {
        Arc::new(Self { heard: broadcast::Sender::new(1), _tasks: JoinSet::new() })
    }

    pub(super) fn changes(&self) -> Changes {
        Changes(self.heard.subscribe())
    }
}
