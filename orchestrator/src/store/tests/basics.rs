//! Commits, what they expect, what watches see, and that all of it is there again after a restart.

use tug_model::Revision;

use super::support::{Running, project, series};
use crate::store::{Config, MemoryDisk};

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
