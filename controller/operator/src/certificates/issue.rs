//! Keys and certificates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use super::Leaf;

/// By how much a certificate is made good before its time, for clocks that are behind.
pub(super) const BEFORE: Duration = Duration::from_secs(3600);

/// A certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// `tls.crt`.
    pub certificate: String,
    /// `tls.key`.
    pub key: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key.
        f.debug_struct("Issued").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A new authority. `now` is in seconds since 1970.
pub(super) fn authority(now: u64, duration: Duration) -> Result<Issued, rcgen::Error> {
    let mut params = valid(now, duration);
    params.distinguished_name.push(DnType::CommonName, format!("kubevirt.io@{now}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate that `authority` signs.
pub(super) fn leaf(leaf: &Leaf, authority: &Issued, now: u64, duration: Duration) -> Result<Issued, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let key = KeyPair::generate()?;
    let certificate = params(leaf, now, duration)?.signed_by(&key, &issuer)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// A certificate that nobody trusts, to answer probes with until there is one.
///
/// # Errors
/// Where there is no entropy.
pub fn self_signed(now: u64) -> Result<Issued, rcgen::Error> {
    let own = Leaf { secret: "", common_name: "virt-operator".to_owned(), hosts: vec!["virt-operator".to_owned()] };
    let key = KeyPair::generate()?;
    let certificate = params(&own, now, Duration::from_secs(365 * 24 * 3600))?.self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(leaf: &Leaf, now: u64, duration: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = valid(now, duration);
    params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
    params.subject_alt_names = CertificateParams::new(leaf.hosts.clone())?.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match leaf.hosts.is_empty() {
        true => vec![ExtendedKeyUsagePurpose::ClientAuth],
        false => vec![ExtendedKeyUsagePurpose::ServerAuth],
    };
    Ok(params)
}

fn valid(now: u64, duration: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = now - BEFORE;
    params.not_after = now + duration;
    params
}
