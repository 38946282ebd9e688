//! Agents and engines in trouble, machines that are drained, and machines that go while something changes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tug_model::task::Desired;
use tug_model::{Millis, TaskId};

use super::scene::{A_START, LISTED, MISSED, Scene, TIDY};
use crate::fake::Faults;
use crate::sim::action::{Action, Direction, Ledger, Moment, NodeAction, Request};

/// No container is touched by it; what an agent had begun to make is made once.
pub(super) async fn agent_trouble(scene: &mut Scene) -> Result<()> {
    let (tasks, running) = (scene.tasks(), scene.running());
    let node = scene.any_node();
    for _ in 0..3 {
        let damaged = scene.dice.bool();
        let happens = match scene.dice.u8(0..5) {
            0 => NodeAction::CrashAgent,
            1 => NodeAction::LoseLedger(Ledger::Assignment, damaged),
            2 => NodeAction::LoseLedger(Ledger::Restarts, damaged),
            3 => NodeAction::Redial,
            _ => NodeAction::Freeze(Duration::from_secs(scene.dice.u64(1..3))),
        };
        scene.on(node, happens).await?;
        scene.pass(10_000).await?;
    }
    scene.is_unmoved(&tasks, &running)?;
    scene.apply("good:2").await?;
    for moment in [Moment::Made, Moment::Started, Moment::Stopped] {
        scene.on(node, NodeAction::CrashAgentAfter(moment)).await?;
    }
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    let over = |scene: &Scene| scene.is_whole() && scene.is_tidy();
    scene.until(60_000 + all * 15_000, "each is made once", over).await
}

/// For half a minute nothing is moved, and what runs goes on running.
pub(super) async fn engine_away(scene: &mut Scene) -> Result<()> {
    let (tasks, running) = (scene.tasks(), scene.running());
    let node = scene.any_node();
    let hung = scene.dice.bool();
    let faults = Faults { hung, down: !hung, ..Faults::default() };
    scene.on(node, NodeAction::Faults(faults)).await?;
    let time = scene.dice.u64(1_000..25_000);
    scene.pass(time).await?;
    scene.on(node, NodeAction::Faults(Faults::default())).await?;
    scene.pass(30_000).await?;
    scene.is_unmoved(&tasks, &running)
}

/// After half a minute its tasks run elsewhere; when it is back, duplicates end.
pub(super) async fn engine_lost(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let hung = scene.dice.bool();
    let faults = Faults { hung, down: !hung, ..Faults::default() };
    let before = scene.tasks();
    scene.on(node, NodeAction::Faults(faults)).await?;
    scene.pass(29_000).await?;
    ensure!(before == scene.tasks(), "something is moved too early");
    let id = scene.cluster.nodes[node].id.clone();
    let elsewhere = move |scene: &Scene| {
        let there = scene.cluster.nodes.iter().filter(|node| node.id != id);
        let serving: BTreeSet<_> = there
            .flat_map(|node| {
                node.engine.look(|container| {
                    let identity = container.identity.as_ref().filter(|_| container.serves())?;
                    Some((identity.service.clone(), identity.slot))
                })
            })
            .filter(|(service, _)| service.as_str() != "every")
            .collect();
        serving.len() >= scene.wanted.values().sum::<u32>() as usize
    };
    scene.until(60_000, "its tasks run elsewhere", elsewhere).await?;
    scene.on(node, NodeAction::Faults(Faults::default())).await?;
    scene.until(30_000, "duplicates end", Scene::is_tidy).await
}

/// It is looked at every few seconds all the same: what died runs again, and nothing is moved.
pub(super) async fn lost_events(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let tasks = scene.tasks();
    let (lost, doubled) = if scene.dice.bool() { (100, 0) } else { (0, 100) };
    let faults = Faults { lost_events: lost, doubled_events: doubled, ..Faults::default() };
    scene.on(node, NodeAction::Faults(faults)).await?;
    for _ in 0..4 {
        let which = scene.dice.usize(0..8);
        let dies =
            if scene.dice.bool() { NodeAction::Kill(which) } else { NodeAction::RemoveContainer(which) };
        scene.on(node, dies).await?;
        ensure!(!scene.is_tidy(), "something has died");
        scene.until(LISTED + 2_000, "what died runs again", Scene::is_tidy).await?;
        scene.pass(15_000).await?;
    }
    ensure!(tasks == scene.tasks(), "something is moved:\n  {tasks:?}\n  {:?}", scene.tasks());
    Ok(())
}

/// No replica is missing at any moment, and in the end nothing is left there.
pub(super) async fn drained(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let deadline = [None, Some(Millis(600_000))][scene.dice.usize(0..2)];
    scene.act(Action::Ask(Request::Drain(node, deadline))).await?;
    let id = scene.cluster.nodes[node].id.clone();
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    let mut is_empty = false;
    for _ in 0..4 * (20 + all * 30) {
        scene.pass(250).await?;
        ensure!(scene.is_whole(), "{}: a replica is missing while a machine is drained", scene.cluster.now());
        is_empty = scene.cluster.nodes[node].engine.look(|it| it.identity.as_ref().map(drop)).is_empty();
        if is_empty {
            break;
        }
    }
    ensure!(is_empty, "{id} was not emptied: {:?}", scene.running());
    scene.pass(2_000).await?;
    ensure!(scene.is_whole(), "a replica is missing after a machine was drained");
    scene.act(Action::Ask(Request::Activate(node))).await?;
    for _ in 0..240 {
        scene.pass(250).await?;
        ensure!(scene.is_whole(), "a replica is missing while a machine is filled again");
    }
    let removed = (node + 1) % scene.cluster.nodes.len();
    scene.act(Action::Ask(Request::RemoveNode(removed))).await?;
    scene.all_serve(A_START + 2_000).await.context("what was on a removed machine runs elsewhere")
}

/// The change goes on with what is left, and ends; replicas that are not on the lost machine go on serving.
pub(super) async fn lost_during_change(scene: &mut Scene) -> Result<()> {
    let old: BTreeSet<TaskId> =
        scene.tasks().into_keys().filter(|task| !task.as_str().contains("every")).collect();
    scene.apply("slow:2").await?;
    let wait = scene.dice.u64(0..20_000);
    scene.pass(wait).await?;
    let node = scene.any_node();
    let lost = match scene.dice.u8(0..3) {
        0 => NodeAction::PowerOff,
        1 => NodeAction::Cut(Direction::Both),
        _ => NodeAction::Reboot,
    };
    scene.on(node, lost).await?;
    // A container that nobody can stop may be the third of its slot.
    scene.copies = 3;
    let returns = scene.dice.bool();
    if returns {
        let wait = scene.dice.u64(0..30_000);
        scene.pass(wait).await?;
        scene.on(node, NodeAction::PowerOn).await?;
        scene.on(node, NodeAction::Mend).await?;
    }
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    // What is on a machine that does not come back has nobody to say that it is gone.
    let replaced = move |scene: &Scene| {
        let tasks = scene.tasks();
        let mut running = tasks.iter().filter(|(_, desired)| **desired == Desired::Run);
        scene.is_whole() && running.all(|(task, _)| !old.contains(task))
    };
    let limit = 2 * MISSED + 60_000 + all * (A_START + 45_000);
    scene.until(limit, "the new version takes over", replaced).await?;
    scene.on(node, NodeAction::PowerOn).await?;
    scene.on(node, NodeAction::Mend).await?;
    scene.until(30_000 + TIDY, "it comes to rest", |scene| scene.is_tidy() && scene.is_whole()).await
}
