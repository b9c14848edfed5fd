//! Names that become part of a URL.

/// Whether this can be the name of an object or a namespace: a DNS subdomain (RFC 1123). What is none names nothing,
/// and must not come into a URL, which it might turn into another one.
pub fn is_name(text: &str) -> bool {
    let end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=253).contains(&bytes.len())
        && bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
        && bytes.iter().all(|byte| end(byte) || matches!(byte, b'-' | b'.'))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_stay_within_their_place_in_a_url() {
        for name in ["a", "w1", "my-vm.example", "0"] {
            assert!(is_name(name), "{name}");
        }
        for wrong in ["", "-a", "a.", "A", "a/b", "..", "a..b", "a%2Fb", "a?b", "a#b", "a b", "ä", &"a".repeat(254)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
