//! Exclusive tasks: the agent starts them under a lease, and stops them by itself when that is not renewed.

use tug_model::lease::{FencingNumber, LASTS, Lease, Leased, STOPS_WITHIN};
use tug_model::{Millis, Revision};

use super::*;

fn exclusive() -> Template {
    Template { exclusive: true, ..template() }
}

fn lease(uptime: Millis) -> Lease {
    let tasks = vec![Leased { id: id(1), may_start: true }];
    Lease { cluster: CLUSTER.to_owned(), epoch: 1, uptime, tasks }
}

impl Running {
    /// Answers the newest report, as a control plane does; says what it counts from.
    async fn renew(&self) -> Millis {
        let report = self.until("a report", |_| true).await;
        let uptime = report.uptime.unwrap();
        self.client.lease(&lease(uptime)).await.unwrap();
        uptime
    }

    /// Renews every second for so many.
    async fn keep(&self, seconds: u32) -> Millis {
        let mut last = Millis(0);
        for _ in 0..seconds {
            last = self.renew().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        last
    }
}

impl Machine {
    fn runs(&self) -> bool {
        self.running() == 1
    }

    fn fencing(&self) -> Option<FencingNumber> {
        self.engine.containers().first()?.identity.fencing
    }

    /// The next moment at which the container does not run any more.
    async fn until_ended(&self) -> Millis {
        while self.runs() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.clock.uptime()
    }

    async fn until_started(&self) {
        while !self.runs() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_started_under_a_lease_and_stopped_when_that_is_not_renewed() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &exclusive(), &[1])).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(!machine.runs(), "nobody gave a lease");
    agent.renew().await;
    machine.until_started().await;
    assert_eq!(machine.fencing(), Some(FencingNumber::of(Revision(1), 1)));
    let last = agent.keep(30).await;
    agent.until_healthy(1).await;
    assert_eq!(machine.engine.log_of("create").len(), 1);

    let ended = machine.until_ended().await;
    assert!(ended.0 >= last.0 + LASTS.0, "at {ended} of {last}: no sooner than it must");
    assert!(ended.0 <= last.0 + LASTS.0 + 300, "at {ended} of {last}");
    agent.until("not healthy", |report| !task(report, 1).phase.is_healthy()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!machine.runs());

    agent.keep(3).await;
    assert!(machine.runs());
    assert_eq!(machine.fencing(), Some(FencingNumber::of(Revision(1), 2)));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_when_asked_is_killed_in_time() {
    let machine = Machine::new();
    machine.engine.has_image("web:1", Behaviour { is_stubborn: true, ..Behaviour::default() });
    let agent = machine.agent().await;
    let mut patient = exclusive();
    patient.container.stop_grace_period = tug_model::spec::container::StopGrace(Millis::from_secs(60));
    agent.assign(&told(1, &patient, &[1])).await;
    let last = agent.keep(5).await;
    // It was asked to stop, with all the time in the world, when nobody is there any more.
    agent.assign(&assignment(2, &patient, &[(1, stop())])).await;
    let ended = machine.until_ended().await;
    // The test looks every ten milliseconds.
    let most = last.0 + LASTS.0 + STOPS_WITHIN.0 + 50;
    assert!(ended.0 > last.0 + LASTS.0 + 3000 && ended.0 <= most, "at {ended} of {most}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_goes_on_with_what_is_left_of_the_lease() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &exclusive(), &[1])).await;
    let last = agent.keep(5).await;
    agent.end().await;
    let agent = machine.agent().await;
    let ended = machine.until_ended().await;
    assert!(ended.0 >= last.0 + LASTS.0 && ended.0 <= last.0 + LASTS.0 + 300, "at {ended} of {last}");
    agent.keep(3).await;
    machine.until_started().await;
    agent.end().await;

    let agent = machine.agent().await;
    agent.keep(10).await;
    assert_eq!(machine.engine.log_of("create").len(), 2, "an upgrade restarts nothing");
    agent.agent.abort();
    let _killed = agent.agent.await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(machine.runs(), "nobody was there");
    let began = machine.clock.uptime();
    let agent = machine.agent().await;
    let ended = machine.until_ended().await;
    assert!(ended.0 <= began.0 + 500, "it is the first thing that an agent does");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn each_crash_is_followed_by_a_start_with_a_greater_number() {
    let machine = Machine::new();
    let crashes = Some((Duration::from_secs(11), 1));
    machine.engine.has_image("web:1", Behaviour { crashes, ..Behaviour::default() });
    let agent = machine.agent().await;
    agent.assign(&told(1, &exclusive(), &[1])).await;
    agent.keep(30).await;
    assert_eq!(machine.engine.containers().len(), 1);
    assert_eq!(machine.fencing(), Some(FencingNumber::of(Revision(1), 3)));
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_another_cluster_or_an_older_control_plane_is_none() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let mut assignment = told(1, &exclusive(), &[1]);
    assignment.epoch = 2;
    agent.assign(&assignment).await;
    let uptime = agent.until("a report", |_| true).await.uptime.unwrap();
    let foreign = Lease { cluster: "other".to_owned(), epoch: 2, ..lease(uptime) };
    for wrong in [foreign, lease(uptime)] {
        let Err(CallError::Api(error)) = agent.client.lease(&wrong).await else { panic!("it was taken") };
        assert_eq!(error.code, Code::Conflict);
    }
    // A report that was never made gives none either.
    let early = Lease { epoch: 2, ..lease(Millis(uptime.0 + 3_600_000)) };
    agent.client.lease(&early).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!machine.runs());
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_and_again_while_the_engine_does_not_answer() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &exclusive(), &[1])).await;
    agent.keep(5).await;
    machine.engine.is_down(true);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(machine.runs(), "nothing can stop it");
    let back = machine.clock.uptime();
    machine.engine.is_down(false);
    let ended = machine.until_ended().await;
    assert!(ended.0 <= back.0 + 600, "{ended} of {back}: before any look");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_never_said_to_be_gone_however_slow_the_engine_lists_it() {
    for late in (0..1_500).step_by(50).map(Duration::from_millis) {
        let machine = Machine::new();
        let agent = machine.agent().await;
        agent.until("a first look", |report| !report.info.arch.is_empty()).await;
        machine.engine.lists_within(Duration::from_millis(700));
        agent.assign(&told(1, &exclusive(), &[1])).await;
        agent.renew().await;
        tokio::time::sleep(late).await;
        agent.assign(&assignment(2, &exclusive(), &[(1, stop())])).await;
        let report = agent
            .until("gone", |report| {
                let is_gone = report.following.generation.0 == 2 && report.tasks.is_empty();
                assert!(!is_gone || !machine.runs(), "it is said to be gone after {late:?}, and runs");
                is_gone
            })
            .await;
        assert!(report.tasks.is_empty() && machine.engine.containers().is_empty());
        agent.end().await;
    }
}
