//! Requests to holdfastd: HTTP/1.1 over its unix socket, one connection each, each with a deadline.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE, WARNING};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// The protocol of raw streams.
const STREAM: &str = "plain.kubevirt.io";

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error(
        "failed to connect to holdfastd on `{0}`: it does not run, or has another folder of sockets. Start it with `holdfastd --manifests DIR --state DIR`, or give its --run DIR to virtctl as well"
    )]
    Down(PathBuf, #[source] io::Error),
    /// The socket belongs to root.
    #[error("failed to connect to holdfastd on `{0}`: the socket belongs to root; run virtctl as root")]
    Denied(PathBuf, #[source] io::Error),
    /// The socket is there and cannot be used.
    #[error("failed to connect to holdfastd on `{0}`")]
    Connect(PathBuf, #[source] io::Error),
    /// No answer in time.
    #[error("failed to get an answer from holdfastd on `{0}` within {1:?} (--request-timeout)")]
    Deadline(PathBuf, Duration),
    /// The connection broke, or what came is not HTTP.
    #[error("failed to speak HTTP with holdfastd on `{0}`")]
    Http(PathBuf, #[source] hyper::Error),
    /// The path cannot be part of a request.
    #[error("failed to ask holdfastd for `{0}`: a name or namespace has characters that none can have")]
    Path(String, #[source] hyper::http::Error),
    /// An answer that is not what the API promises.
    #[error("failed to understand the answer of holdfastd to `{0}`")]
    Body(String, #[source] serde_json::Error),
    /// The request was refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Reason, such as `NotFound`; empty where the answer tells none.
        reason: String,
        /// The server's words.
        message: String,
    },
}

impl CallError {
    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: 404, .. })
    }

    /// The whole chain in one line.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    /// As kubectl says it: who refused, and why.
    pub fn kubectl_text(&self) -> String {
        match self {
            Self::Refused { reason, message, .. } if reason.is_empty() => format!("Error from server: {message}"),
            Self::Refused { reason, message, .. } => format!("Error from server ({reason}): {message}"),
            _ => self.text(),
        }
    }
}

/// A holdfastd.
pub struct Client {
    socket: PathBuf,
    deadline: Duration,
    warned: RefCell<BTreeSet<String>>,
}

impl Client {
    /// The one that listens on `socket`.
    pub fn new(socket: PathBuf, deadline: Duration) -> Self {
        Self { socket, deadline, warned: RefCell::default() }
    }

    /// Reads what is at a path.
    pub async fn get(&self, path: &str) -> Result<Value, CallError> {
        let body = self.bounded(self.call(Method::GET, path, None)).await?;
        serde_json::from_slice(&body).map_err(|error| CallError::Body(path.to_owned(), error))
    }

    /// Sends a body to a path; the answer's body is of no interest.
    pub async fn put(&self, path: &str, body: &Value) -> Result<(), CallError> {
        self.bounded(self.call(Method::PUT, path, Some(body))).await.map(drop)
    }

    /// Deletes what is at a path.
    pub async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.bounded(self.call(Method::DELETE, path, None)).await.map(drop)
    }

    /// Opens a raw stream.
    pub async fn stream(&self, path: &str) -> Result<TokioIo<hyper::upgrade::Upgraded>, CallError> {
        self.bounded(async {
            let request = Request::get(path).header(CONNECTION, "Upgrade").header(UPGRADE, STREAM);
            let response = self.send(path, request, Bytes::new()).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(refusal(response.status(), &self.collect(response).await?));
            }
            let upgraded = hyper::upgrade::on(response).await;
            upgraded.map(TokioIo::new).map_err(|error| CallError::Http(self.socket.clone(), error))
        })
        .await
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let expired = |_| CallError::Deadline(self.socket.clone(), self.deadline);
        timeout(self.deadline, call).await.map_err(expired)?
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, CallError> {
        let mut request = Request::builder().method(method).uri(path);
        let mut content = Bytes::new();
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json");
            content = body.to_string().into();
        }
        let response = self.send(path, request, content).await?;
        let status = response.status();
        let body = self.collect(response).await?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    async fn send(
        &self,
        path: &str,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let http = |error| CallError::Http(self.socket.clone(), error);
        let request = request.header(HOST, "localhost").body(Full::new(body));
        let request = request.map_err(|error| CallError::Path(path.to_owned(), error))?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // It ends with the answer; what goes wrong with it, the request tells.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(http)?;
        self.show_warnings(&response);
        Ok(response)
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
        Ok(body.map_err(|error| CallError::Http(self.socket.clone(), error))?.to_bytes())
    }

    /// Prints the answer's warnings, each once.
    fn show_warnings(&self, response: &Response<Incoming>) {
        for header in response.headers().get_all(WARNING) {
            let text = header.to_str().ok().and_then(warning);
            if let Some(text) = text.filter(|text| self.warned.borrow_mut().insert(text.clone())) {
                eprintln!("Warning: {text}");
            }
        }
    }
}

/// What a refusal says: a metav1.Status, or plain text.
fn refusal(code: StatusCode, body: &[u8]) -> CallError {
    let status: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| status[name].as_str().map(str::to_owned);
    let plain = || match String::from_utf8_lossy(body).trim() {
        "" => code.to_string(),
        text => text.to_owned(),
    };
    CallError::Refused {
        code: code.as_u16(),
        reason: field("reason").unwrap_or_default(),
        message: field("message").unwrap_or_else(plain),
    }
}

/// The text of a Warning header (`299 - "text"`, RFC 7234, section 5.5).
fn warning(header: &str) -> Option<String> {
    let quoted = header.split_once('"')?.1;
    let mut text = String::new();
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '\\' => text.push(rest.next()?),
            '"' => return Some(text),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning(r#"299 - "a \"b\" \\c" "date""#).as_deref(), Some(r#"a "b" \c"#));
        assert_eq!(warning("299 - none"), None);
    }

    #[test]
    fn refusals_without_a_status_say_what_there_is() {
        let text = |body: &str| refusal(StatusCode::BAD_GATEWAY, body.as_bytes()).kubectl_text();
        assert_eq!(text(""), "Error from server: 502 Bad Gateway");
        assert_eq!(text("no\n"), "Error from server: no");
        assert_eq!(text(r#"{"reason": "Gone", "message": "left"}"#), "Error from server (Gone): left");
    }
}
