//! The steps of the demo while they run: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// A step that was done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it was.
    pub step: String,
    /// How long it took, to the millisecond.
    pub seconds: f64,
    /// Whether it succeeded.
    pub ok: bool,
    /// What came of it; empty where there is nothing to tell.
    pub detail: String,
}

/// The steps so far.
pub struct Steps {
    begin: Instant,
    rows: Vec<Row>,
}

/// The step that runs.
pub struct Step {
    bar: Option<ProgressBar>,
    told: String,
}

/// What a step gives back: a value, and a word on it for the table.
pub trait Outcome {
    /// The value.
    type Value;
    /// The value and the word.
    fn parts(self) -> (Self::Value, String);
}

impl Outcome for String {
    type Value = ();

    fn parts(self) -> ((), String) {
        ((), self)
    }
}

impl<T> Outcome for (T, String) {
    type Value = T;

    fn parts(self) -> (T, String) {
        self
    }
}

impl Steps {
    /// No step yet; the clock runs.
    pub fn begin() -> Self {
        Self { begin: Instant::now(), rows: Vec::new() }
    }

    /// Runs one step, shows that it runs, and keeps what came of it.
    pub fn run<O: Outcome>(&mut self, name: &str, work: impl FnOnce(&mut Step) -> Result<O>) -> Result<O::Value> {
        let start = Instant::now();
        let mut step = Step::begin(name);
        let outcome = work(&mut step);
        let seconds = seconds_since(start);
        if let Some(bar) = step.bar.take() {
            bar.finish_and_clear();
        }
        let (mark, detail) = match &outcome {
            Ok(_) => ("ok", String::new()),
            Err(error) => ("FAILED", format!("{error:#}").lines().next().unwrap_or_default().to_owned()),
        };
        println!("{mark:>6} {seconds:6.1} s  {name}");
        let (value, detail, ok) = match outcome.map(Outcome::parts) {
            Ok((value, detail)) => (Ok(value), detail, true),
            Err(error) => (Err(error), detail, false),
        };
        self.rows.push(Row { step: name.to_owned(), seconds, ok, detail });
        value
    }

    /// All that was done, and the seconds since the beginning.
    pub fn finish(self) -> (Vec<Row>, f64) {
        (self.rows, seconds_since(self.begin))
    }
}

/// To the millisecond.
fn seconds_since(start: Instant) -> f64 {
    (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
}

impl Step {
    fn begin(name: &str) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            // A template of ours that does not parse would show in the first run; the default serves as well.
            if let Ok(style) = ProgressStyle::with_template("{spinner:>6} {elapsed:>6}  {prefix} {msg:.dim}") {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar, told: String::new() }
    }

    /// Says what it is at. What was said before is not said again.
    pub fn tell(&mut self, text: &str) {
        if self.told == text {
            return;
        }
        text.clone_into(&mut self.told);
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => println!("         ..  {text}"),
        }
    }

    /// Runs what writes to the terminal itself, with the spinner out of its way.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(work),
            None => work(),
        }
    }

    /// Prints a line that stays.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("             {line}")),
            None => println!("             {line}"),
        }
    }
}
