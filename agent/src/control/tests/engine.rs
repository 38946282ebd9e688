//! The engine away, slow or without an image; and that the same story is told the same way.

use tug_model::report::Engine as EngineReport;

use tug_model::spec::container::{Mount, MountSource};

use super::*;

#[tokio::test(start_paused = true)]
async fn a_dead_engine_is_told_and_its_tasks_are_as_last_seen() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&told(1, &template(), &[1, 2])).await;
    agent.until_healthy(2).await;
    machine.engine.is_down(true);
    let died = tokio::time::Instant::now();
    let report = agent.until("down", |report| matches!(report.engine, EngineReport::Down { .. })).await;
    assert!(died.elapsed() < Duration::from_secs(3), "the end of its events is a hint: {:?}", died.elapsed());
    let EngineReport::Down { reason, .. } = &report.engine else { panic!() };
    assert!(reason.contains("no Docker Engine there"), "{reason}");
    assert!(report.tasks.len() == 2 && report.tasks.iter().all(|task| task.phase.is_healthy()));
    let log = machine.engine.log().len();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(machine.engine.log().len(), log);
    machine.engine.somebody_kills("shop.web.1.1");
    machine.engine.is_down(false);
    agent.until("up", |report| report.engine == EngineReport::Up).await;
    agent.until_healthy(2).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_starts_before_its_engine_reports_what_it_was_told() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    agent.assign(&assignment(1, &template(), &[(1, Desired::Run), (2, stop())])).await;
    agent.until_healthy(1).await;
    agent.end().await;
    machine.engine.is_down(true);
    let agent = machine.agent().await;
    let report = agent.until("a report", |_| true).await;
    assert!(matches!(report.engine, EngineReport::Down { .. }));
    assert_eq!(report.tasks.len(), 2, "silence would mean that they are gone");
    machine.engine.is_down(false);
    agent.until_healthy(1).await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled_once_and_a_failed_pull_says_why_and_waits() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let mut other = template();
    other.container.image = "other:1".to_owned();
    agent.assign(&told(1, &other, &[1, 2, 3])).await;
    agent
        .until("pulling", |report| {
            report.tasks.iter().all(|t| t.phase == Phase::Pulling { progress: "half".to_owned() })
                && report.tasks.len() == 3
        })
        .await;
    agent.until_healthy(3).await;
    assert_eq!(machine.engine.log_of("pull").len(), 1);

    other.container.image = "missing:1".to_owned();
    agent.assign(&told(2, &other, &[4, 5])).await;
    let report = agent
        .until("refused", |report| {
            matches!(
                report.tasks.first().map(|t| &t.phase),
                Some(Phase::Waiting { failure: Failure::Refused { .. }, .. })
            )
        })
        .await;
    let shown = report.tasks[0].phase.to_string();
    assert!(shown.starts_with("pull image `missing:1`: no such tag, next try in "), "{shown}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pulls = machine.engine.log_of("pull missing").len();
    assert!((3..=4).contains(&pulls), "at 0, about 12 and about 34 s: {pulls}");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_given_up_and_tried_again_and_holds_up_nobody() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let mut other = template();
    other.container.image = "silent:1".to_owned();
    let began = tokio::time::Instant::now();
    agent.assign(&told(1, &other, &[1])).await;
    agent
        .until("pulling", |report| report.tasks.iter().any(|t| matches!(t.phase, Phase::Pulling { .. })))
        .await;
    other.container.image = "other:1".to_owned();
    agent.assign(&told(2, &other, &[2, 3])).await;
    agent.until_healthy(2).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    other.container.image = "silent:1".to_owned();
    agent.assign(&told(3, &other, &[4])).await;
    let report = agent
        .until("given up", |report| report.tasks.iter().any(|t| matches!(t.phase, Phase::Waiting { .. })))
        .await;
    let shown = task(&report, 4).phase.to_string();
    let said = "pull image `silent:1`: nothing has come for 120 s: its registry hangs, or the way to it, next try in ";
    assert!(shown.starts_with(said), "{shown}");
    assert_eq!(report.engine, EngineReport::Up, "it answers everything else");
    let took = began.elapsed().as_secs();
    assert!((120..122).contains(&took), "it was asked once, by whoever was first: {took}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(machine.engine.log_of("pull silent").len(), 2);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_story_is_told_the_same_way() {
    let mut stories = Vec::new();
    for _ in 0..2 {
        let machine = Machine::new();
        machine.engine.has_image(
            "web:1",
            Behaviour { crashes: Some((Duration::from_secs(12), 1)), ..Behaviour::default() },
        );
        let agent = machine.agent().await;
        agent.assign(&told(1, &probed(template()), &[1, 2, 3, 4, 5, 6])).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        agent.assign(&assignment(2, &probed(template()), &[(1, Desired::Run), (2, stop())])).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        stories.push(machine.engine.log());
        agent.end().await;
    }
    assert!(stories[0].len() > 50);
    assert_eq!(stories[0], stories[1]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_here_for_another_platform_is_pulled() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    for (generation, platform, pulls) in [(1, "linux/amd64", 0), (2, "linux/arm64", 1)] {
        let mut wanted = template();
        wanted.container.platform = Some(platform.to_owned());
        let number = u32::try_from(generation).unwrap();
        agent.assign(&told(generation, &wanted, &[number])).await;
        agent
            .until("running", |report| {
                report.tasks.iter().any(|task| task.id == id(number) && task.phase.is_healthy())
            })
            .await;
        assert_eq!(machine.engine.log_of("pull").len(), pulls, "{platform}");
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_the_state_folder_is_mounted() {
    let machine = Machine::new();
    let agent = machine.agent().await;
    let mut template = template();
    let path = machine.file("configs").to_string_lossy().into_owned();
    let source = MountSource::Bind { path, create: true, propagation: None, selinux: None };
    template.container.mounts.push(Mount { source, target: "/x".to_owned(), read_only: true });
    agent.assign(&told(1, &template, &[1])).await;
    let report = agent
        .until("refused", |report| report.tasks.iter().any(|t| matches!(t.phase, Phase::Waiting { .. })))
        .await;
    let said = task(&report, 1).phase.to_string();
    assert!(said.contains("leads into Tug's own state"), "{said}");
    assert!(machine.engine.containers().is_empty());
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn more_that_are_slow_to_stop_than_the_engine_is_given_at_once_wait_side_by_side() {
    let machine = Machine::new();
    machine.engine.has_image("web:1", Behaviour { is_stubborn: true, ..Behaviour::default() });
    let agent = machine.agent().await;
    let numbers: Vec<u32> = (1..=12).collect();
    agent.assign(&told(1, &template(), &numbers)).await;
    agent.until_healthy(12).await;
    let asked = tokio::time::Instant::now();
    let mut next: Vec<_> = numbers.iter().map(|number| (*number, stop())).collect();
    next.push((13, Desired::Run));
    agent.assign(&assignment(2, &template(), &next)).await;
    agent
        .until("the new one healthy", |report| {
            report.tasks.iter().any(|task| task.id == id(13) && task.phase.is_healthy())
        })
        .await;
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    agent.until("the old ones gone", |report| report.tasks.len() == 1).await;
    let took = asked.elapsed().as_secs_f64();
    assert!((10.0..12.0).contains(&took), "{took}");
    agent.end().await;
}
