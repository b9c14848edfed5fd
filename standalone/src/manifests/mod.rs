//! The folder of manifests: what shall be on this host.
//!
//! Reading order: [`mod@scan`] reads the folder into documents, [`admit`] judges one object as an API server would,
//! [`apply`] makes the store agree, [`edit`] takes a document out of its file, [`mod@watch`] does it again whenever
//! something changes.
//!
//! Invariants: one wrong document never keeps another from being applied; an object whose document is wrong, or
//! whose file cannot be read, goes on as it was; a document that did not change leaves its object alone, with all
//! that was changed there by other means; nothing is deleted because of a file that an editor is in the middle of.

mod admit;
mod apply;
mod edit;
mod scan;
mod watch;

pub use apply::{Applier, FileErrors, is_placeholder, manifest_error};
pub use edit::{EditError, remove_document};
pub use scan::{Scan, ScanError, scan};
pub use watch::{WatchError, watch};

/// Annotation: the file that an object comes from, relative to the folder.
pub const MANIFEST_ANNOTATION: &str = "holdfast.io/manifest";
/// Annotation: digest of the document that was applied last.
pub const APPLIED_ANNOTATION: &str = "holdfast.io/applied";
/// Annotation: what is wrong with the document as it is now.
pub const ERROR_ANNOTATION: &str = "holdfast.io/manifest-error";
/// Reason of conditions and events about a wrong document.
pub const INVALID: &str = "InvalidManifest";
/// Namespace of objects whose document gives none.
pub const DEFAULT_NAMESPACE: &str = "default";
