//! Getting an image from another node, part by part, as often as it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use tokio::time::{sleep, timeout};
use tug_api::client::CallError;
use tug_api::error::{Code, chain};
use tug_api::image::{ImageClient, Part, PartsWanted, Preparation, Shape, Source};
use tug_api::lines::LineError;
use tug_api::tls::{client_config, node_name};
use tug_api::transport::{Channel, TlsServer, TransportError};
use tug_model::{Bytes, Digest, NodeId};

use super::Images;
use super::archive::{self, LARGEST_CONFIG};
use super::spool::{Hold, SpoolError};
use crate::runtime::{ImageStore, RuntimeError};

/// How long the control plane has to say who has an image.
const ANSWER: Duration = Duration::from_secs(20);
/// The same where a registry may have it.
const SOON: Duration = Duration::from_secs(5);
/// How long another agent may be silent.
const SILENCE: Duration = Duration::from_secs(15);
/// The wait before all sources are tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// So often in a row they are, though nothing came: from one that is busy more often than from one that fails.
const FRUITLESS: u32 = 3;
const BUSY: u32 = 120;
/// The most layers of an image. Docker takes 127.
const MOST_LAYERS: usize = 1_000;

/// Why an image is not had from other nodes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The engine cannot share images.
    #[error("this engine cannot take images from other nodes")]
    Unable,
    /// Nobody has said who has it.
    #[error("the control plane has not said within {} s which node has it", .0.as_secs())]
    NoAnswer(Duration),
    /// It is nowhere.
    #[error("no node has it: build it, or `docker load` it on a node")]
    Nowhere,
    /// Those that have it do not give it.
    #[error("{0}")]
    Failed(String),
    /// It came, and this node has no use for it.
    #[error("take it from node {node}")]
    Ours {
        /// Whom it came from.
        node: NodeId,
        /// Why.
        #[source]
        source: Box<Trouble>,
    },
}

/// What went wrong between two nodes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("this node is in no cluster yet")]
    Alone,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the connection was lost")]
    Lost(#[source] TransportError),
    #[error("it is busy")]
    Busy,
    #[error("{0}")]
    Theirs(String),
    #[error("what it has is for {0}")]
    Foreign(String),
    #[error("what it sent is not the image")]
    Wrong,
    #[error("what came from several nodes does not fit together")]
    Mixed,
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Engine(#[from] RuntimeError),
    #[error("the engine took it and does not have it now")]
    NotTaken,
    #[error("work on the disk was broken off")]
    Ended,
}

/// Where else an image may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// Nowhere.
    Nothing,
    /// From a registry, which may have it for other platforms, too.
    Registry,
}

/// Told how far it is, for people.
pub(crate) type Progress<'a> = &'a (dyn Fn(String) + Send + Sync);

/// What comes, and where to.
struct Way<'a> {
    store: &'a dyn ImageStore,
    image: &'a Digest,
    /// What it must be for; `None`: whatever it is for.
    platform: Option<String>,
    progress: Progress<'a>,
}

/// What came of asking every source once.
#[derive(Debug, Default)]
struct Round {
    /// Something has come.
    moved: bool,
    /// One of them has too much to do.
    is_busy: bool,
    reasons: Vec<String>,
}

/// One image on its way from one node.
struct Transfer<'a> {
    images: &'a Images,
    way: &'a Way<'a>,
    source: &'a Source,
    client: ImageClient,
    /// Whether anything has come.
    moved: bool,
}

/// How far the parts are, all together.
struct Meter<'a> {
    done: u64,
    total: u64,
    said: u64,
    node: &'a NodeId,
    progress: Progress<'a>,
}

// === impl Images ===

