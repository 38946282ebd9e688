//! What holds for every node: a satisfied assignment needs nothing, foreign containers are never touched, and wherever
//! the steps are broken off, the next look leads to the same end.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tug_model::spec::service::{Restart, RestartOn};
use tug_model::task::{Desired, Template};
use tug_model::{Millis, NetworkName, Timestamp};

use super::super::*;
use super::sample::{assignment, drain, found, id, probed, run, running, shop, stop, template, with_volume};
use crate::runtime::{ContainerId, FoundNetwork};

/// A node whose engine does what a step says, at once.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    found: Vec<Found>,
    memory: Memory,
    now: Timestamp,
    made: u32,
}

impl Node {
    fn step(&mut self, orders: &Orders, step: &Step) {
        match step {
            Step::Fetch(wanted) => {
                let image = Image { id: "sha256:1".to_owned(), at: self.now };
                self.memory.images.insert(wanted.clone(), image);
            }
            Step::EnsureNetwork { project, key, engine_name } => {
                let network = orders.resources(project).unwrap().networks[key].clone();
                self.memory.ensured.insert(step.key(), Ensured::Network(network));
                self.memory.networks.retain(|other| other.engine_name != *engine_name);
                let (engine_name, key) = (engine_name.clone(), key.clone());
                self.memory.networks.push(FoundNetwork { engine_name, project: project.clone(), key });
                self.memory.networks.sort();
            }
            Step::EnsureVolume { project, key, .. } => {
                let volume = orders.resources(project).unwrap().volumes[key].clone();
                self.memory.ensured.insert(step.key(), Ensured::Volume(volume));
            }
            Step::Create { task, .. } => {
                assert!(
                    !self.found.iter().any(|found| found.name == task.as_str()),
                    "two containers of one name"
                );
                self.made += 1;
                let number = orders.tasks()[task].slot.0;
                let mut made = running(number, orders.template(task).unwrap());
                made.id = ContainerId::new(&format!("made{}", self.made));
                self.found.push(made);
            }
            Step::Start { container, .. } | Step::Unpause { container, .. } => {
                let now = self.now;
                self.change(container, |found| found.state = State::Running { started_at: now });
            }
            Step::Stop { container, .. } | Step::Halt { container, .. } => {
                let finished_at = self.now;
                self.change(container, |found| {
                    found.state = State::Exited { code: 0, out_of_memory: false, finished_at };
                });
            }
            Step::Remove { container, .. } => self.found.retain(|found| found.id != *container),
            Step::RemoveNetwork { engine_name } => {
                self.memory.networks.retain(|network| network.engine_name != *engine_name);
                self.memory.ensured.remove(&step.key());
            }
        }
    }

    fn change(&mut self, container: &ContainerId, change: impl FnOnce(&mut Found)) {
        change(self.found.iter_mut().find(|found| found.id == *container).expect("steps name what is there"));
    }

    fn plan(&self, orders: &Orders) -> Steps {
        diff(&View { orders, found: &self.found, memory: &self.memory, now: self.now })
    }

    /// Takes steps until there are none; each round breaks off after as many as `cuts` says.
    fn settle(&mut self, orders: &Orders, cuts: &[usize]) {
        let mut cuts = cuts.iter().copied().chain(std::iter::repeat(usize::MAX));
        for _ in 0..40 {
            for task in orders.tasks().keys() {
                let state = self.found.iter().find(|found| found.identity.task == *task).map(|f| &f.state);
                let history = self.memory.histories.entry(task.clone()).or_default();
                let policy =
                    orders.template(task).map(|template| template.restart.clone()).unwrap_or_default();
                history.observe(state, &policy, self.now);
            }
            let planned = self.plan(orders);
            if planned.steps.is_empty() && planned.wake_at.is_none() {
                return;
            }
            for step in planned.steps.iter().take(cuts.next().unwrap()) {
                self.step(orders, step);
            }
            self.now = self.now.plus(Millis::from_secs(1));
        }
        panic!("never settles: {:?}", self.plan(orders));
    }

    /// What matters of the end: which tasks have which container, and which networks there are.
    fn end(&self) -> (Vec<(String, bool, String)>, Vec<String>) {
        let mut containers: Vec<_> = self
            .found
            .iter()
            .map(|found| {
                let runs = matches!(found.state, State::Running { .. });
                (found.name.clone(), runs, found.identity.template.to_string())
            })
            .collect();
        containers.sort();
        let networks = self.memory.networks.iter().map(|network| network.engine_name.clone());
        (containers, networks.collect())
    }
}

fn states() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Created),
        Just(State::Running { started_at: Timestamp(1) }),
        Just(State::Paused),
        Just(State::Dead),
        (0..3_i64).prop_map(|code| State::Exited { code, out_of_memory: false, finished_at: Timestamp(500) }),
    ]
}

fn templates() -> impl Strategy<Value = Template> {
    prop_oneof![Just(template()), Just(probed(template())), Just(with_volume(template()))]
}

fn tasks() -> impl Strategy<Value = Vec<(u32, Desired)>> {
    let desired = prop_oneof![3 => Just(Desired::Run), 1 => Just(drain()), 1 => Just(stop())];
    proptest::collection::btree_map(1..8_u32, desired, 0..7).prop_map(|tasks| tasks.into_iter().collect())
}

