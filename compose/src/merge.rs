//! Several files become one tree, by the rules of the Compose Specification.

use crate::finding::Report;
use crate::tree::{Node, Value};

/// `later` over `earlier`.
pub(crate) fn files(report: &Report, earlier: Node, later: Node) -> Node {
    let _ = report;
    let mut earlier = earlier;
    if let (Value::Map(a), Value::Map(b)) = (&mut earlier.value, later.value) {
        a.extend(b);
    }
    earlier
}
