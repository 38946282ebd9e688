//! The fake engine behind the agent's seam.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tug_agent::runtime::{
    Answer, Cause, ContainerId, ContainerRequest, EngineEvent, EngineInfo, EventKind, ExecId, ExecRequest,
    ExecSession, Feed, Found, FoundNetwork, LogLine, LogQuery, Operation, Progress, Runtime, RuntimeError,
    Stats, Stream, TerminalSize, deadline,
};
use tug_model::spec::resource::{Network, Volume};
use tug_model::{Bytes, Millis, NanoCpus, NetworkName, ProjectName, VolumeName};

use super::container::{Behaviour, Container, Process};
use super::{Engine, Shared};

/// How long a removal takes that is already in progress.
const REMOVAL: Duration = Duration::from_secs(4);

impl Engine {
    /// One call: takes its time, may fail, may take effect and lose its reply.
    async fn call<T>(
        &self,
        operation: Operation,
        object: &str,
        effect: impl FnOnce(&mut Shared) -> Result<T, Cause>,
    ) -> Result<T, RuntimeError> {
        let error = |cause| RuntimeError::new(operation, object, cause);
        tokio::time::sleep(self.delay(operation)).await;
        let patience = patience(operation);
        if self.lock().faults.hung {
            tokio::time::sleep(patience).await;
            return Err(error(Cause::Timeout(patience)));
        }
        let (done, answers) = self.take_effect(operation, effect);
        if !answers {
            // The caller will be dead before its patience ends.
            tokio::time::sleep(patience).await;
            return Err(error(Cause::Timeout(patience)));
        }
        done.map_err(error)
    }

    /// The effect of a call at once, and whether it is answered at all.
    fn take_effect<T>(
        &self,
        operation: Operation,
        effect: impl FnOnce(&mut Shared) -> Result<T, Cause>,
    ) -> (Result<T, Cause>, bool) {
        let mut shared = self.lock();
        shared.sweep();
        let faults = shared.faults;
        if faults.down {
            return (Err(Cause::Connection("the engine is down".into())), true);
        }
        let changes = !matches!(operation, Operation::Check | Operation::List | Operation::Events);
        if changes && shared.happens(faults.failing) {
            return (Err(Cause::Failed("out of luck".into())), true);
        }
        let done = effect(&mut shared);
        if done.is_ok() && shared.is_trapped(operation) {
            return (done, false);
        }
        if done.is_ok() && changes && shared.happens(faults.lost_replies) {
            return (Err(Cause::Timeout(Duration::from_secs(30))), true);
        }
        (done, true)
    }

    fn delay(&self, operation: Operation) -> Duration {
        let usual = match operation {
            Operation::Create | Operation::Start => 150,
            Operation::Pull => 800,
            Operation::Remove => 60,
            Operation::List => 10,
            Operation::Check
            | Operation::Events
            | Operation::Stop
            | Operation::Kill
            | Operation::Unpause
            | Operation::Network
            | Operation::Volume
            | Operation::Image
            | Operation::Export
            | Operation::Load
            | Operation::Logs
            | Operation::Exec
            | Operation::Stats => 3,
        };
        let mut shared = self.lock();
        let slowness = u64::try_from(shared.faults.slowness.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(usual + shared.dice.u64(0..=slowness))
    }

    /// A call on one container of ours.
    async fn on<T>(
        &self,
        operation: Operation,
        id: &ContainerId,
        effect: impl FnOnce(&mut Container) -> T,
    ) -> Result<T, RuntimeError> {
        self.call(operation, id.as_str(), |shared| {
            let container =
                shared.containers.get_mut(id).ok_or_else(|| Cause::NotFound("no such container".into()))?;
            if container.identity.is_none() {
                shared.trespasses += 1;
                return Err(Cause::Foreign(container.name.clone()));
            }
            Ok(effect(container))
        })
        .await
    }

    /// A container that somebody wants removed goes, at once or later.
    fn take_away(&self, id: &ContainerId, ended: bool) -> Result<(), RuntimeError> {
        let slowly = {
            let mut shared = self.lock();
            if ended {
                shared.note_end(id);
            }
            let often = shared.faults.slow_removals;
            let slowly = shared.happens(often);
            if let Some(container) = shared.containers.get_mut(id).filter(|_| slowly) {
                container.gone_at.get_or_insert_with(|| Instant::now() + REMOVAL);
            } else {
                shared.containers.remove(id);
            }
            slowly
        };
        if slowly {
            let cause = Cause::Conflict("the removal is already in progress".into());
            return Err(RuntimeError::new(Operation::Remove, id.as_str(), cause));
        }
        self.emit(id, EventKind::Removed);
        Ok(())
    }

    fn live(&self, id: &ContainerId, start: u64, behaviour: Behaviour) {
        let Some((time, code)) = behaviour.life() else { return };
        let (engine, id) = (self.clone(), id.clone());
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            let same = engine.lock().containers.get(&id).is_some_and(|container| container.starts == start);
            if same {
                engine.end(&id, code);
            }
        });
    }
}

