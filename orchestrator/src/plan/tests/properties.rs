//! What holds in every world that can be reached, however specs, reports, failures and restarts interleave. Each plan
//! made here is checked against the invariants of `plan/check.rs` as well.

use proptest::prelude::*;
use tug_model::node::Availability;
use tug_model::project::ServiceRef;
use tug_model::quantity::Millis;
use tug_model::task::{Desired, Template};

use super::draw::{draw, project_name, service, service_name, stored};
use super::fleet::Fleet;
use crate::plan::{Change, ObstacleKind, Plan, World, plan};

/// Something that happens.
#[derive(Debug, Clone)]
enum Action {
    /// A user changes a service.
    Put(usize, Shape),
    /// A user takes a service out of its project.
    Take(usize),
    /// A user removes the project.
    Remove,
    /// The control loop makes a pass.
    Pass,
    /// An agent takes its assignment.
    Follow(usize),
    /// An agent reports.
    Report(usize),
    /// A container changes.
    Happens(usize, usize, &'static str, u32),
    /// A node is cut off, or comes back.
    Cut(usize, bool),
    /// A node reports and takes no assignment, or takes them again.
    Deafen(usize, bool),
    /// The orchestrator starts anew.
    Restart,
    /// A user wants a node empty, perhaps by some time.
    Drain(usize, Option<u64>),
    /// A user wants it used again.
    Activate(usize),
    /// A node is given a label.
    Label(usize, bool),
    /// A node is removed, and its agent, which knows nothing of that, comes back.
    Forget(usize),
    /// Time passes.
    Wait(u64),
}

/// How a service is wanted.
#[derive(Debug, Clone)]
struct Shape {
    version: u8,
    replicas: u32,
    extras: Vec<&'static str>,
}

const SERVICES: [&str; 3] = ["api", "db", "web"];

impl Shape {
    fn apply(&self, world: &mut World, name: &str) {
        // What an exclusive service may not have is refused where it is accepted.
        let is_exclusive = self.extras.contains(&"exclusive");
        let most = if is_exclusive { 1 } else { u32::MAX };
        let (version, replicas) = (format!("v{}", self.version), format!("x{}", self.replicas.min(most)));
        let mut words = vec![version.as_str(), replicas.as_str()];
        words.extend(self.extras.iter().filter(|word| !is_exclusive || **word != "global"));
        let project = project_name("shop");
        let mut spec = world.projects.get(&project).map_or_else(
            || draw("project shop").projects.get(&project).unwrap().spec.clone(),
            |stored| stored.spec.clone(),
        );
        spec.services.insert(service_name(name), service(&words));
        put(world, spec);
    }
}

fn put(world: &mut World, spec: tug_model::spec::Project) {
    world.revision = world.revision.next();
    world.projects.insert(spec.name.clone(), std::sync::Arc::new(stored(spec)));
}

fn act(fleet: &mut Fleet, action: &Action) {
    let nodes = fleet.nodes();
    let node = |index: usize| nodes[index % nodes.len()].clone();
    match action {
        Action::Put(which, shape) => shape.apply(&mut fleet.world, SERVICES[*which]),
        Action::Take(which) => {
            let known = fleet.world.projects.get(&project_name("shop"));
            if let Some(mut spec) = known.map(|stored| stored.spec.clone()) {
                spec.services.remove(&service_name(SERVICES[*which]));
                put(&mut fleet.world, spec);
            }
        }
        Action::Remove => {
            fleet.world.revision = fleet.world.revision.next();
            fleet.world.projects.remove(&project_name("shop"));
        }
        Action::Pass => drop(fleet.step()),
        Action::Follow(index) => fleet.follow(&node(*index)),
        Action::Report(index) => fleet.report(&node(*index)),
        Action::Happens(index, which, word, connections) => {
            fleet.happens(&node(*index), *which, word, *connections);
        }
        Action::Cut(index, cut) => fleet.cut(&node(*index), *cut),
        Action::Deafen(index, deaf) => fleet.deafen(&node(*index), *deaf),
        Action::Restart => fleet.restart(),
        Action::Drain(index, deadline) => {
            let drain = Availability::Drain { at: fleet.now, deadline: deadline.map(Millis) };
            fleet.change(&node(*index), |node| node.availability = drain);
        }
        Action::Activate(index) => {
            fleet.change(&node(*index), |node| node.availability = Availability::Active);
        }
        Action::Label(index, fast) => fleet.change(&node(*index), |node| {
            node.labels.insert("disk".into(), if *fast { "ssd" } else { "hdd" }.into());
        }),
        Action::Forget(index) => fleet.forget(&node(*index)),
        Action::Wait(millis) => fleet.now = fleet.now.plus(Millis(*millis)),
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let extras = proptest::sample::subsequence(
        vec![
            "volume",
            "port=8080:80",
            "host=53:53",
            "mem=300",
            "max=2",
            "restart=never",
            "global",
            "after=db:healthy",
            "only=node.labels.disk!=hdd",
            "spread=node.labels.disk",
            "kept",
            "exclusive",
        ],
        0..=3,
    );
    (1_u8..4, 0_u32..5, extras).prop_map(|(version, replicas, extras)| Shape { version, replicas, extras })
}

fn action() -> impl Strategy<Value = Action> {
    let word = prop_oneof![
        5 => Just("healthy"),
        1 => Just("starting"),
        2 => Just("waiting"),
        1 => Just("unhealthy"),
        1 => Just("exit0"),
        1 => Just("exit1"),
    ];
    prop_oneof![
        2 => (0..SERVICES.len(), shape()).prop_map(|(which, shape)| Action::Put(which, shape)),
        1 => (0..SERVICES.len()).prop_map(Action::Take),
        1 => Just(Action::Remove),
        8 => Just(Action::Pass),
        6 => (0..3_usize).prop_map(Action::Follow),
        6 => (0..3_usize).prop_map(Action::Report),
        8 => (0..3_usize, 0..9_usize, word, 0..3_u32).prop_map(|(n, c, word, k)| Action::Happens(n, c, word, k)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, cut)| Action::Cut(n, cut)),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, deaf)| Action::Deafen(n, deaf)),
        1 => Just(Action::Restart),
        1 => (0..3_usize, proptest::option::of(0..20_000_u64)).prop_map(|(n, after)| Action::Drain(n, after)),
        1 => (0..3_usize).prop_map(Action::Activate),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, fast)| Action::Label(n, fast)),
        1 => (0..3_usize).prop_map(Action::Forget),
        2 => (0..40_000_u64).prop_map(Action::Wait),
    ]
}

