//! What a change costs on the wire, in clusters of two sizes: counted, not timed.

use tokio::runtime::Handle;
use tug_tests::fleet::{Fleet, Traffic, in_memory};

/// How many tasks each node has.
const TASKS: u32 = 21;
const SERVICES: u32 = 3;

/// How many replicas each service has.
const fn replicas(nodes: u32) -> u32 {
    nodes * TASKS / SERVICES
}

/// A cluster at rest.
async fn cluster(nodes: u32) -> Fleet {
    let fleet = Fleet::start(in_memory(), nodes as usize, &Handle::current()).await.unwrap();
    fleet.apply(SERVICES, replicas(nodes)).await.unwrap();
    fleet.placed((nodes * TASKS) as usize).await.unwrap();
    fleet.settled().await.unwrap();
    let told: usize = fleet.agents.iter().map(tug_tests::fleet::Agent::tasks).sum();
    assert_eq!((told, fleet.running()), ((nodes * TASKS) as usize, (nodes * TASKS) as usize));
    fleet
}

/// What is sent because of one more replica of a service, until all is quiet again.
async fn cost(fleet: &Fleet, service: u32, replicas: u32) -> Traffic {
    let (before, running) = (fleet.traffic(), fleet.running());
    fleet.scale(service, replicas + 1).await.unwrap();
    fleet.until("scaled", |fleet| fleet.running() == running + 1).await.unwrap();
    fleet.settled().await.unwrap();
    fleet.traffic() - before
}

#[tokio::test(start_paused = true)]
async fn one_change_costs_the_same_in_a_small_and_in_a_large_cluster() {
    let mut costs = Vec::new();
    for nodes in [3, 12] {
        let fleet = cluster(nodes).await;
        let hidden = cost(&fleet, 1, replicas(nodes)).await;
        assert_eq!(hidden.assignments.messages, 1, "only the node that gets the task is told: {hidden:?}");
        assert_eq!((hidden.endpoints.messages, hidden.hints.messages), (0, 0), "{hidden:?}");

        let published = cost(&fleet, 0, replicas(nodes)).await;
        assert_eq!(published.assignments.messages, 1, "{published:?}");
        assert_eq!(
            published.endpoints.messages,
            u64::from(nodes),
            "once to each, of one service: {published:?}"
        );
        let endpoints = u64::from(nodes) * u64::from(replicas(nodes) + 1);
        costs.push((hidden.assignments.bytes, published.endpoints.bytes / endpoints));
        fleet.end().await.unwrap();
    }
    let [(small, small_each), (large, large_each)] = costs[..] else { panic!() };
    // A larger cluster has longer numbers.
    assert!(large < small * 5 / 4, "{small} bytes for the node became {large}");
    assert!(large_each < small_each * 5 / 4, "{small_each} bytes for each endpoint became {large_each}");
}

#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_sent_but_that_nothing_has_changed() {
    let fleet = cluster(4).await;
    let (before, passes) = (fleet.traffic(), fleet.handle.view.clone());
    let seen = std::sync::Arc::clone(&passes.borrow());
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    let spent = fleet.traffic() - before;
    assert_eq!(spent.told().messages, 0, "{spent:?}");
    let each = spent.reports.bytes / spent.reports.messages;
    assert!(each < 16 && spent.reports.messages >= 4 * 29, "{spent:?}");
    assert!(std::sync::Arc::ptr_eq(&seen, &passes.borrow()), "nothing was planned anew");
    fleet.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_costs_each_other_what_it_gets_and_what_it_routes_to() {
    let fleet = cluster(5).await;
    let before: Vec<Traffic> = fleet.agents.iter().map(tug_tests::fleet::Agent::traffic).collect();
    fleet.agents[0].cut();
    let lost = fleet.agents[0].node().clone();
    let moved = |fleet: &Fleet| {
        let state = fleet.handle.store.snapshot();
        let away = state.tasks.values().filter(|task| task.desired == tug_model::task::Desired::Run);
        away.filter(|task| task.node != lost).count() == 5 * TASKS as usize
    };
    fleet.until("moved", moved).await.unwrap();
    fleet.settled().await.unwrap();
    for (agent, before) in fleet.agents.iter().zip(before).skip(1) {
        let spent = agent.traffic() - before;
        assert!(spent.assignments.messages <= 3 && spent.endpoints.messages <= 4, "{spent:?}");
    }
    fleet.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_many_commits_in_a_row_say_is_told_to_many_agents_together() {
    const NODES: u32 = 60;
    const COMMITS: u32 = 20;
    let fleet = Fleet::start(in_memory(), NODES as usize, &Handle::current()).await.unwrap();
    fleet.apply(1, 1).await.unwrap();
    fleet.placed(1).await.unwrap();
    fleet.settled().await.unwrap();
    let before = fleet.traffic();
    for more in 1..=COMMITS {
        // Published: each concerns every node.
        fleet.scale(0, 1 + more).await.unwrap();
        fleet.until("scaled", |fleet| fleet.running() == 1 + more as usize).await.unwrap();
    }
    fleet.settled().await.unwrap();
    let told = (fleet.traffic() - before).endpoints.messages;
    let rounds = told / u64::from(NODES);
    assert!((1..=u64::from(COMMITS / 2)).contains(&rounds), "{told} messages for {COMMITS} commits");
    fleet.end().await.unwrap();
}
