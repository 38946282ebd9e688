//! `tug dev`: control plane and node in this process, for one project, until Ctrl-C; then nothing is left but volumes.
//!
//! The state is kept in a folder of the project's own in the user's state folder while it runs. After a clean end the
//! folder goes. After a crash it is still there, and so the next `tug dev` of the same project is the same cluster
//! and the same node: it adopts the containers that were left running, and removes them at its own end. Where the folder
//! was lost but containers were not, they belong to a node of the same name and another cluster: they are removed first,
//! because nobody else ever will.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tug_agent::Server;
use tug_agent::proxy::StopKind;
use tug_agent::runtime::{Identity, Runtime};
use tug_api::client::Client;
use tug_api::transport::Channel;
use tug_api::user::LogQuery;
use tug_model::spec::Project;
use tug_model::spec::service::{PortMode, Protocol};
use tug_model::{Millis, NodeId, ProjectName};

use super::node::{Node, NodePlan, engine_socket};
use super::orchestrator::Plane;
use crate::arguments::{DevArguments, Format, LogFormat};
use crate::build;
use crate::commands::{apply, logs, settle};
use crate::context::{Context, Interrupt, Surroundings, guard};
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::render::log::{LogLines, LogStyle};
use crate::render::style::{self, paint};
use crate::watch::judge::Goal;
use crate::watch::{Ended, Wait, repeat, wait};

/// Only what is wrong is logged between the lines of the containers.
const USUAL: &str = "warn";
/// How long the control plane may take to answer at the start.
const START: Duration = Duration::from_secs(30);
/// How long the node may take to join before the deployment begins all the same.
const JOIN: Duration = Duration::from_secs(10);
/// How long the end may take beyond the grace that the containers have.
const END: Duration = Duration::from_secs(60);
/// How often something is looked at that says nothing by itself.
const LOOK: Duration = Duration::from_millis(50);

/// Everything that runs in this process.
struct House {
    folder: PathBuf,
    runtime: Arc<dyn Runtime>,
    agent: JoinHandle<()>,
    agent_stop: CancellationToken,
    plane: JoinHandle<Result<(), Failure>>,
    plane_stop: CancellationToken,
}

/// Runs the project until the user has enough of it.
pub(crate) async fn run(context: &mut Context, arguments: &DevArguments) -> Result<(), Failure> {
    super::log::init(&arguments.log, USUAL, Some(LogFormat::Text))?;
    let mut manifest = manifest::require(&arguments.manifest(), &context.surroundings, &mut context.screen)?;
    let docker = engine_socket(&arguments.engine.docker)?;
    let interrupt = context.interrupt.clone();
    tokio::select! {
        biased;
        () = interrupt.asked() => return Err(interrupt.failure("")),
        built = build::images(context, &mut manifest, &arguments.engine.docker) => built?,
    }
    let project = manifest.request.spec.name.clone();
    let folder = folder(&context.surroundings, &project)?;
    let house = House::open(context, &project, folder, docker).await?;
    let lived = live(context, &manifest).await;
    // From here on another Ctrl-C ends the process at once.
    let asked = context.interrupt.is_asked();
    context.interrupt = Interrupt::new();
    let ended = house.close(context, &manifest.request.spec).await;
    match lived {
        Err(_) if asked => ended,
        Err(failure) => ended.and(Err(failure)),
        Ok(()) => ended,
    }
}

/// Deploys, says where it is to be found, and follows the logs. Ends on Ctrl-C, which is a success.
async fn live(context: &mut Context, manifest: &Manifest) -> Result<(), Failure> {
    let interrupt = context.interrupt.clone();
    let project = manifest.request.spec.name.clone();
    let follow = async {
        let Some(accepted) = apply::deploy(context, manifest, true).await? else { return Ok(()) };
        let waiting = Wait::for_change(&project, &accepted, Duration::from_secs(300));
        match wait(context, &waiting).await? {
            Ended::Reached => {
                context.screen.note(&format!("{} {project} is healthy", paint(style::GOOD, "✓")));
            }
            Ended::Failed(status) | Ended::TimedOut(Some(status)) => settle::explain(context, &status).await,
            Ended::TimedOut(None) | Ended::Vanished | Ended::Returned | Ended::Interrupted => {}
        }
        for address in addresses(&manifest.request.spec) {
            context.screen.note(&format!("  {address}"));
        }
        context.screen.note(&paint(style::DIM, "Ctrl-C removes everything but the volumes"));
        let query = LogQuery { names: project.to_string(), follow: true, ..LogQuery::default() };
        let widest = manifest.request.spec.services.keys().map(|name| name.as_str().len() + 2).max();
        let lines = LogLines::new(LogStyle::default(), widest.unwrap_or(0));
        logs::show(context, (query, &logs::Wanted::default()), lines, Format::Table).await
    };
    tokio::select! {
        biased;
        () = interrupt.asked() => Ok(()),
        ended = Box::pin(follow) => ended,
    }
}