impl Images {
    /// Sees to it that the engine has `image`, which other nodes may have.
    pub(crate) async fn fetch(
        &self,
        image: &Digest,
        otherwise: Otherwise,
        progress: Progress<'_>,
    ) -> Result<(), FetchError> {
        let Some(store) = self.store() else { return Err(FetchError::Unable) };
        let (patience, platform) = match otherwise {
            Otherwise::Nothing => (ANSWER, None),
            Otherwise::Registry => (SOON, self.platform().await),
        };
        let mut wish = self.exchange.want(image);
        progress("from another node".to_owned());
        let mut sources =
            timeout(patience, wish.sources()).await.map_err(|_| FetchError::NoAnswer(patience))?;
        let _turn = self.incoming.acquire().await.map_err(|_| FetchError::Unable)?;
        let way = Way { store, image, platform, progress };
        let (mut fruitless, mut liars) = (0, BTreeMap::new());
        loop {
            if sources.is_empty() {
                return Err(FetchError::Nowhere);
            }
            let Some(round) = self.ask_all(&way, &sources, &mut liars).await? else { return Ok(()) };
            fruitless = if round.moved { 0 } else { fruitless + 1 };
            let all_lie = sources.iter().all(|source| liars.contains_key(&source.node));
            if fruitless >= if round.is_busy { BUSY } else { FRUITLESS } || all_lie {
                return Err(FetchError::Failed(round.reasons.join("; ")));
            }
            if round.is_busy {
                progress("waiting for another node".to_owned());
            }
            if !round.moved {
                sleep(PAUSE).await;
            }
            // There may be others by now.
            sources = wish.sources().await;
        }
    }

    /// Asks one after the other, but for those that lied before. `None`: the image is here.
    async fn ask_all(
        &self,
        way: &Way<'_>,
        sources: &[Source],
        liars: &mut BTreeMap<NodeId, String>,
    ) -> Result<Option<Round>, FetchError> {
        let mut round = Round::default();
        for source in sources {
            let node = &source.node;
            if let Some(reason) = liars.get(node) {
                round.reasons.push(format!("node {node}: {reason}"));
                continue;
            }
            let transfer = self.transfer(way, source);
            let mut transfer = transfer.map_err(|trouble| FetchError::Failed(chain(&trouble)))?;
            let trouble = match transfer.run().await {
                Ok(()) => return Ok(None),
                Err(trouble) if trouble.is_ours() => {
                    return Err(FetchError::Ours { node: node.clone(), source: Box::new(trouble) });
                }
                Err(trouble) => trouble,
            };
            let reason = chain(&trouble);
            tracing::info!(image = %way.image, %node, reason, "an image does not come");
            round.moved |= transfer.moved;
            round.is_busy |= matches!(trouble, Trouble::Busy);
            if trouble.is_a_lie() {
                liars.insert(node.clone(), reason.clone());
            }
            round.reasons.push(format!("node {node}: {reason}"));
        }
        Ok(Some(round))
    }

    /// What this engine runs, as `os/arch`.
    async fn platform(&self) -> Option<String> {
        self.runtime.check().await.ok().map(|engine| format!("{}/{}", engine.os, engine.arch))
    }

    fn transfer<'a>(&'a self, way: &'a Way<'a>, source: &'a Source) -> Result<Transfer<'a>, Trouble> {
        let member = self.member.borrow().clone().ok_or(Trouble::Alone)?;
        let name = node_name(&source.node).ok_or(Trouble::Alone)?;
        let config = client_config(&member.authority_pem, Some(&member.credentials));
        let config = config.map_err(|error| Trouble::Lost(TransportError::lost(error)))?;
        let server = TlsServer { addresses: vec![source.address.clone()], name, config };
        let client = ImageClient::new(Channel::tls(server));
        Ok(Transfer { images: self, way, source, client, moved: false })
    }
}

// === impl Transfer ===

