//! The API server, asked as curl would: paths, bodies and codes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::BodyExt;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// Longest that an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);

/// An answer: code, and body as JSON or, where it is none, as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The body.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// With what was answered.
    pub fn ok(self) -> Result<Value> {
        if self.code < 300 { Ok(self.body) } else { bail!("{}: {}", self.code, self.body) }
    }
}

/// The API server of the kubeconfig that `KUBECONFIG` names.
#[derive(Clone)]
pub struct Api {
    client: Client,
}

impl Api {
    /// Connects.
    ///
    /// # Errors
    /// Without a kubeconfig.
    pub async fn connect() -> Result<Self> {
        // Tests share the process: another may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { client: Client::try_default().await.context("failed to read KUBECONFIG")? })
    }

    /// Sends a request. A body that is a string is sent as it is, any other as JSON.
    ///
    /// # Errors
    /// Where there is no answer.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let content = match body {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        };
        let request = Request::builder().method(&method).uri(path).header(CONTENT_TYPE, kind);
        let request = request.body(Body::from(content))?;
        let answer = timeout(ANSWER, async {
            let response = self.client.send(request).await?;
            let code = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
            anyhow::Ok(Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) })
        });
        answer.await.context("no answer in time")?.with_context(|| format!("failed to {method} {path}"))
    }

    /// Reads what is at a path; none where nothing is.
    ///
    /// # Errors
    /// On any other refusal.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.call(Method::GET, path, &Value::Null).await?;
        if answer.code == 404 { Ok(None) } else { answer.ok().map(Some) }
    }

    /// Deletes what is at a path and waits until it is gone.
    ///
    /// # Errors
    /// Where it is refused, or does not go in time.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let answer = self.call(Method::DELETE, path, &json!({})).await?;
        if answer.code == 404 {
            return Ok(());
        }
        answer.ok()?;
        self.until(&format!("{path} is gone"), Duration::from_secs(120), async || {
            Ok(self.get(path).await?.is_none().then_some(()))
        })
        .await
    }

    /// Looks again and again until `look` finds something.
    ///
    /// # Errors
    /// At the deadline, with what was waited for; at once where looking fails.
    pub async fn until<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut look: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if Instant::now() > end {
                bail!("waited {deadline:?} in vain until {what}");
            }
            sleep(LOOK).await;
        }
    }

    /// The path of a collection, from `apiVersion` and `kind` of its objects; none for a kind that is not served.
    ///
    /// # Errors
    /// Where the discovery fails.
    pub async fn collection(&self, api_version: &str, kind: &str, namespace: &str) -> Result<Option<String>> {
        let root =
            if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
        let Some(list) = self.get(&root).await? else { return Ok(None) };
        let resources = list["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.iter().find(|r| r["kind"] == kind && !r["name"].as_str().unwrap_or("/").contains('/'));
        Ok(found.map(|resource| {
            let plural = resource["name"].as_str().unwrap_or_default();
            if resource["namespaced"] == true {
                format!("{root}/namespaces/{namespace}/{plural}")
            } else {
                format!("{root}/{plural}")
            }
        }))
    }
}

/// The conditions of an object's status by type.
pub fn conditions(object: &Value) -> BTreeMap<String, Value> {
    let list = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.into_iter().map(|c| (c["type"].as_str().unwrap_or_default().to_owned(), c)).collect()
}
