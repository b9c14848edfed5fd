//! What is to be issued now: pure, but for the keys.

use std::collections::BTreeMap;
use std::time::Duration;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::pem::Pem;

use super::issue::{self, BEFORE, Issued};
use super::{AUTHORITY, Leaf, Times};

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Certificates and keys, by the names of their Secrets.
    pub secrets: BTreeMap<String, Issued>,
    /// The bundle of authorities.
    pub bundle: String,
}

/// What is to be there.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Secrets that are to be written.
    pub issue: BTreeMap<String, Issued>,
    /// The bundle of authorities, newest first.
    pub bundle: String,
    /// When to look again.
    pub again: Duration,
}

/// Decides. `now` is in seconds since 1970.
///
/// # Errors
/// Where a certificate cannot be made.
pub fn plan(times: &Times, leaves: &[Leaf], there: &Rotation, now: u64) -> Result<Plan, rcgen::Error> {
    let mut issue = BTreeMap::new();
    let kept = there.secrets.get(AUTHORITY).and_then(|authority| {
        let known = Known::read(&authority.certificate)?;
        (known.is_authority && known.is_good(now, times.authority_before)).then(|| (authority.clone(), known))
    });
    let (authority, known) = match kept {
        Some(kept) => kept,
        None => {
            let authority = issue::authority(now, times.authority)?;
            let known = Known::read(&authority.certificate).ok_or(rcgen::Error::CouldNotParseCertificate)?;
            issue.insert(AUTHORITY.to_owned(), authority.clone());
            (authority, known)
        }
    };
    let mut again = Duration::from_secs(known.until.saturating_sub(now)).saturating_sub(times.authority_before);

    // What the old authority signed is good until the new one is known everywhere.
    let signs = known.from + BEFORE.as_secs() + times.known.as_secs();
    for leaf in leaves {
        let there = there.secrets.get(leaf.secret).and_then(|issued| Known::read(&issued.certificate));
        let fits = there.filter(|there| {
            there.is_good(now, times.leaf_before) && there.hosts == leaf.hosts && there.common_name == leaf.common_name
        });
        let until = match fits {
            Some(fits) if fits.authority == known.key => fits.until,
            Some(fits) if now < signs => signs.min(fits.until) + times.leaf_before.as_secs(),
            _ => {
                issue.insert(leaf.secret.to_owned(), issue::leaf(leaf, &authority, now, times.leaf)?);
                now + times.leaf.as_secs()
            }
        };
        again = again.min(Duration::from_secs(until.saturating_sub(now)).saturating_sub(times.leaf_before));
    }

    let mut bundle = authority.certificate;
    for old in Pem::iter_from_buffer(there.bundle.as_bytes()).flatten() {
        let Some(old) = Known::of(&old) else { continue };
        if old.key != known.key && old.is_good(now, Duration::ZERO) {
            bundle.push_str(&old.text);
        }
    }
    Ok(Plan { issue, bundle, again: again.max(Duration::from_secs(1)) })
}

/// What is to be known of a certificate.
struct Known {
    from: u64,
    until: u64,
    common_name: String,
    hosts: Vec<String>,
    is_authority: bool,
    /// Identifiers of its key and of that which signed it.
    key: Vec<u8>,
    authority: Vec<u8>,
    text: String,
}

impl Known {
    /// Of the first certificate of a PEM text; none where there is none that can be read.
    fn read(text: &str) -> Option<Self> {
        Self::of(&Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?)
    }

    fn of(pem: &Pem) -> Option<Self> {
        let certificate = pem.parse_x509().ok()?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok()?.map(|names| names.value.general_names.iter());
        let hosts = names.into_iter().flatten().filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(host) => Some((*host).to_owned()),
            _ => None,
        });
        let (key, authority) = identifiers(&certificate);
        Some(Self {
            from: seconds(certificate.validity().not_before)?,
            until: seconds(certificate.validity().not_after)?,
            common_name: common_name.unwrap_or_default().to_owned(),
            hosts: hosts.collect(),
            is_authority: certificate.is_ca(),
            key,
            authority,
            text: encode(pem),
        })
    }

    fn is_good(&self, now: u64, before: Duration) -> bool {
        self.from <= now && now + before.as_secs() < self.until
    }
}

