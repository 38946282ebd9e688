//! What each test stands on: a node of its own on the real engine, and away with everything at the end.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use tokio::sync::OnceCell;
use tug_agent::runtime::docker::Docker;
use tug_agent::runtime::{ContainerId, ContainerRequest, Found, Identity, Runtime, State, label};
use tug_model::assignment::Resources;
use tug_model::quantity::Slot;
use tug_model::spec::container::Container;
use tug_model::spec::service::Restart;
use tug_model::task::Template;
use tug_model::{NodeId, ProjectName, ServiceName, TaskId};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One test's corner of the engine.
pub(crate) struct Scope {
    pub(crate) docker: Docker,
    pub(crate) node: NodeId,
    pub(crate) project: ProjectName,
    pub(crate) image: String,
}

impl Scope {
    /// A corner for the test called `name`.
    pub(crate) async fn new(name: &str) -> Self {
        let node = NodeId::parse(&format!("test-{name}-{}", std::process::id())).unwrap();
        let project = ProjectName::parse(node.as_str()).unwrap();
        let docker = Docker::new(&crate::image::socket(), node.clone());
        if let Err(error) = docker.check().await {
            panic!("these tests need a Docker Engine (`sudo apt-get install docker.io`): {error:?}");
        }
        Self { docker, node, project, image: image().await }
    }

    /// A container of this test's node that serves, unless `change` says otherwise.
    pub(crate) fn request(&self, change: impl FnOnce(&mut Template)) -> ContainerRequest {
        self.request_for("web", Resources::default(), change)
    }

    pub(crate) fn request_for(
        &self,
        service: &str,
        resources: Resources,
        change: impl FnOnce(&mut Template),
    ) -> ContainerRequest {
        let mut template = Template {
            container: Container { image: "hello".to_owned(), ..Container::default() },
            restart: Restart::default(),
            probe: None,
            host_ports: Vec::new(),
            exposed: vec![8080],
            exclusive: false,
            restarts_asked: 0,
            needs: tug_model::task::Needs::default(),
        };
        change(&mut template);
        let identity = Identity {
            cluster: "cluster".to_owned(),
            node: self.node.clone(),
            task: TaskId::parse(&format!("{}.{service}.1.1", self.project)).unwrap(),
            project: self.project.clone(),
            service: ServiceName::parse(service).unwrap(),
            slot: Slot(1),
            template: template.hash(),
            fencing: None,
        };
        ContainerRequest {
            identity,
            template: Arc::new(template),
            resources: Arc::new(resources),
            config_files: BTreeMap::new(),
            image: self.image.clone(),
        }
    }

    /// A running container with this command.
    pub(crate) async fn run(&self, command: &[&str]) -> ContainerId {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        let request = self.request(|template| template.container.command = Some(command));
        self.docker.run(&request).await.unwrap()
    }

    /// The only container of this node.
    pub(crate) async fn only(&self) -> Found {
        let mut found = self.docker.list().await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// The only container of this node, as soon as it is as `wanted`.
    pub(crate) async fn wait(&self, wanted: impl Fn(&Found) -> bool) -> Found {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = self.only().await;
            if wanted(&found) {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "still {found:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn wait_for_exit(&self) -> (i64, bool) {
        let found = self.wait(|found| matches!(found.state, State::Exited { .. })).await;
        let State::Exited { code, out_of_memory, .. } = found.state else { unreachable!("{found:?}") };
        (code, out_of_memory)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let label = format!("{}={}", label::NODE, self.node);
        let clean = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remove_all(&label));
        };
        let _ = std::thread::spawn(clean).join();
    }
}

async fn remove_all(label: &str) {
    let engine = engine();
    let filters = HashMap::from([("label", vec![label])]);
    let containers = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    for container in engine.list_containers(Some(containers)).await.unwrap() {
        let _ = engine.remove_container(&container.id.unwrap(), Some(force.clone())).await;
    }
    let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for network in engine.list_networks(Some(networks)).await.unwrap() {
        let _ = engine.remove_network(&network.name.unwrap()).await;
    }
    let volumes = ListVolumesOptionsBuilder::new().filters(&filters).build();
    for volume in engine.list_volumes(Some(volumes)).await.unwrap().volumes.unwrap_or_default() {
        let _ = engine.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await;
    }
}

/// The engine past the runtime: for what others do to it.
pub(crate) fn engine() -> bollard::Docker {
    bollard::Docker::connect_with_unix(
        &crate::image::socket().to_string_lossy(),
        60,
        bollard::API_DEFAULT_VERSION,
    )
    .unwrap()
}

/// The id of the image that all tests run.
async fn image() -> String {
    static IMAGE: OnceCell<String> = OnceCell::const_new();
    IMAGE.get_or_init(|| crate::image::hello_image("tug-tests-hello:runtime")).await.clone()
}

/// The answer to `GET path` on the port inside the container, tried until the server accepts.
pub(crate) async fn get(address: IpAddr, path: &str) -> String {
    get_at(SocketAddr::from((address, 8080)), path).await
}

pub(crate) async fn get_at(address: SocketAddr, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let ask = move || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        // No more requests: the server closes after its answer.
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        // An empty one is the engine's own proxy, which accepts before the container does.
        match stream.read_to_string(&mut answer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => std::io::Result::Ok(answer),
        }
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::task::spawn_blocking(ask.clone()).await.unwrap() {
            Ok(answer) => return answer,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
