//! What was measured: every single value, shown as medians with their range and, where there is one, the ratio to the
//! raw engine.

use std::collections::BTreeMap;
use std::fmt::Write;

/// All values of one benchmark.
#[derive(Debug)]
pub(crate) struct Table {
    bench: String,
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

/// The system that others are compared with.
const BASE: &str = "engine";

impl Table {
    pub(crate) fn new(bench: &str) -> Self {
        Self { bench: bench.to_owned(), rows: Vec::new() }
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

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let base: BTreeMap<(&str, &str), f64> = self
            .rows
            .iter()
            .filter(|row| row.system == BASE)
            .map(|row| ((row.scenario.as_str(), row.metric.as_str()), row.median()))
            .collect();
        let mut text = format!(
            "{:<22} {:<10} {:<24} {:>12} {:>25} {:>5} {:>9}\n",
            "scenario", "system", "metric", "median", "range", "runs", "x engine"
        );
        for row in &self.rows {
            let ratio = match base.get(&(row.scenario.as_str(), row.metric.as_str())) {
                Some(base) if *base > 0.0 => format!("{:.2}", row.median() / base),
                _ => String::new(),
            };
            let (least, most) = row.range();
            let median = format!("{:.2} {}", row.median(), row.unit);
            let range = format!("{least:.2} to {most:.2}");
            let runs = row.values.len();
            let Row { scenario, system, metric, .. } = row;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{scenario:<22} {system:<10} {metric:<24} {median:>12} {range:>25} {runs:>5} {ratio:>9}"
            );
        }
        text
    }
}

impl Row {
    fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle).copied().unwrap_or_default();
        if sorted.len() % 2 == 1 {
            return upper;
        }
        let lower = sorted.get(middle.saturating_sub(1)).copied().unwrap_or_default();
        f64::midpoint(lower, upper)
    }

    fn range(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (least, most)
    }
}
