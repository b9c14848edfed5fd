//! What is refused of an UnderlayNetwork's spec: what is wrong anywhere, and what this version does not serve.

use holdfast_api::underlay::{Backend, UnderlayNetworkSpec, problems_of};

use super::NetworkError;

/// Refuses what cannot be carried out, with its path below `at`; first what would be refused however it were said.
pub(super) fn spec(name: &str, spec: &UnderlayNetworkSpec, at: &str) -> Result<(), NetworkError> {
    for (key, asked) in [("dhcp.v6", spec.dhcp.v6), ("dhcp.ra", spec.dhcp.ra)] {
        if asked {
            return Err(NetworkError::unsupported(key, "is not served yet: guests learn IPv6 addresses by cloud-init"));
        }
    }
    if spec.port_security == Some(true) {
        return Err(NetworkError::unsupported(
            "portSecurity",
            "`true` is not enforced yet: leave it out, or say `false`",
        ));
    }
    if spec.backend == Backend::Macvtap {
        return Err(macvtap());
    }
    if let Some(cause) = problems_of(name, spec, at).into_iter().next() {
        return Err(NetworkError::Decode {
            path: cause.field.unwrap_or_default(),
            message: cause.message.unwrap_or_default(),
        });
    }
    Ok(())
}

pub(super) fn macvtap() -> NetworkError {
    NetworkError::unsupported("backend", "`macvtap` is not served: `ovs` or `linux-bridge`")
}
