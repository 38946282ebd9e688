//! Progress while a command waits: one line for each service, alive on a terminal; elsewhere a plain line whenever
//! something changed.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tug_model::ServiceName;
use tug_model::report::Phase;
use tug_model::status::{ProjectStatus, ServiceState, ServiceStatus};

use super::escape::printable;
use super::style::{self, paint};
use super::{Facts, Screen};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// How one service stands, for a person who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The service.
    pub(crate) service: ServiceName,
    /// In a word.
    pub(crate) state: ServiceState,
    /// How far: `2/3 healthy`.
    pub(crate) count: String,
    /// What is going on; changes often.
    pub(crate) detail: String,
    /// What is going on, without what changes all the time.
    pub(crate) coarse: String,
}

/// Shows how things go on.
pub(crate) enum Progress {
    /// On a terminal.
    Live {
        /// All bars.
        all: MultiProgress,
        /// One for each service.
        bars: BTreeMap<ServiceName, ProgressBar>,
    },
    /// Anywhere else.
    Plain {
        /// What was last said about each service.
        said: BTreeMap<ServiceName, String>,
    },
}

// === impl Progress ===

impl Progress {
    /// What suits these streams.
    pub(crate) fn new(facts: Facts) -> Self {
        if facts.stderr_terminal {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            return Self::Live { all, bars: BTreeMap::new() };
        }
        Self::Plain { said: BTreeMap::new() }
    }

    /// Shows how the project stands now.
    pub(crate) fn show(&mut self, status: &ProjectStatus, screen: &mut Screen) {
        let width = status.services.iter().map(|service| service.name.as_str().len()).max().unwrap_or(0);
        for line in status.services.iter().map(line) {
            match self {
                Self::Live { all, bars } => show_live(all, bars, &line, width),
                Self::Plain { said } => {
                    let text = plain(&line);
                    if said.get(&line.service) != Some(&text) {
                        screen.note(&text);
                        said.insert(line.service, text);
                    }
                }
            }
        }
        if let Self::Live { all, bars } = self {
            bars.retain(|name, bar| {
                let stays = status.services.iter().any(|service| service.name == *name);
                if !stays {
                    bar.finish_and_clear();
                    all.remove(bar);
                }
                stays
            });
        }
    }

    /// Says something in between.
    pub(crate) fn note(&mut self, text: &str, screen: &mut Screen) {
        match self {
            Self::Live { all, .. } => all.suspend(|| screen.note(text)),
            Self::Plain { .. } => screen.note(text),
        }
    }

