//! Who asks: the API server's front proxy says so, and nobody else may.
//!
//! The API server authenticates a user and hands the request on, with the user's name and groups in headers. It
//! proves itself by a client certificate; which authority signs it, which names it may have and what the headers are
//! called stands in the config map `extension-apiserver-authentication` of `kube-system`, which is followed.
//!
//! **Invariant:** a header that names a user counts only on a connection whose client certificate was verified by
//! the front proxy's authority and has an allowed name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use futures::{StreamExt, pin_mut};
use holdfast_kubernetes::tls::Peer;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::answer::{Refusal, unauthorized};

const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The UID, if there is one.
    pub uid: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator said.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// How the front proxy proves itself, and how it names users. By default nobody is it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontProxy {
    /// Bundle of the authorities of its certificate; without any, there is none.
    authorities: Vec<u8>,
    /// Names that its certificate may have; any, where there are none.
    names: Vec<String>,
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    extra: Vec<String>,
}

/// The config map is wrong.
#[derive(Debug, thiserror::Error)]
#[error("failed to read `{key}` of the config map `{NAMESPACE}/{CONFIG_MAP}`")]
pub struct ConfigError {
    key: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl FrontProxy {
    /// Reads the config map.
    pub fn of(map: &ConfigMap) -> Result<Self, ConfigError> {
        let text = |key: &str| map.data.as_ref().and_then(|data| data.get(key));
        let list = |key: &'static str| -> Result<Vec<String>, ConfigError> {
            let text = text(key).map_or("[]", String::as_str);
            serde_json::from_str(text).map_err(|error| ConfigError { key, source: error.into() })
        };
        let headers = |key: &'static str| -> Result<Vec<HeaderName>, ConfigError> {
            let names = list(key)?.into_iter();
            let names = names.map(|name| name.parse().map_err(|error| ConfigError { key, source: Box::new(error) }));
            names.collect()
        };
        Ok(Self {
            authorities: text("requestheader-client-ca-file").cloned().unwrap_or_default().into_bytes(),
            names: list("requestheader-allowed-names")?,
            user: headers("requestheader-username-headers")?,
            uid: headers("requestheader-uid-headers")?,
            groups: headers("requestheader-group-headers")?,
            extra: list("requestheader-extra-headers-prefix")?
                .into_iter()
                .map(|prefix| prefix.to_ascii_lowercase())
                .collect(),
        })
    }

    /// The bundle of authorities, in PEM.
    pub fn authorities(&self) -> &[u8] {
        &self.authorities
    }

    /// Who asks.
    ///
    /// # Errors
    /// 401, where that is not known.
    pub fn user(&self, peer: &Peer, headers: &HeaderMap) -> Result<User, Refusal> {
        let proxy = peer.common_name().ok_or_else(unauthorized)?;
        if self.authorities.is_empty() || !(self.names.is_empty() || self.names.iter().any(|name| name == proxy)) {
            return Err(unauthorized());
        }
        let first = |names: &[HeaderName]| {
            let values = names.iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.map(str::to_owned).find(|value| !value.is_empty())
        };
        let name = first(&self.user).ok_or_else(unauthorized)?;
        let groups = self.groups.iter().flat_map(|name| headers.get_all(name));
        let groups = groups.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        Ok(User { name, uid: first(&self.uid), groups, extra: self.extra(headers) })
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let key = self.extra.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key.filter(|key| !key.is_empty()), value.to_str()) {
                extra.entry(unescape(key)).or_default().push(value.to_owned());
            }
        }
        extra
    }
}

/// Undoes percent-encoding; a key that is not encoded well is taken as it is, as the API server does.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                return key.to_owned();
            };
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned())
}

