//! What the tests share: a running store, things to put into it, and chance that can be repeated.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tug_model::event::{Event, EventKind};
use tug_model::node::{Capacity, Node, NodeInfo};
use tug_model::project::StoredProject;
use tug_model::spec::Project;
use tug_model::spec::container::Container;
use tug_model::spec::service::Restart;
use tug_model::task::{Desired, Task, Template};
use tug_model::{NodeId, ProjectName, Revision, ServiceName, Slot, TaskId, Timestamp};

use crate::store::{self, Backing, Change, CommitError, Config, OpenError, Remembered, State, Store};

/// A store whose writer runs.
pub(super) struct Running {
    pub(super) store: Store,
    config: Config,
    stop: CancellationToken,
    writer: JoinHandle<()>,
}

impl Running {
    pub(super) async fn open(config: Config) -> Result<Self, OpenError> {
        let (store, writer) = store::open(config.clone()).await?;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(writer.run(stop.clone()));
        Ok(Self { store, config, stop, writer })
    }

    /// Commits whatever the state is.
    pub(super) async fn put(&self, changes: Vec<Change>) -> Result<Revision, CommitError> {
        self.store.commit(Timestamp(1), |_, _| changes).await
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.store.snapshot()
    }

    /// Ends as a daemon that is asked to.
    pub(super) async fn close(self) -> Arc<State> {
        self.stop.cancel();
        self.writer.await.unwrap();
        self.store.snapshot()
    }

    /// Ends as a daemon that is killed.
    pub(super) async fn kill(self) -> Arc<State> {
        self.writer.abort();
        drop(self.writer.await);
        if let Backing::Folder(folder) = &self.config.backing {
            // A thread may still be writing an export, and the folder is held until it has.
            let lock = std::fs::File::open(folder.join("lock")).unwrap();
            tokio::task::spawn_blocking(move || lock.lock().unwrap()).await.unwrap();
        }
        self.store.snapshot()
    }
}

/// Numbers that look like chance and are the same for the same seed.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % (limit as u64)).unwrap()
    }
}

pub(super) fn project(name: &str, number: u64) -> Change {
    Change::PutProject(Arc::new(StoredProject {
        spec: Project {
            name: ProjectName::parse(name).unwrap(),
            services: [].into(),
            networks: [].into(),
            volumes: [].into(),
            configs: [].into(),
        },
        source: Vec::new(),
        number,
        revision: Revision(0),
        accepted_at: Timestamp(number),
    }))
}

pub(super) fn template(image: &str) -> Template {
    Template {
        container: Container { image: image.to_owned(), ..Container::default() },
        restart: Restart::default(),
        probe: None,
        host_ports: Vec::new(),
        exposed: Vec::new(),
        exclusive: false,
        restarts_asked: 0,
        needs: tug_model::task::Needs::default(),
    }
}

pub(super) fn task(id: &str, image: &str, desired: Desired) -> Change {
    Change::PutTask(Arc::new(Task {
        id: TaskId::parse(id).unwrap(),
        project: ProjectName::parse("shop").unwrap(),
        service: ServiceName::parse("web").unwrap(),
        slot: Slot(1),
        node: NodeId::parse("n1").unwrap(),
        template: template(image).hash(),
        desired,
        created_at: Timestamp(7),
        exclusive: None,
    }))
}

pub(super) fn node(id: &str, hostname: &str) -> Change {
    let info = NodeInfo {
        hostname: hostname.to_owned(),
        os: "linux".to_owned(),
        arch: "amd64".to_owned(),
        capacity: Capacity::default(),
        labels: [].into(),
        engine_version: "28.2.2".to_owned(),
        agent_version: "0.1.0".to_owned(),
        address: None,
    };
    Change::PutNode(Arc::new(Node::new(NodeId::parse(id).unwrap(), info, Timestamp(3))))
}

pub(super) fn event(message: &str) -> Change {
    Change::Record(Arc::new(Event {
        revision: Revision(0),
        at: Timestamp(5),
        kind: EventKind::Planned,
        project: None,
        service: None,
        task: None,
        node: None,
        message: message.to_owned(),
    }))
}

pub(super) fn remembered(key: &str, at: u64) -> Change {
    Change::Remember(Arc::new(Remembered {
        key: key.to_owned(),
        fingerprint: "f".to_owned(),
        status: 200,
        body: serde_json::json!({ "z": 1, "a": [1.5, null] }),
        at: Timestamp(at),
    }))
}

/// The `n`th of a series of commits that exercise every kind of change.
pub(super) fn series(n: u64) -> Vec<Change> {
    let image = format!("image:{}", n % 5);
    let mut changes =
        vec![event(&format!("commit {n} {}", "x".repeat(usize::try_from(n % 97).unwrap() * 9)))];
    match n % 6 {
        0 => changes.push(project(&format!("p{}", n % 4), n)),
        1 | 2 => {
            changes.push(Change::template(template(&image)));
            changes.push(task(&format!("task.{}", n % 7), &image, Desired::Run));
        }
        3 => changes.push(remembered(&format!("key{n}"), n)),
        4 => changes.push(Change::RemoveTask(TaskId::parse(&format!("task.{}", n % 7)).unwrap())),
        _ => {
            changes.push(node(&format!("n{}", n % 3), &format!("host{n}")));
            changes.push(Change::RemoveProject(ProjectName::parse(&format!("p{}", n % 4)).unwrap()));
        }
    }
    changes
}

/// The names of the files of a store.
pub(super) fn names(config: &Config) -> Vec<String> {
    match &config.backing {
        Backing::Memory(disk) => disk.files().into_keys().collect(),
        Backing::Folder(folder) => {
            let files = std::fs::read_dir(folder).unwrap();
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
        }
    }
}
