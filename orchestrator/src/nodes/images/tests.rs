//! Who is told what about an image that somebody lacks.

use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::digest::digest_of;
use tug_model::spec::Project;
use tug_model::task::{Desired, Template};
use tug_model::{Revision, ServiceName, Slot, Timestamp};

use super::*;
use crate::nodes::Nodes;
use crate::nodes::fake::FakeAgent;
use crate::store::{self, Change, MemoryDisk, Store};

/// Connected agents that reach each other, the first of which have tasks made of one image.
struct Bench {
    store: Store,
    nodes: Nodes,
    agents: Vec<FakeAgent>,
    stop: CancellationToken,
    running: Vec<tokio::task::JoinHandle<()>>,
}

fn node(number: usize) -> NodeId {
    NodeId::parse(&format!("n{number}")).unwrap()
}

fn source(number: usize) -> Source {
    Source { node: node(number), address: format!("10.0.0.{number}:7444") }
}

fn image() -> Digest {
    digest_of(b"the image")
}

impl Bench {
    async fn new(agents: usize, with_tasks: usize) -> Self {
        let disk = MemoryDisk::new();
        let (store, writer) = store::open(store::Config::memory(&disk, "c1")).await.unwrap();
        let (nodes, publisher) = Nodes::new(store.clone(), Clock::starting_at(Timestamp(1_000_000)));
        let stop = CancellationToken::new();
        let (stop_writer, stop_publisher) = (stop.clone(), stop.clone());
        let running =
            vec![tokio::spawn(writer.run(stop_writer)), tokio::spawn(publisher.run(stop_publisher))];
        let mut bench = Self { store, nodes, agents: Vec::new(), stop, running };
        bench.deploy(with_tasks).await;
        for number in 0..agents {
            let agent = FakeAgent::new(node(number).as_str());
            agent.behave(|it| it.address = Some(source(number).address));
            bench.nodes.register(node(number), agent.channel());
            bench.agents.push(agent);
        }
        bench
    }

    async fn deploy(&self, with_tasks: usize) {
        let container = serde_json::json!({ "image": "shop-web", "image_id": image() });
        let spec = serde_json::json!({ "name": "shop", "services": { "web": { "container": container } } });
        let spec: Project = serde_json::from_value(spec).unwrap();
        let template = Template::of(&spec, &spec.services["web"]);
        let service = ServiceName::parse("web").unwrap();
        let mut changes = vec![Change::template(template.clone())];
        for (number, slot) in (0..with_tasks).zip(1..) {
            changes.push(Change::PutTask(Arc::new(Task {
                id: Task::id_for(&spec.name, &service, Slot(slot), Revision(1)),
                project: spec.name.clone(),
                service: service.clone(),
                slot: Slot(slot),
                node: node(number),
                template: template.hash(),
                desired: Desired::Run,
                created_at: Timestamp(1),
                exclusive: None,
            })));
        }
        self.store.commit(Timestamp(1), move |_, _| changes).await.unwrap();
    }

    fn lacks(&self, number: usize, lacks: bool) {
        self.agents[number].behave(|it| {
            it.lacks = lacks.then(image).into_iter().collect();
            if !lacks {
                it.has.insert(image());
            }
        });
    }

    fn has(&self, number: usize) {
        self.agents[number].behave(|it| {
            it.has.insert(image());
        });
    }

    /// Waits until an agent was last told something that `is_so`.
    async fn told(&self, number: usize, what: &str, is_so: impl Fn(&Exchange) -> bool) -> Exchange {
        let mut told = self.agents[number].exchanges();
        let heard = told.wait_for(|all| all.last().is_some_and(&is_so));
        let heard = tokio::time::timeout(Duration::from_secs(60), heard).await;
        let heard = heard.unwrap_or_else(|_| panic!("n{number} never hears {what}")).unwrap();
        heard.last().cloned().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        for running in self.running {
            running.await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_lacks_an_image_hears_who_has_it_and_that_one_hears_who_may_ask() {
    let bench = Bench::new(3, 1).await;
    bench.has(2);
    bench.lacks(0, true);
    let told = bench.told(0, "of a source", |told| !told.sources.is_empty()).await;
    assert_eq!(told.sources[&image()], [source(2)]);
    let readers = bench.agents[2].exchanges().borrow().last().cloned().unwrap().readers;
    assert_eq!(readers, [(image(), [node(0)].into())].into());
    assert!(bench.agents[1].exchanges().borrow().is_empty(), "it is none of its business");

    // Reminded, for it may have begun anew.
    let before = bench.agents[0].exchanges().borrow().len();
    let mut again = bench.agents[0].exchanges();
    again.wait_for(|all| all.len() > before + 1).await.unwrap();

    bench.lacks(0, false);
    for number in [0, 2] {
        bench.told(number, "that it is over", |told| *told == Exchange::default()).await;
    }
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_nowhere_is_said_to_be_and_found_when_it_comes() {
    let bench = Bench::new(2, 1).await;
    bench.lacks(0, true);
    let told = bench.told(0, "anything", |told| told.sources.contains_key(&image())).await;
    assert!(told.sources[&image()].is_empty());
    bench.has(1);
    bench
        .told(0, "of a source", |told| told.sources.get(&image()).is_some_and(|from| *from == [source(1)]))
        .await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_no_task_of_an_image_gets_nothing_however_much_it_lacks_it() {
    let bench = Bench::new(3, 1).await;
    bench.has(2);
    bench.lacks(1, true);
    bench.lacks(0, true);
    bench.told(0, "of a source", |told| !told.sources.is_empty()).await;
    let readers = bench.told(2, "of readers", |told| !told.readers.is_empty()).await.readers;
    assert_eq!(readers[&image()], [node(0)].into());
    assert!(bench.agents[1].exchanges().borrow().is_empty());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_work_is_shared_and_those_that_run_it_are_asked_first() {
    let bench = Bench::new(40, 12).await;
    for number in 0..6 {
        bench.has(number);
    }
    for number in 6..12 {
        bench.lacks(number, true);
    }
    let mut first = BTreeSet::new();
    for number in 6..12 {
        let told = bench.told(number, "of three sources", |told| {
            told.sources.get(&image()).is_some_and(|from| from.len() == ENOUGH)
        });
        first.insert(told.await.sources[&image()][0].node.clone());
    }
    assert!(first.len() >= 3, "all begin with the same: {first:?}");
    let asked = (0..40).filter(|number| !bench.agents[*number].asked().is_empty()).count();
    assert!(asked <= 12 + ASKED, "{asked} of 40 were asked");
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_nothing_is_lacked_nobody_is_asked_or_told_anything() {
    let mut bench = Bench::new(2, 2).await;
    bench.has(0);
    bench.has(1);
    bench.nodes.observed().wait_for(|it| it.nodes.len() == 2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    for agent in std::mem::take(&mut bench.agents) {
        assert!(agent.asked().is_empty() && agent.exchanges().borrow().is_empty());
    }
    bench.end().await;
}