/// Follows the config map. The first state is there at once; a map that cannot be read leaves what was.
///
/// # Errors
/// Where the config map cannot be got, or is wrong from the beginning.
pub async fn follow(client: Client) -> anyhow::Result<watch::Receiver<Arc<FrontProxy>>> {
    let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let first = FrontProxy::of(&api.get(CONFIG_MAP).await?)?;
    let (sender, receiver) = watch::channel(Arc::new(first));
    tokio::spawn(async move {
        let states = watcher::watch_object(api, CONFIG_MAP).default_backoff();
        pin_mut!(states);
        loop {
            let state = tokio::select! {
                () = sender.closed() => return,
                state = states.next() => state,
            };
            let proxy = match state {
                Some(Ok(Some(map))) => FrontProxy::of(&map).map_err(|error| holdfast_kubernetes::chain(&error)),
                // Without the config map nobody can prove anything.
                Some(Ok(None)) => Ok(FrontProxy::default()),
                Some(Err(error)) => Err(holdfast_kubernetes::chain(&error)),
                None => return,
            };
            match proxy {
                Ok(proxy) => {
                    sender.send_if_modified(|current| {
                        let changed = **current != proxy;
                        if changed {
                            *current = Arc::new(proxy);
                        }
                        changed
                    });
                }
                Err(error) => tracing::warn!(error, "the front proxy's configuration stays as it was"),
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use holdfast_kubernetes::tls::Subject;
    use serde_json::{Value, json};

    use super::*;

    fn proxy(changes: &Value) -> FrontProxy {
        let mut data = json!({
            "requestheader-client-ca-file": "PEM",
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        });
        for (key, value) in changes.as_object().unwrap() {
            data[key] = value.clone();
        }
        FrontProxy::of(&serde_json::from_value(json!({"data": data})).unwrap()).unwrap()
    }

    fn peer(name: &str) -> Peer {
        Peer { subject: Some(Arc::new(Subject { common_name: name.to_owned(), organisations: Vec::new() })) }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_front_proxy_names_the_user() {
        let headers = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "17"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-authentication.kubernetes.io%2fcredential-id", "JTI=1"),
            ("x-remote-extra-scopes", "one"),
            ("x-remote-extra-scopes", "two"),
            ("x-remote-extra-100%", "odd"),
        ]);
        let user = proxy(&json!({})).user(&peer("front-proxy-client"), &headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_deref()), ("jane", Some("17")));
        assert_eq!(user.groups, ["a", "b"]);
        let extra: Vec<_> = user.extra.into_iter().collect();
        let list = |key: &str, values: &[&str]| (key.to_owned(), values.iter().map(|&v| v.to_owned()).collect());
        assert_eq!(
            extra,
            [
                list("100%", &["odd"]),
                list("authentication.kubernetes.io/credential-id", &["JTI=1"]),
                list("scopes", &["one", "two"]),
            ]
        );
    }

    #[test]
    fn nobody_else_does() {
        let headers = headers(&[("x-remote-user", "admin"), ("x-remote-group", "system:masters")]);
        let one = proxy(&json!({}));
        assert_eq!(one.user(&Peer::default(), &headers), Err(unauthorized()), "no certificate");
        assert_eq!(one.user(&peer("somebody"), &headers), Err(unauthorized()), "another's certificate");
        assert_eq!(one.user(&peer("front-proxy-client"), &HeaderMap::new()), Err(unauthorized()), "no user");
        assert_eq!(one.user(&peer(""), &headers), Err(unauthorized()), "a certificate without a name");
        let any = proxy(&json!({"requestheader-allowed-names": "[]"}));
        assert!(any.user(&peer("somebody"), &headers).is_ok());
        let none = proxy(&json!({"requestheader-client-ca-file": "", "requestheader-allowed-names": "[]"}));
        assert_eq!(none.user(&peer("somebody"), &headers), Err(unauthorized()), "no authority");
        assert_eq!(FrontProxy::default().user(&peer("somebody"), &headers), Err(unauthorized()));
    }

    #[test]
    fn a_wrong_config_map_is_told() {
        let map = json!({"data": {"requestheader-allowed-names": "front-proxy-client"}});
        let error = FrontProxy::of(&serde_json::from_value(map).unwrap()).unwrap_err();
        assert!(error.to_string().contains("requestheader-allowed-names"), "{error}");
    }
}
