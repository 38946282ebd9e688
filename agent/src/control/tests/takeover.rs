//! One agent after another on one folder, as in an upgrade.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_second_agent_is_refused_while_the_first_runs() {
    let machine = Machine::new();
    let first = machine.agent().await;
    let began = tokio::time::Instant::now();
    let error = Agent::open(machine.config()).await.map(drop).unwrap_err();
    assert!(error.is_locked(), "{error:?}");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(6), "{waited:?}");
    first.end().await;
    machine.agent().await.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_agent_waits_for_the_end_of_the_one_before() {
    let machine = Machine::new();
    let first = machine.agent().await;
    let next = tokio::spawn(Agent::open(machine.config()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!next.is_finished());
    first.end().await;
    let (agent, _handle) = next.await.unwrap().unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    agent.run(stop).await;
}
