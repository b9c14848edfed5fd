//! The pod annotation that tells what each of its networks gave it, written behind ADD for the networks that were made
//! behind the primary one. The form is the network plumbing group's.

use std::time::Duration;

use holdfast_agent::cni::result::CniResult;
use holdfast_agent::workloads::Joined;
use holdfast_api::nad::{NETWORK_STATUS_ANNOTATION, NetworkStatus, NetworkStatusDns};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::pods::Pods;

const DEADLINE: Duration = Duration::from_secs(5);
/// Waits between two tries: the first, doubled with each, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Writes the annotations of the pods that have joined networks, until `stop`.
pub async fn write_all(
    client: Client,
    pods: Pods,
    mut joined: mpsc::UnboundedReceiver<Joined>,
    stop: CancellationToken,
) {
    while let Some(joined) = joined.recv().await {
        tokio::spawn(write(client.clone(), pods.clone(), joined, stop.clone()));
    }
}

/// Writes one pod's, for as long as that pod is there.
async fn write(client: Client, pods: Pods, joined: Joined, stop: CancellationToken) {
    let Joined { pod, .. } = &joined;
    let annotation = match serde_json::to_string(&statuses(&joined)) {
        Ok(text) => text,
        Err(error) => return tracing::error!(%error, "failed to encode a pod's network status"),
    };
    let api = Api::<core::Pod>::namespaced(client, &pod.namespace);
    let patch = Patch::Merge(patch(&pod.uid, &annotation));
    let mut pause = RETRY.0;
    while pods.find(pod).is_some() {
        let error = match timeout(DEADLINE, api.patch(&pod.name, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => return,
            // Gone, or another one of that name.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return,
            Ok(Err(error)) => holdfast_kubernetes::chain(&error),
            Err(_) => "the API server does not answer".to_owned(),
        };
        tracing::warn!(pod = pod.name, error, "failed to write a pod's network status; trying again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => pause = (pause * 2).min(RETRY.1),
        }
    }
}

fn patch(uid: &str, annotation: &str) -> Value {
    let mut metadata = json!({ "annotations": { NETWORK_STATUS_ANNOTATION: annotation } });
    if !uid.is_empty() {
        // Of this pod, and of no later one of its name.
        metadata["uid"] = uid.into();
    }
    json!({ "metadata": metadata })
}

/// The primary network first.
fn statuses(joined: &Joined) -> Vec<NetworkStatus> {
    let mut primary = status(&joined.primary, &joined.ifname, &joined.result);
    primary.default = true;
    let further = joined.further.iter().map(|(network, result)| {
        let ifname = result.interfaces.iter().find(|there| !there.sandbox.is_empty()).map(|there| there.name.as_str());
        status(network, ifname.unwrap_or_default(), result)
    });
    std::iter::once(primary).chain(further).collect()
}

fn status(network: &str, ifname: &str, result: &CniResult) -> NetworkStatus {
    let place = result.interfaces.iter().position(|there| there.name == ifname && !there.sandbox.is_empty());
    let interface = place.and_then(|place| result.interfaces.get(place));
    let own = result.ips.iter().filter(|ip| ip.interface.is_none() || ip.interface == place);
    NetworkStatus {
        name: network.to_owned(),
        interface: Some(ifname.to_owned()),
        ips: own.clone().map(|ip| ip.address.ip()).collect(),
        mac: interface.map(|there| there.mac.clone()).filter(|mac| !mac.is_empty()),
        mtu: interface.and_then(|there| there.mtu),
        dns: NetworkStatusDns {
            nameservers: result.dns.nameservers.clone(),
            domain: result.dns.domain.clone(),
            search: result.dns.search.clone(),
            options: result.dns.options.clone(),
        },
        gateway: own.filter_map(|ip| ip.gateway).collect(),
        ..NetworkStatus::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use holdfast_agent::workloads::PodRef;

    use super::*;

    #[test]
    fn each_network_tells_its_own() {
        let result = |value| CniResult::parse(value).unwrap();
        let joined = Joined {
            pod: PodRef::default(),
            primary: "cluster".into(),
            ifname: "eth0".into(),
            result: result(json!({
                "interfaces": [{"name": "cni0"}, {"name": "veth1"},
                    {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"}],
                "ips": [{"address": "10.244.1.5/24", "gateway": "10.244.1.1", "interface": 2}],
                "dns": {},
            })),
            further: vec![(
                "lab/lan".into(),
                result(json!({
                    "interfaces": [{"name": "hf1"},
                        {"name": "net1", "mac": "02:00:00:00:00:02", "mtu": 1450, "sandbox": "/run/netns/x"}],
                    "ips": [{"address": "192.0.2.5/24", "interface": 1}],
                    "dns": {"nameservers": ["192.0.2.1"]},
                })),
            )],
        };
        assert_eq!(
            serde_json::to_value(statuses(&joined)).unwrap(),
            json!([
                {"name": "cluster", "interface": "eth0", "ips": ["10.244.1.5"], "mac": "02:00:00:00:00:01",
                    "default": true, "dns": {}, "gateway": ["10.244.1.1"]},
                {"name": "lab/lan", "interface": "net1", "ips": ["192.0.2.5"], "mac": "02:00:00:00:00:02", "mtu": 1450,
                    "dns": {"nameservers": ["192.0.2.1"]}},
            ])
        );
        assert_eq!(patch("u", "[]")["metadata"]["uid"], "u");
    }
}
