//! What the bench tells: each figure beside what it is compared with.

use std::collections::BTreeMap;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// A figure. All are the better the smaller.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured.
    pub figure: String,
    /// What it is in.
    pub unit: &'static str,
    /// What came out.
    pub ours: f64,
    /// What an empty pod took on the same cluster in the same run.
    pub floor: Option<f64>,
    /// What KubeVirt 1.9 was seen to take on such a machine, on a cluster like this one.
    pub upstream: Option<f64>,
    /// What it is to be at most.
    pub goal: Option<f64>,
    /// Ours as a part of upstream's.
    pub ratio: Option<f64>,
}

/// All figures.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// In the order of the table.
    pub figures: Vec<Figure>,
    /// Writes to the API server for each VMI, from its creation to Running: by resource.
    pub writes_per_vmi: BTreeMap<String, String>,
    /// Writes to the API server in a minute in which nothing changes: by resource.
    pub writes_while_idle: BTreeMap<String, String>,
    /// CPU seconds for each VMI of a burst: by kinds of processes.
    pub cpu_per_vmi: BTreeMap<&'static str, f64>,
}

impl Figures {
    /// Adds one.
    pub fn add(
        &mut self,
        figure: &str,
        unit: &'static str,
        ours: f64,
        upstream: impl Into<Option<f64>>,
        goal: impl Into<Option<f64>>,
    ) {
        let upstream = upstream.into();
        let ratio = upstream.map(|upstream| ours / upstream);
        let (figure, goal) = (figure.to_owned(), goal.into());
        self.figures.push(Figure { figure, unit, ours, floor: None, upstream, goal, ratio });
    }

    /// The last one is compared with that of an empty pod.
    pub fn with_floor(&mut self, floor: f64) {
        if let Some(last) = self.figures.last_mut() {
            last.floor = Some(floor);
        }
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["figure", "ours", "empty pod", "upstream 1.9", "goal", "ours : upstream", ""]);
        for figure in &self.figures {
            let number = |value: Option<f64>| match value {
                Some(value) if value >= 100.0 => format!("{value:.0} {}", figure.unit),
                Some(value) => format!("{value:.2} {}", figure.unit),
                None => String::new(),
            };
            let right = |text: String| Cell::new(text.trim_end()).set_alignment(CellAlignment::Right);
            let reached = figure.goal.map_or("", |goal| if figure.ours <= goal { "reached" } else { "missed" });
            table.add_row([
                Cell::new(&figure.figure),
                right(number(Some(figure.ours))),
                right(number(figure.floor)),
                right(number(figure.upstream)),
                right(number(figure.goal)),
                right(figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default()),
                Cell::new(reached),
            ]);
        }
        let list = |title: &str, lines: &BTreeMap<String, String>| {
            let lines: String = lines.iter().map(|(name, text)| format!("\n  {name}: {text}")).collect();
            format!("\n\n{title}:{}", if lines.is_empty() { "\n  none".to_owned() } else { lines })
        };
        let cpu =
            self.cpu_per_vmi.iter().map(|(kind, seconds)| ((*kind).to_owned(), format!("{seconds:.2}"))).collect();
        format!(
            "{table}{}{}{}",
            list("CPU seconds for each VMI of a burst, by processes", &cpu),
            list("Writes to the API server for each VMI until it runs", &self.writes_per_vmi),
            list("Writes to the API server in a minute in which nothing changes", &self.writes_while_idle),
        )
    }
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
        let mut figures = Figures::default();
        figures.add("a", "s", 2.0, 4.0, 1.9);
        figures.with_floor(0.5);
        figures.add("b", "MiB", 120.0, None, 120.0);
        let table = figures.table();
        let row = |line: usize| {
            let row = table.lines().nth(line).unwrap();
            row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row(2)[1..8], ["a", "2.00 s", "0.50 s", "4.00 s", "1.90 s", "0.50", "missed"]);
        assert_eq!(row(3)[1..8], ["b", "120 MiB", "", "", "120 MiB", "", "reached"]);
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!((json["figures"][0]["ratio"].as_f64(), json["figures"][1]["floor"].is_null()), (Some(0.5), true));
    }
}
