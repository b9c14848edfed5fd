//! What can be wrong with an image.

use std::io;
use std::path::PathBuf;

/// Why an image gives no disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference is not understood.
    #[error("image reference `{reference}` is wrong: {reason}")]
    Reference {
        /// As given.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder of the image cannot be read.
    #[error("failed to read `{0}`")]
    Read(PathBuf, #[source] io::Error),
    /// A folder or file is no OCI image layout.
    #[error("`{0}` is no OCI image layout: {1}")]
    Layout(PathBuf, String),
    /// A file is no tar archive. What the tar reader says of it is not passed on: it quotes the file, which may be
    /// any of the host's.
    #[error("`{0}` is not a tar archive")]
    NotTar(PathBuf),
    /// A part of the image is missing.
    #[error("blob {0} is missing")]
    MissingBlob(String),
    /// A part of the image is not what its digest says.
    #[error("blob {expected} is damaged: its content has digest {found}")]
    Digest {
        /// As the manifest says.
        expected: String,
        /// As it is.
        found: String,
    },
    /// A manifest cannot be understood.
    #[error("manifest {digest} cannot be read: {reason}")]
    Manifest {
        /// Of the manifest.
        digest: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no image of that tag or platform.
    #[error("no image for {wanted}; there are {found}")]
    NotFound {
        /// Tag or platform.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A layer cannot be unpacked.
    #[error("failed to unpack layer {0}")]
    Unpack(String, #[source] io::Error),
    /// The image holds no disk.
    #[error("the image has no disk: no file at {0}")]
    NoDisk(String),
    /// The image holds more than one.
    #[error("the image has more than one file under /disk ({}): name one by `containerDisk.path`", .0.join(", "))]
    SeveralDisks(Vec<String>),
    /// The disk is not one that a VM can use.
    #[error("disk `{name}` of the image cannot be used: {reason}")]
    Disk {
        /// Its path in the image.
        name: String,
        /// Why.
        reason: String,
    },
    /// The registry did not give the image.
    #[error("failed to pull `{reference}`")]
    Pull {
        /// As given.
        reference: String,
        /// What the registry said.
        #[source]
        source: Box<oci_client::errors::OciDistributionError>,
    },
    /// The registry took too long.
    #[error("failed to pull `{reference}`: not done within {seconds} s")]
    Deadline {
        /// As given.
        reference: String,
        /// The deadline.
        seconds: u64,
    },
    /// The policy forbids to pull and the image is not there.
    #[error("image `{0}` is not on this host and imagePullPolicy is Never")]
    NeverPull(String),
    /// The cache cannot be written.
    #[error("failed to keep the image in `{0}`")]
    Cache(PathBuf, #[source] io::Error),
}

impl ImageError {
    /// The reason as a kubelet gives it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            _ => "ErrImagePull",
        }
    }
}
