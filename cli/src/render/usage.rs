//! What the tasks use: `tug top`.

use tug_api::user::TaskUsage;

use super::Facts;
use super::table::{Columns, Value};

/// Leaves the screen empty, the cursor at its top.
pub(crate) const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// The table of tasks, those that use most processor time first.
pub(crate) fn usage(list: &[TaskUsage], facts: Facts, wide: bool) -> String {
    if list.is_empty() {
        return String::new();
    }
    let mut list: Vec<&TaskUsage> = list.iter().collect();
    list.sort_by(|a, b| (b.cpu, b.memory, &a.task).cmp(&(a.cpu, a.memory, &b.task)));
    let mut names = vec!["PROJECT", "TASK", "CPU", "MEMORY", "LIMIT", "CONNECTIONS", "NODE"];
    if wide {
        names.extend(["PIDS", "RECEIVED", "SENT", "ID"]);
    }
    let mut table = Columns::new(&names);
    for one in list {
        let limit = one.memory_limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let mut row = vec![
            one.project.as_str().into(),
            format!("{}.{}", one.service, one.slot).into(),
            Value::number(percent(one.cpu.0)),
            Value::number(one.memory),
            Value::number(limit),
            Value::number(one.connections),
            one.node.as_str().into(),
        ];
        if wide {
            row.extend([
                Value::number(one.pids),
                Value::number(one.received),
                Value::number(one.sent),
                one.task.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

/// Billionths of a core as a percentage of one.
fn percent(nano_cpus: u64) -> String {
    let tenths = (nano_cpus + 500_000) / 1_000_000;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use tug_model::{Bytes, NanoCpus, NodeId, ProjectName, ServiceName, Slot, TaskId};

    use super::*;

    #[test]
    fn the_busiest_comes_first() {
        let task = |slot: u32, cpu| TaskUsage {
            task: TaskId::parse(&format!("shop.web.{slot}.7")).unwrap(),
            project: ProjectName::parse("shop").unwrap(),
            service: ServiceName::parse("web").unwrap(),
            slot: Slot(slot),
            node: NodeId::parse("n1").unwrap(),
            cpu: NanoCpus(cpu),
            memory: Bytes(12 << 20),
            memory_limit: (slot == 1).then_some(Bytes(64 << 20)),
            pids: 3,
            received: Bytes(0),
            sent: Bytes(1024),
            connections: 5,
        };
        insta::assert_snapshot!(usage(&[task(1, 12_300_000), task(2, 1_500_000_000)], Facts::default(), false), @r"
        PROJECT  TASK   CPU     MEMORY    LIMIT     CONNECTIONS  NODE
        shop     web.2  150.0%  12.0 MiB         -            5  n1
        shop     web.1    1.2%  12.0 MiB  64.0 MiB            5  n1
        ");
    }
}
