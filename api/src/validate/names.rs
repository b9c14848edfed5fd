//! What Kubernetes says about names that it does not take.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/// What is wrong with a DNS label (RFC 1123), as the API server says it.
pub(super) fn label_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 characters".to_owned());
    }
    if text.contains('.') {
        errors.push("must not contain dots".to_owned());
    } else if !is_label(text) {
        errors.push(format!(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '{LABEL}')"
        ));
    }
    errors
}

/// What is wrong with a DNS subdomain (RFC 1123), as the API server says it.
pub(super) fn subdomain_errors(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 253 {
        errors.push("must be no more than 253 characters".to_owned());
    }
    if !text.split('.').all(is_label) {
        errors.push(format!(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '{LABEL}(\\.{LABEL})*')"
        ));
    }
    errors
}

/// Whether each character is one of a label, whatever the length.
fn is_label(text: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes.iter().all(|b| alphanumeric(Some(b)) || *b == b'-')
}

/// Whether a text is the name of a service's port (RFC 6335): 1 to 15 lower-case letters, digits
/// and `-`, with a letter, and no `-` at either end or next to another.
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= 15 && is_label(text) && !text.contains("--") && text.bytes().any(|b| b.is_ascii_lowercase())
}

/// The octets of a MAC address of any length that hardware has: 6, 8 or 20, written with `:` or
/// `-` between octets, or `.` between pairs of them. `None` for any other text.
pub(super) fn mac_length(text: &str) -> Option<usize> {
    let (separator, digits) = match text.chars().find(|c| !c.is_ascii_hexdigit())? {
        '.' => ('.', 4),
        c @ (':' | '-') => (c, 2),
        _ => return None,
    };
    let mut octets = 0;
    for part in text.split(separator) {
        if part.len() != digits || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        octets += digits / 2;
    }
    matches!(octets, 6 | 8 | 20).then_some(octets)
}

/// Whether a text is a PCI address with its domain, such as `0000:81:00.1`.
pub(super) fn is_pci_address(text: &str) -> bool {
    let bytes = text.as_bytes();
    let hex = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_hexdigit);
    bytes.len() == 12
        && hex(0..4)
        && bytes[4] == b':'
        && hex(5..7)
        && bytes[7] == b':'
        && matches!(bytes[8], b'0' | b'1')
        && hex(9..10)
        && bytes[10] == b'.'
        && matches!(bytes[11], b'0'..=b'7')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        assert_eq!(mac_length("02:00:00:00:00:01"), Some(6));
        assert_eq!(mac_length("0200.0000.0001"), Some(6));
        assert_eq!(mac_length("02-00-00-00-00-01-02-03"), Some(8));
        for bad in ["", "02", "02:00:00:00:00", "2:0:0:0:0:1", "02:00:00-00:00:01", "020000000001", "zz:00:00:00:00:01"]
        {
            assert_eq!(mac_length(bad), None, "{bad}");
        }
    }

    #[test]
    fn pci_addresses() {
        assert!(is_pci_address("0000:81:00.1") && is_pci_address("0000:04:1f.7"));
        for bad in ["", "81:00.1", "0000:81:20.1", "0000:81:00.8", "0000:81:100.a", "0000-81:00.1"] {
            assert!(!is_pci_address(bad), "{bad}");
        }
    }

    #[test]
    fn port_names() {
        assert!(is_port_name("http") && is_port_name("a-1"));
        for bad in ["", "A", "1", "a--b", "-a", "a-", "aaaaaaaaaaaaaaaa"] {
            assert!(!is_port_name(bad), "{bad}");
        }
    }
}
