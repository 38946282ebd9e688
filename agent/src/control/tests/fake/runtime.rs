//! What the agent asks of the drawn engine.

use super::*;

impl Runtime for Engine {
    fn check(&self) -> Answer<'_, EngineInfo> {
        Box::pin(async {
            self.check_up(Operation::Check)?;
            Ok(EngineInfo {
                version: "20.10".to_owned(),
                api_version: "1.41".to_owned(),
                os: "linux".to_owned(),
                arch: "amd64".to_owned(),
                cpus: NanoCpus(2_000_000_000),
                memory: Bytes(1 << 30),
                root: PathBuf::from("/var/lib/docker"),
                keeps_containers: false,
            })
        })
    }

    fn list(&self) -> Answer<'_, Vec<Found>> {
        Box::pin(async {
            self.check_up(Operation::List)?;
            // It says how things stood when it was asked.
            let (listed, takes) = (self.listed(), self.lock().list_takes);
            tokio::time::sleep(takes).await;
            Ok(listed)
        })
    }

    fn events(&self) -> Answer<'_, Feed<EngineEvent>> {
        Box::pin(async {
            self.check_up(Operation::Events)?;
            let (sender, receiver) = mpsc::unbounded_channel();
            self.lock().listeners.push(sender);
            let events = stream::unfold(receiver, async |mut receiver| {
                let event = receiver.recv().await?;
                Some((Ok(event), receiver))
            });
            Ok(events.boxed())
        })
    }

    fn create<'a>(&'a self, request: &'a ContainerRequest) -> Answer<'a, ContainerId> {
        Box::pin(async move {
            self.check_up(Operation::Create)?;
            self.note(format!("create {}", request.identity.task));
            let mut inner = self.lock();
            let name = request.identity.task.to_string();
            if inner.containers.values().any(|container| container.found.name == name) {
                return Err(RuntimeError::new(Operation::Create, name, Cause::Conflict("in use".to_owned())));
            }
            inner.made += 1;
            let id = ContainerId::new(&format!("made{:04}", inner.made));
            let found = Found {
                id: id.clone(),
                name,
                identity: request.identity.clone(),
                state: State::Created,
                health: EngineHealth::None,
                addresses: BTreeMap::new(),
            };
            let behaviour = inner.images.get(&request.template.container.image).copied().unwrap_or_default();
            inner.containers.insert(id.clone(), Container { found, shown: None, behaviour, runs: 0 });
            inner.tell(&id, EventKind::Created);
            Ok(id)
        })
    }

    fn start<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Start)?;
            self.note(format!("start {}", self.lock().containers[id].found.name));
            self.launch(id).await
        })
    }

    fn stop<'a>(&'a self, id: &'a ContainerId, grace: Millis) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Stop)?;
            let (name, is_stubborn) = {
                let inner = self.lock();
                let Some(container) = inner.containers.get(id) else { return Ok(()) };
                (container.found.name.clone(), container.behaviour.is_stubborn)
            };
            self.note(format!("stop {name}"));
            let takes = if is_stubborn { grace.duration() } else { Duration::from_millis(10) };
            tokio::time::sleep(takes).await;
            self.lock().end(id, if is_stubborn { 137 } else { 0 });
            Ok(())
        })
    }

    fn kill<'a>(&'a self, id: &'a ContainerId, _: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Kill)?;
            let name = self.lock().containers.get(id).map(|it| it.found.name.clone());
            self.note(format!("kill {}", name.unwrap_or_default()));
            self.lock().end(id, 137);
            Ok(())
        })
    }

    fn unpause<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut inner = self.lock();
            let now = inner.clock.now();
            inner.containers.get_mut(id).unwrap().found.state = State::Running { started_at: now };
            inner.tell(id, EventKind::Unpaused);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, id: &'a ContainerId) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Remove)?;
            let removed = self.lock().containers.remove(id);
            if let Some(container) = removed {
                self.note(format!("remove {}", container.found.name));
                self.lock().tell(id, EventKind::Removed);
            }
            Ok(())
        })
    }

    fn ensure_network<'a>(
        &'a self,
        project: &'a ProjectName,
        key: &'a NetworkName,
        network: &'a Network,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            self.check_up(Operation::Network)?;
            self.note(format!("network {}", network.engine_name));
            let (engine_name, project, key) = (network.engine_name.clone(), project.clone(), key.clone());
            let found = FoundNetwork { engine_name, project, key };
            let mut inner = self.lock();
            if !inner.networks.contains(&found) {
                inner.networks.push(found);
            }
            Ok(())
        })
    }

    fn ensure_volume<'a>(
        &'a self,
        _: &'a ProjectName,
        _: &'a VolumeName,
        volume: &'a Volume,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            self.note(format!("volume {}", volume.engine_name));
            Ok(())
        })
    }

    fn networks(&self) -> Answer<'_, Vec<FoundNetwork>> {
        Box::pin(async { Ok(self.lock().networks.clone()) })
    }

    fn remove_network<'a>(&'a self, engine_name: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            self.note(format!("remove network {engine_name}"));
            let mut inner = self.lock();
            // A container of somebody else is on it.
            let in_use =
                inner.containers.values().any(|container| container.found.identity.cluster != "home");
            if !in_use {
                inner.networks.retain(|network| network.engine_name != engine_name);
            }
            Ok(!in_use)
        })
    }

    fn image_present<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<String>> {
        Box::pin(async move {
            if let Ok(image) = Digest::parse(reference) {
                return Ok(self.1.has(&image).then(|| reference.to_owned()));
            }
            Ok(self.lock().images.contains_key(reference).then(|| format!("id of {reference}")))
        })
    }

    /// Every image is for amd64.
    fn image_present_for<'a>(&'a self, reference: &'a str, platform: &'a str) -> Answer<'a, Option<String>> {
        if platform == "linux/amd64" {
            return self.image_present(reference);
        }
        Box::pin(std::future::ready(Ok(None)))
    }

    fn pull<'a>(&'a self, reference: &'a str, _: Option<&'a str>, progress: Progress) -> Answer<'a, String> {
        Box::pin(async move {
            self.note(format!("pull {reference}"));
            progress("half".to_owned());
            if reference.contains("silent") {
                tokio::time::sleep(deadline::PULL_SILENCE).await;
                let cause = Cause::Stalled(deadline::PULL_SILENCE);
                return Err(RuntimeError::new(Operation::Pull, reference, cause));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            if reference.contains("missing") {
                return Err(RuntimeError::new(
                    Operation::Pull,
                    reference,
                    Cause::NotFound("no such tag".into()),
                ));
            }
            self.has_image(reference, Behaviour::default());
            Ok(format!("id of {reference}"))
        })
    }

    fn images(&self) -> Option<&dyn ImageStore> {
        Some(&*self.1)
    }

    /// Two lines a run; followed until the run ends.
    fn logs<'a>(&'a self, id: &'a ContainerId, query: LogQuery) -> Answer<'a, Feed<LogLine>> {
        Box::pin(async move {
            let (at, run, cuts) = {
                let mut inner = self.lock();
                inner.logs_opened += 1;
                let container = inner.containers.get(id);
                let at = match container.map(|container| &container.found.state) {
                    Some(State::Running { started_at }) => *started_at,
                    Some(_) | None => inner.clock.now(),
                };
                (at, container.map_or(0, |container| container.runs), inner.cuts)
            };
            let line = |text: &'static str| {
                Ok(LogLine { stream: Stream::Stderr, at, text: bytes::Bytes::from_static(text.as_bytes()) })
            };
            let written = query.since.is_none_or(|since| since <= at);
            let lines = written.then(|| stream::iter([line("starting"), line("panic: no luck")]));
            let lines = stream::iter(lines).flatten();
            let (engine, id) = (self.clone(), id.clone());
            let end = async move {
                let runs = |engine: &Self| {
                    let inner = engine.lock();
                    inner.containers.get(&id).is_some_and(|container| {
                        inner.cuts == cuts
                            && container.runs == run
                            && matches!(container.found.state, State::Running { .. })
                    })
                };
                while query.follow && runs(&engine) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                None::<Result<LogLine, RuntimeError>>
            };
            Ok(lines.chain(stream::once(end).filter_map(std::future::ready)).boxed())
        })
    }

    /// A command that writes what it reads, and ends with its input.
    fn exec<'a>(&'a self, id: &'a ContainerId, request: &'a ExecRequest) -> Answer<'a, ExecSession> {
        Box::pin(async move {
            if request.command.first().is_none_or(|program| program != "cat") {
                let cause = Cause::Refused("no such program".to_owned());
                return Err(RuntimeError::new(Operation::Exec, id.as_str(), cause));
            }
            // Smaller than what the test writes: the command stops reading until it has been read.
            let (ours, theirs) = tokio::io::duplex(1024);
            let output = stream::unfold(ours, async |mut reader| {
                let mut bytes = bytes::BytesMut::new();
                let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut bytes).await.unwrap();
                let output = Output { stream: Stream::Stdout, bytes: bytes.freeze() };
                (read > 0).then_some((Ok(output), reader))
            });
            Ok(ExecSession { id: ExecId::new("e1"), output: output.boxed(), input: Box::pin(theirs) })
        })
    }

    fn exec_resize<'a>(&'a self, _: &'a ExecId, _: TerminalSize) -> Answer<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn exec_exit<'a>(&'a self, _: &'a ExecId) -> Answer<'a, Option<i64>> {
        Box::pin(std::future::ready(Ok(Some(7))))
    }

    /// Half a processor, always.
    fn stats<'a>(&'a self, _: &'a ContainerId) -> Answer<'a, Stats> {
        let passed = self.lock().began.elapsed().as_nanos();
        let stats = Stats { cpu_nanos: u64::try_from(passed / 2).unwrap(), ..Stats::default() };
        Box::pin(std::future::ready(Ok(stats)))
    }
}