// === impl House ===

impl House {
    /// Starts control plane and node, and waits until they answer.
    async fn open(
        context: &mut Context,
        project: &ProjectName,
        folder: PathBuf,
        docker: PathBuf,
    ) -> Result<Self, Failure> {
        let socket = folder.join("tug.sock");
        let is_left = folder.join("agent").exists();
        let plane_stop = CancellationToken::new();
        let plane = Plane::new(&folder, &socket, context.clock);
        let mut plane = tokio::spawn(Box::pin(plane.serve(plane_stop.clone())));
        context.client = Client::new(Channel::unix(&socket));
        let cluster = tokio::select! {
            biased;
            ended = &mut plane => return Err(ended_early(ended)),
            cluster = answered(&context.client, &socket) => cluster?,
        };
        if is_left {
            context.screen.note(&format!("taking over what an earlier `tug dev` of {project} left behind"));
        }
        let node = NodePlan {
            state_dir: folder.clone(),
            id: Some(node_id(project)?),
            labels: BTreeMap::new(),
            docker,
            server: Server::Socket(socket.clone()),
            peer: None,
            at_stop: StopKind::Release,
        };
        let Node { agent, runtime } = node.open(context.clock).await?;
        remove_orphans(context, runtime.as_ref(), project, &cluster).await?;
        let agent_stop = CancellationToken::new();
        let agent = tokio::spawn(Box::pin(agent.run(agent_stop.clone())));
        joined(&context.client).await?;
        let shown = socket.display();
        context.screen.note(&paint(style::DIM, format_args!("elsewhere: tug --socket {shown} ps")));
        Ok(Self { folder, runtime, agent, agent_stop, plane, plane_stop })
    }

    /// Removes the project and stops everything.
    async fn close(self, context: &mut Context, project: &Project) -> Result<(), Failure> {
        let removed = self.remove(context, project).await;
        self.agent_stop.cancel();
        let agent = self.agent.await.map_err(|error| Failure::caused("stop the node", &error));
        self.plane_stop.cancel();
        let plane = self.plane.await.map_err(|error| Failure::caused("stop the control plane", &error));
        removed?;
        agent?;
        plane??;
        fs::remove_dir_all(&self.folder)
            .map_err(|error| Failure::caused(&format!("remove {}", self.folder.display()), &error))?;
        let volumes = project.volumes.values().filter(|volume| !volume.external);
        let names: Vec<&str> = volumes.map(|volume| volume.engine_name.as_str()).collect();
        if !names.is_empty() {
            context.screen.note(&format!("volumes stay: {}", names.join(", ")));
        }
        Ok(())
    }

    async fn remove(&self, context: &mut Context, project: &Project) -> Result<(), Failure> {
        let name = &project.name;
        context.screen.note(&format!("removing {name} (Ctrl-C gives up)"));
        let guard = guard(None)?;
        let client = &context.client;
        match repeat(async || client.remove(name, &guard).await).await {
            Ok(accepted) => {
                let longest = project.services.values().map(|one| one.container.stop_grace_period.0).max();
                let timeout = END + longest.unwrap_or(Millis(0)).duration() * 2;
                let since = accepted.revision;
                let gone = Wait { project: name.clone(), since, goal: Goal::Gone(since), timeout };
                match wait(context, &gone).await? {
                    Ended::Reached => {}
                    Ended::Returned => {
                        return Err(Failure::new(format!("{name} was applied again while it was removed")));
                    }
                    Ended::Failed(_) | Ended::TimedOut(_) | Ended::Vanished | Ended::Interrupted => {
                        let within = Millis::from(timeout);
                        return Err(Failure::new(format!("{name} is not gone after {within}")));
                    }
                }
            }
            Err(tug_api::client::CallError::Api(error)) if error.code == tug_api::Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        self.networks_gone(name).await
    }

    /// Waits until the agent has removed the project's networks too, which it does after the last container.
    async fn networks_gone(&self, project: &ProjectName) -> Result<(), Failure> {
        let deadline = Instant::now() + END;
        loop {
            let networks = self.runtime.networks().await;
            let networks = networks.map_err(|error| Failure::caused("list the networks", &error))?;
            let left: Vec<String> = networks
                .into_iter()
                .filter(|network| network.project == *project)
                .map(|network| network.engine_name)
                .collect();
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("networks are still there: {}", left.join(", ")))
                    .hint("a container of somebody else may use them: `docker network inspect` shows it"));
            }
            sleep(LOOK).await;
        }
    }
}

