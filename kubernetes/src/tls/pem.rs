//! PEM that changes: certificates, keys and bundles of authorities, read again when somebody needs them.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

/// How old may be what was read of a file. The kubelet takes a minute or so to bring a change.
pub(super) const FRESH: Duration = Duration::from_secs(5);

/// Where PEM text is.
#[derive(Clone, Debug)]
pub enum Pem {
    /// In a file, perhaps of a mounted Secret.
    File(PathBuf),
    /// With somebody who follows it.
    Watched(watch::Receiver<Vec<u8>>),
}

impl Pem {
    fn read(&self) -> Result<Vec<u8>, PemError> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|error| PemError::Read(path.clone(), error)),
            Self::Watched(bytes) => Ok(bytes.borrow().clone()),
        }
    }
}

/// PEM text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("failed to read `{0}`")]
    Read(PathBuf, #[source] io::Error),
    /// The text is not what it is to be.
    #[error("failed to read {0} of its PEM text")]
    Parse(&'static str, #[source] rustls::pki_types::pem::Error),
    /// There is none in it.
    #[error("there is no certificate in the PEM text")]
    Empty,
    /// Certificate, key or authority is refused.
    #[error("failed to use the certificates")]
    Refused(#[from] rustls::Error),
    /// Authorities cannot verify anybody.
    #[error("failed to verify by the authorities")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What was made of PEM texts, made anew when they change.
pub(super) struct Reloaded<T: ?Sized> {
    sources: Vec<Pem>,
    make: Box<Make<T>>,
    fresh: Duration,
    state: Mutex<State<T>>,
}

type Make<T> = dyn Fn(&[Vec<u8>]) -> Result<Arc<T>, PemError> + Send + Sync;

struct State<T: ?Sized> {
    looked: Option<Instant>,
    texts: Vec<Vec<u8>>,
    value: Option<Arc<T>>,
    complaint: Option<String>,
}

impl<T: ?Sized> Reloaded<T> {
    pub(super) fn new(
        sources: Vec<Pem>,
        fresh: Duration,
        make: impl Fn(&[Vec<u8>]) -> Result<Arc<T>, PemError> + Send + Sync + 'static,
    ) -> Self {
        let state = State { looked: None, texts: Vec::new(), value: None, complaint: None };
        Self { sources, make: Box::new(make), fresh, state: Mutex::new(state) }
    }

    /// The value of now; none where there has never been one. Texts that cannot be used (half of a change, perhaps)
    /// leave the value that was.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.sources.iter().any(|source| matches!(source, Pem::File(_)));
        if !files || state.looked.is_none_or(|looked| looked.elapsed() >= self.fresh) {
            state.looked = Some(Instant::now());
            match self.look(&state) {
                Ok(None) => state.complaint = None,
                Ok(Some((texts, value))) => {
                    *state = State { looked: state.looked, texts, value: Some(value), complaint: None };
                }
                Err(error) => {
                    let complaint = crate::chain(&error);
                    if state.complaint.as_ref() != Some(&complaint) {
                        tracing::warn!(error = complaint, "certificates cannot be read; those of before stay");
                        state.complaint = Some(complaint);
                    }
                }
            }
        }
        state.value.clone()
    }

    fn look(&self, state: &State<T>) -> Result<Option<Changed<T>>, PemError> {
        let texts: Vec<_> = self.sources.iter().map(Pem::read).collect::<Result<_, _>>()?;
        if state.value.is_some() && texts == state.texts {
            return Ok(None);
        }
        let value = (self.make)(&texts)?;
        Ok(Some((texts, value)))
    }
}

type Changed<T> = (Vec<Vec<u8>>, Arc<T>);

impl<T: ?Sized> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the texts: a key is among them.
        f.debug_struct("Reloaded").finish_non_exhaustive()
    }
}

/// A certificate with its key; that they fit is seen to here, for each may be of another moment.
pub(super) fn certified_key(
    provider: Arc<CryptoProvider>,
) -> impl Fn(&[Vec<u8>]) -> Result<Arc<CertifiedKey>, PemError> {
    move |texts| {
        let [chain, key] = texts else { return Err(PemError::Empty) };
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PemError::Parse("the key", error))?;
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
    }
}

/// The authorities of a bundle.
pub(super) fn authorities(texts: &[Vec<u8>]) -> Result<Arc<RootCertStore>, PemError> {
    let mut roots = RootCertStore::empty();
    for text in texts {
        roots.add_parsable_certificates(certificates(text)?);
    }
    Ok(Arc::new(roots))
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| PemError::Parse("certificates", error))?;
    if chain.is_empty() { Err(PemError::Empty) } else { Ok(chain) }
}