impl Transfer<'_> {
    async fn run(&mut self) -> Result<(), Trouble> {
        let shape = in_time(self.client.shape(self.way.image)).await?;
        if self
            .way
            .platform
            .as_ref()
            .is_some_and(|ours| !shape.platform.is_empty() && shape.platform != *ours)
        {
            return Err(Trouble::Foreign(shape.platform));
        }
        if shape.layers.len() > MOST_LAYERS {
            return Err(Trouble::Wrong);
        }
        let base = common_base(&shape.layers, &self.way.store.layers().await?);
        match self.bring(&shape, base).await {
            // What lay below has been removed meanwhile, or this engine wants to have all of it.
            Err(Trouble::Engine(error)) if base > 0 && !error.is_engine_down() => {
                tracing::info!(image = %self.way.image, reason = chain(&error), "taking the whole image");
                self.bring(&shape, 0).await
            }
            brought => brought,
        }
    }

    /// Has the engine take the image, with the layers from `base` on.
    async fn bring(&mut self, shape: &Shape, base: usize) -> Result<(), Trouble> {
        let spool = Arc::clone(&self.images.spool);
        let layers: BTreeSet<Digest> = shape.layers.iter().skip(base).cloned().collect();
        let held: Vec<Hold> =
            std::iter::once(self.way.image).chain(&layers).map(|part| spool.hold(part)).collect();
        self.gather(shape, &layers).await?;
        (self.way.progress)("into the engine".to_owned());
        let archive = archive::pack(self.way.image, &shape.layers, base, &spool);
        let archive = futures_util::stream::unfold(archive, async |mut archive| {
            archive.recv().await.map(|piece| (piece, archive))
        });
        self.way.store.load(archive.boxed()).await?;
        if self.way.store.shape(self.way.image).await?.is_none_or(|taken| taken.layers != shape.layers) {
            return Err(Trouble::NotTaken);
        }
        drop(held);
        spool.drop_parts(std::iter::once(self.way.image).chain(&layers));
        Ok(())
    }

    /// Sees to it that the configuration and `layers` are in the spool.
    async fn gather(&mut self, shape: &Shape, layers: &BTreeSet<Digest>) -> Result<(), Trouble> {
        let spool = &self.images.spool;
        let missing: BTreeSet<Digest> =
            layers.iter().filter(|layer| spool.whole(layer).is_none()).cloned().collect();
        if !missing.is_empty() || spool.whole(self.way.image).is_none() {
            let parts = self.prepare(&missing).await?;
            let total = parts.iter().fold(0_u64, |total, part| total.saturating_add(part.size.0));
            spool.check_room(Bytes(total))?;
            let mut meter =
                Meter { done: 0, total, said: 0, node: &self.source.node, progress: self.way.progress };
            meter.say();
            for part in &parts {
                self.part(part, &mut meter).await?;
                if part.digest == *self.way.image {
                    self.check(shape)?;
                }
            }
        }
        self.check(shape)
    }

    /// The configuration must be of this image and name the layers that the other node has told.
    fn check(&self, shape: &Shape) -> Result<(), Trouble> {
        let config = self.images.spool.read(self.way.image, LARGEST_CONFIG)?;
        if archive::is_configuration(&config, self.way.image, &shape.layers) {
            return Ok(());
        }
        Err(Trouble::Wrong)
    }

    /// Has the parts made ready: the configuration and those `layers`.
    async fn prepare(&mut self, layers: &BTreeSet<Digest>) -> Result<Vec<Part>, Trouble> {
        let wanted = PartsWanted { layers: layers.clone() };
        let mut preparations = in_time(self.client.prepare(self.way.image, &wanted)).await?;
        loop {
            let next = timeout(SILENCE, preparations.try_next()).await.map_err(|_| Trouble::Silent)?;
            match next? {
                Some(Preparation::Going { done }) => {
                    (self.way.progress)(format!("from node {}, which has prepared {done}", self.source.node));
                }
                Some(Preparation::Ready { mut parts }) => {
                    let told: BTreeSet<&Digest> = parts.iter().map(|part| &part.digest).collect();
                    let asked: BTreeSet<&Digest> = std::iter::once(self.way.image).chain(layers).collect();
                    let config = parts.iter().position(|part| part.digest == *self.way.image);
                    let Some(config) = config.filter(|_| told == asked && parts.len() == asked.len()) else {
                        return Err(Trouble::Wrong);
                    };
                    // It says whether the rest is worth asking for.
                    parts.swap(0, config);
                    if parts.first().is_some_and(|config| config.size.0 > LARGEST_CONFIG) {
                        return Err(Trouble::Wrong);
                    }
                    return Ok(parts);
                }
                Some(Preparation::Failed { reason }) => return Err(Trouble::Theirs(reason)),
                None => return Err(Trouble::Lost(TransportError::lost("it ended in the middle"))),
            }
        }
    }

    /// Brings one part, from where it broke off last.
    async fn part(&mut self, part: &Part, meter: &mut Meter<'_>) -> Result<(), Trouble> {
        let spool = &self.images.spool;
        // Another image may have the same layer, and bring it meanwhile.
        let _pen = spool.pen(&part.digest).await;
        if spool.whole(&part.digest).is_some() {
            meter.add(part.size.0);
            return Ok(());
        }
        let (from, digest) = (Arc::clone(spool), part.digest.clone());
        let mut draft = blocking(move || from.resume(&digest)).await??;
        if draft.written() > part.size.0 {
            draft.forget()?;
            return Err(Trouble::Wrong);
        }
        let resumed = draft.written();
        meter.add(resumed);
        if resumed < part.size.0 {
            let asked = in_time(self.client.part(self.way.image, &part.digest, resumed)).await?;
            let mut body = asked.into_body();
            loop {
                let frame = timeout(SILENCE, body.frame()).await.map_err(|_| Trouble::Silent)?;
                let Some(frame) = frame else { break };
                let frame = frame.map_err(|error| Trouble::Lost(TransportError::lost(error)))?;
                let Ok(data) = frame.into_data() else { continue };
                if draft.written() + data.len() as u64 > part.size.0 {
                    draft.forget()?;
                    return Err(Trouble::Wrong);
                }
                draft = blocking(move || draft.write(&data).map(|()| (draft, data.len()))).await?.map(
                    |(draft, came)| {
                        meter.add(came as u64);
                        draft
                    },
                )?;
                self.moved = true;
            }
        }
        if draft.written() < part.size.0 {
            return Err(Trouble::Lost(TransportError::lost("a part ended in the middle")));
        }
        match blocking(move || draft.finish()).await? {
            Err(SpoolError::Wrong { .. }) if resumed > 0 => {
                // Whose fault it is cannot be known: the next try begins anew.
                self.moved = false;
                Err(Trouble::Mixed)
            }
            finished => Ok(finished?),
        }
    }
}

