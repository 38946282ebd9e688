//! Projects and their tasks: `tug ls` and `tug ps`.

use anstyle::Style;
use tug_model::report::{Health, Phase};
use tug_model::spec::service::{Port, PortMode, Protocol};
use tug_model::status::{ProjectStatus, ServiceStatus, TaskStatus};
use tug_model::task::Desired;
use tug_model::{Millis, Timestamp};

use super::Facts;
use super::style;
use super::table::{Columns, Value};
use crate::time::age;

/// The table of projects.
pub(crate) fn projects(projects: &[ProjectStatus], facts: Facts, wide: bool) -> String {
    if projects.is_empty() {
        return String::new();
    }
    let mut names = vec!["PROJECT", "STATE", "SERVICES", "REPLICAS", "PORTS"];
    if wide {
        names.extend(["VERSION", "REVISION"]);
    }
    let mut table = Columns::new(&names);
    for project in projects {
        let (state, style) = project_state(project);
        let ready = project.services.iter().filter(|one| is_good(one)).count();
        let (has, wants) =
            project.services.iter().fold((0, 0), |(has, wants), one| (has + one.ready, wants + one.wanted));
        let ports: Vec<String> = project.services.iter().flat_map(|one| one.ports.iter().map(port)).collect();
        let mut row = vec![
            project.name.as_str().into(),
            Value::styled(state, style),
            format!("{ready}/{}", project.services.len()).into(),
            format!("{has}/{wants}").into(),
            ports.join(", ").into(),
        ];
        if wide {
            row.push(Value::number(
                project.number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            ));
            row.push(Value::number(project.revision));
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

/// The table of tasks, and of what has none yet.
pub(crate) fn tasks(projects: &[ProjectStatus], now: Timestamp, facts: Facts, wide: bool) -> String {
    if projects.iter().all(|project| project.services.is_empty()) {
        return String::new();
    }
    let several = projects.len() > 1;
    let mut names = if several { vec!["PROJECT"] } else { Vec::new() };
    names.extend(["TASK", "STATE", "AGE", "NODE", "RESTARTS", "PORTS", "DETAIL"]);
    if wide {
        names.extend(["CONNECTIONS", "ADDRESS", "IMAGE", "ID"]);
    }
    let mut table = Columns::new(&names);
    for project in projects {
        for service in &project.services {
            for mut row in rows(service, now, wide) {
                if several {
                    row.insert(0, project.name.as_str().into());
                }
                table.row(row);
            }
        }
    }
    table.render(facts, !wide)
}

fn rows(service: &ServiceStatus, now: Timestamp, wide: bool) -> Vec<Vec<Value>> {
    let ports: Vec<String> = service.ports.iter().map(port).collect();
    let ports = ports.join(", ");
    let mut rows: Vec<Vec<Value>> = Vec::new();
    if service.tasks.is_empty() && (service.wanted > 0 || !service.reasons.is_empty()) {
        let mut row = vec![
            service.name.as_str().into(),
            Value::styled(service.state.as_str(), style::of_state(service.state)),
            "".into(),
            "".into(),
            "".into(),
            ports.clone().into(),
            service.reasons.join("; ").into(),
        ];
        if wide {
            row.extend(["".into(), "".into(), service.image.as_str().into(), "".into()]);
        }
        rows.push(row);
    }
    rows.extend(service.tasks.iter().map(|task| row(service, task, &ports, now, wide)));
    rows
}

fn row(service: &ServiceStatus, task: &TaskStatus, ports: &str, now: Timestamp, wide: bool) -> Vec<Value> {
    let (state, state_style, detail) = task_state(task, now);
    let mut row = vec![
        format!("{}.{}", service.name, task.slot).into(),
        Value::styled(state, state_style),
        age(now.since(task.since.unwrap_or(task.created_at))).into(),
        task.node.as_str().into(),
        Value::number(task.restarts),
        ports.into(),
        detail.into(),
    ];
    if wide {
        let address = match &task.phase {
            Some(Phase::Running { address: Some(address), .. }) => address.to_string(),
            _ => String::new(),
        };
        row.extend([
            Value::number(task.connections),
            address.into(),
            service.image.as_str().into(),
            task.id.as_str().into(),
        ]);
    }
    row
}

/// How a project stands, in a word.
pub(crate) fn project_state(project: &ProjectStatus) -> (&'static str, Style) {
    if project.number.is_none() {
        return ("removing", style::BUSY);
    }
    if project.settled {
        return ("ready", style::GOOD);
    }
    let worst = project.services.iter().map(|service| service.state).max_by_key(|state| match state {
        tug_model::status::ServiceState::Failing => 2,
        tug_model::status::ServiceState::Progressing | tug_model::status::ServiceState::Removing => 1,
        tug_model::status::ServiceState::Ready | tug_model::status::ServiceState::Completed => 0,
    });
    match worst {
        Some(state @ tug_model::status::ServiceState::Failing) => (state.as_str(), style::BAD),
        _ => ("progressing", style::BUSY),
    }
}

/// For so long a replica that was started again is said to be that: what ends at once is healthy until it does.
const FRESH: Millis = Millis::from_secs(10);

/// How a task stands: in a word, its colour, and what more there is to say.
pub(crate) fn task_state(task: &TaskStatus, now: Timestamp) -> (&'static str, Style, String) {
    if let Some(why) = &task.unknown {
        let fate = if task.desired == Desired::Run { "" } else { ", it is to be stopped" };
        return ("unknown", style::BAD, format!("{why}{fate}"));
    }
    match task.desired {
        Desired::Drain { .. } => return ("draining", style::BUSY, drained(task)),
        Desired::Stop { .. } => return ("stopping", style::BUSY, String::new()),
        Desired::Run => {}
    }
    let old = if task.updated { String::new() } else { "to be replaced".to_owned() };
    match &task.phase {
        None => ("assigned", style::BUSY, "its node has said nothing about it yet".to_owned()),
        Some(Phase::Pending) => ("pending", style::BUSY, String::new()),
        Some(Phase::Pulling { progress }) => ("pulling", style::BUSY, progress.clone()),
        Some(Phase::Creating) => ("creating", style::BUSY, String::new()),
        Some(Phase::Running { health: Health::Healthy, .. }) if is_fresh(task, now) => {
            ("restarted", style::BUSY, "healthy so far".to_owned())
        }
        Some(Phase::Running { health: Health::Healthy, .. }) => ("healthy", style::GOOD, old),
        Some(Phase::Running { health: Health::Starting, .. }) => ("starting", style::BUSY, old),
        Some(Phase::Running { health: Health::Unhealthy { reason }, .. }) => {
            ("unhealthy", style::BAD, reason.clone())
        }
        Some(phase @ Phase::Waiting { .. }) => ("waiting", style::BAD, phase.to_string()),
        Some(Phase::Stopping) => ("stopping", style::BUSY, String::new()),
        Some(phase @ Phase::Exited { .. }) if phase.has_succeeded() => ("completed", style::GOOD, old),
        Some(phase @ Phase::Exited { .. }) => ("failed", style::BAD, phase.to_string()),
    }
}

/// Whether it has just been started again.
fn is_fresh(task: &TaskStatus, now: Timestamp) -> bool {
    task.restarts > 0 && task.since.is_some_and(|since| now.since(since) < FRESH)
}

fn drained(task: &TaskStatus) -> String {
    match task.connections {
        0 => "no connections".to_owned(),
        1 => "1 connection left".to_owned(),
        more => format!("{more} connections left"),
    }
}

fn is_good(service: &ServiceStatus) -> bool {
    use tug_model::status::ServiceState;
    matches!(service.state, ServiceState::Ready | ServiceState::Completed)
}

/// A published port, in Compose's short form, with an arrow.
pub(crate) fn port(port: &Port) -> String {
    let address = port.host_ip.map(|address| match address {
        std::net::IpAddr::V4(address) => format!("{address}:"),
        std::net::IpAddr::V6(address) => format!("[{address}]:"),
    });
    let published = port.published.map_or_else(|| "auto".to_owned(), |published| published.to_string());
    let protocol = if port.protocol == Protocol::Udp { "/udp" } else { "" };
    let host = if port.mode == PortMode::Host { " host" } else { "" };
    format!("{}{published}→{}{protocol}{host}", address.unwrap_or_default(), port.target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, NOW};

    fn published(port: u16) -> Port {
        Port {
            target: 80,
            published: Some(port),
            host_ip: None,
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            app_protocol: None,
        }
    }

    fn shop() -> ProjectStatus {
        let mut web = sample::service("web", &[sample::healthy(), sample::crashed(1, "")]);
        web.ports = vec![published(8080)];
        let mut queue = sample::service("queue", &[]);
        queue.wanted = 1;
        queue.state = tug_model::status::ServiceState::Progressing;
        queue.reasons = vec!["n1: 180 MB short".into()];
        let mut old = sample::task("old", 1, sample::healthy());
        old.desired = Desired::Drain { since: tug_model::Revision(1), at: NOW };
        old.connections = 2;
        let mut leaving = sample::service("old", &[]);
        leaving.tasks = vec![old];
        sample::project_of("shop", vec![web, queue, leaving])
    }

    #[test]
    fn projects_are_listed() {
        let projects = [sample::project("blog", &["web", "db"]), shop()];
        insta::assert_snapshot!(projects_table(&projects, false), @r"
        PROJECT  STATE    SERVICES  REPLICAS  PORTS
        blog     ready    2/2       2/2
        shop     failing  1/3       1/3       8080→80
        ");
        insta::assert_snapshot!(projects_table(&projects, true).lines().next().unwrap(),
            @"PROJECT  STATE    SERVICES  REPLICAS  PORTS    VERSION  REVISION");
        assert_eq!(projects_table(&[], false), "");
    }

    fn projects_table(list: &[ProjectStatus], wide: bool) -> String {
        projects(list, Facts::default(), wide)
    }

    #[test]
    fn tasks_are_listed_and_so_is_what_has_none() {
        insta::assert_snapshot!(tasks(&[shop()], NOW, Facts::default(), false), @r"
        TASK   STATE        AGE    NODE  RESTARTS  PORTS    DETAIL
        web.1  healthy      1m 1s  n1           0  8080→80
        web.2  waiting      1m 1s  n1           0  8080→80  exited with code 1, next try in 5s
        queue  progressing                                  n1: 180 MB short
        old.1  draining     1m 1s  n1           0           2 connections left
        ");
        let wide = tasks(&[shop(), sample::project("blog", &["db"])], NOW, Facts::default(), true);
        insta::assert_snapshot!(wide.lines().last().unwrap(),
            @"blog     db.1   healthy      1m 1s  n1           0                                                         0  172.18.0.2  db:1     shop.db.1.7");
    }

    #[test]
    fn what_was_just_started_again_is_not_yet_said_to_be_healthy() {
        let mut task = sample::task("web", 1, sample::healthy());
        let word = |task: &TaskStatus, ago: u64| {
            let task = TaskStatus { since: Some(Timestamp(NOW.0 - ago)), ..task.clone() };
            task_state(&task, NOW).0
        };
        assert_eq!(word(&task, 500), "healthy", "it is new");
        task.restarts = 3;
        assert_eq!((word(&task, 500), word(&task, FRESH.0)), ("restarted", "healthy"));
    }

    #[test]
    fn what_nobody_knows_is_unknown_and_not_what_it_should_be() {
        let mut web = sample::service("web", &[sample::healthy(), sample::healthy()]);
        for task in &mut web.tasks {
            (task.phase, task.unknown) = (None, Some("node n1 is away".into()));
        }
        web.tasks[1].desired = Desired::Stop { since: tug_model::Revision(1) };
        insta::assert_snapshot!(
            tasks(&[sample::project_of("shop", vec![web])], NOW, Facts::default(), false),
            @r"
        TASK   STATE    AGE    NODE  RESTARTS  PORTS  DETAIL
        web.1  unknown  1m 1s  n1           0         node n1 is away
        web.2  unknown  1m 1s  n1           0         node n1 is away, it is to be stopped
        "
        );
    }

    #[test]
    fn ports_are_shown_with_all_that_matters() {
        let mut udp = published(53);
        udp.protocol = Protocol::Udp;
        udp.mode = PortMode::Host;
        udp.host_ip = Some("::1".parse().unwrap());
        assert_eq!([port(&published(80)), port(&udp)], ["80→80", "[::1]:53→80/udp host"]);
    }
}
