//! Durations as users write them.

use std::time::Duration;

/// A duration longer than none: a number with `ms`, `s`, `m` or `h`; seconds without.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => Some(1),
        "" | "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let whole = milliseconds.zip(number.parse().ok()).and_then(|(unit, number): (u64, u64)| number.checked_mul(unit));
    match whole {
        Some(whole) if whole > 0 => Ok(Duration::from_millis(whole)),
        _ => Err("a duration such as 500ms, 30s, 2m or 1h is needed, longer than none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("500ms", 500), ("30s", 30_000), ("7", 7_000), ("2m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "0", "0s", "-1s", "1d", "s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
