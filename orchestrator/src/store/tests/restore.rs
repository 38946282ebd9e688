//! Going back to an export, and what an export must be for that.

use std::fs;

use tug_model::Revision;

use super::support::{Running, event, names, series};
use crate::store::{self, Config, OpenError, RestoreError};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_store_is_restored_from_its_export_under_a_new_epoch() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    let config = Config { export_every: 20, ..Config::folder(&folder, "c1") };
    let running = Running::open(config.clone()).await.unwrap();
    for n in 0..20 {
        running.put(series(n)).await.unwrap();
    }
    let exported = running.close().await;
    let running = Running::open(config.clone()).await.unwrap();
    for n in 20..30 {
        running.put(series(n)).await.unwrap();
    }
    running.kill().await;
    // Everything but the export goes, and the journal is damaged in its middle.
    fs::remove_dir_all(folder.join("tree")).unwrap();
    let journal = folder.join("journal-0000000001.log");
    let mut bytes = fs::read(&journal).unwrap();
    let last = bytes.len() - 1_500;
    bytes[last] ^= 1;
    fs::write(&journal, bytes).unwrap();
    let refused = Running::open(config.clone()).await.err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");

    let export = folder.join("export-00000000000000000020.jsonl");
    let file = parent.path().join("copy.jsonl");
    fs::copy(&export, &file).unwrap();
    let revision = store::restore(&config, &file).unwrap();
    assert!(revision > Revision(1_000_000));
    let running = Running::open(config.clone()).await.unwrap();
    let state = running.state();
    assert_eq!((state.epoch, state.revision), (exported.epoch + 1, revision));
    assert_eq!((&state.projects, &state.tasks), (&exported.projects, &exported.tasks));
    assert_eq!((&state.templates, &state.events), (&exported.templates, &exported.events));
    assert_eq!(running.put(vec![event("on")]).await.unwrap(), revision.next());
    let before = running.close().await;
    assert!(names(&config).contains(&"journal-0000000001.log.replaced".to_owned()));
    // Once more, over a store that is well: never the same epoch, never a revision that was given out.
    let again = store::restore(&config, &file).unwrap();
    assert!(again > before.revision);
    let running = Running::open(config).await.unwrap();
    assert_eq!(running.state().epoch, exported.epoch + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_export_of_this_cluster_changes_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let mut exports = Vec::new();
    for name in ["one", "two"] {
        let config = Config::folder(parent.path().join(name), name);
        let running = Running::open(config.clone()).await.unwrap();
        running.put(vec![event(name)]).await.unwrap();
        running.close().await;
        exports.push(parent.path().join(name).join("export-00000000000000000001.jsonl"));
    }
    let config = Config::folder(parent.path().join("one"), "one");
    let foreign = store::restore(&config, &exports[1]).unwrap_err();
    assert!(matches!(foreign, RestoreError::Foreign { .. }), "{foreign}");
    let half = parent.path().join("half");
    let text = fs::read(&exports[0]).unwrap();
    fs::write(&half, &text[..text.len() - 9]).unwrap();
    let damaged = store::restore(&config, &half).unwrap_err();
    assert!(matches!(damaged, RestoreError::Export { .. }), "{damaged}");
    let running = Running::open(config.clone()).await.unwrap();
    assert_eq!(running.state().revision, Revision(1));
    let open = store::restore(&config, &exports[0]).unwrap_err();
    assert!(matches!(open, RestoreError::Store(OpenError::Locked { .. })), "{open}");
}