/// How many of `layers` lie at the bottom of an image that is here.
fn common_base(layers: &[Digest], here: &[Vec<Digest>]) -> usize {
    let common = |other: &Vec<Digest>| layers.iter().zip(other).take_while(|(a, b)| a == b).count();
    here.iter().map(common).max().unwrap_or(0)
}

/// The answer of another agent, if it comes in time.
async fn in_time<T>(asked: impl Future<Output = Result<T, CallError>>) -> Result<T, Trouble> {
    match timeout(SILENCE, asked).await {
        Err(_) => Err(Trouble::Silent),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError::Api(error))) if matches!(error.code, Code::TooMany | Code::Forbidden) => {
            // Its own word from the control plane may be on the way.
            Err(Trouble::Busy)
        }
        Ok(Err(error)) => Err(error.into()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Trouble> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Trouble::Ended)
}

// === impl Trouble ===

impl Trouble {
    /// Whether it would be the same with any other node.
    fn is_ours(&self) -> bool {
        match self {
            Self::Alone | Self::Engine(_) | Self::NotTaken | Self::Ended => true,
            Self::Spool(error) => !error.is_theirs(),
            Self::Call(_)
            | Self::Line(_)
            | Self::Silent
            | Self::Lost(_)
            | Self::Busy
            | Self::Theirs(_)
            | Self::Mixed
            | Self::Foreign(_)
            | Self::Wrong => false,
        }
    }

    /// Whether the other node is not worth another try.
    fn is_a_lie(&self) -> bool {
        matches!(self, Self::Wrong | Self::Foreign(_) | Self::Spool(SpoolError::Wrong { .. }))
    }
}

// === impl Meter ===

impl Meter<'_> {
    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        // A hundredth, or a mebibyte: more often nobody wants to know.
        if self.done - self.said >= (self.total / 100).max(1 << 20) || self.done == self.total {
            self.say();
        }
    }

    fn say(&mut self) {
        self.said = self.done;
        (self.progress)(format!("{} of {} from node {}", Bytes(self.done), Bytes(self.total), self.node));
    }
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("image", self.way.image)
            .field("source", self.source)
            .finish_non_exhaustive()
    }
}
