//! The simulated cluster: a control plane, some machines, and what their users know to be acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tug_api::Clock;
use tug_api::client::Client;
use tug_model::{TaskId, Timestamp};
use tug_orchestrator::plan::View;
use tug_orchestrator::store;

use super::machine::Machine;
use super::plane::{Acknowledged, Plane};
use super::witness::Witness;

/// The day on which every simulation begins: 2026-01-01.
const BEGINNING: Timestamp = Timestamp(1_767_225_600_000);
/// Time passes in such steps: machines dial, and the witness looks.
const TICK: Duration = Duration::from_millis(250);

/// A simulated cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) clock: Clock,
    pub(super) plane: Plane,
    pub(super) nodes: Vec<Machine>,
    /// For each project that a write was acknowledged for: the newest of them.
    pub(super) acknowledged: Acknowledged,
    /// Every task that was ever decided.
    pub(super) decided: BTreeSet<TaskId>,
    pub(super) witness: Witness,
    pub(super) dice: fastrand::Rng,
}

// === impl Cluster ===

impl Cluster {
    /// Starts an orchestrator and `nodes` machines, and waits until all are connected.
    pub async fn start(seed: u64, nodes: usize) -> Result<Self> {
        let clock = Clock::starting_at(BEGINNING);
        let mut cluster = Self {
            clock,
            plane: Plane::new(clock),
            nodes: Vec::new(),
            acknowledged: Acknowledged::new(),
            decided: BTreeSet::new(),
            witness: Witness::default(),
            dice: fastrand::Rng::with_seed(seed ^ 0x5EED),
        };
        for number in 0..nodes {
            let mut machine = Machine::new(number, clock, seed)?;
            machine.start_agent().await?;
            machine.dial_now();
            cluster.nodes.push(machine);
        }
        cluster.plane.start().await?;
        cluster.tick();
        cluster.pass(1_500).await?;
        Ok(cluster)
    }

    /// The virtual time since the beginning.
    pub fn now(&self) -> String {
        format!("{:>9.3}s", self.clock.now().since(BEGINNING).duration().as_secs_f64())
    }

    /// Lets `millis` of virtual time pass, and looks all the while.
    pub async fn pass(&mut self, millis: u64) -> Result<()> {
        let mut left = Duration::from_millis(millis);
        while !left.is_zero() {
            let step = left.min(TICK);
            tokio::time::sleep(step).await;
            left -= step;
            self.plane.is_sound().await?;
            for node in &mut self.nodes {
                node.is_sound().await?;
            }
            self.tick();
            self.remember();
            Witness::look(self)?;
        }
        Ok(())
    }

    /// Everything stands still for `time`: when it goes on, all clocks have gone on.
    pub(super) async fn stand_still(&mut self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Takes note of the tasks that were decided meanwhile.
    pub(super) fn remember(&mut self) {
        if let Some(state) = self.state() {
            self.decided.extend(state.tasks.keys().cloned());
        }
    }

    fn tick(&mut self) {
        let Self { nodes, plane, dice, .. } = self;
        for node in nodes {
            let is_known = plane.handle().map(|handle| handle.nodes.client(&node.id).is_some());
            let channel = node.tick(is_known, dice);
            if let Some((channel, handle)) = channel.zip(plane.handle()) {
                handle.nodes.register(node.id.clone(), channel);
            }
        }
    }

    /// One line that tells runs apart.
    pub fn summary(&self) -> String {
        let containers: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let all = node.engine.look(|container| Some(container.is_running()));
                format!("{} {}/{}", node.id, all.iter().filter(|runs| **runs).count(), all.len())
            })
            .collect();
        let revision = self.state().map(|state| state.revision);
        format!("revision {revision:?}, running {}", containers.join(", "))
    }

    /// The events that the store has kept, oldest first.
    pub fn events(&self) -> Vec<String> {
        let state = self.witness.newest();
        let events = state.iter().flat_map(|state| state.events.values());
        events
            .map(|event| {
                let whose = event.task.as_ref().map(ToString::to_string);
                let node = event.node.as_ref().map(ToString::to_string).unwrap_or_default();
                let whose = whose.unwrap_or_default();
                let at = event.at.since(BEGINNING).duration().as_secs_f64();
                format!("{at:>9.3}s revision {}: {node} {whose} {}", event.revision, event.message)
            })
            .collect()
    }

    /// The store's newest state, while the orchestrator runs and is ours.
    pub(super) fn state(&self) -> Option<Arc<store::State>> {
        self.plane.state()
    }

    /// What the orchestrator decided last, under the same conditions.
    pub(super) fn view(&self) -> Option<Arc<View>> {
        self.plane.view()
    }

    /// A client of the orchestrator, while it runs and is ours.
    pub(super) fn client(&self) -> Option<Client> {
        self.plane.client().filter(|_| !self.plane.is_foreign())
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        for node in &mut self.nodes {
            node.crash_agent().await;
        }
        self.plane.crash().await;
    }
}
