//! UnderlayNetworks of a folder of manifests: for a node that no API server tells of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_api::decode::{DecodeError, Object, decode_documents};
use holdfast_api::underlay::UnderlayNetwork;

/// Why a folder of networks cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("failed to read `{}`", .path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("failed to decode document {index} of `{}`", .path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Which document, from 0.
        index: usize,
        /// Why.
        source: DecodeError,
    },
}

/// Reads each UnderlayNetwork in the `.yaml`, `.yml` and `.json` files of `folder`; objects of other kinds are not
/// looked at.
///
/// # Errors
/// [`FolderError`] of the first file or document that cannot be read.
pub fn read_folder(folder: &Path) -> Result<BTreeMap<String, UnderlayNetwork>, FolderError> {
    let failed = |path: &Path, source| FolderError::Io { path: path.to_owned(), source };
    let mut networks = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        if !path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known)) {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        for document in decode_documents(&text) {
            match document.object {
                Ok(Object::UnderlayNetwork(network)) => {
                    networks.insert(network.metadata.name.clone().unwrap_or_default(), *network);
                }
                Ok(_) => {}
                Err(source) => return Err(FolderError::Decode { path, index: document.index, source }),
            }
        }
    }
    Ok(networks)
}