fn nodes() -> impl Strategy<Value = Node> {
    let container = (1..8_u32, templates(), states(), any::<bool>());
    (proptest::collection::vec(container, 0..8), any::<bool>()).prop_map(|(containers, network)| {
        let mut all = BTreeMap::new();
        for (number, template, state, is_ours) in containers {
            let mut found = found(number, &template, state);
            if !is_ours {
                found.identity.cluster = "other".to_owned();
                found.id = ContainerId::new(&format!("foreign{number}"));
                found.name = format!("foreign-{number}");
            }
            all.insert(found.id.clone(), found);
        }
        let mut memory = Memory::default();
        if network {
            let key = NetworkName::parse("old").unwrap();
            memory.networks.push(FoundNetwork { engine_name: "shop_old".to_owned(), project: shop(), key });
        }
        Node { found: all.into_values().collect(), memory, now: Timestamp(1000), made: 0 }
    })
}

fn foreign(node: &Node) -> Vec<Found> {
    node.found.iter().filter(|found| found.identity.cluster == "other").cloned().collect()
}

proptest! {
    #[test]
    fn a_satisfied_assignment_needs_nothing(template in templates(), numbers in proptest::collection::btree_set(1..9_u32, 0..8)) {
        let numbers: Vec<u32> = numbers.into_iter().collect();
        let orders = Orders::new(assignment(1, &template, &run(&numbers))).unwrap();
        let found: Vec<Found> = numbers.iter().map(|number| running(*number, &template)).collect();
        let memory = Memory::default();
        let view = View { orders: &orders, found: &found, memory: &memory, now: Timestamp(5) };
        prop_assert_eq!(diff(&view), Steps::default());
    }

    #[test]
    fn foreign_containers_are_never_touched(node in nodes(), template in templates(), tasks in tasks()) {
        let orders = Orders::new(assignment(1, &template, &tasks)).unwrap();
        let theirs = foreign(&node);
        for step in node.plan(&orders).steps {
            let touched = match &step {
                Step::Start { container, .. } | Step::Unpause { container, .. }
                | Step::Stop { container, .. } | Step::Halt { container, .. } | Step::Remove { container, .. } => Some(container),
                Step::Fetch(_) | Step::EnsureNetwork { .. } | Step::EnsureVolume { .. }
                | Step::Create { .. } | Step::RemoveNetwork { .. } => None,
            };
            prop_assert!(!theirs.iter().any(|found| Some(&found.id) == touched), "{}", step);
        }
    }

    #[test]
    fn wherever_the_steps_are_broken_off_the_end_is_the_same(
        node in nodes(), template in templates(), tasks in tasks(),
        cuts in proptest::collection::vec(0..6_usize, 0..12),
    ) {
        let orders = Orders::new(assignment(1, &template, &tasks)).unwrap();
        let (mut whole, mut broken) = (node.clone(), node.clone());
        whole.settle(&orders, &[]);
        broken.settle(&orders, &cuts);
        prop_assert_eq!(whole.end(), broken.end());
        prop_assert_eq!(foreign(&whole), foreign(&node));
        for (number, desired) in tasks {
            let there = whole.found.iter().any(|found| {
                found.identity.task == id(number) && foreign(&whole).iter().all(|other| other.id != found.id)
                    && matches!(found.state, State::Running { .. })
            });
            match desired {
                Desired::Run => prop_assert!(there, "{number} runs"),
                Desired::Stop { .. } => prop_assert!(!there, "{number} is gone"),
                Desired::Drain { .. } => {}
            }
        }
    }

    #[test]
    fn restarts_stay_within_their_bounds(
        runs in proptest::collection::vec((0..30_000_u64, 0..2_i64), 1..60),
        delay in 0..1000_u64,
        most in proptest::option::of(0..6_u32),
        condition in prop_oneof![Just(RestartOn::Never), Just(RestartOn::Failure), Just(RestartOn::Any)],
    ) {
        let policy = Restart { condition, delay: Millis(delay), max_attempts: most, window: None };
        let mut history = History::default();
        let (mut now, mut bad_in_a_row) = (Timestamp(1_000_000), 0_u32);
        for (starts, (ran, code)) in runs.into_iter().enumerate() {
            let running = State::Running { started_at: now };
            prop_assert!(!history.observe(Some(&running), &policy, now));
            prop_assert!(!history.observe(Some(&running), &policy, now), "the same look twice says nothing");
            prop_assert_eq!(history.restarts() as usize, starts);
            now = now.plus(Millis(ran));
            let exited = State::Exited { code, out_of_memory: false, finished_at: now };
            prop_assert!(history.observe(Some(&exited), &policy, now));
            let before = history.clone();
            prop_assert!(!history.observe(Some(&exited), &policy, now.plus(Millis(7))));
            prop_assert_eq!(&history, &before);
            let good = ran >= Restart::GOOD_RUN.0;
            bad_in_a_row = if good { 0 } else { bad_in_a_row + 1 };
            match history.verdict(now) {
                Verdict::Over => {
                    let allowed = match condition {
                        RestartOn::Never => false,
                        RestartOn::Failure => code != 0,
                        RestartOn::Any => true,
                    };
                    prop_assert!(!allowed || most.is_some_and(|most| bad_in_a_row > most || (good && most == 0)));
                    return Ok(());
                }
                Verdict::Start => prop_assert!(good || delay == 0),
                Verdict::Wait(at) => {
                    prop_assert!(!good && at.since(now) <= Restart::LONGEST_WAIT);
                    let least = delay.saturating_mul(1 << (bad_in_a_row - 1).min(20)).min(Restart::LONGEST_WAIT.0);
                    prop_assert!(at.since(now).0 >= least, "{:?} after {bad_in_a_row}", at.since(now));
                    prop_assert_eq!(history.verdict(at), Verdict::Start);
                    now = at;
                }
            }
            now = now.plus(Millis(1));
        }
    }
}
