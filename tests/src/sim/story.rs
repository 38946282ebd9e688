//! Stories: one thing that goes wrong, in a cluster that is otherwise at rest, with everything that must and must not come
//! of it. In [`super::run`] anything happens at any time, so that only what always holds can be checked; here it is known
//! what happens, and how soon.

mod absence;
mod change;
mod scene;
mod silence;

use anyhow::{Context, Result};

use scene::Scene;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// A machine loses its power or its cable, for long.
    SilentNode,
    /// A machine is switched off and on before anybody could take it for dead.
    QuickReboot,
    /// Half of the machines go at the same moment, or all of them.
    HalfAtOnce,
    /// A cable comes and goes for ten minutes.
    Flapping,
    /// Reports arrive and orders do not.
    DeafNode,
    /// A cable is slow.
    SlowCable,
    /// Everything stands still and goes on later.
    StandStill,
    /// There is no control plane for an hour, in which containers and machines go on dying.
    NoControlPlane,
    /// An empty control plane, of another cluster, takes the place of ours.
    ForeignControlPlane,
    /// An older export is restored.
    Restored,
    /// The clocks of machines and of the control plane are wrong.
    WrongClocks,
    /// An agent stands still, dies, or loses what it had on disk.
    AgentTrouble,
    /// An engine dies or hangs for less long than anything is moved for.
    EngineAway,
    /// An engine stays away.
    EngineLost,
    /// An engine tells of nothing that happens to its containers, or of everything twice.
    LostEvents,
    /// A machine is drained, used again, and removed.
    Drained,
    /// A machine goes in the middle of a rolling change.
    LostDuringChange,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::SilentNode,
        Self::QuickReboot,
        Self::HalfAtOnce,
        Self::Flapping,
        Self::DeafNode,
        Self::SlowCable,
        Self::StandStill,
        Self::NoControlPlane,
        Self::ForeignControlPlane,
        Self::Restored,
        Self::WrongClocks,
        Self::AgentTrouble,
        Self::EngineAway,
        Self::EngineLost,
        Self::LostEvents,
        Self::Drained,
        Self::LostDuringChange,
    ];
}

/// Tells `story` as `seed` has it.
#[expect(clippy::cognitive_complexity, reason = "one arm for each story")]
pub(super) async fn tell(story: Story, seed: u64, trace: &mut Vec<String>) -> Result<()> {
    let nodes = if story == Story::HalfAtOnce { 4 } else { 3 };
    let mut scene = Scene::open(seed, nodes).await.context("a cluster at rest")?;
    let told = match story {
        Story::SilentNode => silence::silent_node(&mut scene).await,
        Story::QuickReboot => silence::quick_reboot(&mut scene).await,
        Story::HalfAtOnce => silence::half_at_once(&mut scene).await,
        Story::Flapping => silence::flapping(&mut scene).await,
        Story::DeafNode => silence::deaf_node(&mut scene).await,
        Story::SlowCable => silence::slow_cable(&mut scene).await,
        Story::StandStill => absence::stand_still(&mut scene).await,
        Story::NoControlPlane => absence::no_control_plane(&mut scene).await,
        Story::ForeignControlPlane => absence::foreign_control_plane(&mut scene).await,
        Story::Restored => absence::restored(&mut scene).await,
        Story::WrongClocks => absence::wrong_clocks(&mut scene).await,
        Story::AgentTrouble => change::agent_trouble(&mut scene).await,
        Story::EngineAway => change::engine_away(&mut scene).await,
        Story::EngineLost => change::engine_lost(&mut scene).await,
        Story::LostEvents => change::lost_events(&mut scene).await,
        Story::Drained => change::drained(&mut scene).await,
        Story::LostDuringChange => change::lost_during_change(&mut scene).await,
    };
    trace.append(&mut scene.trace);
    scene.close().await;
    told
}
