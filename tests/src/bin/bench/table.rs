//! What was measured: every single value, shown as medians with their range and, where there is one, the ratio to
//! what it is compared with, of the same run: the raw engine, unless the benchmark says otherwise.

use std::fmt::Write;

/// All values of one benchmark.
#[derive(Debug)]
pub(crate) struct Table {
    bench: String,
    /// The system that others are compared with.
    base: &'static str,
    /// In the order of their first appearance.
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    scenario: String,
    system: String,
    metric: String,
    unit: String,
    values: Vec<f64>,
}

/// The system that others are compared with, unless told otherwise.
const BASE: &str = "engine";

impl Table {
    pub(crate) fn new(bench: &str) -> Self {
        Self { bench: bench.to_owned(), base: BASE, rows: Vec::new() }
    }

    /// From now on others are compared with this system.
    pub(crate) fn compare_with(&mut self, base: &'static str) {
        self.base = base;
    }

    /// The name of the benchmark.
    pub(crate) fn bench(&self) -> &str {
        &self.bench
    }

    /// Adds one value; `what` is scenario, system, metric and unit.
    pub(crate) fn add(&mut self, what: [&str; 4], value: f64) {
        let [scenario, system, metric, unit] = what.map(str::to_owned);
        let found = self
            .rows
            .iter_mut()
            .find(|row| row.scenario == scenario && row.system == system && row.metric == metric);
        match found {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { scenario, system, metric, unit, values: vec![value] }),
        }
    }

    /// One JSON object a line, one line a value.
    pub(crate) fn json(&self) -> String {
        let mut lines = Vec::new();
        for row in &self.rows {
            for value in &row.values {
                let object = serde_json::json!({
                    "bench": self.bench, "scenario": row.scenario, "system": row.system, "metric": row.metric,
                    "value": value, "unit": row.unit,
                });
                lines.push(object.to_string());
            }
        }
        lines.join("\n")
    }

    /// A table for people. A ratio is the median of those of single runs: what slows the machine down for a while slows
    /// both down.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{:<22} {:<8} {:<20} {:>12} {:>22} {:>5} {:>9} {:>14}\n",
            "scenario",
            "system",
            "metric",
            "median",
            "range",
            "runs",
            format!("x {}", self.base),
            "range"
        );
        for row in &self.rows {
            let Row { scenario, system, metric, unit, values } = row;
            let (ratio, ratios) = match self.ratios(row) {
                Some(ratios) => (format!("{:.2}", median(&ratios)), range(&ratios)),
                None => (String::new(), String::new()),
            };
            let median = format!("{:.2} {unit}", median(values));
            let (range, runs) = (range(values), values.len());
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{scenario:<22} {system:<8} {metric:<20} {median:>12} {range:>22} {runs:>5} {ratio:>9} {ratios:>14}"
            );
        }
        text
    }

    /// Each value divided by the base's of the same run.
    fn ratios(&self, row: &Row) -> Option<Vec<f64>> {
        let is_base = |base: &&Row| {
            (&*base.system, &base.scenario, &base.metric) == (self.base, &row.scenario, &row.metric)
        };
        let base = self.rows.iter().find(is_base)?;
        let is_comparable = row.unit == base.unit && row.values.len() == base.values.len();
        is_comparable.then(|| row.values.iter().zip(&base.values).map(|(value, base)| value / base).collect())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = sorted.get(middle.saturating_sub(1)).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

fn range(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.2} to {most:.2}")
}
