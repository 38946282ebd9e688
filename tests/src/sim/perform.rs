//! Making happen what an action says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tug_agent::runtime::Operation;
use tug_api::Clock;
use tug_api::client::{CallError, Guard};
use tug_api::user::{Accepted, ApplyRequest, AvailabilityRequest, NodeRemoval, RestartRequest, ScaleRequest};
use tug_model::{Millis, ProjectName, Timestamp};

use super::action::{Action, ControlAction, Direction, Ledger, Moment, NodeAction, Request};
use super::cluster::Cluster;
use super::link::Cable;
use super::machine::Machine;

/// How long something is waited for that an agent is to be killed after.
const PATIENCE: Duration = Duration::from_secs(4);

// === impl Cluster ===

impl Cluster {
    /// Does what `action` says.
    pub async fn perform(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Ask(request) => self.ask(request).await,
            Action::Node(node, action) => self.on(*node, action).await,
            Action::Control(action) => self.control(*action).await,
            Action::Together(count, action) => {
                for node in 0..*count {
                    self.on(node, action).await?;
                }
                Ok(())
            }
            Action::StandStill(time) => {
                self.stand_still(*time).await;
                Ok(())
            }
        }
    }

    async fn on(&mut self, number: usize, action: &NodeAction) -> Result<()> {
        let is_foreign = self.plane.is_foreign();
        let seed = self.dice.u64(..);
        let clock = self.clock;
        let node = &mut self.nodes[number];
        match action {
            NodeAction::Kill(which) => {
                node.engine.kill_one(*which);
            }
            NodeAction::RemoveContainer(which) => {
                node.engine.remove_one(*which);
            }
            NodeAction::Foreign => node.engine.add_foreign("postgres"),
            NodeAction::CrashAgent => {
                node.crash_agent().await;
                node.start_agent().await?;
            }
            NodeAction::CrashAgentAfter(moment) => self.crash_agent_after(number, *moment).await?,
            // Who knows nothing belongs to whoever comes first: only a certificate could say more.
            NodeAction::LoseLedger(Ledger::Assignment, _) | NodeAction::Reinstall if is_foreign => {}
            NodeAction::LoseLedger(ledger, damaged) => {
                node.crash_agent().await;
                lose(&node.file(name(*ledger)), *damaged)?;
                node.start_agent().await?;
            }
            NodeAction::Freeze(time) => node.freeze(*time),
            NodeAction::Cut(direction) => {
                let (orders, reports, stubborn) = match direction {
                    Direction::Both => (false, false, false),
                    Direction::Orders(stubborn) => (false, true, *stubborn),
                    Direction::Reports(stubborn) => (true, false, *stubborn),
                };
                node.set_cable(Cable { orders, reports, ..Cable::WHOLE }, stubborn);
            }
            NodeAction::Flap => node.flap(),
            NodeAction::Disconnect => node.disconnect(),
            NodeAction::Redial => node.dial_now(),
            NodeAction::Delay(delay) => node.set_cable(Cable { delay: *delay, ..Cable::WHOLE }, false),
            NodeAction::LoseReplies(lost_replies) => {
                node.set_cable(Cable { lost_replies: *lost_replies, ..Cable::WHOLE }, false);
            }
            NodeAction::Mend => node.set_cable(Cable::WHOLE, false),
            NodeAction::Faults(faults) if node.is_on() => node.engine.set_faults(*faults),
            NodeAction::Faults(_) => {}
            NodeAction::Reboot => {
                node.power_off().await;
                node.power_on().await?;
            }
            NodeAction::PowerOff => node.power_off().await,
            NodeAction::PowerOn => node.power_on().await?,
            NodeAction::SetClock(seconds) => {
                node.clock = wrong(clock, *seconds);
                node.engine.set_clock(node.clock);
            }
            NodeAction::Reinstall => node.reinstall(seed).await?,
        }
        Ok(())
    }

    /// The agent dies after the next time that the engine does something for it, or now if that does not come.
    async fn crash_agent_after(&mut self, number: usize, moment: Moment) -> Result<()> {
        let operation = match moment {
            Moment::Made => Operation::Create,
            Moment::Started => Operation::Start,
            Moment::Stopped => Operation::Stop,
        };
        let mut sprung = self.nodes[number].engine.trap(operation);
        for _ in 0..PATIENCE.as_millis() / 50 {
            if sprung.try_recv().is_ok() {
                break;
            }
            self.pass(50).await?;
        }
        let node = &mut self.nodes[number];
        node.crash_agent().await;
        node.engine.disarm();
        node.start_agent().await
    }

    #[expect(clippy::cognitive_complexity, reason = "one arm for each action")]
    async fn control(&mut self, action: ControlAction) -> Result<()> {
        match action {
            ControlAction::Crash => {
                self.plane.crash().await;
                self.plane.start().await
            }
            ControlAction::Toggle if self.plane.is_up() => {
                self.remember();
                self.witness.left(self.state());
                self.plane.crash().await;
                Ok(())
            }
            ControlAction::Toggle => self.plane.start().await,
            ControlAction::Usurp if self.plane.is_foreign() => self.plane.return_ours().await,
            ControlAction::Usurp if self.nodes.iter().all(Machine::is_ours) => {
                self.remember();
                self.plane.usurp().await
            }
            ControlAction::Usurp => Ok(()),
            ControlAction::BackUp => {
                self.plane.back_up(&self.acknowledged);
                Ok(())
            }
            ControlAction::Restore => {
                self.remember();
                if let Some(acknowledged) = self.plane.restore().await? {
                    self.acknowledged = acknowledged;
                    self.witness.went_back();
                }
                Ok(())
            }
            ControlAction::SetClock(seconds) => {
                self.plane.clock = wrong(self.clock, seconds);
                if self.plane.is_up() {
                    self.plane.crash().await;
                    self.plane.start().await?;
                }
                Ok(())
            }
        }
    }

    /// A user's request. Without an orchestrator there is nobody to ask; a refusal is an answer too.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<()> {
        let Some(client) = self.plane.client() else { return Ok(()) };
        let guard = Guard::default();
        let id = |node: &usize| self.nodes[*node].id.clone();
        let (name, answer): (&ProjectName, Result<Accepted, CallError>) = match request {
            Request::Apply(spec) => {
                let body = ApplyRequest { spec: (**spec).clone(), source: Vec::new() };
                (&spec.name, client.apply(&body, &guard).await)
            }
            Request::Scale { project, service, replicas } => {
                let body = ScaleRequest { replicas: BTreeMap::from([(service.clone(), *replicas)]) };
                (project, client.scale(project, &body, &guard).await)
            }
            Request::Restart(project) => {
                (project, client.restart(project, &RestartRequest { services: Vec::new() }, &guard).await)
            }
            Request::Remove(project) => (project, client.remove(project, &guard).await),
            Request::Drain(node, deadline) => {
                let request = AvailabilityRequest::Drain { deadline: *deadline };
                return answered(client.set_availability(&id(node), &request).await).map(drop);
            }
            Request::Activate(node) => {
                let request = AvailabilityRequest::Active;
                return answered(client.set_availability(&id(node), &request).await).map(drop);
            }
            Request::RemoveNode(node) => {
                let removal = NodeRemoval { force: true };
                let removed = answered(client.remove_node(&id(node), &removal).await)?.is_some();
                if removed && !self.plane.is_foreign() {
                    let node = &mut self.nodes[*node];
                    node.removed = true;
                    node.disconnect();
                    let id = node.id.clone();
                    self.witness.removed(&id);
                }
                return Ok(());
            }
        };
        let accepted = answered(answer)?;
        if self.plane.is_foreign() {
            return Ok(());
        }
        match accepted {
            Some(_) if matches!(request, Request::Remove(_)) => {
                self.acknowledged.remove(name);
            }
            Some(accepted) if accepted.changed => {
                self.acknowledged.insert(name.clone(), accepted.revision);
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    /// Everything that was broken is whole again.
    pub async fn heal(&mut self) -> Result<()> {
        self.plane.clock = self.clock;
        self.plane.return_ours().await?;
        for node in &mut self.nodes {
            node.heal(self.clock).await?;
        }
        for node in 0..self.nodes.len() {
            self.ask(&Request::Activate(node)).await?;
        }
        Ok(())
    }
}

/// What was answered; `None`: that it cannot be done.
fn answered<T>(answer: Result<T, CallError>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::Api(_)) => Ok(None),
        Err(error) => Err(error).context("a healthy orchestrator answers"),
    }
}

fn name(ledger: Ledger) -> &'static str {
    match ledger {
        Ledger::Assignment => "assignment.json",
        Ledger::Restarts => "restarts.json",
    }
}

/// A file is gone, or one of its bytes is another. One that is not there stays so.
fn lose(path: &std::path::Path, damaged: bool) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if !damaged {
        return std::fs::remove_file(path).context("remove a file of the agent");
    }
    let mut bytes = std::fs::read(path).context("read a file of the agent")?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x11;
    }
    std::fs::write(path, bytes).context("damage a file of the agent")
}

/// A clock that is so many seconds off.
fn wrong(clock: Clock, seconds: i64) -> Clock {
    let now = clock.now().0;
    let off = Millis::from_secs(seconds.unsigned_abs()).0;
    let time = if seconds < 0 { now.saturating_sub(off) } else { now.saturating_add(off) };
    Clock::starting_at(Timestamp(time))
}
