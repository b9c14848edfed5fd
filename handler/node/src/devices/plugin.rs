//! One device plugin: its socket, its registration, its answers.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Server;

use super::api::{
    AllocateRequest, AllocateResponse, ContainerAllocateResponse, Device, DevicePlugin, DevicePluginOptions,
    DevicePluginServer, DeviceSpec, HEALTHY, KUBELET_SOCKET, ListAndWatchResponse, RegisterRequest, UNHEALTHY, VERSION,
    register,
};
use super::{KubeletId, socket, tell};
use crate::facts::{DeviceFact, Facts};

/// How many of each device kubelet keeps account of.
const COUNT: usize = 1000;
const DOMAIN: &str = "devices.kubevirt.io";
/// What kubelet has to answer a registration.
const REGISTER: Duration = Duration::from_secs(10);
/// Between attempts.
const RETRY: Duration = Duration::from_secs(5);

/// A device as a resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Name, without the domain.
    pub name: &'static str,
    /// Path in a container.
    pub container_path: String,
    /// The node that it is made like.
    pub host_path: String,
}

/// A plugin for one resource.
pub struct Plugin {
    /// What it offers.
    pub resource: Resource,
    /// kubelet's folder of sockets.
    pub folder: PathBuf,
    /// Which resources can be used.
    pub health: watch::Receiver<BTreeMap<&'static str, bool>>,
    /// Where it says how it stands.
    pub(crate) facts: watch::Sender<Facts>,
}

impl Plugin {
    /// Serves until `stop`, anew for each kubelet.
    pub async fn run(self, mut kubelet: watch::Receiver<KubeletId>, stop: CancellationToken) {
        let mut health = self.health.clone();
        loop {
            let current = *kubelet.borrow_and_update();
            let ended = CancellationToken::new();
            let serving = match current {
                Some(_) => self.serve(ended.clone()).await.map_err(|error| error.to_string()),
                None => Err("kubelet does not listen".to_owned()),
            };
            let registered = match &serving {
                Ok(_) => self.register().await.map_err(|status| status.message().to_owned()),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = &registered {
                tracing::warn!(error, resource = self.resource.name, "failed to offer a device to kubelet");
            }
            let failed = registered.is_err();
            let again = loop {
                let healthy = health.borrow_and_update().get(self.resource.name).copied().unwrap_or_default();
                tell(&self.facts, self.resource.name, DeviceFact { healthy, registered: registered.clone() });
                tokio::select! {
                    () = stop.cancelled() => break false,
                    Ok(()) = kubelet.changed() => break true,
                    Ok(()) = health.changed() => {}
                    () = tokio::time::sleep(RETRY), if failed && current.is_some() => break true,
                }
            };
            ended.cancel();
            if let Ok(serving) = serving {
                // It ends with its listener; a stream that is open ends with the runtime at the latest.
                serving.abort();
            }
            if !again {
                let _ = fs::remove_file(socket(&self.folder, self.resource.name));
                return;
            }
        }
    }

    async fn serve(&self, ended: CancellationToken) -> io::Result<tokio::task::JoinHandle<()>> {
        let path = socket(&self.folder, self.resource.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        let connections = stream::unfold(listener, |listener| async move {
            let connection = listener.accept().await.map(|(connection, _)| connection);
            Some((connection, listener))
        });
        let service = DevicePluginServer::new(Answers { resource: self.resource.clone(), health: self.health.clone() });
        let server = Server::builder().add_service(service);
        Ok(tokio::spawn(async move {
            let served = server.serve_with_incoming_shutdown(connections.boxed(), ended.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::warn!(error = crate::text(&error), "a device plugin ended");
            }
        }))
    }

    async fn register(&self) -> Result<(), Status> {
        let request = RegisterRequest {
            version: VERSION.to_owned(),
            endpoint: format!("kubevirt-{}.sock", self.resource.name),
            resource_name: format!("{DOMAIN}/{}", self.resource.name),
            options: Some(DevicePluginOptions::default()),
        };
        register(&self.folder.join(KUBELET_SOCKET), request, REGISTER).await
    }
}

struct Answers {
    resource: Resource,
    health: watch::Receiver<BTreeMap<&'static str, bool>>,
}

impl DevicePlugin for Answers {
    fn list_and_watch(&self) -> BoxStream<'static, ListAndWatchResponse> {
        let (name, mut health) = (self.resource.name, self.health.clone());
        // The first answer is the present state.
        health.mark_changed();
        let answers = stream::unfold((health, None), move |(mut health, told)| async move {
            loop {
                health.changed().await.ok()?;
                let healthy = health.borrow_and_update().get(name).copied().unwrap_or_default();
                if told != Some(healthy) {
                    return Some((list(name, healthy), (health, Some(healthy))));
                }
            }
        });
        answers.boxed()
    }

    fn allocate(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status> {
        let spec = DeviceSpec {
            container_path: self.resource.container_path.clone(),
            host_path: self.resource.host_path.clone(),
            permissions: "rw".to_owned(),
        };
        let answer = ContainerAllocateResponse { devices: vec![spec], ..ContainerAllocateResponse::default() };
        Ok(AllocateResponse { container_responses: vec![answer; request.container_requests.len()] })
    }
}

fn list(name: &str, healthy: bool) -> ListAndWatchResponse {
    let health = if healthy { HEALTHY } else { UNHEALTHY };
    let device = |number| Device { id: format!("{name}{number}"), health: health.to_owned() };
    ListAndWatchResponse { devices: (0..COUNT).map(device).collect() }
}
