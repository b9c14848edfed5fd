//! Requests to holdfastd over its unix socket.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::args::Server;
use crate::terminal;

/// Longest that an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The protocol of consoles.
const CONSOLE: &str = "plain.kubevirt.io";

/// A refusal by the server.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// HTTP status code.
    pub code: u16,
    /// `reason` of the status, if it has one.
    pub reason: String,
    /// The server's words.
    pub message: String,
}

impl Refused {
    /// The refusal in kubectl's words.
    pub fn from_server(&self) -> String {
        match self.reason.as_str() {
            "" => format!("Error from server: {}", self.message),
            reason => format!("Error from server ({reason}): {}", self.message),
        }
    }
}

/// Whether an error says that something is not there.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.code == 404)
}

/// Whom to ask.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The server that the command line names.
    pub fn of(server: &Server) -> anyhow::Result<Self> {
        if !server.standalone {
            bail!(
                "this version of virtctl speaks to holdfastd only: add --standalone (and --run DIR where holdfastd runs \
                 with another --run than /run/holdfast)"
            );
        }
        Ok(Self { socket: server.socket.clone().unwrap_or_else(|| server.run.join("api.sock")) })
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let socket = self.socket.display();
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                bail!("holdfastd does not listen on {socket}: start it, or name its folder by --run")
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                bail!("{socket} is for root: run virtctl as root")
            }
            Err(error) => return Err(error).context(format!("failed to connect to {socket}")),
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("failed to speak HTTP")?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Bytes)> {
        let work = async {
            let mut sender = self.connect().await?;
            let body = body.map(Value::to_string).unwrap_or_default();
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(header::HOST, "holdfastd")
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body)))?;
            let response = sender.send_request(request).await.context("holdfastd did not answer")?;
            for warning in response.headers().get_all(header::WARNING) {
                terminal::warn(warning.to_str().unwrap_or_default());
            }
            let code = response.status();
            let body = response.into_body().collect().await.context("holdfastd's answer broke off")?.to_bytes();
            Ok((code, body))
        };
        timeout(DEADLINE, work).await.with_context(|| format!("no answer within {} s", DEADLINE.as_secs()))?
    }

    /// GET of an object or a list.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (code, body) = self.ask(Method::GET, path, None).await?;
        accepted(code, &body)?;
        serde_json::from_slice(&body).context("holdfastd's answer is no JSON")
    }

    /// PUT of a subresource.
    pub async fn put(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let (code, body) = self.ask(Method::PUT, path, Some(body)).await?;
        accepted(code, &body)
    }

    /// DELETE of an object.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let (code, body) = self.ask(Method::DELETE, path, None).await?;
        accepted(code, &body)
    }

    /// A connection that becomes a console's stream.
    pub async fn upgrade(&self, path: &str) -> anyhow::Result<TokioIo<Upgraded>> {
        let work = async {
            let mut sender = self.connect().await?;
            let request = Request::builder()
                .uri(path)
                .header(header::HOST, "holdfastd")
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, CONSOLE)
                .body(Full::new(Bytes::new()))?;
            let response = sender.send_request(request).await.context("holdfastd did not answer")?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let code = response.status();
                let body = response.into_body().collect().await?.to_bytes();
                accepted(code, &body)?;
                bail!("holdfastd answered {code} instead of opening the console");
            }
            Ok(TokioIo::new(hyper::upgrade::on(response).await?))
        };
        timeout(DEADLINE, work).await.with_context(|| format!("no answer within {} s", DEADLINE.as_secs()))?
    }
}

/// An error for every answer but a success.
fn accepted(code: StatusCode, body: &[u8]) -> anyhow::Result<()> {
    if code.is_success() {
        return Ok(());
    }
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |field: &str| status[field].as_str().map(str::to_owned);
    let message = text("message").unwrap_or_else(|| format!("{code}: {}", String::from_utf8_lossy(body).trim()));
    Err(Refused { code: code.as_u16(), reason: text("reason").unwrap_or_default(), message }.into())
}