    /// Leaves the last state standing, as ordinary lines.
    pub(crate) fn finish(&mut self, screen: &mut Screen) {
        let Self::Live { bars, .. } = self else { return };
        let mut lines = Vec::new();
        for bar in std::mem::take(bars).into_values() {
            lines.push(format!("  {} {}", bar.prefix(), bar.message()));
            bar.finish_and_clear();
        }
        for line in lines {
            screen.note(line.trim_end());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Live { bars, .. } = self {
            bars.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}

fn show_live(all: &MultiProgress, bars: &mut BTreeMap<ServiceName, ProgressBar>, line: &Line, width: usize) {
    let bar = bars.entry(line.service.clone()).or_insert_with(|| {
        let bar = all.add(ProgressBar::new_spinner());
        bar.enable_steady_tick(TICK);
        bar
    });
    let sign = match line.state {
        ServiceState::Ready | ServiceState::Completed => paint(style::GOOD, "✓"),
        ServiceState::Failing => paint(style::BAD, "✗"),
        ServiceState::Progressing | ServiceState::Removing => "{spinner:.yellow}".to_owned(),
    };
    let template = ProgressStyle::with_template(&format!("{sign} {{prefix}} {{wide_msg}}"));
    bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_prefix(format!("{:width$}", line.service));
    let detail = if line.detail.is_empty() { String::new() } else { format!("  {}", line.detail) };
    bar.set_message(format!("{}{detail}", line.count));
}

/// How `service` stands, in a line.
pub(crate) fn line(service: &ServiceStatus) -> Line {
    let count = match service.state {
        ServiceState::Completed => "completed".to_owned(),
        ServiceState::Removing => match service.tasks.len() {
            1 => "stopping, 1 left".to_owned(),
            left => format!("stopping, {left} left"),
        },
        ServiceState::Ready | ServiceState::Progressing | ServiceState::Failing => counted(service),
    };
    let (detail, coarse) = match service.state {
        ServiceState::Progressing | ServiceState::Failing => detail(service),
        ServiceState::Ready | ServiceState::Completed | ServiceState::Removing => Default::default(),
    };
    Line {
        service: service.name.clone(),
        state: service.state,
        count,
        detail: printable(&detail),
        coarse: printable(&coarse),
    }
}

fn counted(service: &ServiceStatus) -> String {
    let (ready, updated, wanted) = (service.ready, service.updated, service.wanted);
    if updated < ready && updated < wanted {
        return format!("{updated}/{wanted} replaced, {ready} healthy");
    }
    format!("{}/{wanted} healthy", ready.min(wanted))
}

/// What the least advanced task does; failures first.
fn detail(service: &ServiceStatus) -> (String, String) {
    let phases = || service.tasks.iter().filter(|task| task.updated).filter_map(|task| task.phase.as_ref());
    let failed = phases().find_map(|phase| match phase {
        Phase::Waiting { failure, .. } => Some((phase.to_string(), failure.to_string())),
        Phase::Exited { .. } if !phase.has_succeeded() => Some((phase.to_string(), phase.to_string())),
        Phase::Exited { .. }
        | Phase::Pending
        | Phase::Pulling { .. }
        | Phase::Creating
        | Phase::Running { .. }
        | Phase::Stopping => None,
    });
    if let Some(failed) = failed {
        return failed;
    }
    if let Some(reason) = service.reasons.first() {
        return (reason.clone(), reason.clone());
    }
    phases()
        .filter(|phase| !phase.is_healthy() && !phase.has_succeeded())
        .map(|phase| {
            let is_pulling = matches!(phase, Phase::Pulling { .. });
            let coarse = if is_pulling { "pulling".to_owned() } else { phase.to_string() };
            (phase.to_string(), coarse)
        })
        .next()
        .unwrap_or_default()
}

fn plain(line: &Line) -> String {
    let text = format!("{} {}", line.service, line.count);
    if line.coarse.is_empty() { text } else { format!("{text}: {}", line.coarse) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn pulling(progress: &str) -> Phase {
        Phase::Pulling { progress: progress.into() }
    }

    #[test]
    fn plain_progress_says_what_changed_and_no_more() {
        let (mut screen, out, err) = Screen::in_memory(Facts::default());
        let mut progress = Progress::new(Facts::default());
        let steps = [
            vec![pulling("1 MiB of 9 MiB"), Phase::Pending],
            vec![pulling("5 MiB of 9 MiB"), Phase::Pending],
            vec![sample::healthy(), sample::crashed(1, "")],
            vec![sample::healthy(), sample::healthy()],
        ];
        for phases in steps {
            let status = sample::project_of("shop", vec![sample::service("web", &phases)]);
            progress.show(&status, &mut screen);
        }
        insta::assert_snapshot!(err.text(), @r"
        web 0/2 healthy: pulling
        web 1/2 healthy: exited with code 1
        web 2/2 healthy
        ");
        assert_eq!(out.text(), "");
    }

    #[test]
    fn a_rolling_replacement_counts_the_new_ones() {
        let mut service = sample::service("web", &[sample::healthy(), sample::healthy(), sample::healthy()]);
        service.updated = 1;
        service.state = ServiceState::Progressing;
        assert_eq!(line(&service).count, "1/3 replaced, 3 healthy");
        service.state = ServiceState::Removing;
        assert_eq!(line(&service).count, "stopping, 3 left");
    }

    #[test]
    fn what_stands_in_the_way_is_shown_escaped() {
        let mut service = sample::service("web", &[Phase::Pending]);
        service.reasons = vec!["n1: \u{1b}[2Jno room".into()];
        assert_eq!(line(&service).detail, r"n1: \u{1b}[2Jno room");
    }
}
