//! What was acknowledged is there after `kill -9`, whenever it comes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tug_api::client::Guard;
use tug_api::user::ApplyRequest;
use tug_model::{ProjectName, Revision};
use tug_tests::tug::Tug;

use crate::number;

/// How many times the orchestrator is killed; `TUG_TEST_ROUNDS` asks for another number.
const ROUNDS: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_survives_kill_9() -> Result<()> {
    let mut tug = Tug::start().await?;
    let mut acknowledged: BTreeMap<ProjectName, Revision> = BTreeMap::new();
    let rounds = number("TUG_TEST_ROUNDS").unwrap_or(ROUNDS);
    let mut count = 0;
    for round in 0..rounds {
        let client = tug.client();
        let writer = tokio::spawn(async move {
            let mut done = Vec::new();
            for number in 0_u64.. {
                let name = ProjectName::parse(&format!("p{}", number % 7)).unwrap();
                let request = ApplyRequest {
                    spec: empty_project(&name, round * 1_000_000 + number),
                    source: Vec::new(),
                };
                match client.apply(&request, &Guard::default()).await {
                    Ok(accepted) => done.push((name, accepted.revision)),
                    Err(_) => break,
                }
            }
            done
        });
        // A moment that differs from round to round, spread over what a few hundred writes take.
        tokio::time::sleep(Duration::from_millis(5 + (round * 37) % 200)).await;
        tug.end_server(Signal::KILL).await?;
        let done = writer.await?;
        count += done.len();
        acknowledged.extend(done);
        tug.start_server()?;
        tug.until_connected().await?;
        for (name, revision) in &acknowledged {
            let found = tug.client().project(name).await?;
            ensure!(
                found.revision >= *revision,
                "round {round}: {name} is at {} after {revision}",
                found.revision
            );
        }
    }
    println!("{rounds} kills, {count} acknowledged writes, none lost");
    ensure!(!acknowledged.is_empty(), "nothing was written");
    Ok(())
}

/// A project that differs from number to number and runs nothing.
fn empty_project(name: &ProjectName, number: u64) -> tug_model::spec::Project {
    let json = serde_json::json!({
        "name": name,
        "services": {"web": {
            "container": {"image": format!("nothing:{number}")},
            "deploy": {"mode": {"replicated": 0}},
        }},
    });
    serde_json::from_value(json).unwrap()
}
