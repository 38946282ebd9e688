//! Machines that are not heard.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tug_model::task::Desired;
use tug_model::{ServiceName, Slot};

use super::scene::{A_START, MISSED, MOVED, PATIENCE, Scene, TIDY};
use crate::sim::action::{Action, Direction, NodeAction};

/// It is left alone for a moment, then its tasks run elsewhere; when it is back, its duplicates end.
pub(super) async fn silent_node(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let loses_power = scene.dice.bool();
    let tasks = scene.tasks();
    let lost = if loses_power { NodeAction::PowerOff } else { NodeAction::Cut(Direction::Both) };
    scene.on(node, lost).await?;
    scene.pass(PATIENCE).await?;
    ensure!(tasks == scene.tasks(), "something is moved too early");
    scene
        .all_serve(MOVED - PATIENCE + A_START)
        .await
        .context("the tasks of a silent machine run elsewhere")?;
    let long = scene.dice.u64(0..120_000);
    scene.pass(long).await?;
    scene.on(node, if loses_power { NodeAction::PowerOn } else { NodeAction::Mend }).await?;
    scene.until(TIDY, "duplicates end", Scene::is_tidy).await?;
    ensure!(scene.is_whole(), "every replica still serves");
    Ok(())
}

/// Nothing is moved, and the same tasks run again.
pub(super) async fn quick_reboot(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let tasks = scene.tasks();
    scene.on(node, NodeAction::PowerOff).await?;
    let time = scene.dice.u64(1..3) * 250;
    scene.pass(time).await?;
    scene.on(node, NodeAction::PowerOn).await?;
    scene.until(TIDY, "the same tasks run again", Scene::is_tidy).await?;
    scene.pass(30_000).await?;
    ensure!(tasks == scene.tasks(), "nothing is to be moved:\n  {tasks:?}\n  {:?}", scene.tasks());
    Ok(())
}

/// Nothing is moved, it is said why, and when they are back everything is as it was.
pub(super) async fn half_at_once(scene: &mut Scene) -> Result<()> {
    let count = scene.dice.usize(2..=scene.cluster.nodes.len());
    let loses_power = scene.dice.bool();
    let (tasks, running) = (scene.tasks(), scene.running());
    let lost = if loses_power { NodeAction::PowerOff } else { NodeAction::Cut(Direction::Both) };
    scene.act(Action::Together(count, Box::new(lost))).await?;
    let long = scene.dice.u64(20_000..300_000);
    scene.pass(long).await?;
    ensure!(tasks == scene.tasks(), "something is moved under the brake");
    says_so(scene, count).await?;
    for node in 0..count {
        // They come back one after the other; from the first one on there is no brake for the rest.
        scene.on(node, if loses_power { NodeAction::PowerOn } else { NodeAction::Mend }).await?;
    }
    scene.until(TIDY, "everything runs again", Scene::is_tidy).await?;
    ensure!(tasks == scene.tasks(), "something is moved after all");
    ensure!(loses_power || running == scene.running(), "a container was restarted");
    Ok(())
}

async fn says_so(scene: &Scene, count: usize) -> Result<()> {
    let brake = scene.cluster.view().and_then(|view| view.plan.brake.clone());
    ensure!(brake.is_some(), "the brake is on");
    let client = scene.cluster.client().context("there is a control plane")?;
    let nodes = client.nodes().await?;
    let told = nodes.iter().filter(|node| node.reasons.iter().any(|reason| reason.contains("at once")));
    ensure!(told.count() == count, "every silent machine says why nothing is moved: {nodes:?}");
    Ok(())
}

/// A task is moved at most once in five minutes.
pub(super) async fn flapping(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let before = scene.cluster.decided.clone();
    scene.on(node, NodeAction::Flap).await?;
    scene.pass(600_000).await?;
    let mut moves: BTreeMap<(ServiceName, Slot), usize> = BTreeMap::new();
    for task in scene.cluster.decided.difference(&before) {
        let parts: Vec<&str> = task.as_str().split('.').collect();
        let [_, service, slot, _] = parts.as_slice() else { continue };
        *moves.entry((ServiceName::parse(service)?, Slot(slot.parse()?))).or_default() += 1;
    }
    ensure!(moves.values().all(|count| *count <= 2), "moved too often in ten minutes: {moves:?}");
    scene.on(node, NodeAction::Mend).await?;
    scene.until(TIDY + A_START, "it comes to rest", Scene::is_tidy).await
}

/// It is not believed to be well: its new tasks go elsewhere, and what runs there is not stopped by it.
pub(super) async fn deaf_node(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let stubborn = scene.dice.bool();
    let direction =
        if scene.dice.bool() { Direction::Orders(stubborn) } else { Direction::Reports(stubborn) };
    scene.on(node, NodeAction::Cut(direction)).await?;
    let wait = scene.dice.u64(0..20_000);
    scene.pass(wait).await?;
    scene.apply("good:2").await?;
    let id = scene.cluster.nodes[node].id.clone();
    let elsewhere = move |scene: &Scene| {
        let state = scene.cluster.state();
        let new = state.iter().flat_map(|state| state.tasks.values()).filter(|task| {
            task.desired == Desired::Run && task.service.as_str() != "every" && task.node != id
        });
        scene.is_whole() && new.count() >= scene.wanted.values().sum::<u32>() as usize
    };
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    scene.copies = 3;
    let limit = 2 * MISSED + 10_000 + all * (A_START + 12_000);
    scene.until(limit, "the new version runs elsewhere", elsewhere).await?;
    scene.on(node, NodeAction::Mend).await?;
    scene.until(30_000, "duplicates end", Scene::is_tidy).await?;
    Ok(())
}

/// It is no silence: nothing is moved, and a change goes through.
pub(super) async fn slow_cable(scene: &mut Scene) -> Result<()> {
    let node = scene.any_node();
    let delay = Duration::from_millis(scene.dice.u64(50..=500));
    scene.on(node, NodeAction::Delay(delay)).await?;
    scene.nothing_moves(120_000).await?;
    let old = scene.tasks();
    scene.apply("good:2").await?;
    let replaced = move |scene: &Scene| {
        let tasks = scene.tasks();
        let mut of_old = tasks.keys().filter(|task| old.contains_key(*task));
        scene.is_whole() && scene.is_tidy() && of_old.all(|task| task.as_str().contains(".every."))
    };
    let all = scene.wanted.values().map(|count| u64::from(*count)).sum::<u64>();
    scene.until(20_000 + all * (A_START + 12_000), "the new version takes over", replaced).await?;
    scene.nothing_moves(60_000).await
}
