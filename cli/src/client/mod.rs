//! Requests to who answers for the VMs: the API server of a cluster, or the holdfastd of this host. Both speak the
//! same API; each request has a deadline.

mod cluster;
mod unix;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::WARNING;
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use cluster::{Cluster, ClusterArgs};
pub use unix::Holdfastd;

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
    /// No kubeconfig, or one that cannot be used.
    #[error(
        "failed to read a kubeconfig (--kubeconfig, KUBECONFIG or ~/.kube/config); for the VMs of this host, say `virtctl --standalone`"
    )]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The API server cannot be reached, or the client's credentials cannot be used.
    #[error("failed to reach {0}")]
    Cluster(String, #[source] Box<kube::Error>),
    /// The stream that was opened is not what was asked for.
    #[error("failed to open a stream to {0}: its answer is no websocket of {STREAM}")]
    NoStream(String),
    /// No answer in time.
    #[error("failed to get an answer from {0} within {1:?} (--request-timeout)")]
    Deadline(String, Duration),
    /// The connection broke, or what came is not HTTP.
    #[error("failed to speak HTTP with {0}")]
    Http(String, #[source] hyper::Error),
    /// The path cannot be part of a request.
    #[error("failed to ask for `{0}`: a name or namespace has characters that none can have")]
    Path(String, #[source] hyper::http::Error),
    /// An answer that is not what the API promises.
    #[error("failed to understand the answer to `{0}`")]
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

/// A raw stream, both ways.
pub struct Stream {
    /// What comes.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

/// What came back for a request.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// Who answers.
pub enum Server {
    /// The API server of a cluster.
    Cluster(Cluster),
    /// The holdfastd of this host.
    Holdfastd(Holdfastd),
}

/// A client of who answers.
pub struct Client {
    server: Server,
    deadline: Duration,
    warned: RefCell<BTreeSet<String>>,
}

impl Client {
    /// Asks `server`, and waits for each answer up to `deadline`.
    pub fn new(server: Server, deadline: Duration) -> Self {
        Self { server, deadline, warned: RefCell::default() }
    }

    /// Reads what is at a path.
    pub async fn get(&self, path: &str) -> Result<Value, CallError> {
        let body = self.call(Method::GET, path, None).await?;
        serde_json::from_slice(&body).map_err(|error| CallError::Body(path.to_owned(), error))
    }

    /// Reads what is at a path, whatever it is.
    pub async fn bytes(&self, path: &str) -> Result<Bytes, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a body to a path; the answer's body is of no interest.
    pub async fn put(&self, path: &str, body: &Value) -> Result<(), CallError> {
        self.call(Method::PUT, path, Some(body)).await.map(drop)
    }

    /// Deletes what is at a path.
    pub async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Opens a raw stream.
    pub async fn stream(&self, path: &str) -> Result<Stream, CallError> {
        self.bounded(async {
            match &self.server {
                Server::Cluster(cluster) => cluster.stream(path).await,
                Server::Holdfastd(holdfastd) => holdfastd.stream(path).await,
            }
        })
        .await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes, CallError> {
        let answer = self
            .bounded(async {
                match &self.server {
                    Server::Cluster(cluster) => cluster.call(method, path, body).await,
                    Server::Holdfastd(holdfastd) => holdfastd.call(method, path, body).await,
                }
            })
            .await?;
        self.show_warnings(&answer.headers);
        if answer.status.is_success() { Ok(answer.body) } else { Err(refusal(answer.status, &answer.body)) }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        let place = || match &self.server {
            Server::Cluster(cluster) => cluster.place(),
            Server::Holdfastd(holdfastd) => holdfastd.place(),
        };
        timeout(self.deadline, call).await.map_err(|_| CallError::Deadline(place(), self.deadline))?
    }

    /// Prints the answer's warnings, each once.
    fn show_warnings(&self, headers: &HeaderMap) {
        for header in headers.get_all(WARNING) {
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
