//! A control plane that is away, or not what it was.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tug_model::TaskId;

use super::scene::{A_START, Scene, TIDY};
use crate::sim::action::{Action, ControlAction, Ledger, NodeAction, Request};
use crate::sim::draw;

const HOUR: u64 = 60 * 60 * 1_000;
const MINUTE: u64 = 60 * 1_000;

/// Whoever stood still counts every silence anew: nothing is moved.
pub(super) async fn stand_still(scene: &mut Scene) -> Result<()> {
    let (tasks, running) = (scene.tasks(), scene.running());
    for _ in 0..3 {
        let time = Duration::from_secs(scene.dice.u64(5..900));
        scene.act(Action::StandStill(time)).await?;
        let wait = scene.dice.u64(0..30_000);
        scene.pass(wait).await?;
    }
    scene.pass(MINUTE / 2).await?;
    scene.is_unmoved(&tasks, &running)
}

/// What dies is started again, machines come back with what they had, and when the control plane is back it changes nothing.
pub(super) async fn no_control_plane(scene: &mut Scene) -> Result<()> {
    let tasks = scene.tasks();
    scene.control(ControlAction::Toggle).await?;
    for _ in 0..6 {
        let node = scene.any_node();
        let which = scene.dice.usize(0..8);
        let happens = match scene.dice.u8(0..5) {
            0 => NodeAction::Kill(which),
            1 => NodeAction::RemoveContainer(which),
            2 => NodeAction::CrashAgent,
            3 => NodeAction::LoseLedger(Ledger::Restarts, scene.dice.bool()),
            _ => NodeAction::Reboot,
        };
        scene.on(node, happens).await?;
        let wait = scene.dice.u64(0..HOUR / 20);
        scene.pass(wait).await?;
    }
    scene.until(MINUTE, "everything runs again", Scene::is_tidy).await?;
    let running = scene.running();
    scene.control(ControlAction::Toggle).await?;
    scene.pass(MINUTE).await?;
    scene.is_unmoved(&tasks, &running)
}

/// It is refused, whatever it wants, and nothing is stopped; when ours is back, nothing has happened.
pub(super) async fn foreign_control_plane(scene: &mut Scene) -> Result<()> {
    let (tasks, running) = (scene.tasks(), scene.running());
    scene.control(ControlAction::Usurp).await?;
    if scene.dice.bool() {
        scene.apply("good:7").await?;
    }
    let wait = scene.dice.u64(1_000..5 * MINUTE);
    scene.pass(wait).await?;
    ensure!(running == scene.running(), "another cluster stopped or started something");
    let refused = match scene.cluster.plane.client() {
        Some(client) => client.nodes().await?,
        None => Vec::new(),
    };
    let says = |reasons: &[String]| reasons.iter().any(|reason| reason.contains("cluster"));
    ensure!(
        wait < 10_000 || refused.iter().all(|node| says(&node.reasons)),
        "it is not said why it is not obeyed: {refused:?}"
    );
    scene.control(ControlAction::Usurp).await?;
    scene.pass(MINUTE).await?;
    scene.is_unmoved(&tasks, &running)
}

/// What the export knows of goes on without being touched, in a newer epoch; what it does not know of goes.
pub(super) async fn restored(scene: &mut Scene) -> Result<()> {
    scene.control(ControlAction::BackUp).await?;
    let before = scene.running();
    let name = super::scene::project()?;
    let web = scene.wanted.keys().last().cloned();
    if let Some(service) = web {
        let replicas = scene.wanted.get(&service).copied().unwrap_or_default() + scene.dice.u32(0..3);
        scene.act(Action::Ask(Request::Scale { project: name, service, replicas })).await?;
    }
    scene.pass(2 * A_START).await?;
    scene.control(ControlAction::Restore).await?;
    scene.pass(TIDY).await?;
    scene.until(3 * TIDY, "what the export knows of runs", Scene::is_tidy).await?;
    let after = scene.running();
    ensure!(before == after, "what the export knows of was touched:\n  {before:?}\n  {after:?}");
    scene.nothing_moves(MINUTE).await
}

/// A wrong time of day moves nothing, restarts nothing, and stops nothing that is done afterwards.
pub(super) async fn wrong_clocks(scene: &mut Scene) -> Result<()> {
    let (tasks, running) = (scene.tasks(), scene.running());
    for _ in 0..3 {
        let seconds = draw::clock_error(&mut scene.dice);
        if scene.dice.bool() {
            scene.control(ControlAction::SetClock(seconds)).await?;
        } else {
            let node = scene.any_node();
            scene.on(node, NodeAction::SetClock(seconds)).await?;
            scene.on(node, NodeAction::CrashAgent).await?;
        }
        let wait = scene.dice.u64(0..MINUTE / 2);
        scene.pass(wait).await?;
    }
    scene.is_unmoved(&tasks, &running)?;
    scene.apply("good:2").await?;
    let old: BTreeSet<TaskId> = tasks.into_keys().filter(|task| !task.as_str().contains("every")).collect();
    let replaced = move |scene: &Scene| {
        scene.is_whole() && scene.is_tidy() && scene.tasks().keys().all(|task| !old.contains(task))
    };
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    scene.until(20_000 + all * 45_000, "the new version takes over", replaced).await
}