/// How long the agent's own runtime waits for an answer.
fn patience(operation: Operation) -> Duration {
    match operation {
        Operation::Check => deadline::PING,
        Operation::List | Operation::Events | Operation::Image | Operation::Logs | Operation::Stats => {
            deadline::READ
        }
        Operation::Create | Operation::Network | Operation::Volume => deadline::CREATE,
        Operation::Pull | Operation::Export | Operation::Load => deadline::PULL_SILENCE,
        Operation::Start
        | Operation::Stop
        | Operation::Kill
        | Operation::Unpause
        | Operation::Remove
        | Operation::Exec => deadline::START,
    }
}

fn boxed<'a, T>(future: impl Future<Output = Result<T, RuntimeError>> + Send + 'a) -> Answer<'a, T> {
    Box::pin(future)
}

impl Runtime for Engine {
    fn check(&self) -> Answer<'_, EngineInfo> {
        boxed(self.call(Operation::Check, "fake", |_| {
            Ok(EngineInfo {
                version: "0.0.0".into(),
                api_version: "1.41".into(),
                os: "linux".into(),
                arch: "amd64".into(),
                cpus: NanoCpus(64_000_000_000),
                memory: Bytes(256 << 30),
                root: PathBuf::from("/var/lib/docker"),
                keeps_containers: true,
            })
        }))
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        boxed(self.call(Operation::List, self.node.as_str(), |shared| {
            let mut found: Vec<Found> = shared.containers.values().filter_map(Container::found).collect();
            found.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(found)
        }))
    }

    fn events(&self) -> Answer<'_, Feed<EngineEvent>> {
        boxed(async {
            self.call(Operation::Events, self.node.as_str(), |_| Ok(())).await?;
            let receiver = self.events.subscribe();
            let feed = stream::unfold(receiver, async |mut receiver| {
                loop {
                    match receiver.recv().await {
                        Ok(event) => return Some((Ok(event), receiver)),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return None,
                    }
                }
            });
            Ok(feed.boxed())
        })
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId> {
        boxed(async move {
            let name = request.identity.task.as_str();
            let id = self
                .call(Operation::Create, name, |shared| {
                    if let Some(same) = shared.containers.values().find(|container| container.name == name) {
                        return match &same.identity {
                            Some(identity) if *identity == request.identity => Ok(same.id.clone()),
                            _ => Err(Cause::Foreign(name.to_owned())),
                        };
                    }
                    let id = shared.next_id();
                    let container = Container {
                        id: id.clone(),
                        name: name.to_owned(),
                        identity: Some(request.identity.clone()),
                        template: Some(request.template.clone()),
                        process: Process::New,
                        starts: 0,
                        started: None,
                        confirmed: true,
                        gone_at: None,
                    };
                    shared.containers.insert(id.clone(), container);
                    Ok(id)
                })
                .await?;
            self.emit(&id, EventKind::Created);
            Ok(id)
        })
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        boxed(async move {
            let now = self.now();
            let mut begun = None;
            let answer = self
                .on(Operation::Start, id, |container| {
                    if !container.is_running() {
                        container.begin(now);
                        begun = Some((container.starts, container.behaviour()));
                    }
                })
                .await;
            self.witness(id);
            // The process lives even if the reply is lost.
            if let Some((start, behaviour)) = begun {
                if let Some(container) = self.lock().containers.get_mut(id) {
                    container.confirmed = answer.is_ok();
                }
                self.live(id, start, behaviour);
                self.emit(id, EventKind::Started);
            }
            answer
        })
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Millis) -> Answer<'a, ()> {
        let is_stubborn =
            |container: &Container| container.is_running() && container.behaviour() == Behaviour::Stubborn;
        boxed(async move {
            if self.lock().containers.get(id).is_some_and(is_stubborn) {
                let clock = self.clock();
                let end = Millis(clock.uptime().0.saturating_add(grace.0));
                tokio::time::sleep_until(clock.when_up_for(end)).await;
            }
            self.kill(id, Some("SIGTERM")).await
        })
    }

    fn kill<'a>(&'a self, id: &'a ContainerId, _signal: Option<&'a str>) -> Answer<'a, ()> {
        boxed(async move {
            let now = self.now();
            let mut ended = false;
            let answer = self.on(Operation::Stop, id, |container| ended = container.end(143, now)).await;
            self.witness(id);
            // It has ended even if the reply is lost.
            if ended {
                self.lock().note_end(id);
                self.emit(id, EventKind::Died);
            }
            match answer {
                Err(error) if error.is_not_found() => Ok(()),
                answer => answer,
            }
        })
    }

    fn unpause<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        boxed(self.on(Operation::Unpause, id, |_| ()))
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        boxed(async move {
            let now = self.now();
            let mut asked = None;
            let answer =
                self.on(Operation::Remove, id, |container| asked = Some(container.end(137, now))).await;
            self.witness(id);
            if let Some(ended) = asked {
                self.take_away(id, ended)?;
            }
            match answer {
                Err(error) if error.is_not_found() => Ok(()),
                answer => answer,
            }
        })
    }

    fn ensure_network<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a NetworkName,
        network: &'a Network,
    ) -> Answer<'a, ()> {
        boxed(self.call(Operation::Network, &network.engine_name, |shared| {
            let engine_name = network.engine_name.clone();
            let found =
                FoundNetwork { engine_name: engine_name.clone(), project: project.clone(), key: key.clone() };
            shared.networks.insert(engine_name, found);
            Ok(())
        }))
    }

    fn ensure_volume<'a>(
        &'a self,
        _project: &'a ProjectName,
        _key: &'a VolumeName,
        volume: &'a Volume,
    ) -> Answer<'a, ()> {
        boxed(self.call(Operation::Volume, &volume.engine_name, |shared| {
            shared.volumes.insert(volume.engine_name.clone());
            Ok(())
        }))
    }

    fn networks(&self) -> Answer<'_, Vec<FoundNetwork>> {
        boxed(self.call(Operation::Network, "all", |shared| Ok(shared.networks.values().cloned().collect())))
    }

    fn remove_network<'a>(&'a self, engine_name: &'a str) -> Answer<'a, bool> {
        boxed(self.call(Operation::Network, engine_name, |shared| {
            shared.networks.remove(engine_name);
            Ok(true)
        }))
    }

    fn image_present<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<String>> {
        boxed(self.call(Operation::Image, reference, |shared| {
            Ok(shared.images.contains(reference).then(|| reference.to_owned()))
        }))
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        _platform: Option<&'a str>,
        progress: Progress,
    ) -> Answer<'a, String> {
        boxed(async move {
            progress("1.0 MiB of 2.0 MiB".into());
            self.call(Operation::Pull, reference, |shared| {
                if Behaviour::of(reference) == Behaviour::Missing {
                    return Err(Cause::NotFound("manifest unknown".into()));
                }
                shared.images.insert(reference.to_owned());
                Ok(reference.to_owned())
            })
            .await
        })
    }

    fn logs<'a>(&'a self, id: &'a ContainerId, _query: LogQuery) -> Answer<'a, Feed<LogLine>> {
        boxed(async move {
            let at = self.now();
            self.on(Operation::Logs, id, |_| ()).await?;
            let line = LogLine { stream: Stream::Stdout, at, text: "hello".into() };
            Ok(stream::iter([Ok(line)]).boxed())
        })
    }

    fn exec<'a>(&'a self, id: &'a ContainerId, _request: &'a ExecRequest) -> Answer<'a, ExecSession> {
        boxed(async move {
            self.on(Operation::Exec, id, |_| ()).await?;
            let input = Box::pin(tokio::io::sink());
            Ok(ExecSession { id: ExecId::new("exec"), output: stream::empty().boxed(), input })
        })
    }

    fn exec_resize<'a>(&'a self, _exec: &'a ExecId, _size: TerminalSize) -> Answer<'a, ()> {
        boxed(async { Ok(()) })
    }

    fn exec_exit<'a>(&'a self, _exec: &'a ExecId) -> Answer<'a, Option<i64>> {
        boxed(async { Ok(Some(0)) })
    }

    fn stats<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, Stats> {
        boxed(self.on(Operation::Stats, id, |_| Stats::default()))
    }
}
