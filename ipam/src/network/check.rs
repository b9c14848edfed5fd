//! What is refused of an UnderlayNetwork's spec: what is wrong anywhere, and what this version does not serve.

use holdfast_api::underlay::{UnderlayNetworkSpec, problems_of, unserved};

use super::NetworkError;

/// Refuses what cannot be carried out, with its path below `at`; first what would be refused however it were said.
pub(super) fn spec(name: &str, spec: &UnderlayNetworkSpec, at: &str) -> Result<(), NetworkError> {
    if let Some((field, why)) = unserved(spec).next() {
        return Err(NetworkError::unsupported(field, why));
    }
    if let Some(cause) = problems_of(name, spec, at).into_iter().next() {
        return Err(NetworkError::Decode {
            path: cause.field.unwrap_or_default(),
            message: cause.message.unwrap_or_default(),
        });
    }
    Ok(())
}
