//! The server's side: its certificate, and whom it verifies.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

use super::pem::{FRESH, Pem, Reloaded, authorities, certified_key};
use super::{TlsError, identity, provider};

/// A server with the certificate of a mounted Secret (`tls.crt`, `tls.key` in `folder`). A client may present a
/// certificate; it is verified by the bundle in `clients`, and without a bundle none is asked for.
///
/// Files that are not there yet are no error: until they are, handshakes fail.
///
/// # Errors
/// Where TLS cannot be set up at all.
pub fn server(folder: &Path, clients: Option<&Path>) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = identity(folder);
    server_of(chain, key, clients.map(|path| Pem::File(path.to_owned())))
}

/// As [`server`], with certificate, key and bundle from wherever they are.
///
/// # Errors
/// Where TLS cannot be set up at all.
pub fn server_of(chain: Pem, key: Pem, clients: Option<Pem>) -> Result<Arc<ServerConfig>, TlsError> {
    build(chain, key, clients, FRESH)
}

pub(super) fn build(
    chain: Pem,
    key: Pem,
    clients: Option<Pem>,
    fresh: Duration,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(bundle) => builder.with_client_cert_verifier(Arc::new(Clients::new(bundle, provider.clone(), fresh))),
        None => builder.with_no_client_auth(),
    };
    let certificate = Reloaded::new(vec![chain, key], fresh, certified_key(provider));
    let mut config = builder.with_cert_resolver(Arc::new(Certificate(certificate)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The certificate of now.
#[derive(Debug)]
struct Certificate(Reloaded<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get()
    }
}

/// Verifies the clients that present a certificate, by the authorities of now.
struct Clients {
    verifier: Reloaded<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    fn new(bundle: Pem, provider: Arc<CryptoProvider>, fresh: Duration) -> Self {
        let with = provider.clone();
        let verifier = Reloaded::new(vec![bundle], fresh, move |texts| {
            let roots = authorities(texts)?;
            Ok(WebPkiClientVerifier::builder_with_provider(roots, with.clone()).allow_unauthenticated().build()?)
        });
        Self { verifier, provider }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: they would be of the authorities of one moment, and a client with one certificate needs none.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = self.verifier.get().ok_or(CertificateError::UnknownIssuer)?;
        verifier.verify_client_cert(certificate, intermediates, now)
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
