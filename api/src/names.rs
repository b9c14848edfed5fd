//! The shapes of names and of MAC addresses in text, as Kubernetes and the kernel take them.

use std::fmt::Write as _;

/// Whether `text` is a DNS label (RFC 1123): 1 to 63 lower-case letters, digits and `-`, with no
/// `-` at either end.
pub fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// What is valid where [`is_dns_subdomain`] says no.
pub const DNS_SUBDOMAIN: &str = "a DNS subdomain (lower-case letters, digits, `-` and `.`, at most 253; each part begins and ends with a letter or digit)";

/// Whether `text` is a DNS subdomain (RFC 1123) as Kubernetes takes it for the name of most objects: parts with `.`
/// between them, of any length each, 253 characters at most in all. What is none names nothing, and must not come into
/// a URL, which it might turn into another one.
pub fn is_dns_subdomain(text: &str) -> bool {
    let end = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        end(bytes.first()) && end(bytes.last()) && bytes.iter().all(|b| end(Some(b)) || *b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Whether `text` is a domain that names are looked up in: parts of 1 to 63 letters, digits, `-` and `_`, none with
/// `-` at an end, with `.` between them and at most one behind; 253 characters at most in all.
pub fn is_search_domain(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_part = |part: &str| {
        (1..=63).contains(&part.len())
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// What is valid where [`is_interface_name`] says no.
pub const INTERFACE_NAME: &str =
    "an interface name (1 to 15 characters, none of `/`, `:`, white space; not `.` or `..`)";

/// Whether the kernel accepts `name` as the name of a link.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

/// Reads a MAC address of six octets separated by `:` or by `-`. `None` for any other text.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut octets = [0; 6];
    let mut parts = text.split(separator);
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

/// Writes a MAC address in the one form that objects hold: lower case, separated by `:`.
pub fn format_mac(octets: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (index, octet) in octets.iter().enumerate() {
        let separator = if index == 0 { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{octet:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains() {
        for good in ["lab", "Lab.example", "a.b.", "_tcp.a-1.b"] {
            assert!(is_search_domain(good), "{good}");
        }
        for bad in ["", ".", "a..b", "a b", "-a", "a-.b", "a/b", "ü.example", &"x".repeat(64), &"x.".repeat(128)] {
            assert!(!is_search_domain(bad), "{bad}");
        }
    }

    #[test]
    fn subdomains() {
        assert!(is_dns_subdomain("a") && is_dns_subdomain("a-1.b.c"));
        assert!(is_dns_subdomain(&"x".repeat(253)), "only a label has 63 characters at most");
        for bad in ["", ".", "a.", ".a", "a..b", "../a", "a/b", "a?x", "a#", "A", "a%2fb", &"x".repeat(254)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }

    #[test]
    fn labels() {
        for good in ["a", "a-b", "0", &"x".repeat(63)] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn interfaces() {
        for good in ["eth0", "br-lan.10", "abcdefghijklmno"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "abcdefghijklmnop"] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }

    #[test]
    fn macs() {
        let octets = [2, 0, 0, 0xab, 0xcd, 0xef];
        assert_eq!(parse_mac("02:00:00:AB:cd:ef"), Some(octets));
        assert_eq!(parse_mac("02-00-00-ab-cd-ef"), Some(octets));
        assert_eq!(format_mac(octets), "02:00:00:ab:cd:ef");
        for bad in [
            "",
            "02:00:00:ab:cd",
            "02:00:00:ab:cd:ef:01",
            "02:00:00:ab:cd:g0",
            "2:0:0:0:0:0",
            "02:00-00:ab:cd:ef",
            "02:00:00:ab:cd:+f",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
