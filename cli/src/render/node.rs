//! The machines: `tug node ls`, and one of them.

use std::collections::BTreeMap;

use anstyle::Style;
use tug_api::user::{NodeState, NodeStatus, VolumeStatus};
use tug_model::Timestamp;
use tug_model::node::{Availability, Node};
use tug_model::report::Engine;
use tug_model::status::{ProjectStatus, TaskStatus};

use super::escape::printable;
use super::table::{Columns, Value};
use super::{Facts, lines, status, style, volume};
use crate::time::age;

/// The table of nodes.
pub(crate) fn nodes(nodes: &[NodeStatus], facts: Facts, wide: bool) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let mut names = vec!["NODE", "STATE", "TASKS", "CPUS", "MEMORY", "ENGINE", "DETAIL"];
    if wide {
        names.extend(["RESERVED", "ROLE", "ADDRESS", "HOSTNAME", "PLATFORM", "AGENT", "LABELS"]);
    }
    let mut table = Columns::new(&names);
    for status in nodes {
        let info = &status.node.info;
        let (word, colour) = state(status);
        let mut row = vec![
            status.node.id.as_str().into(),
            Value::styled(word, colour),
            Value::number(status.tasks),
            Value::number(info.capacity.cpus),
            Value::number(info.capacity.memory),
            info.engine_version.as_str().into(),
            detail(status).into(),
        ];
        if wide {
            row.extend([
                format!("{}, {}", status.reserved.cpus, status.reserved.memory).into(),
                status.node.role.as_str().into(),
                info.address.as_deref().unwrap_or("-").into(),
                info.hostname.as_str().into(),
                format!("{}/{}", info.os, info.arch).into(),
                info.agent_version.as_str().into(),
                labels(&status.node).join(",").into(),
            ]);
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

/// Everything about one node, with what of `projects` is there, and the volumes that have their data there.
pub(crate) fn node(
    one: &NodeStatus,
    (projects, volumes): (&[ProjectStatus], &[VolumeStatus]),
    now: Timestamp,
    facts: Facts,
) -> String {
    let (info, capacity) = (&one.node.info, one.node.info.capacity);
    let (word, colour) = state(one);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| lines::add(&mut text, &format!("{name:<13}{value}"));
    line("Node", one.node.id.as_str());
    line("State", &style::paint(colour, word));
    let mut reasons: Vec<String> = one.reasons.clone();
    reasons.extend(own_detail(one));
    for reason in &reasons {
        line("", &format!("- {}", printable(reason)));
    }
    if let Availability::Drain { at, deadline } = one.node.availability {
        let deadline = deadline.map(|deadline| match at.plus(deadline) {
            end if end > now => format!("; what is left in {} is stopped", age(end.since(now))),
            _ => "; its deadline has passed".to_owned(),
        });
        line("Drained", &format!("since {}{}", age(now.since(at)), deadline.unwrap_or_default()));
    }
    line("Role", one.node.role.as_str());
    line("Host", &printable(&format!("{}, {}/{}", info.hostname, info.os, info.arch)));
    line("Address", &printable(info.address.as_deref().unwrap_or("none: other nodes cannot reach it")));
    line("Engine", &printable(&info.engine_version));
    line("Agent", &printable(&info.agent_version));
    line("Joined", &format!("{} ago", age(now.since(one.node.joined_at))));
    if let Some(silent) = one.last_report {
        line("Heard of", &format!("{} ago", age(silent)));
    }
    line("Capacity", &format!("{} cpus, {} of memory", capacity.cpus, capacity.memory));
    line("Reserved", &format!("{} cpus, {} of memory", one.reserved.cpus, one.reserved.memory));
    let labels = labels(&one.node);
    line("Labels", &printable(&if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }));
    if !volumes.is_empty() {
        line("Volumes", &format!("{}, whose data is here", volumes.len()));
    }
    for volume in volumes {
        line("", &format!("- {}", printable(&volume::line(volume))));
    }
    line("Tasks", &one.tasks.to_string());
    for leaving in &one.leaving {
        let colour = if leaving.is_stuck { style::BAD } else { style::BUSY };
        let task = style::paint(colour, &leaving.task);
        line("", &format!("- {task} is to leave: {}", printable(&leaving.waits_for)));
    }
    let there = on(projects, one);
    if !there.is_empty() {
        text.push('\n');
        text.push_str(&status::tasks(&there, now, facts, false));
    }
    text
}

/// What of `projects` is on a node, without the services of which nothing is.
pub(crate) fn on(projects: &[ProjectStatus], node: &NodeStatus) -> Vec<ProjectStatus> {
    let mut projects = projects.to_vec();
    for project in &mut projects {
        for service in &mut project.services {
            service.tasks.retain(|task: &TaskStatus| task.node == node.node.id);
        }
        project.services.retain(|service| !service.tasks.is_empty());
    }
    projects.retain(|project| !project.services.is_empty());
    projects
}

/// How a node stands, in a word.
pub(crate) fn state(status: &NodeStatus) -> (&'static str, Style) {
    match status.state {
        NodeState::Ready if status.engine.is_none() => ("joining", style::BUSY),
        NodeState::Ready => ("ready", style::GOOD),
        NodeState::Draining => ("draining", style::BUSY),
        NodeState::Drained => ("drained", style::PLAIN),
        NodeState::Disobedient => ("disobedient", style::BAD),
        NodeState::EngineDown => ("engine down", style::BAD),
        NodeState::Away => ("away", style::BAD),
        NodeState::Dead => ("dead", style::BAD),
    }
}

/// What else there is to say in a line.
fn detail(status: &NodeStatus) -> String {
    let said = own_detail(status).into_iter().chain(status.reasons.iter().cloned());
    let stuck = status.leaving.iter().filter(|leaving| leaving.is_stuck).count();
    let left = match (status.leaving.len(), stuck) {
        (0, _) => None,
        (left, 0) => Some(format!("{left} to leave")),
        (left, stuck) => Some(format!("{left} to leave, {stuck} cannot")),
    };
    said.chain(left).collect::<Vec<_>>().join("; ")
}

/// What follows from the rest of a status.
fn own_detail(status: &NodeStatus) -> Option<String> {
    match (&status.engine, status.state) {
        (_, NodeState::Away | NodeState::Dead) => Some(match status.last_report {
            Some(silent) => format!("last heard of {} ago", age(silent)),
            None => "not heard of since the server started".to_owned(),
        }),
        (Some(Engine::Down { reason, age: since, .. }), _) => {
            Some(format!("its engine is down for {}: {reason}", age(*since)))
        }
        (Some(Engine::Up) | None, _) => status.refusal.clone().filter(|_| status.reasons.is_empty()),
    }
}

/// The labels that count.
fn labels(node: &Node) -> Vec<String> {
    let all: BTreeMap<_, _> = node.info.labels.iter().chain(&node.labels).collect();
    all.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use tug_api::user::Leaving;
    use tug_model::node::Role;
    use tug_model::{Bytes, Millis, NanoCpus, TaskId};

    use super::*;
    use crate::sample::{self, NOW};

    fn machines() -> Vec<NodeStatus> {
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(sample::node);
        a.tasks = 3;
        a.node.info.address = Some("192.0.2.1:7444".into());
        a.node.info.labels = [("disk".to_owned(), "hdd".to_owned())].into();
        a.node.labels = [("disk".to_owned(), "ssd".to_owned()), ("zone".to_owned(), "z1".to_owned())].into();
        a.reserved.cpus = NanoCpus(500_000_000);
        a.reserved.memory = Bytes(1 << 30);
        b.state = NodeState::Dead;
        b.connected = false;
        b.last_report = Some(Millis::from_secs(90));
        b.reasons = vec!["silent for 1m 30s: its tasks are replaced elsewhere".into()];
        b.node.role = Role::Worker;
        c.state = NodeState::EngineDown;
        let (reason, age) = ("connection refused".into(), Millis::from_secs(5));
        c.engine = Some(Engine::Down { reason, age, doomed: false });
        vec![a, b, c]
    }

    #[test]
    fn nodes_are_listed_with_what_is_wrong() {
        insta::assert_snapshot!(nodes(&machines(), Facts::default(), false), @r"
        NODE  STATE        TASKS  CPUS   MEMORY   ENGINE    DETAIL
        a     ready            3  2.000  4.0 GiB  20.10.24
        b     dead             0  2.000  4.0 GiB  20.10.24  last heard of 1m 30s ago; silent for 1m 30s: its tasks are replaced elsewhere
        c     engine down      0  2.000  4.0 GiB  20.10.24  its engine is down for 5s: connection refused
        ");
        let wide = nodes(&machines(), Facts::default(), true);
        let line = wide.lines().nth(1).unwrap();
        for shown in
            ["0.500, 1.0 GiB", "manager", "192.0.2.1:7444", "a.local", "linux/amd64", "disk=ssd,zone=z1"]
        {
            assert!(line.contains(shown), "{shown}: {wide}");
        }
    }

    #[test]
    fn a_node_that_is_drained_says_what_waits_for_what() {
        let mut one = machines().remove(0);
        one.state = NodeState::Draining;
        one.node.availability =
            Availability::Drain { at: Timestamp(NOW.0 - 5000), deadline: Some(Millis::from_secs(65)) };
        one.leaving = vec![
            Leaving {
                task: TaskId::parse("shop.web.1.7").unwrap(),
                waits_for: "its successor on b is starting".into(),
                is_stuck: false,
            },
            Leaving {
                task: TaskId::parse("shop.db.1.7").unwrap(),
                waits_for: "the data of volume shop_data is on node a".into(),
                is_stuck: true,
            },
        ];
        let mut shop = sample::project("shop", &["web", "db", "cache"]);
        for service in &mut shop.services {
            let id = if service.name.as_str() == "cache" { "b" } else { "a" };
            service.tasks[0].node = tug_model::NodeId::parse(id).unwrap();
        }
        let volumes = [sample::volume("shop_data", "a", &["shop/db"]), sample::volume("old_data", "a", &[])];
        insta::assert_snapshot!(anstream::adapter::strip_str(&node(&one, (&[shop], &volumes), NOW, Facts::default())), @r"
        Node         a
        State        draining
        Drained      since 5s; what is left in 1m is stopped
        Role         manager
        Host         a.local, linux/amd64
        Address      192.0.2.1:7444
        Engine       20.10.24
        Agent        0.1.0
        Joined       1m 30s ago
        Heard of     0s ago
        Capacity     2.000 cpus, 4.0 GiB of memory
        Reserved     0.500 cpus, 1.0 GiB of memory
        Labels       disk=ssd, zone=z1
        Volumes      2, whose data is here
                     - shop_data, used by shop/db
                     - old_data, which no service uses: `tug volume forget old_data --node a`
        Tasks        3
                     - shop.web.1.7 is to leave: its successor on b is starting
                     - shop.db.1.7 is to leave: the data of volume shop_data is on node a

        TASK   STATE    AGE    NODE  RESTARTS  PORTS  DETAIL
        web.1  healthy  1m 1s  a            0
        db.1   healthy  1m 1s  a            0
        ");
        assert!(nodes(&[one], Facts::default(), false).contains("2 to leave, 1 cannot"));
    }
}
