//! What the control plane counts about itself, in the text format of Prometheus.
//!
//! Counters are kept where things happen; what can be read from the state (revision, tasks, nodes) is set when somebody
//! asks, so that nothing has to be kept in step.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tug_api::serve::HandshakeError;

/// From half a millisecond to ten seconds.
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    commits: Family<ResultLabels, Counter>,
    commit_seconds: Histogram,
    streams: Family<KindLabels, Gauge>,
    revision: Gauge,
    projects: Gauge,
    nodes: Family<NodeLabels, Gauge>,
    tasks: Family<PhaseLabels, Gauge>,
    panics: Counter,
    handshakes: Family<ReasonLabels, Counter>,
    planner: Planner,
}

/// What is read from the state when somebody asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Levels {
    /// The newest commit.
    pub revision: u64,
    /// How many projects are wanted.
    pub projects: usize,
    /// How many nodes report, and how many do not.
    pub nodes: [usize; 2],
    /// How many tasks stand in each phase.
    pub tasks: std::collections::BTreeMap<&'static str, usize>,
    /// What the planner has done so far.
    pub planner: PlannerLevels,
}

/// What the planner has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlannerLevels {
    /// How often it looked at the world.
    pub passes: u64,
    /// How many decisions were committed.
    pub decisions: u64,
    /// How long the last look took, in microseconds.
    pub last_micros: u64,
}

/// A stream that is open; it counts for as long as it is held.
#[derive(Debug)]
pub struct OpenStream(Gauge);

#[derive(Debug, Clone, Default)]
struct Planner {
    passes: Gauge,
    decisions: Gauge,
    last_micros: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    connected: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that all stand at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            commits: Family::default(),
            commit_seconds: Histogram::new(BUCKETS),
            streams: Family::default(),
            revision: Gauge::default(),
            projects: Gauge::default(),
            nodes: Family::default(),
            tasks: Family::default(),
            panics: Counter::default(),
            handshakes: Family::default(),
            planner: Planner::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("tug");
        let Self { requests, request_seconds, commits, commit_seconds, streams, .. } = self;
        registry.register("requests", "Requests answered", requests.clone());
        registry.register("request_seconds", "Time to the head of an answer", request_seconds.clone());
        registry.register("commits", "Changes that users asked for, by what became of them", commits.clone());
        registry.register("commit_seconds", "Time until such a change was on disk", commit_seconds.clone());
        registry.register("streams", "Streams that are open", streams.clone());
        registry.register("revision", "The newest commit", self.revision.clone());
        registry.register("projects", "Projects that are wanted", self.projects.clone());
        registry.register("nodes", "Nodes, by whether they report", self.nodes.clone());
        registry.register("tasks", "Tasks, by the phase that they stand in", self.tasks.clone());
        registry.register("panics", "Requests that ended in a mistake of ours", self.panics.clone());
        let handshakes = self.handshakes.clone();
        registry.register("failed_handshakes", "Connections by TLS that came to nothing", handshakes);
        let Planner { passes, decisions, last_micros } = &self.planner;
        registry.register("planner_passes", "How often the planner looked", passes.clone());
        registry.register("planner_decisions", "Decisions that were committed", decisions.clone());
        registry.register("planner_last_microseconds", "Time of its last look", last_micros.clone());
        registry
    }

    /// A request was answered.
    pub fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels = RouteLabels { route: route.to_owned(), method: method.to_owned() };
        self.request_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        let RouteLabels { route, method } = labels;
        self.requests.get_or_create(&RequestLabels { route, method, status }).inc();
    }

    /// A request ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// A connection by TLS came to nothing.
    pub fn not_served(&self, error: &HandshakeError) {
        let reason = match error {
            HandshakeError::Certificate(_) => "certificate",
            HandshakeError::Protocol(_) => "protocol",
            HandshakeError::Lost(_) => "lost",
            HandshakeError::Slow => "slow",
        };
        self.handshakes.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A change that a user asked for was committed, or not.
    pub fn committed(&self, result: &'static str, took: Duration) {
        self.commits.get_or_create(&ResultLabels { result }).inc();
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// A stream of this kind is open from now on.
    pub fn open(&self, kind: &'static str) -> OpenStream {
        let gauge = self.streams.get_or_create(&KindLabels { kind }).clone();
        gauge.inc();
        OpenStream(gauge)
    }

    /// Everything as text, with `levels` as they are now.
    pub fn text(&self, levels: &Levels) -> String {
        self.revision.set(signed(levels.revision));
        self.projects.set(signed(levels.projects as u64));
        for (connected, count) in ["true", "false"].into_iter().zip(levels.nodes) {
            self.nodes.get_or_create(&NodeLabels { connected }).set(signed(count as u64));
        }
        self.tasks.clear();
        for (phase, count) in &levels.tasks {
            self.tasks.get_or_create(&PhaseLabels { phase }).set(signed(*count as u64));
        }
        self.planner.passes.set(signed(levels.planner.passes));
        self.planner.decisions.set(signed(levels.planner.decisions));
        self.planner.last_micros.set(signed(levels.planner.last_micros));
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            let _never_fails = writeln!(out, "# {error}");
        }
        out
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let metrics = Metrics::new();
        metrics.answered("/v1/info", "GET", 200, Duration::from_millis(3));
        metrics.answered("/v1/info", "GET", 200, Duration::from_millis(3));
        metrics.committed("ok", Duration::from_millis(1));
        metrics.not_served(&HandshakeError::Slow);
        let watch = metrics.open("watch");
        let levels = Levels {
            revision: 7,
            nodes: [1, 2],
            tasks: [("healthy", 3)].into(),
            planner: PlannerLevels { passes: 9, ..PlannerLevels::default() },
            ..Levels::default()
        };
        let text = metrics.text(&levels);
        for line in [
            r#"tug_requests_total{route="/v1/info",method="GET",status="200"} 2"#,
            r#"tug_request_seconds_count{route="/v1/info",method="GET"} 2"#,
            r#"tug_commits_total{result="ok"} 1"#,
            r#"tug_streams{kind="watch"} 1"#,
            r#"tug_failed_handshakes_total{reason="slow"} 1"#,
            r#"tug_nodes{connected="false"} 2"#,
            r#"tug_tasks{phase="healthy"} 3"#,
            "tug_revision 7",
            "tug_planner_passes 9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        drop(watch);
        let text = metrics.text(&Levels::default());
        assert!(text.contains(r#"tug_streams{kind="watch"} 0"#), "{text}");
        assert!(!text.contains("healthy"), "a phase without tasks is gone: {text}");
    }

    /// The names in the table of the page for operators.
    fn explained(page: &str) -> Vec<&str> {
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `tug_"));
        rows.map(|row| row.split('`').next().unwrap()).collect()
    }

    #[test]
    fn every_metric_is_explained_to_operators_and_nothing_else_is() {
        // What has labels is written when it has counted something.
        let metrics = Metrics::new();
        metrics.answered("/v1/info", "GET", 200, Duration::ZERO);
        metrics.committed("ok", Duration::ZERO);
        metrics.not_served(&HandshakeError::Slow);
        let _open = metrics.open("watch");
        let text = metrics.text(&Levels { tasks: [("healthy", 1)].into(), ..Levels::default() });
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE tug_")?.split_once(' '));
        let suffix = |kind| if kind == "counter" { "_total" } else { "" };
        let written: Vec<String> = kinds.map(|(name, kind)| format!("{name}{}", suffix(kind))).collect();
        let page = include_str!("../../docs/operating.md");
        assert_eq!(explained(page), written, "the order too");
    }
}
