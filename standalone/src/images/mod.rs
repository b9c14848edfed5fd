//! containerDisk images: found, verified, and the one disk in them kept ready as a file.
//!
//! Reading order: [`mod@reference`] says where an image is, [`blobs`] reads a layout in a folder or a tar file,
//! [`registry`] makes such a layout of a registry's image, [`manifest`] picks the image for this machine,
//! [`layers`] takes the disk out of its layers, [`mod@format`] looks at the disk, [`cache`] keeps it.
//!
//! Invariants: everything is verified by its digest before it is used; what is in the cache is whole, for it is
//! renamed into place; a disk is addressed by its content, so a tag that moves never changes a running VM.

mod blobs;
mod cache;
mod error;
mod format;
mod layers;
mod manifest;
mod reference;
mod registry;

pub use cache::{DiskImage, Images, Wanted};
pub use error::ImageError;
pub use format::DiskFormat;
pub use manifest::architecture;
pub use registry::Credentials;
