//! The client's side: the certificate that it presents, and which servers it trusts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::pem::{FRESH, Pem, Reloaded, authorities, certified_key};
use super::{TlsError, identity, provider};

/// A client with the certificate of a mounted Secret (`tls.crt`, `tls.key` in `folder`) that trusts the servers
/// whose certificates are signed by the authorities in the file `ca`, and no other.
///
/// Files that are not there yet are no error: until they are, handshakes fail.
///
/// # Errors
/// Where TLS cannot be set up at all.
pub fn client(folder: &Path, ca: &Path) -> Result<ClientConfig, TlsError> {
    let (chain, key) = identity(folder);
    build(chain, key, Pem::File(ca.to_owned()), FRESH)
}

pub(super) fn build(chain: Pem, key: Pem, ca: Pem, fresh: Duration) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let certificate = Reloaded::new(vec![chain, key], fresh, certified_key(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Servers::new(ca, provider, fresh)))
        .with_client_cert_resolver(Arc::new(Certificate(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The certificate of now.
#[derive(Debug)]
struct Certificate(Reloaded<CertifiedKey>);

impl ResolvesClientCert for Certificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.get()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies servers by the authorities of now.
struct Servers {
    verifier: Reloaded<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Servers {
    fn new(ca: Pem, provider: Arc<CryptoProvider>, fresh: Duration) -> Self {
        let with = provider.clone();
        let verifier = Reloaded::new(vec![ca], fresh, move |texts| {
            let verifier: Arc<dyn ServerCertVerifier> =
                WebPkiServerVerifier::builder_with_provider(authorities(texts)?, with.clone()).build()?;
            Ok(verifier)
        });
        Self { verifier, provider }
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verifier = self.verifier.get().ok_or(CertificateError::UnknownIssuer)?;
        verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
