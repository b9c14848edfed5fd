//! Calls of the API server: each has a deadline, and an error that says what was tried.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use holdfast_api::names::is_dns_subdomain;
use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{Request, Status};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::Key;

/// No call takes longer.
const DEADLINE: Duration = Duration::from_secs(15);

/// A namespaced kind that is known when this is compiled.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned
{
}

/// Why a call did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refused, or could not be reached.
    #[error("failed to {verb} {kind} `{key}`")]
    Refused {
        /// What was tried.
        verb: &'static str,
        /// With which kind.
        kind: String,
        /// With which object.
        key: Key,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// What was asked for can be the name of no object, and would make another address of the call.
    #[error("failed to {verb} {kind} `{key}`: that is no name of an object")]
    Name {
        /// What was tried.
        verb: &'static str,
        /// With which kind.
        kind: String,
        /// With which object.
        key: Key,
    },
    /// It did not answer.
    #[error("failed to {verb} {kind} `{key}`: no answer in {} s", DEADLINE.as_secs())]
    Deadline {
        /// What was tried.
        verb: &'static str,
        /// With which kind.
        kind: String,
        /// With which object.
        key: Key,
    },
}

impl ApiError {
    /// The API server's answer, where it gave one.
    pub fn answer(&self) -> Option<&Status> {
        match self {
            Self::Refused { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Name { .. } | Self::Deadline { .. } => None,
        }
    }

    /// HTTP's code of the answer.
    pub fn code(&self) -> Option<u16> {
        self.answer().map(|status| status.code)
    }

    /// Somebody else changed the object in between, or it is not there any more: look again.
    pub fn is_stale(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// The server understood and refuses: trying the same again at once is of no use.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Name { .. }) || matches!(self.code(), Some(400..=499)) && self.code() != Some(429)
    }

    /// The API server knows the kind of an owner no better than this: it was installed a moment ago.
    pub fn is_early(&self) -> bool {
        self.code() == Some(403)
            && self.answer().is_some_and(|status| status.message.contains("cannot find RESTMapping"))
    }
}

/// Creates an object.
///
/// The API server keeps the data of a ControllerRevision as it came, but writes it in its own way with each change of
/// the object. Where that is another text it takes the data for changed, and refuses: then nobody could take away the
/// object's owner, and a VM that is to leave its VMI behind would never go. So it comes in the API server's way.
pub async fn create<K: Object>(client: &Client, object: &K) -> Result<K, ApiError> {
    let key = Key::of(object.meta());
    let create = async {
        let text = serde_json::to_string(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(K::url_path(&(), Some(&key.namespace)));
        let request = request.create(&PostParams::default(), as_go_writes(&text).into_bytes());
        client.request::<K>(request.map_err(kube::Error::BuildRequest)?).await
    };
    call::<K, _>("create", &key, create).await.map(lean)
}

/// JSON as Go's encoder writes it. What it escapes is in strings only.
fn as_go_writes(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}

/// Gets an object, if there is one, as it is and not as a cache has it.
pub async fn get<K: Object>(client: &Client, key: &Key) -> Result<Option<K>, ApiError> {
    Ok(call::<K, _>("get", key, namespaced::<K>(client, key).get_opt(&key.name)).await?.map(lean))
}

/// The objects of a namespace that have a label.
pub async fn list<K: Object>(client: &Client, namespace: &str, selector: &str) -> Result<Vec<K>, ApiError> {
    let key = Key::new(namespace, "");
    let params = ListParams::default().labels(selector);
    Ok(call::<K, _>("list", &key, namespaced::<K>(client, &key).list(&params)).await?.items)
}

/// The objects of a namespace whose fields are so.
pub async fn list_fields<K: Object>(client: &Client, namespace: &str, selector: &str) -> Result<Vec<K>, ApiError> {
    let key = Key::new(namespace, "");
    let params = ListParams::default().fields(selector);
    Ok(call::<K, _>("list", &key, namespaced::<K>(client, &key).list(&params)).await?.items)
}

/// Changes an object by a JSON merge patch (RFC 7386).
pub async fn patch<K: Object>(client: &Client, key: &Key, change: &Value) -> Result<K, ApiError> {
    let params = PatchParams::default();
    let change = Patch::Merge(change);
    call::<K, _>("patch", key, namespaced::<K>(client, key).patch(&key.name, &params, &change)).await.map(lean)
}

/// Changes an object's status by a JSON merge patch.
pub async fn patch_status<K: Object>(client: &Client, key: &Key, change: &Value) -> Result<K, ApiError> {
    let params = PatchParams::default();
    let request = async { namespaced::<K>(client, key).patch_status(&key.name, &params, &Patch::Merge(change)).await };
    call::<K, _>("patch the status of", key, request).await.map(lean)
}

/// Changes a list in an object's status by its keys (a strategic merge patch), so that entries of others stay.
pub async fn merge_status<K: Object>(client: &Client, key: &Key, change: &Value) -> Result<K, ApiError> {
    let params = PatchParams::default();
    let request =
        async { namespaced::<K>(client, key).patch_status(&key.name, &params, &Patch::Strategic(change)).await };
    call::<K, _>("patch the status of", key, request).await.map(lean)
}

/// Deletes the object with this UID, and no younger one of its name. Returns it as it is while it goes, or nothing
/// where it is gone.
pub async fn delete<K: Object>(
    client: &Client,
    key: &Key,
    uid: &str,
    grace: Option<u32>,
) -> Result<Option<K>, ApiError> {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let params = DeleteParams { grace_period_seconds: grace, preconditions, ..DeleteParams::default() };
    match call::<K, _>("delete", key, namespaced::<K>(client, key).delete(&key.name, &params)).await {
        Ok(left) => Ok(left.left().map(lean)),
        Err(error) if error.is_stale() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A call about a kind that is known only when it is made.
pub async fn dynamic<T>(
    verb: &'static str,
    kind: &str,
    key: &Key,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let kind = || kind.to_owned();
    // The client escapes nothing in a name.
    if !([&key.namespace, &key.name].into_iter().all(|part| part.is_empty() || is_dns_subdomain(part))) {
        return Err(ApiError::Name { verb, kind: kind(), key: key.clone() });
    }
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ApiError::Refused { verb, kind: kind(), key: key.clone(), source: Box::new(error) }),
        Err(_) => Err(ApiError::Deadline { verb, kind: kind(), key: key.clone() }),
    }
}

/// An object as it is kept: without what tells who wrote which field.
fn lean<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn namespaced<K: Object>(client: &Client, key: &Key) -> Api<K> {
    Api::namespaced(client.clone(), &key.namespace)
}

async fn call<K: Object, T>(
    verb: &'static str,
    key: &Key,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    dynamic(verb, &K::kind(&()), key, request).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_go_escapes_is_escaped_and_means_the_same() {
        let value = serde_json::json!({"data": "a <b> && \u{2028}\u{2029} \"\\\" é"});
        let text = as_go_writes(&value.to_string());
        assert_eq!(text, r#"{"data":"a \u003cb\u003e \u0026\u0026 \u2028\u2029 \"\\\" é"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    async fn answered(key: Key, result: kube::Result<()>) -> ApiError {
        dynamic("get", "Thing", &key, async { result }).await.unwrap_err()
    }

    #[tokio::test]
    async fn what_is_no_name_comes_into_no_url() {
        for name in ["../../secrets/x", "a?watch=1", "a#", "a/b", "..", "A"] {
            for key in [Key::new("n", name), Key::new(name, "a")] {
                let error = answered(key, Ok(())).await;
                assert!(matches!(error, ApiError::Name { .. }) && error.is_refusal(), "{name}: {error}");
            }
        }
        for key in [Key::new("", "a.b"), Key::new("n", "")] {
            assert!(dynamic("get", "Thing", &key, async { Ok(()) }).await.is_ok(), "{key}");
        }
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_know_a_kind_yet_is_asked_again_soon() {
        let refused = |message: &str| {
            let status = Status::failure(message, "Forbidden").with_code(403);
            answered(Key::new("n", "a"), Err(kube::Error::Api(status.boxed())))
        };
        let words = "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                     kubevirt.io/v1 Kind VirtualMachine: no matches for kind";
        assert!(refused(words).await.is_early());
        let never = refused("exceeded quota").await;
        assert!(!never.is_early() && never.is_refusal());
    }
}
