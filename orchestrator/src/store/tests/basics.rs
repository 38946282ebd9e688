//! Commits, what watches see, and that all of it is there again after a restart.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tug_model::task::Desired;
use tug_model::{Millis, ProjectName, Revision, TaskId, Timestamp};

use super::support::{Running, event, names, project, remembered, series, task, template};
use crate::store::{Change, CommitError, Config, HistoryError, MemoryDisk, OpenError, State};

#[tokio::test]
async fn what_was_committed_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    for config in [Config::memory(&MemoryDisk::new(), "c1"), Config::folder(folder.path(), "c1")] {
        let running = Running::open(config.clone()).await.unwrap();
        for n in 0..100 {
            assert_eq!(running.put(series(n)).await.unwrap(), Revision(n + 1));
        }
        let before = running.close().await;
        let running = Running::open(config.clone()).await.unwrap();
        assert_eq!(running.state(), before);
        assert_eq!(running.state().cluster, "c1");
        running.put(vec![project("late", 1)]).await.unwrap();
        let before = running.kill().await;
        let running = Running::open(config).await.unwrap();
        assert_eq!(running.state(), before);
        assert_eq!(running.store.changes_since(Revision(0)).unwrap().len(), 101);
    }
}

#[tokio::test]
async fn a_commit_that_refuses_or_changes_nothing_takes_no_revision() {
    let running = Running::open(Config::memory(&MemoryDisk::new(), "c1")).await.unwrap();
    let store = &running.store;
    running.put(vec![event("one")]).await.unwrap();
    let refused = store
        .try_commit(Timestamp(1), |revision, state| {
            Err::<Vec<Change>, _>(format!("{revision} on {}", state.revision))
        })
        .await;
    assert_eq!(refused, Ok(Err("2 on 1".to_owned())));
    assert_eq!(running.put(Vec::new()).await, Ok(Revision(1)));
    let large = running.put(vec![event(&"x".repeat(5 << 20))]).await;
    assert!(matches!(large, Err(CommitError::TooLarge { .. })));
    assert_eq!(running.put(vec![event("two")]).await, Ok(Revision(2)));
}

