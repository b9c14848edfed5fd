//! The one image of a layout that is for this machine.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use sha2::{Digest, Sha256};

use super::ImageError;
use super::blobs::Blobs;

/// Annotation that holds a tag in a layout's index.
const TAG: &str = "org.opencontainers.image.ref.name";

/// A manifest that was found and verified.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the manifest, `sha256:...`.
    pub digest: String,
    /// The manifest.
    pub manifest: ImageManifest,
}

/// Finds the image of a tag (or the only one) for this machine.
pub fn find(blobs: &Blobs, tag: Option<&str>) -> Result<Image, ImageError> {
    let content = blobs.index()?;
    let index = parse_index("index.json", &content)?;
    let tag_of = |d: &Descriptor| d.annotations().as_ref().and_then(|a| a.get(TAG)).cloned();
    let candidates: Vec<&Descriptor> = match tag {
        // Tools write the tag alone or the whole reference.
        Some(tag) => {
            let fits = |text: &String| text == tag || text.ends_with(&format!(":{tag}"));
            index.manifests().iter().filter(|d| tag_of(d).is_some_and(|text| fits(&text))).collect()
        }
        None => index.manifests().iter().collect(),
    };
    let found = || {
        let tags: Vec<String> =
            index.manifests().iter().map(|d| tag_of(d).unwrap_or_else(|| d.digest().to_string())).collect();
        if tags.is_empty() { "none".to_owned() } else { tags.join(", ") }
    };
    let wanted = tag.map_or_else(|| "a reference without a tag".to_owned(), |tag| format!("tag `{tag}`"));
    match candidates.as_slice() {
        [one] => of_descriptor(blobs, one),
        // Several at the top are one image for several platforms, or several images: only the former is clear.
        several if several.iter().any(|d| fits_platform(d)) => for_platform(blobs, several),
        _ => Err(ImageError::NotFound { wanted, found: found() }),
    }
}

fn of_descriptor(blobs: &Blobs, descriptor: &Descriptor) -> Result<Image, ImageError> {
    let digest = descriptor.digest().to_string();
    let content = verified(blobs, &digest)?;
    if matches!(descriptor.media_type(), MediaType::ImageIndex)
        || descriptor.media_type().to_string() == "application/vnd.docker.distribution.manifest.list.v2+json"
    {
        let index = parse_index(&digest, &content)?;
        return for_platform(blobs, &index.manifests().iter().collect::<Vec<_>>());
    }
    let manifest = serde_json::from_slice(&content)
        .map_err(|error| ImageError::Manifest { digest: digest.clone(), reason: place(&error) })?;
    Ok(Image { digest, manifest })
}

fn for_platform(blobs: &Blobs, descriptors: &[&Descriptor]) -> Result<Image, ImageError> {
    let fitting = descriptors.iter().find(|descriptor| fits_platform(descriptor));
    let Some(descriptor) = fitting else {
        let platform = |d: &&Descriptor| {
            d.platform().as_ref().map_or_else(|| "unknown".to_owned(), |p| format!("{}/{}", p.os(), p.architecture()))
        };
        let found: Vec<String> = descriptors.iter().map(platform).collect();
        return Err(ImageError::NotFound { wanted: format!("linux/{}", architecture()), found: found.join(", ") });
    };
    if matches!(descriptor.media_type(), MediaType::ImageIndex) {
        let digest = descriptor.digest().to_string();
        return Err(ImageError::Manifest { digest, reason: "indexes are nested too deeply".to_owned() });
    }
    of_descriptor(blobs, descriptor)
}

fn fits_platform(descriptor: &Descriptor) -> bool {
    let fits =
        |p: &oci_spec::image::Platform| p.os().to_string() == "linux" && p.architecture().to_string() == architecture();
    descriptor.platform().as_ref().is_some_and(fits)
}

/// This machine as images name it: `amd64`, `arm64`.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn verified(blobs: &Blobs, digest: &str) -> Result<Vec<u8>, ImageError> {
    let content = blobs.document(digest)?;
    let found = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
    if found == digest { Ok(content) } else { Err(ImageError::Digest { expected: digest.to_owned(), found }) }
}

fn parse_index(name: &str, content: &[u8]) -> Result<ImageIndex, ImageError> {
    serde_json::from_slice(content)
        .map_err(|error| ImageError::Manifest { digest: name.to_owned(), reason: place(&error) })
}

/// Where a document is wrong; the parser's own words quote the document, which may be any file of the host.
fn place(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "it is not of the form that OCI demands" } else { "it is not JSON" };
    format!("{what} (line {}, column {})", error.line(), error.column())
}