fn fleet(nodes: usize) -> Fleet {
    let lines: Vec<String> = (1..=nodes).map(|number| format!("node n{number} mem=1000")).collect();
    Fleet::new(draw(&lines.join("\n")))
}

/// Everything that is wanted and has a place is there, in its newest version, and nothing else is.
fn is_as_wanted(world: &World, now: tug_model::Timestamp) -> Result<(), String> {
    let last = plan(world, now);
    for task in world.tasks.values() {
        if task.desired != Desired::Run {
            return Err(format!("{} has not gone", task.id));
        }
        let spec = world
            .service(&task.project, &task.service)
            .ok_or_else(|| format!("{} is not wanted", task.id))?;
        let is_newest = Template::of(&world.projects[&task.project].spec, spec).hash() == task.template;
        if !is_newest && !is_hindered(&last, &task.service_ref()) {
            return Err(format!("{} is of an old version: {last}", task.id));
        }
    }
    match last.obstacles.keys().find(|service| !is_hindered(&last, service)) {
        Some(service) => Err(format!("{service} waits for ever: {last}")),
        None => Ok(()),
    }
}

/// Whether something stands in a service's way that only a user can change.
fn is_hindered(plan: &Plan, service: &ServiceRef) -> bool {
    let slots = plan.obstacles.get(service).into_iter().flatten();
    slots.into_iter().any(|(_, obstacle)| obstacle.kind != ObstacleKind::Waiting)
}

