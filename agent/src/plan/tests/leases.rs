//! What may run only under a lease: when it is started, and when it is stopped.

use proptest::prelude::*;
use tug_model::lease::{FencingNumber, LASTS, LEAST_TO_START, Lease, Leased, STOPS_WITHIN};
use tug_model::spec::container::StopGrace;
use tug_model::task::Template;
use tug_model::{Millis, Revision, TaskId, Timestamp};

use super::super::*;
use super::sample::{CLUSTER, assignment, drain, exited, found, id, node, run, running, stop, template};
use crate::runtime::State;

const NOW: Timestamp = Timestamp(100_000);
const UPTIME: Millis = Millis(50_000);

fn exclusive() -> Template {
    Template { exclusive: true, ..template() }
}

fn lease(uptime: Millis, tasks: &[(u32, bool)]) -> Lease {
    let leased = |(number, may_start): &(u32, bool)| Leased { id: id(*number), may_start: *may_start };
    Lease { cluster: CLUSTER.to_owned(), epoch: 1, uptime, tasks: tasks.iter().map(leased).collect() }
}

/// A memory in which the image and the network are there, and a lease for a report made so long ago.
fn remembered(leased: Option<(u64, bool)>) -> Memory {
    let mut memory = Memory::default();
    let template = exclusive();
    let image = Image { id: "sha256:1".to_owned(), at: NOW };
    memory.images.insert(ImageWanted::of(&template.container), image);
    for resources in assignment(1, &template, &run(&[1])).projects.values() {
        for network in resources.networks.values() {
            let key = Key::Network(network.engine_name.clone());
            memory.ensured.insert(key, Ensured::Network(network.clone()));
        }
    }
    memory.leases.uptime = UPTIME;
    if let Some((age, may_start)) = leased {
        memory.leases.take(&lease(Millis(UPTIME.0 - age), &[(1, may_start)]));
    }
    memory
}

fn steps(orders: &Orders, found: &[Found], leased: Option<(u64, bool)>) -> Vec<String> {
    let memory = remembered(leased);
    let view = View { orders, found, memory: &memory, now: NOW };
    diff(&view).steps.iter().map(ToString::to_string).collect()
}

fn orders(tasks: &[(u32, tug_model::task::Desired)]) -> Orders {
    Orders::new(assignment(5, &exclusive(), tasks)).unwrap()
}

#[test]
fn nothing_is_started_without_a_lease() {
    let wanted = orders(&run(&[1]));
    let none: [&str; 0] = [];
    assert_eq!(steps(&wanted, &[], Some((0, true))), ["create shop.web.1.1"]);
    assert_eq!(steps(&wanted, &[], Some((0, false))), none);
    assert_eq!(steps(&wanted, &[], None), none);
    let late = LASTS.0 - LEAST_TO_START.0;
    assert_eq!(steps(&wanted, &[], Some((late, true))), ["create shop.web.1.1"]);
    assert_eq!(steps(&wanted, &[], Some((late + 1, true))), none);
    // What must be there before is made ready meanwhile.
    let memory = Memory::default();
    let view = View { orders: &wanted, found: &[], memory: &memory, now: NOW };
    let prepared: Vec<_> = diff(&view).steps.iter().map(ToString::to_string).collect();
    assert_eq!(prepared, ["ensure network shop_default", "fetch image web:1 if missing"]);
}

#[test]
fn each_start_is_a_container_of_its_own() {
    let wanted = orders(&run(&[1]));
    let ended = exited(1, &exclusive(), 1, 99_000);
    let anew = ["remove shop.web.1.1", "create shop.web.1.1"];
    assert_eq!(steps(&wanted, std::slice::from_ref(&ended), Some((0, true))), anew);
    assert!(steps(&wanted, &[ended], None).is_empty(), "its words are kept until then");
    let half_made = found(1, &exclusive(), State::Created);
    assert_eq!(steps(&wanted, &[half_made], Some((0, true))), anew);
}

#[test]
fn what_runs_is_halted_when_its_lease_ends() {
    let runs = [running(1, &exclusive())];
    for tasks in [run(&[1]), vec![(1, drain())], vec![(1, stop())], run(&[])] {
        let wanted = orders(&tasks);
        let halted = ["halt shop.web.1.1, whose lease has ended, 5s"];
        assert_eq!(steps(&wanted, &runs, Some((LASTS.0, true))), halted, "{tasks:?}");
        let late = ["halt shop.web.1.1, whose lease has ended, 0s"];
        assert_eq!(steps(&wanted, &runs, None), late, "{tasks:?}");
        assert_ne!(steps(&wanted, &runs, Some((LASTS.0 - 1, true))), late, "{tasks:?}");
    }
    let half = LASTS.0 + STOPS_WITHIN.0 / 2;
    assert_eq!(
        steps(&orders(&run(&[1])), &runs, Some((half, true))),
        ["halt shop.web.1.1, whose lease has ended, 2s 500ms"]
    );
    let mut quick = exclusive();
    quick.container.stop_grace_period = StopGrace(Millis(1000));
    let orders = Orders::new(assignment(5, &quick, &run(&[1]))).unwrap();
    let runs = [running(1, &quick)];
    assert_eq!(
        steps(&orders, &runs, Some((LASTS.0, true))),
        ["halt shop.web.1.1, whose lease has ended, 1s"]
    );
}

#[test]
fn an_agent_that_was_told_nothing_halts_what_says_itself_that_it_needs_a_lease() {
    let untold = Orders::none(node(), CLUSTER.to_owned());
    let runs = [running(1, &exclusive()), running(2, &template())];
    assert_eq!(steps(&untold, &runs, None), ["halt shop.web.1.1, whose lease has ended, 0s"]);
    let frozen = [found(1, &exclusive(), State::Paused)];
    assert_eq!(steps(&untold, &frozen, None), ["halt shop.web.1.1, whose lease has ended, 0s"]);
    let mut foreign = running(1, &exclusive());
    foreign.identity.cluster = "other".to_owned();
    assert!(steps(&untold, &[foreign], None).is_empty());
}

