//! Who is at the other end of a connection.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of the connection that a request came by: an extension of each request of [`super::serve()`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Of its certificate, which was verified; none where it presented none.
    pub subject: Option<Arc<Subject>>,
}

/// The subject of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its common name (CN); empty where it has none.
    pub common_name: String,
    /// Its organisations (O).
    pub organisations: Vec<String>,
}

impl Peer {
    /// The common name of its verified certificate.
    pub fn common_name(&self) -> Option<&str> {
        self.subject.as_deref().map(|subject| subject.common_name.as_str())
    }

    /// Of the chain that the handshake verified.
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let subject = chain.and_then(<[_]>::first).and_then(|certificate| {
            let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
            let name = certificate.subject();
            let first = name.iter_common_name().next().and_then(|attribute| attribute.as_str().ok());
            let organisations = name.iter_organization().filter_map(|attribute| attribute.as_str().ok());
            Some(Arc::new(Subject {
                common_name: first.unwrap_or_default().to_owned(),
                organisations: organisations.map(str::to_owned).collect(),
            }))
        });
        Self { subject }
    }
}