fn identifiers(certificate: &X509Certificate<'_>) -> (Vec<u8>, Vec<u8>) {
    let (mut key, mut authority) = (Vec::new(), Vec::new());
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => key = identifier.0.to_vec(),
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                authority = identifier.key_identifier.as_ref().map(|id| id.0.to_vec()).unwrap_or_default();
            }
            _ => {}
        }
    }
    (key, authority)
}

/// A certificate as the PEM text that it was read from.
fn encode(pem: &Pem) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(&pem.contents);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::leaves;
    use super::*;
    use crate::target::tests::target;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 3600;

    fn wanted() -> Vec<Leaf> {
        leaves(&target(serde_json::json!({})))
    }

    /// Carries a plan out.
    fn after(mut there: Rotation, plan: Plan) -> Rotation {
        there.secrets.extend(plan.issue);
        there.bundle = plan.bundle;
        there
    }

    fn decide(there: &Rotation, now: u64) -> Plan {
        plan(&Times::default(), &wanted(), there, now).unwrap()
    }

    fn installed() -> Rotation {
        after(Rotation::default(), decide(&Rotation::default(), NOW))
    }

    #[test]
    fn all_is_issued_at_first_and_then_nothing() {
        let first = decide(&Rotation::default(), NOW);
        assert_eq!(first.issue.len(), 1 + wanted().len());
        assert_eq!(first.again, Duration::from_secs(DAY - DAY / 5));
        let there = after(Rotation::default(), first);
        let second = decide(&there, NOW + 60);
        assert!(second.issue.is_empty(), "{:?}", second.issue.keys());
        assert_eq!(second.bundle, there.bundle);
    }

    #[test]
    fn what_is_due_is_issued_by_the_same_authority() {
        let there = installed();
        let due = decide(&there, NOW + DAY - DAY / 5);
        assert_eq!(due.issue.len(), wanted().len());
        assert!(!due.issue.contains_key(AUTHORITY));
        assert_eq!(due.bundle, there.bundle);
    }

    #[test]
    fn a_new_authority_is_known_before_it_signs() {
        let times = Times::default();
        let mut there = installed();
        let due = NOW + times.authority.as_secs() - times.authority_before.as_secs();
        // Leaves are fresh at that moment.
        there = after(there.clone(), decide(&there, due - 3600));
        let rotated = decide(&there, due);
        assert_eq!(rotated.issue.keys().collect::<Vec<_>>(), [AUTHORITY]);
        assert_eq!(rotated.bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(rotated.bundle.starts_with(&rotated.issue[AUTHORITY].certificate));
        assert_eq!(rotated.again, times.known);

        there = after(there, rotated);
        assert!(decide(&there, due + times.known.as_secs() - 1).issue.is_empty());
        let signed = decide(&there, due + times.known.as_secs());
        assert_eq!(signed.issue.len(), wanted().len());
        there = after(there, signed);

        // The old authority leaves the bundle at its own end, when nothing of it is left.
        let end = NOW + times.authority.as_secs();
        assert_eq!(decide(&there, end - 1).bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(decide(&there, end).bundle.matches("BEGIN CERTIFICATE").count(), 1);
    }

    #[test]
    fn what_is_lost_or_broken_is_replaced() {
        let mut there = installed();
        there.secrets.remove("kubevirt-virt-api-certs");
        there.secrets.get_mut("kubevirt-controller-certs").unwrap().certificate = "none".to_owned();
        let repaired = decide(&there, NOW + 60);
        assert_eq!(repaired.issue.keys().collect::<Vec<_>>(), ["kubevirt-controller-certs", "kubevirt-virt-api-certs"]);
    }

    #[test]
    fn another_name_is_another_certificate() {
        let there = installed();
        let mut leaves = wanted();
        leaves[1].hosts.push("virt-api.elsewhere.svc".to_owned());
        let renamed = plan(&Times::default(), &leaves, &there, NOW).unwrap();
        assert_eq!(renamed.issue.keys().collect::<Vec<_>>(), ["kubevirt-virt-api-certs"]);
    }

    #[test]
    fn no_key_is_in_what_is_logged() {
        let issued = &installed().secrets[AUTHORITY];
        assert!(issued.key.contains("PRIVATE KEY"));
        assert!(!format!("{issued:?}").contains("PRIVATE KEY"));
    }
}
