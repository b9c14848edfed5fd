//! Where an image is: a folder, a file, or a registry.

use std::path::PathBuf;

use super::ImageError;

/// A parsed `containerDisk.image`.
#[derive(Clone, Debug, PartialEq)]
pub enum Location {
    /// `oci:FOLDER[:TAG]`: an OCI image layout.
    Folder(PathBuf, Option<String>),
    /// `oci-archive:FILE[:TAG]`: the same in a tar file.
    Archive(PathBuf, Option<String>),
    /// Anything else: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
    Registry(oci_client::Reference),
}

/// Reads a reference.
pub fn parse(reference: &str) -> Result<Location, ImageError> {
    let wrong = |reason: String| ImageError::Reference { reference: reference.to_owned(), reason };
    if let Some(rest) = reference.strip_prefix("oci:") {
        let (path, tag) = split(rest).map_err(wrong)?;
        return Ok(Location::Folder(path, tag));
    }
    if let Some(rest) = reference.strip_prefix("oci-archive:") {
        let (path, tag) = split(rest).map_err(wrong)?;
        return Ok(Location::Archive(path, tag));
    }
    let name = reference.strip_prefix("docker://").unwrap_or(reference);
    name.parse().map(Location::Registry).map_err(|error| {
        wrong(format!("{error}; give [HOST[:PORT]/]NAME[:TAG][@DIGEST], oci:/FOLDER[:TAG] or oci-archive:/FILE[:TAG]"))
    })
}

/// A tag is what follows the last `:`, unless that is part of the path.
fn split(text: &str) -> Result<(PathBuf, Option<String>), String> {
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => (path, Some(tag.to_owned())),
        _ => (text, None),
    };
    if path.starts_with('/') { Ok((PathBuf::from(path), tag)) } else { Err(format!("`{path}` is no absolute path")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_files_and_registries() {
        let folder = Location::Folder("/a/b".into(), None);
        assert_eq!(parse("oci:/a/b").unwrap(), folder);
        assert_eq!(parse("oci:/a/b:v1").unwrap(), Location::Folder("/a/b".into(), Some("v1".into())));
        assert_eq!(parse("oci-archive:/a:x/b.tar").unwrap(), Location::Archive("/a:x/b.tar".into(), None));
        let Location::Registry(reference) = parse("localhost:5000/guest:v1").unwrap() else { panic!() };
        assert_eq!((reference.registry(), reference.tag()), ("localhost:5000", Some("v1")));
        assert!(parse("oci:guest").unwrap_err().to_string().contains("absolute"));
        assert!(parse("UPPER case").unwrap_err().to_string().contains("oci-archive:/FILE"));
    }
}
