//! What can happen to a cluster: what users ask for, and everything that breaks. Which of it happens is drawn elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tug_model::{Millis, ProjectName, ServiceName, spec};

use crate::fake::Faults;

/// One thing that happens. Numbers choose among what is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A user asks for something.
    Ask(Request),
    /// Something happens to one machine.
    Node(usize, NodeAction),
    /// Something happens to the control plane.
    Control(ControlAction),
    /// The same happens to so many machines at the same moment, the first ones.
    Together(usize, Box<NodeAction>),
    /// Everything stands still for so long, and then goes on: the clocks went on.
    StandStill(Duration),
}

/// What happens to one machine.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeAction {
    /// Somebody kills a container.
    Kill(usize),
    /// Somebody removes a container by hand.
    RemoveContainer(usize),
    /// Somebody starts a container that has nothing to do with us.
    Foreign,
    /// The agent dies and starts again.
    CrashAgent,
    /// The agent dies just after the engine has done this for it, and starts again.
    CrashAgentAfter(Moment),
    /// The agent dies, and when it starts again its file is gone or damaged.
    LoseLedger(Ledger, bool),
    /// The agent stands still for so long.
    Freeze(Duration),
    /// What is sent on the cable is swallowed, in these directions.
    Cut(Direction),
    /// The cable comes and goes.
    Flap,
    /// The connection breaks.
    Disconnect,
    /// The machine dials from another address; the old connection is left half open.
    Redial,
    /// Everything on the cable takes up to so much longer.
    Delay(Duration),
    /// Of a hundred requests so many take effect before the connection breaks.
    LoseReplies(u8),
    /// The cable is whole again.
    Mend,
    /// The engine gets these faults.
    Faults(Faults),
    /// The machine is switched off and on.
    Reboot,
    /// It is switched off.
    PowerOff,
    /// It is switched on.
    PowerOn,
    /// Its time of day is so many seconds off from now on, as the agent sees when it starts again.
    SetClock(i64),
    /// It is set up anew and joins again under its name.
    Reinstall,
}

/// After what an agent dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A container was made, and not started.
    Made,
    /// It was started, and nobody was told.
    Started,
    /// It was stopped, and not removed.
    Stopped,
}

/// A file of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger {
    /// What it shall run.
    Assignment,
    /// How its tasks went.
    Restarts,
}

/// What a broken cable swallows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Everything.
    Both,
    /// What the orchestrator sends; `true`: something in between keeps the connection up.
    Orders(bool),
    /// What the agent sends; `true`: something in between keeps the connection up.
    Reports(bool),
}

/// What happens to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlAction {
    /// It dies and starts again.
    Crash,
    /// It dies, and comes back only when everything heals or this happens again.
    Toggle,
    /// An empty one takes its place, which has another cluster's id; the next time, ours comes back.
    Usurp,
    /// Somebody makes a copy of the store.
    BackUp,
    /// Somebody restores the copy, if there is one.
    Restore,
    /// Its time of day is so many seconds off when it starts again, which it does now.
    SetClock(i64),
}

/// What a user asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Make a project this.
    Apply(Box<spec::Project>),
    /// Scale a service.
    Scale {
        /// Of which project.
        project: ProjectName,
        /// Which service.
        service: ServiceName,
        /// To how many.
        replicas: u32,
    },
    /// Restart a project.
    Restart(ProjectName),
    /// Remove a project.
    Remove(ProjectName),
    /// Empty a node, by this deadline.
    Drain(usize, Option<Millis>),
    /// Use it again.
    Activate(usize),
    /// Remove it from the cluster, whatever is on it.
    RemoveNode(usize),
}

// === impl Display ===

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(request) => request.fmt(f),
            Self::Node(node, action) => write!(f, "node {node}: {action:?}"),
            Self::Control(action) => write!(f, "the control plane: {action:?}"),
            Self::Together(count, action) => write!(f, "the first {count} nodes at once: {action:?}"),
            Self::StandStill(time) => write!(f, "everything stands still for {} s", time.as_secs()),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply(project) => {
                let services: BTreeMap<&str, String> = project
                    .services
                    .iter()
                    .map(|(name, service)| {
                        (name.as_str(), format!("{} {:?}", service.container.image, service.deploy.mode))
                    })
                    .collect();
                write!(f, "apply {} {services:?}", project.name)
            }
            Self::Scale { project, service, replicas } => write!(f, "scale {project}/{service}={replicas}"),
            Self::Restart(project) => write!(f, "restart {project}"),
            Self::Remove(project) => write!(f, "remove {project}"),
            Self::Drain(node, deadline) => write!(f, "drain node {node}, deadline {deadline:?}"),
            Self::Activate(node) => write!(f, "activate node {node}"),
            Self::RemoveNode(node) => write!(f, "remove node {node} from the cluster"),
        }
    }
}