#[test]
fn the_end_of_a_lease_is_waited_for() {
    let memory = remembered(Some((1000, true)));
    let wanted = orders(&run(&[1]));
    let runs = [running(1, &exclusive())];
    let planned = diff(&View { orders: &wanted, found: &runs, memory: &memory, now: NOW });
    assert!(planned.steps.is_empty());
    assert_eq!(planned.wake_at, Some(NOW.plus(Millis(LASTS.0 - 1000))));
}

#[test]
fn a_lease_never_ends_sooner_than_it_was_given_and_may_forbid_starts_at_once() {
    let mut leases = Leases { uptime: Millis(10_000), ..Leases::default() };
    leases.take(&lease(Millis(9_000), &[(1, true)]));
    leases.take(&lease(Millis(5_000), &[(1, false)]));
    assert_eq!(leases.until(&id(1)), Some(Millis(15_000)));
    assert!(!leases.may_start(&id(1)));
    leases.take(&lease(Millis(10_001), &[(1, true), (2, true)]));
    assert!(!leases.may_start(&id(1)) && leases.until(&id(2)).is_none(), "of a report that was not made yet");
    leases.uptime = Millis(15_000);
    assert_eq!((leases.until(&id(1)), leases.grace(&id(1), Millis(60_000))), (None, STOPS_WITHIN));
    leases.uptime = Millis(20_000);
    leases.take(&lease(Millis(20_000), &[(2, true)]));
    assert_eq!(leases.held.len(), 1, "what has ended is forgotten");
}

/// Something that happens to a node.
#[derive(Debug, Clone)]
enum Happening {
    Lease { age: u64, may_start: bool },
    Pass(u64),
    Told(u8),
    Exit,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        2 => (0..9_000_u64, any::<bool>()).prop_map(|(age, may_start)| Happening::Lease { age, may_start }),
        3 => (0..4_000_u64).prop_map(Happening::Pass),
        1 => (0..4_u8).prop_map(Happening::Told),
        1 => Just(Happening::Exit),
    ];
    proptest::collection::vec(one, 0..80)
}

proptest! {
    /// However leases come, late, out of order or not at all: nothing is started without one, and whatever runs without
    /// one is halted in the same look, with no more time than there is.
    #[test]
    fn nothing_runs_beyond_its_lease(happenings in happenings()) {
        let template = exclusive();
        let mut memory = remembered(None);
        let (mut told, mut container, mut starts) = (orders(&run(&[1])), None::<Found>, 0_u32);
        // What the control plane would say: when the newest lease ends that it gave.
        let mut given: u64 = 0;
        for happening in happenings {
            match happening {
                Happening::Lease { age, may_start } => {
                    let uptime = Millis(memory.leases.uptime.0 - age);
                    memory.leases.take(&lease(uptime, &[(1, may_start)]));
                    given = given.max(uptime.0 + LASTS.0);
                }
                Happening::Pass(time) => memory.leases.uptime.0 += time,
                Happening::Told(0) => told = orders(&[(1, drain())]),
                Happening::Told(1) => told = orders(&[(1, stop())]),
                Happening::Told(2) => told = Orders::none(node(), CLUSTER.to_owned()),
                Happening::Told(_) => told = orders(&run(&[1])),
                Happening::Exit => {
                    if let Some(found) = &mut container {
                        let finished_at = NOW;
                        found.state = State::Exited { code: 1, out_of_memory: false, finished_at };
                    }
                }
            }
            let found: Vec<Found> = container.iter().cloned().collect();
            let view = View { orders: &told, found: &found, memory: &memory, now: NOW };
            let runs = |found: &Found| matches!(found.state, State::Running { .. });
            let uptime = memory.leases.uptime.0;
            let planned = diff(&view).steps;
            if found.iter().any(runs) && uptime >= given {
                let Some(Step::Halt { grace, .. }) = planned.first() else {
                    return Err(TestCaseError::fail(format!("it runs on: {planned:?}")));
                };
                prop_assert!(uptime + grace.0 <= (given + STOPS_WITHIN.0).max(uptime));
            }
            for step in planned {
                match step {
                    Step::Create { .. } => {
                        prop_assert!(uptime + LEAST_TO_START.0 <= given, "started at {uptime}, given {given}");
                        starts += 1;
                        let mut made = running(1, &template);
                        made.identity.fencing = Some(FencingNumber::of(Revision(1), starts));
                        container = Some(made);
                    }
                    Step::Start { .. } => return Err(TestCaseError::fail("a start without a number of its own")),
                    Step::Halt { .. } | Step::Stop { .. } => {
                        prop_assert!(container.is_some());
                        let finished_at = NOW;
                        container.as_mut().unwrap().state =
                            State::Exited { code: 143, out_of_memory: false, finished_at };
                    }
                    Step::Remove { .. } => container = None,
                    Step::Fetch(_) | Step::EnsureNetwork { .. } | Step::EnsureVolume { .. }
                    | Step::RemoveNetwork { .. } | Step::Unpause { .. } => {}
                }
            }
        }
    }
}

#[test]
fn a_task_id_is_what_a_lease_names() {
    let leases = Leases { uptime: Millis(1), ..Leases::default() };
    assert_eq!(leases.until(&TaskId::parse("shop.other.1.1").unwrap()), None);
    assert_eq!(leases.grace(&id(1), Millis(5)), Millis(0), "nobody knows since when");
}
