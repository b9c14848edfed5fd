//! Requests to holdfastd: HTTP/1.1 over its unix socket, one connection each.

use std::io;
use std::path::PathBuf;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::split;
use tokio::net::UnixStream;

use super::{Answer, CallError, STREAM, Stream, refusal};

/// A holdfastd.
pub struct Holdfastd {
    socket: PathBuf,
}

impl Holdfastd {
    /// The one that listens on `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where it listens.
    pub fn place(&self) -> String {
        format!("holdfastd on `{}`", self.socket.display())
    }

    /// Opens a raw stream.
    pub async fn stream(&self, path: &str) -> Result<Stream, CallError> {
        let request = Request::get(path).header(CONNECTION, "Upgrade").header(UPGRADE, STREAM);
        let response = self.send(path, request, Bytes::new()).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response.status(), &self.collect(response).await?));
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| self.http(error))?;
        let (reader, writer) = split(TokioIo::new(upgraded));
        Ok(Stream { reader: Box::new(reader), writer: Box::new(writer) })
    }

    /// Sends a request and reads its answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, CallError> {
        let mut request = Request::builder().method(method).uri(path);
        let mut content = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            content = body.to_string().into();
        }
        let response = self.send(path, request, content).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Answer { status, headers, body: self.collect(response).await? })
    }

    async fn send(
        &self,
        path: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let request = request.header(HOST, "localhost").body(Full::new(body));
        let request = request.map_err(|error| CallError::Path(path.to_owned(), error))?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.http(error))?;
        // It ends with the answer; what goes wrong with it, the request tells.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(|error| self.http(error))
    }

    async fn connect(&self) -> Result<UnixStream, CallError> {
        let stream = UnixStream::connect(&self.socket).await;
        stream.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::Down(self.socket.clone(), error),
            io::ErrorKind::PermissionDenied => CallError::Denied(self.socket.clone(), error),
            _ => CallError::Connect(self.socket.clone(), error),
        })
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, CallError> {
        let body = response.into_body().collect().await;
        Ok(body.map_err(|error| self.http(error))?.to_bytes())
    }

    fn http(&self, error: hyper::Error) -> CallError {
        CallError::Http(self.place(), error)
    }
}
