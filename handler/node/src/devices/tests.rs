#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
//! Against a kubelet that speaks the same gRPC over the same sockets.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::{BoxFuture, Ready, ready};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::api::{
    AllocateRequest, AllocateResponse, ContainerAllocateRequest, DevicePluginOptions, Empty, HEALTHY, KUBELET_SOCKET,
    ListAndWatchResponse, RegisterRequest, UNHEALTHY,
};
use super::*;

/// kubelet's end: hands on who registered.
#[derive(Clone)]
struct Kubelet(mpsc::Sender<RegisterRequest>);

impl NamedService for Kubelet {
    const NAME: &'static str = "v1beta1.Registration";
}

impl Service<http::Request<tonic::body::Body>> for Kubelet {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let registration = Register(self.0.clone());
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(registration, request).await) })
    }
}

struct Register(mpsc::Sender<RegisterRequest>);

impl UnaryService<RegisterRequest> for Register {
    type Response = Empty;
    type Future = Ready<Result<Response<Empty>, Status>>;

    fn call(&mut self, request: Request<RegisterRequest>) -> Self::Future {
        self.0.try_send(request.into_inner()).unwrap();
        ready(Ok(Response::new(Empty {})))
    }
}

/// Begins as kubelet does: all sockets of its folder are gone, then its own is there.
fn start_kubelet(folder: &Path) -> (tokio::task::JoinHandle<()>, mpsc::Receiver<RegisterRequest>) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (sender, registered) = mpsc::channel(8);
    let listener = UnixListener::bind(folder.join(KUBELET_SOCKET)).unwrap();
    let connections = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(connection, _)| connection), listener))
    });
    let server = Server::builder().add_service(Kubelet(sender));
    let served = async move { server.serve_with_incoming(connections.boxed()).await.unwrap() };
    (tokio::spawn(served), registered)
}

async fn dial(folder: &Path, registered: &RegisterRequest) -> tonic::client::Grpc<Channel> {
    let socket = folder.join(&registered.endpoint);
    let channel = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    grpc
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

#[tokio::test]
async fn offers_a_device_to_each_kubelet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (kubelet, mut registered) = start_kubelet(&path);
    let (health, healthy) = watch::channel(BTreeMap::from([("tun", true)]));
    let (kubelets, kubelet_seen) = watch::channel(kubelet_id(&path));
    let (facts, mut told) = watch::channel(Facts::default());
    let resource =
        Resource { name: "tun", container_path: "/dev/net/tun".to_owned(), host_path: "/run/h/tun".to_owned() };
    let plugin = Plugin { resource, folder: path.clone(), health: healthy, facts };
    let stop = CancellationToken::new();
    let running = tokio::spawn(plugin.run(kubelet_seen, stop.clone()));

    let request = within("it registers", registered.recv()).await.unwrap();
    assert_eq!((&*request.version, &*request.resource_name), ("v1beta1", "devices.kubevirt.io/tun"));
    let fact = DeviceFact { healthy: true, registered: Ok(()) };
    within("it says so", told.wait_for(|facts| facts.devices.get("tun") == Some(&fact))).await.unwrap();

    let mut grpc = dial(&path, &request).await;
    let call = |name: &'static str| PathAndQuery::from_static(name);
    let codec: ProstCodec<Empty, DevicePluginOptions> = ProstCodec::default();
    let options = grpc.unary(Request::new(Empty {}), call("/v1beta1.DevicePlugin/GetDevicePluginOptions"), codec).await;
    assert_eq!(*options.unwrap().get_ref(), DevicePluginOptions::default());

    grpc.ready().await.unwrap();
    let codec: ProstCodec<Empty, ListAndWatchResponse> = ProstCodec::default();
    let list = grpc.server_streaming(Request::new(Empty {}), call("/v1beta1.DevicePlugin/ListAndWatch"), codec).await;
    let mut list = list.unwrap().into_inner();
    let devices = within("devices", list.message()).await.unwrap().unwrap().devices;
    assert_eq!(devices.len(), 1000);
    assert!(devices.iter().all(|device| device.health == HEALTHY));
    health.send_replace([("tun", false)].into());
    let devices = within("devices", list.message()).await.unwrap().unwrap().devices;
    assert!(devices.iter().all(|device| device.health == UNHEALTHY));

    grpc.ready().await.unwrap();
    let codec: ProstCodec<AllocateRequest, AllocateResponse> = ProstCodec::default();
    let container = ContainerAllocateRequest { devices_ids: vec!["tun7".to_owned()] };
    let request = AllocateRequest { container_requests: vec![container.clone(), container] };
    let answer = grpc.unary(Request::new(request), call("/v1beta1.DevicePlugin/Allocate"), codec).await.unwrap();
    let containers = answer.into_inner().container_responses;
    assert_eq!(containers.len(), 2);
    let spec = &containers[0].devices[0];
    assert_eq!((&*spec.container_path, &*spec.host_path, &*spec.permissions), ("/dev/net/tun", "/run/h/tun", "rw"));

    // Another kubelet.
    kubelet.abort();
    let (_kubelet, mut registered) = start_kubelet(&path);
    kubelets.send_replace(kubelet_id(&path));
    let request = within("it registers again", registered.recv()).await.unwrap();
    let mut grpc = dial(&path, &request).await;
    let codec: ProstCodec<Empty, ListAndWatchResponse> = ProstCodec::default();
    let list = grpc.server_streaming(Request::new(Empty {}), call("/v1beta1.DevicePlugin/ListAndWatch"), codec).await;
    let devices = within("devices", list.unwrap().into_inner().message()).await.unwrap().unwrap().devices;
    assert_eq!(devices[0].health, UNHEALTHY);

    stop.cancel();
    within("it ends", running).await.unwrap();
    assert!(!socket(&path, "tun").exists());
}

#[tokio::test]
async fn waits_for_a_kubelet() {
    let folder = tempfile::tempdir().unwrap();
    let (kubelets, kubelet_seen) = watch::channel(kubelet_id(folder.path()));
    let (facts, mut told) = watch::channel(Facts::default());
    let (_health, healthy) = watch::channel(BTreeMap::from([("kvm", false)]));
    let resource = Resource { name: "kvm", container_path: String::new(), host_path: String::new() };
    let plugin = Plugin { resource, folder: folder.path().to_owned(), health: healthy, facts };
    let running = tokio::spawn(plugin.run(kubelet_seen, CancellationToken::new()));
    let none = Err("kubelet does not listen".to_owned());
    let fact = DeviceFact { healthy: false, registered: none };
    within("it says so", told.wait_for(|facts| facts.devices.get("kvm") == Some(&fact))).await.unwrap();
    let (_kubelet, mut registered) = start_kubelet(folder.path());
    kubelets.send_replace(kubelet_id(folder.path()));
    within("it registers", registered.recv()).await.unwrap();
    running.abort();
}