/// How many tasks are in the routes and known to serve.
fn serving(world: &World) -> usize {
    let reports = world.observed.nodes.values().flat_map(|observed| &observed.report);
    let healthy = reports.flat_map(|report| &report.tasks).filter(|task| task.phase.is_healthy());
    healthy.filter(|seen| world.tasks.get(&seen.id).is_some_and(|task| task.desired == Desired::Run)).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Safety through every interleaving, and afterwards progress: when everybody behaves, it converges in a bounded
    /// number of rounds, to what is wanted; and then nothing is decided any more.
    #[test]
    fn whatever_happens_it_stays_sound_and_converges(
        nodes in 1_usize..4,
        actions in proptest::collection::vec(action(), 0..60),
    ) {
        let mut fleet = fleet(nodes);
        for action in &actions {
            act(&mut fleet, action);
            let now = fleet.now;
            prop_assert!(plan(&fleet.world, now).wake_at.is_none_or(|at| at > now));
        }
        fleet.heal(150);
        prop_assert_eq!(is_as_wanted(&fleet.world, fleet.now), Ok(()));
        prop_assert_eq!(plan(&fleet.world, fleet.now.plus(Millis(1_000_000))).decisions, vec![]);
    }

    /// While a version is replaced by another that works, there are never fewer serving tasks than wanted, or, where the
    /// old one must go first, than wanted less one; and never more running than wanted and one.
    #[test]
    fn a_change_keeps_serving(
        replicas in 1_u32..6,
        nodes in 1_usize..3,
        stop_first in any::<bool>(),
        order in proptest::collection::vec((0..3_usize, 0..6_usize, any::<bool>()), 0..80),
    ) {
        let mut fleet = fleet(nodes);
        let extras = if stop_first { vec!["volume", "port=80:80"] } else { vec!["port=80:80"] };
        Shape { version: 1, replicas, extras: extras.clone() }.apply(&mut fleet.world, "web");
        fleet.heal(50);
        Shape { version: 2, replicas, extras }.apply(&mut fleet.world, "web");
        let least = replicas as usize - usize::from(stop_first);
        for (index, which, passes) in order {
            let names = fleet.nodes();
            let node = &names[index % names.len()];
            fleet.follow(node);
            // Tasks that serve go on serving; others begin to, one here, one there.
            let before = serving(&fleet.world);
            fleet.happens(node, which, "healthy", 1);
            fleet.report(node);
            prop_assert!(serving(&fleet.world) >= before.min(least));
            if passes {
                let _carried_out = fleet.step();
            }
            prop_assert!(serving(&fleet.world) >= least, "{} serve of {least}", serving(&fleet.world));
            let running = fleet.world.tasks.values().filter(|task| task.desired == Desired::Run).count();
            prop_assert!(running <= replicas as usize + 1, "{running} run of {replicas}");
        }
        fleet.heal(100);
        prop_assert_eq!(is_as_wanted(&fleet.world, fleet.now), Ok(()));
    }

    /// A new version that never works replaces at most one replica, and none that serves.
    #[test]
    fn a_broken_change_is_held(
        replicas in 1_u32..6,
        order in proptest::collection::vec((0..8_usize, 0..3_u8), 0..60),
    ) {
        let mut fleet = fleet(1);
        Shape { version: 1, replicas, extras: vec!["port=80:80"] }.apply(&mut fleet.world, "web");
        fleet.heal(50);
        let old: Vec<_> = fleet.world.tasks.keys().cloned().collect();
        Shape { version: 2, replicas, extras: vec!["port=80:80"] }.apply(&mut fleet.world, "web");
        let node = fleet.nodes().remove(0);
        for (which, what) in order {
            let _carried_out = fleet.step();
            fleet.follow(&node);
            let is_new = fleet.world.tasks.keys().nth(which % fleet.world.tasks.len()).is_some_and(|id| !old.contains(id));
            if is_new {
                let word = ["waiting", "starting", "unhealthy"][what as usize];
                fleet.happens(&node, which, word, 0);
            }
            fleet.report(&node);
            for id in &old {
                prop_assert!(fleet.world.tasks.get(id).is_some_and(|task| task.desired == Desired::Run));
            }
            prop_assert!(fleet.world.tasks.len() <= old.len() + 1);
        }
        Shape { version: 3, replicas, extras: vec!["port=80:80"] }.apply(&mut fleet.world, "web");
        fleet.heal(100);
        prop_assert_eq!(is_as_wanted(&fleet.world, fleet.now), Ok(()));
    }

    /// A service whose world did not change is left alone, whatever is done to its neighbours.
    #[test]
    fn neighbours_are_left_alone(first in shape(), second in shape(), nodes in 1_usize..4) {
        let mut fleet = fleet(nodes);
        let (mut first, mut second) = (first, second);
        for shape in [&mut first, &mut second] {
            shape.extras.retain(|word| !word.starts_with("after"));
        }
        first.apply(&mut fleet.world, "web");
        fleet.heal(100);
        second.apply(&mut fleet.world, "api");
        for decision in plan(&fleet.world, fleet.now).decisions {
            let concerned = match decision.change {
                Change::Create(create) => create.service,
                Change::Settle { .. } => continue,
                Change::Drain(id) | Change::Stop(id) | Change::Forget(id) => fleet.world.tasks[&id].service.clone(),
            };
            prop_assert_eq!(concerned.as_str(), "api");
        }
    }
}
