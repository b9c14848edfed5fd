//! What the bench tells: each figure beside what it is compared with.
//!
//! Invariant: a record has one peer. A figure with two of them (the floor of the same run, and what KubeVirt was seen to
//! take) is two records, so that who reads them by machine finds `peer_value` in one place; the goal stands with one of
//! them alone, so that it counts once.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// What came out before in KubeVirt 1.9, on such a machine.
pub const UPSTREAM: &str = "KubeVirt 1.9";

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Record {
    name: String,
    value: f64,
    unit: &'static str,
    peer: Option<String>,
    peer_value: Option<f64>,
    goal: Option<f64>,
    met: Option<bool>,
    /// Of most figures less is better.
    #[serde(skip)]
    at_least: bool,
}

impl Record {
    /// A figure beside nothing, without a goal.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        let (peer, peer_value, goal, met) = (None, None, None, None);
        Self { name: name.into(), value, unit, peer, peer_value, goal, met, at_least: false }
    }

    /// Beside another's.
    pub fn beside(mut self, peer: &str, value: f64) -> Self {
        (self.peer, self.peer_value) = (Some(peer.to_owned()), Some(value));
        self
    }

    /// Beside one who does not do it at all.
    pub fn unlike(mut self, peer: &str) -> Self {
        self.peer = Some(peer.to_owned());
        self
    }

    /// It shall not be more.
    pub fn at_most(mut self, goal: f64) -> Self {
        (self.goal, self.met, self.at_least) = (Some(goal), Some(self.value <= goal), false);
        self
    }

    /// It shall not be less.
    pub fn at_least(mut self, goal: f64) -> Self {
        (self.goal, self.met, self.at_least) = (Some(goal), Some(self.value >= goal), true);
        self
    }
}

/// The records for people.
pub fn table(records: &[Record]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["figure", "value", "beside", "its value", "goal", ""]);
    for record in records {
        let number = |value: f64| match value {
            value if value >= 100.0 => format!("{value:.0} {}", record.unit).trim_end().to_owned(),
            value => format!("{value:.2} {}", record.unit).trim_end().to_owned(),
        };
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let bound = if record.at_least { "at least" } else { "at most" };
        let met = record.met.map_or("", |met| if met { "met" } else { "missed" });
        table.add_row([
            Cell::new(&record.name),
            right(number(record.value)),
            Cell::new(record.peer.as_deref().unwrap_or_default()),
            right(record.peer_value.map(number).unwrap_or_default()),
            right(record.goal.map(|goal| format!("{bound} {}", number(goal))).unwrap_or_default()),
            Cell::new(met),
        ]);
    }
    table.to_string()
}

/// The value that this part of all values does not exceed, by the nearest rank; 0 where there is none.
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<f64> = (1..=12).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 95), percentile(&values, 1)), (6.0, 12.0, 1.0));
        assert_eq!((percentile(&[3.0], 50), percentile(&[], 50)), (3.0, 0.0));
    }

    #[test]
    fn a_figure_stands_beside_what_it_is_compared_with() {
        let records = [
            Record::new("a", 2.0, "s").beside("b", 0.5).at_most(1.9),
            Record::new("c", 120.0, "MiB").at_most(120.0),
            Record::new("d", 4.0, "").at_least(4.0),
            Record::new("e", 3.9, "").at_least(4.0),
        ];
        let table = table(&records);
        let row = |line: usize| {
            let row = table.lines().nth(line).unwrap();
            row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row(2)[1..7], ["a", "2.00 s", "b", "0.50 s", "at most 1.90 s", "missed"]);
        assert_eq!(row(3)[1..7], ["c", "120 MiB", "", "", "at most 120 MiB", "met"]);
        assert_eq!(row(4)[1..7], ["d", "4.00", "", "", "at least 4.00", "met"]);
        assert_eq!(row(5)[6], "missed");
        let json = serde_json::to_value(&records).unwrap();
        let first = serde_json::json!({ "name": "a", "value": 2.0, "unit": "s", "peer": "b", "peer_value": 0.5,
            "goal": 1.9, "met": false });
        assert_eq!((&json[0], &json[1]["peer"]), (&first, &serde_json::Value::Null));
    }
}
