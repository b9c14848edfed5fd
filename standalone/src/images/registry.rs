//! Images of a registry: brought into a layout in a folder, verified there like any other.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::ImageError;

/// Longest that a pull may take.
const DEADLINE: Duration = Duration::from_secs(1800);
/// Longest that a registry may take to say what a tag means.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(60);

/// User and password of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password; shown to nobody.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The credentials for a registry in a `.dockerconfigjson`; none where it has none for it.
    pub fn find(docker_config: &[u8], registry: &str) -> Option<Self> {
        let config: Value = serde_json::from_slice(docker_config).ok()?;
        let host = |key: &str| {
            let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
            key.split('/').next().unwrap_or_default().to_owned()
        };
        let auths = config["auths"].as_object()?;
        let entry = auths.iter().find(|(key, _)| host(key) == registry).map(|(_, entry)| entry)?;
        if let (Some(user), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
            return Some(Self { user: user.to_owned(), password: password.to_owned() });
        }
        let decoded = STANDARD.decode(entry["auth"].as_str()?).ok()?;
        let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(Self { user: user.to_owned(), password: password.to_owned() })
    }
}

/// A registry's image, resolved to what it is now.
pub struct Remote<'a> {
    client: Client,
    reference: &'a Reference,
    auth: RegistryAuth,
    manifest: OciImageManifest,
    /// Digest of its manifest.
    pub digest: String,
}

impl<'a> Remote<'a> {
    /// Asks the registry what a reference means now.
    pub async fn resolve(reference: &'a Reference, credentials: Option<&Credentials>) -> Result<Self, ImageError> {
        let registry = reference.resolve_registry();
        let local = ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|host| registry.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
        // Without TLS on this host only, as container runtimes do.
        let protocol = if local { ClientProtocol::Http } else { ClientProtocol::Https };
        let client = Client::new(ClientConfig { protocol, ..Default::default() });
        let auth = match credentials {
            Some(c) => RegistryAuth::Basic(c.user.clone(), c.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let text = reference.to_string();
        let pulled = timeout(RESOLVE_DEADLINE, client.pull_image_manifest(reference, &auth)).await;
        let (manifest, digest) = pulled
            .map_err(|_| ImageError::Deadline { reference: text.clone(), seconds: RESOLVE_DEADLINE.as_secs() })?
            .map_err(|error| ImageError::Pull { reference: text, source: Box::new(error) })?;
        Ok(Self { client, reference, auth, manifest, digest })
    }

    /// Brings it into a layout in `folder`, which is empty.
    pub async fn fetch(&self, folder: &Path) -> Result<(), ImageError> {
        let text = self.reference.to_string();
        let fetched = timeout(DEADLINE, self.fetch_parts(folder)).await;
        fetched.map_err(|_| ImageError::Deadline { reference: text, seconds: DEADLINE.as_secs() })?
    }

    async fn fetch_parts(&self, folder: &Path) -> Result<(), ImageError> {
        let failed = |error: io::Error| ImageError::Cache(folder.to_owned(), error);
        let refused = |error| ImageError::Pull { reference: self.reference.to_string(), source: Box::new(error) };
        let blobs = folder.join("blobs/sha256");
        tokio::fs::create_dir_all(&blobs).await.map_err(failed)?;
        let pinned = self.reference.clone_with_digest(self.digest.clone());
        let (manifest, _) = self
            .client
            .pull_manifest_raw(&pinned, &self.auth, &[OCI_IMAGE_MEDIA_TYPE, DOCKER])
            .await
            .map_err(refused)?;
        let hex = hex::encode(Sha256::digest(&manifest));
        tokio::fs::write(blobs.join(&hex), &manifest).await.map_err(failed)?;
        for layer in &self.manifest.layers {
            let name =
                layer.digest.strip_prefix("sha256:").filter(|hex| hex.bytes().all(|b| b.is_ascii_alphanumeric()));
            let name = name.ok_or_else(|| ImageError::MissingBlob(layer.digest.clone()))?;
            let file = tokio::fs::File::create(blobs.join(name)).await.map_err(failed)?;
            self.client.pull_blob(self.reference, layer, file).await.map_err(refused)?;
        }
        let media_type = self.manifest.media_type.as_deref().unwrap_or(OCI_IMAGE_MEDIA_TYPE);
        let descriptor = json!({"mediaType": media_type, "digest": self.digest, "size": manifest.len()});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        tokio::fs::write(folder.join("index.json"), index.to_string()).await.map_err(failed)?;
        tokio::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).await.map_err(failed)
    }
}

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_and_not_shown() {
        let config = json!({"auths": {
            "https://a.example/v1/": {"auth": STANDARD.encode("me:pa:ss")},
            "localhost:5000": {"username": "u", "password": "p"},
        }});
        let config = config.to_string();
        let found = Credentials::find(config.as_bytes(), "a.example").unwrap();
        assert_eq!(found, Credentials { user: "me".into(), password: "pa:ss".into() });
        assert!(!format!("{found:?}").contains("pa:ss"));
        assert_eq!(Credentials::find(config.as_bytes(), "localhost:5000").unwrap().user, "u");
        assert!(Credentials::find(config.as_bytes(), "b.example").is_none());
    }
}
