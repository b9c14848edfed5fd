//! Ages as kubectl shows them: short, the more exact the younger.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// How long ago `time` (RFC 3339) was; `<unknown>` where it is no time.
pub fn age(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => span(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// A span of seconds. Up to the bound of a row it is told in units of the row, with or without a rest in smaller ones.
fn span(seconds: i64) -> String {
    /// Below how many seconds a row holds, its unit, and the unit of the rest.
    type Row = (i64, (i64, char), Option<(i64, char)>);
    const ROWS: [Row; 9] = [
        (2 * MINUTE, (1, 's'), None),
        (10 * MINUTE, (MINUTE, 'm'), Some((1, 's'))),
        (3 * HOUR, (MINUTE, 'm'), None),
        (8 * HOUR, (HOUR, 'h'), Some((MINUTE, 'm'))),
        (2 * DAY, (HOUR, 'h'), None),
        (8 * DAY, (DAY, 'd'), Some((HOUR, 'h'))),
        (2 * YEAR, (DAY, 'd'), None),
        (8 * YEAR, (YEAR, 'y'), Some((DAY, 'd'))),
        (i64::MAX, (YEAR, 'y'), None),
    ];
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let row = ROWS.iter().find(|(below, ..)| seconds < *below).unwrap_or(&ROWS[8]);
    let (_, (unit, letter), rest) = row;
    let text = format!("{}{letter}", seconds / unit);
    match rest.map(|(smaller, letter)| (seconds % unit / smaller, letter)) {
        Some((count, letter)) if count > 0 => format!("{text}{count}{letter}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_172_000, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(span(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn times() {
        let now: Timestamp = "2026-11-22T03:15:00Z".parse().unwrap();
        assert_eq!(age("2026-11-22T03:13:23Z", now), "97s");
        assert_eq!(age("yesterday", now), "<unknown>");
    }
}