#[tokio::test]
async fn a_group_is_published_once_and_after_its_commits_are_kept() {
    let (store, writer) = crate::store::open(Config::memory(&MemoryDisk::new(), "c1")).await.unwrap();
    let mut watch = store.watch();
    let commits: Vec<_> = (0..10)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.commit(Timestamp(n), move |_, _| series(n)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(writer.run(stop.clone()));
    watch.changed().await.unwrap();
    assert_eq!(watch.borrow_and_update().revision, Revision(10));
    let seen = store.changes_since(Revision(0)).unwrap();
    assert_eq!(seen.iter().map(|it| it.revision.0).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    for commit in commits {
        commit.await.unwrap().unwrap();
    }
    stop.cancel();
    writer.await.unwrap();
    assert!(!watch.has_changed().unwrap_or(false));
    let late = store.commit(Timestamp(1), |_, _| vec![event("late")]).await;
    assert_eq!(late, Err(CommitError::Closed));
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_or_is_told_that_it_cannot() {
    let disk = MemoryDisk::new();
    let config = Config { history: 10, segment_bytes: 2_000, ..Config::memory(&disk, "c1") };
    let running = Running::open(config.clone()).await.unwrap();
    for n in 0..25 {
        running.put(series(n)).await.unwrap();
    }
    for reopened in [false, true] {
        let running = if reopened { &Running::open(config.clone()).await.unwrap() } else { &running };
        let since = |revision| running.store.changes_since(Revision(revision));
        let revisions: Vec<_> = since(20).unwrap().iter().map(|commit| commit.revision.0).collect();
        assert_eq!(revisions, [21, 22, 23, 24, 25]);
        assert_eq!(since(25).unwrap(), []);
        assert_eq!(since(15).unwrap().len(), 10);
        let (asked, oldest) = (Revision(14), Revision(15));
        assert_eq!(since(14), Err(HistoryError::Compacted { asked, oldest }));
        let (asked, newest) = (Revision(26), Revision(25));
        assert_eq!(since(26), Err(HistoryError::Future { asked, newest }));
    }
}

#[tokio::test]
async fn exports_make_old_files_go() {
    let folder = tempfile::tempdir().unwrap();
    for base in [Config::memory(&MemoryDisk::new(), "c1"), Config::folder(folder.path(), "c1")] {
        let config = Config { segment_bytes: 2_000, export_every: 20, ..base };
        let running = Running::open(config.clone()).await.unwrap();
        for n in 0..200 {
            running.put(series(n)).await.unwrap();
        }
        let before = running.close().await;
        let names = names(&config);
        assert_eq!(names.iter().filter(|name| name.starts_with("export-")).count(), 2, "{names:?}");
        assert!(!names.contains(&"journal-0000000001.log".to_owned()), "{names:?}");
        let running = Running::open(config).await.unwrap();
        assert_eq!(running.state(), before);
    }
}

#[tokio::test]
async fn a_folder_has_one_daemon_and_nobody_else_looks_in() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let running = Running::open(Config::folder(&folder, "c1")).await.unwrap();
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let second = Running::open(Config::folder(&folder, "c1")).await.err().unwrap();
    assert!(second.to_string().ends_with(&format!("in use by process {}", std::process::id())), "{second}");
    running.close().await;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let open_to_all = Running::open(Config::folder(&folder, "c1")).await.err().unwrap();
    assert!(matches!(open_to_all, OpenError::Folder { .. }), "{open_to_all}");
}

#[test]
fn a_template_goes_with_its_last_task() {
    let mut state = State::new("c1", 1);
    let put = |id: &str, image: &str| [Change::template(template(image)), task(id, image, Desired::Run)];
    state.apply(Revision(1), &put("a.1", "one"));
    state.apply(Revision(2), &put("a.2", "one"));
    state.apply(Revision(3), &[task("a.1", "one", Desired::Stop { since: Revision(3) })]);
    let remove = |id: &str| Change::RemoveTask(TaskId::parse(id).unwrap());
    state.apply(Revision(4), &[remove("a.1")]);
    assert!(state.templates.contains_key(&template("one").hash()));
    // The last task goes and its successor comes in one commit: the template stays.
    state.apply(Revision(5), &[remove("a.2"), task("a.3", "one", Desired::Run)]);
    assert!(state.templates.contains_key(&template("one").hash()));
    state.apply(Revision(6), &[remove("a.3"), remove("a.3")]);
    assert!(state.templates.is_empty());
}

#[test]
fn events_and_answers_are_bounded() {
    let mut state = State::new("c1", 1);
    for n in 1..=2_600 {
        state.apply(Revision(n), &[event("one"), event("two")]);
    }
    assert_eq!(state.events.len(), State::MOST_EVENTS);
    assert_eq!(state.events.get_min().unwrap().0, (Revision(101), 0));
    assert_eq!(state.events.get_max().unwrap().0, (Revision(2_600), 1));

    let most = State::MOST_REMEMBERED as u64;
    for n in 0..most + 5 {
        state.apply(Revision(3_000 + n), &[remembered(&format!("k{n}"), n)]);
    }
    assert_eq!(state.idempotency.len(), State::MOST_REMEMBERED);
    assert!(!state.idempotency.contains_key("k4") && state.idempotency.contains_key("k5"));
    let Millis(day) = State::REMEMBERED_FOR;
    // The same key again is young again.
    state.apply(Revision(20_000), &[remembered("k5", day)]);
    state.apply(Revision(20_001), &[remembered("new", day + most)]);
    assert!(state.idempotency.contains_key("k5") && !state.idempotency.contains_key("k6"));
    assert_eq!(state.idempotency.len(), 7);
}

#[test]
fn states_are_shared_not_copied() {
    let mut state = State::new("c1", 1);
    state.apply(Revision(1), &[project("shop", 1)]);
    let copy = state.clone();
    let name = ProjectName::parse("shop").unwrap();
    assert!(Arc::ptr_eq(&state.projects[&name], &copy.projects[&name]));
}

#[tokio::test]
async fn the_tasks_of_a_project_are_those_whose_ids_begin_with_its_name() {
    let running = Running::open(Config::memory(&MemoryDisk::new(), "c1")).await.unwrap();
    let ids = ["shop-2.web.1.1", "shop.api.1.1", "shop.web.1.1", "shops.web.1.1", "sho.web.1.1"];
    running.put(ids.map(|id| task(id, "nginx", Desired::Run)).into()).await.unwrap();
    let state = running.state();
    let of = |name: &str| -> Vec<String> {
        state.tasks_of(&ProjectName::parse(name).unwrap()).map(|task| task.id.to_string()).collect()
    };
    assert_eq!(of("shop"), ["shop.api.1.1", "shop.web.1.1"]);
    assert_eq!(of("shop-2"), ["shop-2.web.1.1"]);
    assert_eq!(of("shopping"), [""; 0]);
}
