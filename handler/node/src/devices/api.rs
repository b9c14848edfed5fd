//! kubelet's device plugin API, `v1beta1`: its messages, and the two ends of gRPC for them.
//!
//! Written by hand, for it is small and frozen: a generator would need a compiler of its own at build time. Names and
//! numbers are those of the public interface definition; fields that we neither send nor read are left out, which
//! protobuf allows.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{BoxFuture, Ready, ready};
use futures::stream::BoxStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The version of the API.
pub const VERSION: &str = "v1beta1";
/// kubelet's own socket, in the folder of all device plugins' sockets.
pub const KUBELET_SOCKET: &str = "kubelet.sock";
/// A device that can be given to a container.
pub const HEALTHY: &str = "Healthy";
/// A device that cannot.
pub const UNHEALTHY: &str = "Unhealthy";

const REGISTER: &str = "/v1beta1.Registration/Register";

/// Nothing.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// What a plugin wants beside the calls that all have.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct DevicePluginOptions {
    /// `PreStartContainer` is to be called.
    #[prost(bool, tag = "1")]
    pub pre_start_required: bool,
    /// `GetPreferredAllocation` may be called.
    #[prost(bool, tag = "2")]
    pub get_preferred_allocation_available: bool,
}

/// A plugin that makes itself known.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RegisterRequest {
    /// [`VERSION`].
    #[prost(string, tag = "1")]
    pub version: String,
    /// Its socket, beside kubelet's.
    #[prost(string, tag = "2")]
    pub endpoint: String,
    /// The resource that it offers.
    #[prost(string, tag = "3")]
    pub resource_name: String,
    /// What it wants.
    #[prost(message, optional, tag = "4")]
    pub options: Option<DevicePluginOptions>,
}

/// All devices of a plugin.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListAndWatchResponse {
    /// Each of them.
    #[prost(message, repeated, tag = "1")]
    pub devices: Vec<Device>,
}

/// A device.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Device {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// [`HEALTHY`] or [`UNHEALTHY`].
    #[prost(string, tag = "2")]
    pub health: String,
}

/// Devices for the containers of a pod.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AllocateRequest {
    /// For each container.
    #[prost(message, repeated, tag = "1")]
    pub container_requests: Vec<ContainerAllocateRequest>,
}

/// Devices for a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerAllocateRequest {
    /// Their names.
    #[prost(string, repeated, tag = "1")]
    pub devices_ids: Vec<String>,
}

/// What the containers of a pod get.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateResponse {
    /// Each, in the order of the request.
    #[prost(message, repeated, tag = "1")]
    pub container_responses: Vec<ContainerAllocateResponse>,
}

/// What a container gets.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ContainerAllocateResponse {
    /// Environment.
    #[prost(map = "string, string", tag = "1")]
    pub envs: HashMap<String, String>,
    /// Device nodes.
    #[prost(message, repeated, tag = "3")]
    pub devices: Vec<DeviceSpec>,
}

/// A device node in a container.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeviceSpec {
    /// Its path there.
    #[prost(string, tag = "1")]
    pub container_path: String,
    /// The node of the host that it is made like.
    #[prost(string, tag = "2")]
    pub host_path: String,
    /// What the container may do: `r`, `w`, `m`.
    #[prost(string, tag = "3")]
    pub permissions: String,
}

/// The calls of a device plugin that is neither asked before a start nor for its preference.
pub trait DevicePlugin: Send + Sync + 'static {
    /// The devices, now and after each change.
    fn list_and_watch(&self) -> BoxStream<'static, ListAndWatchResponse>;

    /// What containers get with devices.
    ///
    /// # Errors
    /// What kubelet tells the pod.
    fn allocate(&self, request: &AllocateRequest) -> Result<AllocateResponse, Status>;
}

/// A [`DevicePlugin`] as a gRPC service.
pub struct DevicePluginServer<P>(Arc<P>);

impl<P> DevicePluginServer<P> {
    /// Serves `plugin`.
    pub fn new(plugin: P) -> Self {
        Self(Arc::new(plugin))
    }
}

impl<P> Clone for DevicePluginServer<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P> NamedService for DevicePluginServer<P> {
    const NAME: &'static str = "v1beta1.DevicePlugin";
}

impl<P: DevicePlugin> Service<http::Request<tonic::body::Body>> for DevicePluginServer<P> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let plugin = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/v1beta1.DevicePlugin/GetDevicePluginOptions" => {
                    Grpc::new(ProstCodec::default()).unary(Options, request).await
                }
                "/v1beta1.DevicePlugin/ListAndWatch" => {
                    Grpc::new(ProstCodec::default()).server_streaming(List(plugin), request).await
                }
                "/v1beta1.DevicePlugin/Allocate" => {
                    Grpc::new(ProstCodec::default()).unary(Allocate(plugin), request).await
                }
                _ => Status::unimplemented("this device plugin has no such call").into_http(),
            })
        })
    }
}

struct Options;

impl UnaryService<Empty> for Options {
    type Response = DevicePluginOptions;
    type Future = Ready<Result<Response<DevicePluginOptions>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        ready(Ok(Response::new(DevicePluginOptions::default())))
    }
}

struct Allocate<P>(Arc<P>);

impl<P: DevicePlugin> UnaryService<AllocateRequest> for Allocate<P> {
    type Response = AllocateResponse;
    type Future = Ready<Result<Response<AllocateResponse>, Status>>;

    fn call(&mut self, request: Request<AllocateRequest>) -> Self::Future {
        ready(self.0.allocate(request.get_ref()).map(Response::new))
    }
}

struct List<P>(Arc<P>);

impl<P: DevicePlugin> ServerStreamingService<Empty> for List<P> {
    type Response = ListAndWatchResponse;
    type ResponseStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        use futures::StreamExt;
        ready(Ok(Response::new(self.0.list_and_watch().map(Ok).boxed())))
    }
}

/// Makes a plugin known to the kubelet that listens on `socket`.
///
/// # Errors
/// When it cannot be reached in time, or says no.
pub async fn register(socket: &Path, request: RegisterRequest, deadline: Duration) -> Result<(), Status> {
    let unreachable = |error: tonic::transport::Error| Status::unavailable(crate::text(&error));
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).map_err(unreachable)?;
    let call = async {
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(unreachable)?;
        let codec: ProstCodec<RegisterRequest, Empty> = ProstCodec::default();
        grpc.unary(Request::new(request), PathAndQuery::from_static(REGISTER), codec).await.map(drop)
    };
    let late = |_| Status::deadline_exceeded(format!("no answer within {} s", deadline.as_secs()));
    tokio::time::timeout(deadline, call).await.map_err(late)?
}
