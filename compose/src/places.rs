//! Where the values of a manifest were written, kept for who finds fault with them later: the server.

use std::collections::BTreeMap;

use crate::finding::Report;
use crate::tree::{Node, Place, Value};

/// The place of every value of a manifest, several files merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    files: Vec<String>,
    /// By the way to the value, as in `services.web.ports[0]`.
    places: BTreeMap<String, Place>,
}

// === impl Places ===

impl Places {
    /// Those of `tree`, whose files `report` knows.
    pub(crate) fn of(report: &Report, tree: &Node) -> Self {
        let mut places = Self { files: report.files(), places: BTreeMap::new() };
        places.note("", tree);
        places
    }

    /// Where the value at `path` was written, as `file:line:column`.
    pub fn find(&self, path: &str) -> Option<String> {
        let Place { file, line, column } = *self.places.get(path)?;
        let name = self.files.get(usize::from(file))?;
        Some(if line == 0 { name.clone() } else { format!("{name}:{line}:{column}") })
    }

    /// How many items the list at `path` was written with.
    pub fn items(&self, path: &str) -> usize {
        let most = 0..self.places.len();
        most.take_while(|index| self.places.contains_key(&format!("{path}[{index}]"))).count()
    }

    fn note(&mut self, path: &str, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{}", entry.key);
                    self.places.insert(path.clone(), entry.value.place);
                    self.note(&path, &entry.value);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.places.insert(path.clone(), item.place);
                    self.note(&path, item);
                }
            }
            Value::Null | Value::Scalar(_) => {}
        }
    }
}