/// Removes the containers of this node and project that another cluster left: the state of an earlier run was lost.
async fn remove_orphans(
    context: &mut Context,
    runtime: &dyn Runtime,
    project: &ProjectName,
    cluster: &str,
) -> Result<(), Failure> {
    let failed = |error| Failure::caused("look for what an earlier run left behind", &error);
    let found = runtime.list().await.map_err(|error| failed(error).hint(build::HOW_TO_GET_DOCKER))?;
    let is_orphan = |one: &Identity| one.cluster != cluster && one.project == *project;
    for orphan in found.iter().filter(|one| is_orphan(&one.identity)) {
        context.screen.note(&format!("removing {}, left behind by an earlier run", orphan.identity.task));
        runtime.remove(&orphan.id).await.map_err(failed)?;
    }
    Ok(())
}

/// Waits until the control plane of this process answers; gives the cluster's id. Until ours has bound the socket,
/// another `tug dev` of the project may still listen there.
async fn answered(client: &Client, socket: &Path) -> Result<String, Failure> {
    let deadline = Instant::now() + START;
    loop {
        let failure = match is_served_here(socket).await {
            Ok(true) => match client.info().await {
                Ok(info) => return Ok(info.cluster),
                Err(error) => error.into(),
            },
            Ok(false) => Failure::new(format!("another process serves {}", socket.display()))
                .hint("is another `tug dev` of the same project running?"),
            Err(error) => Failure::caused(&format!("reach {}", socket.display()), &error),
        };
        if Instant::now() > deadline {
            return Err(failure);
        }
        sleep(LOOK).await;
    }
}

/// Whether it is this process that listens on `socket`.
async fn is_served_here(socket: &Path) -> io::Result<bool> {
    let listener = UnixStream::connect(socket).await?.peer_cred()?;
    Ok(listener.pid() == Some(rustix::process::getpid().as_raw_pid()))
}

/// Waits until the node has said what it is, so that the first plan can place something. A node whose Engine does not
/// answer says nothing; the deployment then tells why it waits.
async fn joined(client: &Client) -> Result<(), Failure> {
    let deadline = Instant::now() + JOIN;
    while Instant::now() < deadline && !client.nodes().await?.iter().any(|node| node.last_report.is_some()) {
        sleep(LOOK).await;
    }
    Ok(())
}

fn ended_early(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure.hint("is another `tug dev` of the same project running?"),
        Ok(Ok(())) => Failure::new("the control plane ended"),
        Err(error) => Failure::caused("start the control plane", &error),
    }
}

/// The project's folder, which only its user may enter.
fn folder(surroundings: &Surroundings, project: &ProjectName) -> Result<PathBuf, Failure> {
    let folder = state_home(surroundings).join("tug/dev").join(project.as_str());
    let failed = |error: io::Error| Failure::caused(&format!("make {}", folder.display()), &error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    Ok(folder)
}

/// Where the user's programs keep their state: what survives a reboot, unlike the temporary folder.
fn state_home(surroundings: &Surroundings) -> PathBuf {
    let variable =
        |name: &str| surroundings.environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| temporary(rustix::process::geteuid().as_raw()))
}

fn temporary(user: u32) -> PathBuf {
    std::env::temp_dir().join(format!("tug-{user}"))
}

/// The node of this user's `tug dev` of this project. It is never that of a real agent on the same machine, so neither
/// sees the other's containers.
fn node_id(project: &ProjectName) -> Result<NodeId, Failure> {
    node_id_for(rustix::process::geteuid().as_raw(), project)
}

fn node_id_for(user: u32, project: &ProjectName) -> Result<NodeId, Failure> {
    const LONGEST: usize = 63;
    // A node's name has fewer characters to choose from than a project's, and is cut: the number keeps apart what
    // would look the same.
    let number = format!("-{:08x}", fingerprint(project.as_str()));
    let name = format!("dev-{user}-{project}").replace('_', "-");
    let name: String = name.chars().take(LONGEST - number.len()).collect();
    let text = format!("{}{number}", name.trim_end_matches('-'));
    NodeId::parse(&text).map_err(|error| Failure::new(error.to_string()))
}

