//! How much a port may carry, and what that is to the kernel.

use serde::{Deserialize, Serialize};

/// How much may be sent each way; none: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Toward the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Rate>,
    /// From the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Rate>,
}

/// How much may be sent one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Bits per second, at most [`Rate::MOST`].
    pub rate: u64,
    /// Bits that may be sent at once after a pause; what 10 ms take where none is given. Never less than a frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// A token bucket of the kernel, in its units (struct tc_tbf_qopt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shaper {
    /// Bytes per second.
    pub rate: u32,
    /// Time that the whole bucket lasts for, in ticks of 64 ns.
    pub bucket: u32,
    /// Bytes that may wait; what is more is lost.
    pub limit: u32,
}

/// What the bucket has beside the MTU for each frame: Ethernet header, a tag, and what rounding takes.
const FRAME: u64 = 32;
/// The frames that a bucket has room for where no burst is given: fewer, and a queue of a slow machine is never worked off
/// in time.
const FRAMES: u64 = 16;
const NANOSECONDS: u64 = 1_000_000_000;
/// Nanoseconds in a tick (PSCHED_SHIFT).
const TICK: u64 = 64;

impl Rate {
    /// The highest: the kernel's field has 32 bits, for bytes.
    pub const MOST: u64 = 34_000_000_000;

    /// The token bucket for a link of this MTU.
    pub fn shaper(&self, mtu: u32) -> Shaper {
        let rate = (self.rate / 8).max(1);
        let frame = u64::from(mtu) + FRAME;
        let usual = (rate / 100).max(FRAMES * frame);
        let burst = self.burst.map_or(usual, |bits| bits / 8).max(frame);
        let ticks = u128::from(burst) * u128::from(NANOSECONDS) / u128::from(rate * TICK) + 1;
        // What waits is sent within 50 ms.
        let limit = (burst.saturating_add(rate / 20)).max(FRAMES * frame);
        Shaper {
            rate: u32::try_from(rate).unwrap_or(u32::MAX),
            bucket: u32::try_from(ticks).unwrap_or(u32::MAX),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        }
    }
}

impl std::fmt::Display for Shaper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rate, bucket, limit } = self;
        let burst = u64::from(*bucket) * TICK * u64::from(*rate) / NANOSECONDS;
        write!(f, "rate {} bit/s burst {burst} bytes limit {limit} bytes", u64::from(*rate) * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_room_for_a_frame() {
        let bytes = |shaper: Shaper| u64::from(shaper.bucket) * TICK * u64::from(shaper.rate) / NANOSECONDS;
        for (rate, burst, mtu, least) in [
            (100_000_000, None, 1500, 125_000),
            (64_000, None, 1500, 16 * 1532),
            (1_000_000, Some(8), 9000, 9032),
            (Rate::MOST, Some(8_000_000), 1500, 1_000_000),
        ] {
            let shaper = Rate { rate, burst }.shaper(mtu);
            assert!((least..least + least / 100 + 300).contains(&bytes(shaper)), "{shaper}");
            assert!(u64::from(shaper.limit) >= least, "{shaper}");
        }
        // As runtimes say that there is no limit to it.
        assert_eq!(Rate { rate: 64_000, burst: Some(u32::MAX.into()) }.shaper(1500).bucket, u32::MAX);
    }
}
