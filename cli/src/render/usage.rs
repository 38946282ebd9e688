//! What the tasks use: `tug top`.

use serde::Serialize;
use tug_api::user::{NodeStatus, TaskUsage};
use tug_model::node::Capacity;
use tug_model::{Bytes, NanoCpus, NodeId};

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

/// What the tasks of one node use together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeUsage {
    /// Which node.
    pub(crate) node: NodeId,
    /// Whether its agent is connected; of one that is not, nothing is known.
    pub(crate) connected: bool,
    /// How much it is.
    #[serde(flatten)]
    pub(crate) sum: Sum,
}

/// What several tasks use, and what there is to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Sum {
    /// How many tasks say what they use.
    tasks: u32,
    /// Processor time.
    cpu: NanoCpus,
    memory: Bytes,
    /// Open connections to them.
    connections: u32,
    /// What the machines have.
    capacity: Capacity,
    /// What is kept free there for tasks.
    reserved: Capacity,
}

// === impl Sum ===

impl Sum {
    fn of_machine(status: &NodeStatus) -> Self {
        Self { capacity: status.node.info.capacity, reserved: status.reserved, ..Self::default() }
    }

    fn of_task(task: &TaskUsage) -> Self {
        let TaskUsage { cpu, memory, connections, .. } = *task;
        Self { tasks: 1, cpu, memory, connections, ..Self::default() }
    }

    fn plus(self, other: Self) -> Self {
        let both = |a: Capacity, b: Capacity| Capacity {
            cpus: NanoCpus(a.cpus.0.saturating_add(b.cpus.0)),
            memory: Bytes(a.memory.0.saturating_add(b.memory.0)),
        };
        Self {
            tasks: self.tasks.saturating_add(other.tasks),
            cpu: NanoCpus(self.cpu.0.saturating_add(other.cpu.0)),
            memory: Bytes(self.memory.0.saturating_add(other.memory.0)),
            connections: self.connections.saturating_add(other.connections),
            capacity: both(self.capacity, other.capacity),
            reserved: both(self.reserved, other.reserved),
        }
    }
}

/// What is used on each of `nodes`, by what is in `list`.
pub(crate) fn sums(nodes: &[NodeStatus], list: &[TaskUsage]) -> Vec<NodeUsage> {
    let sum = |status: &NodeStatus| {
        let of_it = list.iter().filter(|one| one.node == status.node.id).map(Sum::of_task);
        let sum = of_it.fold(Sum::of_machine(status), Sum::plus);
        NodeUsage { node: status.node.id.clone(), connected: status.connected, sum }
    };
    nodes.iter().map(sum).collect()
}

/// The table of nodes by what is used on them, with the sum of all.
pub(crate) fn nodes(sums: &[NodeUsage], facts: Facts, wide: bool) -> String {
    if sums.is_empty() {
        return String::new();
    }
    let mut names = vec!["NODE", "TASKS", "CPU", "OF", "MEMORY", "OF", "CONNECTIONS"];
    if wide {
        names.extend(["RESERVED CPUS", "RESERVED MEMORY"]);
    }
    let mut table = Columns::new(&names);
    for one in sums {
        table.row(row(one.node.as_str(), one.connected, &one.sum, wide));
    }
    if sums.len() > 1 {
        let all = sums.iter().map(|one| one.sum).fold(Sum::default(), Sum::plus);
        table.row(row("all", true, &all, wide));
    }
    table.render(facts, !wide)
}

fn row(name: &str, is_known: bool, sum: &Sum, wide: bool) -> Vec<Value> {
    let known = |text: String| Value::number(if is_known { text } else { "?".to_owned() });
    let mut row = vec![
        name.into(),
        known(sum.tasks.to_string()),
        known(percent(sum.cpu.0)),
        Value::number(percent(sum.capacity.cpus.0)),
        known(sum.memory.to_string()),
        Value::number(sum.capacity.memory),
        known(sum.connections.to_string()),
    ];
    if wide {
        row.extend([Value::number(sum.reserved.cpus), Value::number(sum.reserved.memory)]);
    }
    row
}

/// Billionths of a core as a percentage of one.
fn percent(nano_cpus: u64) -> String {
    let tenths = (nano_cpus + 500_000) / 1_000_000;
    format!("{}.{}%", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use tug_model::{ProjectName, ServiceName, Slot, TaskId};

    use super::*;
    use crate::sample;

    fn task(slot: u32, cpu: u64) -> TaskUsage {
        TaskUsage {
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
        }
    }

    #[test]
    fn the_busiest_comes_first() {
        insta::assert_snapshot!(usage(&[task(1, 12_300_000), task(2, 1_500_000_000)], Facts::default(), false), @r"
        PROJECT  TASK   CPU     MEMORY    LIMIT     CONNECTIONS  NODE
        shop     web.2  150.0%  12.0 MiB         -            5  n1
        shop     web.1    1.2%  12.0 MiB  64.0 MiB            5  n1
        ");
    }
    #[test]
    fn what_is_used_is_summed_up_for_each_node_and_for_all() {
        let mut machines = ["n1", "n2", "n3"].map(sample::node);
        machines[2].connected = false;
        machines[0].reserved.cpus = NanoCpus(500_000_000);
        let mut elsewhere = task(3, 250_000_000);
        elsewhere.node = NodeId::parse("n2").unwrap();
        let sums = sums(&machines, &[task(1, 12_300_000), task(2, 1_500_000_000), elsewhere]);
        insta::assert_snapshot!(nodes(&sums, Facts::default(), true), @r"
        NODE  TASKS  CPU     OF      MEMORY    OF        CONNECTIONS  RESERVED CPUS  RESERVED MEMORY
        n1        2  151.2%  200.0%  24.0 MiB   4.0 GiB           10          0.500              0 B
        n2        1   25.0%  200.0%  12.0 MiB   4.0 GiB            5          0.000              0 B
        n3        ?       ?  200.0%         ?   4.0 GiB            ?          0.000              0 B
        all       3  176.2%  600.0%  36.0 MiB  12.0 GiB           15          0.500              0 B
        ");
    }
}