/// FNV-1a of `text` in 32 bits: the same in every version of Tug, which the hashes of the standard library need not be.
fn fingerprint(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Where the project's published ports are to be found.
fn addresses(project: &Project) -> Vec<String> {
    let mut addresses = Vec::new();
    for (name, service) in &project.services {
        for port in &service.ports {
            let Some(published) = port.published else { continue };
            let host = match port.host_ip {
                Some(address) if !address.is_unspecified() && address.is_ipv6() => format!("[{address}]"),
                Some(address) if !address.is_unspecified() => address.to_string(),
                _ => "localhost".to_owned(),
            };
            let scheme = match (port.protocol, port.app_protocol.as_deref()) {
                (Protocol::Udp, _) => "udp",
                (Protocol::Tcp, Some("https")) => "https",
                (Protocol::Tcp, Some("http" | "h2c" | "http2")) => "http",
                (Protocol::Tcp, _) if looks_like_http(port.target) => "http",
                (Protocol::Tcp, _) => "tcp",
            };
            let balanced = if port.mode == PortMode::Host { "" } else { ", balanced" };
            addresses.push(format!(
                "{name}  {scheme}://{host}:{published}  (container port {}{balanced})",
                port.target
            ));
        }
    }
    addresses
}

fn looks_like_http(port: u16) -> bool {
    matches!(port, 80 | 3000 | 5000 | 8000 | 8008 | 8080 | 8081 | 8888 | 9000)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tug_model::spec::service::Port;

    use super::*;

    #[test]
    fn the_state_is_where_a_user_s_programs_keep_it() {
        let home = |pairs: &[(&str, &str)]| {
            let environment = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            state_home(&Surroundings { environment, ..Surroundings::default() })
        };
        assert_eq!(home(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")]), Path::new("/s"));
        assert_eq!(home(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "x")]), Path::new("/home/a/.local/state"));
        assert!(home(&[]).starts_with(std::env::temp_dir()));
    }

    #[test]
    fn every_project_of_every_user_has_a_node_of_its_own() {
        let node =
            |user, name: &str| node_id_for(user, &ProjectName::parse(name).unwrap()).unwrap().to_string();
        assert_eq!(node(1000, "my_shop"), "dev-1000-my-shop-d79c13f8");
        assert_ne!(node(1000, "my_shop"), node(1000, "my-shop"));
        assert_ne!(node(1000, "shop"), node(0, "shop"));
        let (long, longer) = ("x".repeat(62), "x".repeat(63));
        assert_eq!(node(0, &longer).len(), 63);
        assert_ne!(node(0, &long), node(0, &longer));
        let cut_at_a_dash = format!("{}_{}", "x".repeat(47), "y".repeat(10));
        assert!(node(0, &cut_at_a_dash).starts_with(&format!("dev-0-{}-", "x".repeat(47))));
    }

    #[test]
    fn fingerprints_never_change() {
        assert_eq!(fingerprint(""), 0x811c_9dc5);
        assert_eq!(fingerprint("a"), 0xe40c_292c);
        assert_eq!(fingerprint("foobar"), 0xbf9c_f968);
    }

    #[tokio::test]
    async fn only_our_own_control_plane_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let ours = folder.path().join("ours.sock");
        assert!(is_served_here(&ours).await.is_err(), "nobody listens");
        let _listener = UnixListener::bind(&ours).unwrap();
        assert!(is_served_here(&ours).await.unwrap());
    }

    #[test]
    fn the_folder_is_the_user_s_alone() {
        let home = tempfile::tempdir().unwrap();
        let environment = [("XDG_STATE_HOME".to_owned(), home.path().display().to_string())].into();
        let surroundings = Surroundings { environment, ..Surroundings::default() };
        let folder = folder(&surroundings, &ProjectName::parse("shop").unwrap()).unwrap();
        assert_eq!(folder, home.path().join("tug/dev/shop"));
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn addresses_can_be_opened() {
        let port = |target, published, host_ip: Option<&str>| Port {
            target,
            published: Some(published),
            host_ip: host_ip.map(|address| address.parse().unwrap()),
            protocol: Protocol::Tcp,
            mode: PortMode::Ingress,
            app_protocol: None,
        };
        let text = "{\"name\":\"shop\",\"services\":{\"web\":{\"container\":{\"image\":\"web\"}}}}";
        let mut project: Project = serde_json::from_str(text).unwrap();
        let web = project.services.values_mut().next().unwrap();
        web.ports =
            vec![port(80, 8080, None), port(5432, 5432, Some("127.0.0.1")), port(80, 81, Some("::1"))];
        insta::assert_snapshot!(addresses(&project).join("\n"), @r"
        web  http://localhost:8080  (container port 80, balanced)
        web  tcp://127.0.0.1:5432  (container port 5432, balanced)
        web  http://[::1]:81  (container port 80, balanced)
        ");
    }
}
