//! The devices that launchers need, offered to kubelet: `devices.kubevirt.io/{kvm,tun,vhost-net}`.
//!
//! Any number of VMs can share each of them; the count bounds nothing but how many kubelet keeps account of. A device
//! that is missing, or a KVM that cannot run a guest, is offered as unhealthy: the scheduler then knows that this node
//! has none. Invariant: whenever kubelet begins anew, each plugin listens anew and registers again.

pub mod api;
mod nodes;
mod plugin;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::NodeOptions;
use crate::facts::{DeviceFact, Facts};

pub use plugin::{Plugin, Resource};

/// Between looks at the devices, and at kubelet in case that an event was lost.
const LOOK: Duration = Duration::from_secs(10);
/// Where the host's devices are.
const HOST: &str = "/dev";

/// The resources: the part of the name behind the slash, and the path below /dev.
pub(crate) const RESOURCES: [(&str, &str); 3] = [("kvm", "kvm"), ("tun", "net/tun"), ("vhost-net", "vhost-net")];

/// Which kubelet listens: another one has made another socket.
type KubeletId = Option<(u64, u64, i64, i64)>;

/// Offers all of them until `stop`.
pub fn offer(
    options: &NodeOptions,
    facts: watch::Sender<Facts>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let folder = options.kubelet.join("device-plugins");
    let (devices, kvm) = (options.run.join("devices"), options.kvm);
    let health = watch::Sender::new(look(&devices, kvm));
    let (kubelet, kubelet_seen) = watch::channel(kubelet_id(&folder));
    let plugins: Vec<_> = RESOURCES
        .into_iter()
        .map(|(name, path)| {
            let resource = Resource {
                name,
                container_path: format!("{HOST}/{path}"),
                host_path: devices.join(name).display().to_string(),
            };
            let plugin = Plugin { resource, folder: folder.clone(), health: health.subscribe(), facts: facts.clone() };
            plugin.run(kubelet_seen.clone(), stop.clone())
        })
        .collect();
    let looking = async move {
        let (wake, mut woken) = watch::channel(());
        let _watcher = crate::watch_folder(&folder, wake);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = woken.changed() => {}
                () = stop.cancelled() => return,
            }
            replace(&kubelet, kubelet_id(&folder));
            replace(&health, look(&devices, kvm));
        }
    };
    async move {
        tokio::join!(looking, join_all(plugins));
    }
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|known| {
        let changed = *known != value;
        *known = value;
        changed
    });
}

/// Which devices can be used; their nodes for launchers are there then.
fn look(folder: &Path, kvm: bool) -> BTreeMap<&'static str, bool> {
    let one = |(name, path): (&'static str, &str)| {
        let there = nodes::mirror(&Path::new(HOST).join(path), &folder.join(name)).unwrap_or_else(|error| {
            tracing::warn!(%error, device = path, "failed to make a device node for launchers");
            false
        });
        (name, there && (name != "kvm" || kvm))
    };
    RESOURCES.into_iter().map(one).collect()
}

fn kubelet_id(folder: &Path) -> KubeletId {
    let socket = fs::metadata(folder.join(api::KUBELET_SOCKET)).ok()?;
    Some((socket.dev(), socket.ino(), socket.ctime(), socket.ctime_nsec()))
}

/// Says how a device stands.
fn tell(facts: &watch::Sender<Facts>, resource: &'static str, fact: DeviceFact) {
    facts.send_if_modified(|facts| facts.devices.insert(resource, fact.clone()) != Some(fact));
}

/// The socket of a plugin.
fn socket(folder: &Path, resource: &str) -> PathBuf {
    folder.join(format!("kubevirt-{resource}.sock"))
}
