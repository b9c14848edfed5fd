//! A 48-bit Ethernet address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An Ethernet (EUI-48) address; written as `02:00:00:00:00:01`, read also with dashes and in capitals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// A text that is not an Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an Ethernet address of six hexadecimal bytes such as 02:00:00:00:00:01")]
pub struct MacAddrError(String);

impl MacAddr {
    /// All ones, the address of everyone on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// A locally administered address that depends on `text` only: `02` and the first five bytes of its SHA-256.
    pub(crate) fn hashed(text: &str) -> Self {
        let [a, b, c, d, e, ..]: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        Self([0x02, a, b, c, d, e])
    }

    /// The six bytes in the order of transmission.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this is a group address (least significant bit of the first byte), which no NIC may carry.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether this address was assigned by software and not by a vendor (IEEE 802 U/L bit).
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 == 2
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || MacAddrError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0u8; 6];
        let mut parts = text.split(separator);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            // from_str_radix alone would take a sign and a single digit.
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(bad()),
        }
    }
}

impl TryFrom<String> for MacAddr {
    type Error = MacAddrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mac: MacAddr = "DE-AD-00-00-BE-AF".parse().unwrap();
        assert_eq!(mac.to_string(), "de:ad:00:00:be:af");
        assert_eq!(mac.to_string().parse::<MacAddr>().unwrap(), mac);
    }

    #[test]
    fn refuses_what_is_not_six_bytes() {
        for bad in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "zz:00:00:00:00:01", "+2:00:00:00:00:01", "2:0:0:0:0:1"]
        {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
