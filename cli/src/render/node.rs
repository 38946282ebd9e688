//! The machines: `tug node ls`.

use tug_api::user::NodeStatus;
use tug_model::report::Engine;

use super::table::{Columns, Value};
use super::{Facts, style};
use crate::time::age;

/// The table of nodes.
pub(crate) fn nodes(nodes: &[NodeStatus], facts: Facts, wide: bool) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let mut names = vec!["NODE", "STATE", "TASKS", "CPUS", "MEMORY", "ENGINE", "DETAIL"];
    if wide {
        names.extend(["HOSTNAME", "PLATFORM", "AGENT", "LABELS"]);
    }
    let mut table = Columns::new(&names);
    for status in nodes {
        let info = &status.node.info;
        let (state, detail) = state(status);
        let mut row = vec![
            status.node.id.as_str().into(),
            state,
            Value::number(status.tasks),
            Value::number(info.capacity.cpus),
            Value::number(info.capacity.memory),
            info.engine_version.as_str().into(),
            detail.into(),
        ];
        if wide {
            let labels: Vec<String> =
                info.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            row.extend([
                info.hostname.as_str().into(),
                format!("{}/{}", info.os, info.arch).into(),
                info.agent_version.as_str().into(),
                labels.join(",").into(),
            ]);
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

fn state(status: &NodeStatus) -> (Value, String) {
    let silent = status.last_report.map(|silent| format!("last heard of {} ago", age(silent)));
    match (&status.engine, status.connected) {
        (_, false) => (
            Value::styled("away", style::BAD),
            silent.unwrap_or_else(|| "not heard of since the server started".to_owned()),
        ),
        (Some(Engine::Down { reason, age: since }), true) => {
            (Value::styled("engine down", style::BAD), format!("for {}: {reason}", age(*since)))
        }
        (None, true) => (Value::styled("joining", style::BUSY), String::new()),
        (Some(Engine::Up), true) => match &status.refusal {
            Some(refusal) => (Value::styled("disobedient", style::BAD), refusal.clone()),
            None => (Value::styled("ready", style::GOOD), String::new()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tug_model::node::{Capacity, Node, NodeInfo};
    use tug_model::{Bytes, Millis, NanoCpus, NodeId};

    use super::*;

    #[test]
    fn nodes_are_listed_with_what_is_wrong() {
        let node = |id: &str, connected, engine| NodeStatus {
            node: Node::new(
                NodeId::parse(id).unwrap(),
                NodeInfo {
                    hostname: format!("{id}.local"),
                    os: "linux".into(),
                    arch: "amd64".into(),
                    capacity: Capacity { cpus: NanoCpus(2_000_000_000), memory: Bytes(4 << 30) },
                    labels: BTreeMap::new(),
                    engine_version: "20.10.24".into(),
                    agent_version: "0.1.0".into(),
                    address: None,
                },
                crate::sample::NOW,
            ),
            connected,
            last_report: Some(Millis::from_secs(90)),
            engine,
            tasks: 3,
            refusal: None,
            state: tug_api::user::NodeState::default(),
            reasons: Vec::new(),
        };
        let down = Engine::Down { reason: "connection refused".into(), age: Millis::from_secs(5) };
        let list = [
            node("a", true, Some(Engine::Up)),
            node("b", false, Some(Engine::Up)),
            node("c", true, Some(down)),
        ];
        insta::assert_snapshot!(nodes(&list, Facts::default(), false), @r"
        NODE  STATE        TASKS  CPUS   MEMORY   ENGINE    DETAIL
        a     ready            3  2.000  4.0 GiB  20.10.24
        b     away             3  2.000  4.0 GiB  20.10.24  last heard of 1m 30s ago
        c     engine down      3  2.000  4.0 GiB  20.10.24  for 5s: connection refused
        ");
        assert!(nodes(&list, Facts::default(), true).contains("a.local"));
    }
}
