//! The real engine: Docker (or what speaks its API, 1.41 and newer) over its Unix socket, through bollard.
//!
//! Each call opens a connection of its own, has its own deadline, and says in its error what was tried on what. The
//! client is made at the first call that finds a socket, so the agent can start before the engine does.

mod call;
mod create;
mod events;
mod exec;
mod images;
mod inspect;
mod lifecycle;
mod lines;
mod list;
mod logs;
mod lost;
mod raw;
mod resources;
mod stats;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use tug_model::quantity::{Bytes, Millis, NanoCpus};
use tug_model::spec::resource::{Network, Volume};
use tug_model::{NetworkName, NodeId, ProjectName, VolumeName};

use super::{
    Answer, Cause, ContainerId, ContainerRequest, EngineEvent, EngineInfo, ExecId, ExecRequest, ExecSession,
    Feed, Found, FoundNetwork, ImageStore, LogLine, LogQuery, Operation, Progress, Runtime, RuntimeError,
    Stats, TerminalSize, deadline,
};

/// The Docker Engine of this machine, for the agent of one node.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    node: NodeId,
    client: OnceLock<bollard::Docker>,
    /// What was learnt by inspecting containers, so that a list needs to look only at those that changed.
    seen: Mutex<BTreeMap<ContainerId, inspect::Seen>>,
    /// Older engines make two networks of one name if they are asked twice at once.
    networks: tokio::sync::Mutex<()>,
    api_version: OnceLock<call::ApiVersion>,
}

// === impl Docker ===

impl Docker {
    /// Where the engine listens unless told otherwise.
    pub const SOCKET: &'static str = "/var/run/docker.sock";

    /// The engine at `socket`, for the containers of `node`. Nothing is asked of it yet.
    pub fn new(socket: &Path, node: NodeId) -> Self {
        Self {
            socket: socket.to_owned(),
            node,
            client: OnceLock::new(),
            seen: Mutex::default(),
            networks: tokio::sync::Mutex::default(),
            api_version: OnceLock::new(),
        }
    }

    async fn ask_everything(&self) -> Result<EngineInfo, RuntimeError> {
        let call = self.call(Operation::Check, self.socket.display());
        call.within(deadline::PING, |client| async move { client.ping().await }).await?;
        let (info, version) = call
            .within(deadline::READ, |client| async move {
                futures_util::future::try_join(client.info(), client.version()).await
            })
            .await
            .map_err(|mut error| {
                if let Cause::Timeout(limit) = error.cause {
                    error.cause = Cause::Hollow(limit);
                }
                error
            })?;
        Ok(EngineInfo {
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            os: version.os.unwrap_or_default(),
            arch: version.arch.unwrap_or_default(),
            cpus: NanoCpus(unsigned(info.ncpu).saturating_mul(1_000_000_000)),
            memory: Bytes(unsigned(info.mem_total)),
            root: PathBuf::from(info.docker_root_dir.unwrap_or_default()),
            keeps_containers: info.live_restore_enabled.unwrap_or_default(),
        })
    }
}

impl Runtime for Docker {
    fn check(&self) -> Answer<'_, EngineInfo> {
        Box::pin(self.ask_everything())
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        Box::pin(self.list_containers())
    }

    fn events(&self) -> Answer<'_, Feed<EngineEvent>> {
        Box::pin(self.open_events())
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId> {
        Box::pin(self.create_container(request))
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(self.start_container(id))
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Millis) -> Answer<'a, ()> {
        Box::pin(self.stop_container(id, grace))
    }

    fn kill<'a>(&'a self, id: &'a ContainerId, signal: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(self.kill_container(id, signal))
    }

    fn unpause<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(self.unpause_container(id))
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(self.remove_container(id))
    }

    fn ensure_network<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a NetworkName,
        network: &'a Network,
    ) -> Answer<'a, ()> {
        Box::pin(self.make_network(project, key, network))
    }

    fn ensure_volume<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a VolumeName,
        volume: &'a Volume,
    ) -> Answer<'a, ()> {
        Box::pin(self.make_volume(project, key, volume))
    }

    fn networks(&self) -> Answer<'_, Vec<FoundNetwork>> {
        Box::pin(self.list_networks())
    }

    fn remove_network<'a>(&'a self, engine_name: &'a str) -> Answer<'a, bool> {
        Box::pin(self.drop_network(engine_name))
    }

    fn image_present<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(self.find_image(reference, None))
    }

    fn image_present_for<'a>(&'a self, reference: &'a str, platform: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(self.find_image(reference, Some(platform)))
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        progress: Progress,
    ) -> Answer<'a, String> {
        Box::pin(self.pull_image(reference, platform, progress))
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        Some(self)
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, query: LogQuery) -> Answer<'a, Feed<LogLine>> {
        Box::pin(self.open_logs(id, query))
    }

    fn exec<'a>(&'a self, id: &'a ContainerId, request: &'a ExecRequest) -> Answer<'a, ExecSession> {
        Box::pin(self.open_exec(id, request))
    }

    fn exec_resize<'a>(&'a self, exec: &'a ExecId, size: TerminalSize) -> Answer<'a, ()> {
        Box::pin(self.resize_exec(exec, size))
    }

    fn exec_exit<'a>(&'a self, exec: &'a ExecId) -> Answer<'a, Option<i64>> {
        Box::pin(self.exit_of_exec(exec))
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Stats> {
        Box::pin(self.measure(id))
    }
}

/// A number as the Engine gives it, where it can only be positive.
fn unsigned(number: Option<i64>) -> u64 {
    number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
}
