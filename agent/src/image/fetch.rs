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

/// One image on its way from one node.
struct Transfer<'a> {
    images: &'a Images,
    store: &'a dyn ImageStore,
    image: &'a Digest,
    source: &'a Source,
    client: ImageClient,
    progress: Progress<'a>,
    /// Whether anything has come.
    moved: bool,
}

/// An image that is asked of one node after the other.
struct Hunt<'a> {
    images: &'a Images,
    store: &'a dyn ImageStore,
    image: &'a Digest,
    platform: Option<String>,
    progress: Progress<'a>,
    /// Those that gave what it is not, and what that was: they are asked no more.
    liars: BTreeMap<NodeId, String>,
}

/// What came of asking each node once, when none gave the image.
struct Round {
    /// Whether a part of it came.
    moved: bool,
    /// So many such rounds in which nothing moves are the end.
    most: u32,
    /// Why, node by node.
    reasons: Vec<String>,
}

/// How far the parts are, all together.
struct Meter<'a> {
    done: u64,
    total: u64,
    said: u64,
    node: &'a NodeId,
    progress: Progress<'a>,
}

// === impl Hunt ===

impl Hunt<'_> {
    /// Asks each of `sources`. `None`: the engine has the image.
    async fn round(&mut self, sources: &[Source]) -> Result<Option<Round>, FetchError> {
        let mut round = Round { moved: false, most: FRUITLESS, reasons: Vec::new() };
        for source in sources {
            let node = &source.node;
            if let Some(reason) = self.liars.get(node) {
                round.reasons.push(format!("node {node}: {reason}"));
                continue;
            }
            let transfer = self.images.transfer(self.store, self.image, source, self.progress);
            let mut transfer = transfer.map_err(|trouble| FetchError::Failed(chain(&trouble)))?;
            let Err(trouble) = transfer.run(self.platform.as_deref()).await else { return Ok(None) };
            if trouble.is_ours() {
                return Err(FetchError::Ours { node: node.clone(), source: Box::new(trouble) });
            }
            let reason = chain(&trouble);
            tracing::info!(image = %self.image, %node, reason, "an image does not come");
            round.moved |= transfer.moved;
            if matches!(trouble, Trouble::Busy) {
                round.most = BUSY;
            }
            round.reasons.push(format!("node {node}: {reason}"));
            if trouble.is_a_lie() {
                self.liars.insert(node.clone(), reason);
            }
        }
        Ok(Some(round))
    }
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
        let mut hunt = Hunt { images: self, store, image, platform, progress, liars: BTreeMap::new() };
        let mut fruitless = 0;
        loop {
            if sources.is_empty() {
                return Err(FetchError::Nowhere);
            }
            let Some(Round { moved, most, reasons }) = hunt.round(&sources).await? else { return Ok(()) };
            fruitless = if moved { 0 } else { fruitless + 1 };
            let all_lie = sources.iter().all(|source| hunt.liars.contains_key(&source.node));
            if fruitless >= most || all_lie {
                return Err(FetchError::Failed(reasons.join("; ")));
            }
            if most == BUSY {
                progress("waiting for another node".to_owned());
            }
            if !moved {
                sleep(PAUSE).await;
            }
            // There may be others by now.
            sources = wish.sources().await;
        }
    }

    /// What this engine runs, as `os/arch`.
    async fn platform(&self) -> Option<String> {
        self.runtime.check().await.ok().map(|engine| format!("{}/{}", engine.os, engine.arch))
    }

    fn transfer<'a>(
        &'a self,
        store: &'a dyn ImageStore,
        image: &'a Digest,
        source: &'a Source,
        progress: Progress<'a>,
    ) -> Result<Transfer<'a>, Trouble> {
        let member = self.member.borrow().clone().ok_or(Trouble::Alone)?;
        let name = node_name(&source.node).ok_or(Trouble::Alone)?;
        let config = client_config(&member.authority_pem, Some(&member.credentials));
        let config = config.map_err(|error| Trouble::Lost(TransportError::lost(error)))?;
        let server = TlsServer { addresses: vec![source.address.clone()], name, config };
        let client = ImageClient::new(Channel::tls(server));
        Ok(Transfer { images: self, store, image, source, client, progress, moved: false })
    }
}

// === impl Transfer ===

impl Transfer<'_> {
    async fn run(&mut self, platform: Option<&str>) -> Result<(), Trouble> {
        let shape = in_time(self.client.shape(self.image)).await?;
        if platform.is_some_and(|ours| !shape.platform.is_empty() && shape.platform != ours) {
            return Err(Trouble::Foreign(shape.platform));
        }
        if shape.layers.len() > MOST_LAYERS {
            return Err(Trouble::Wrong);
        }
        let base = common_base(&shape.layers, &self.store.layers().await?);
        match self.bring(&shape, base).await {
            // What lay below has been removed meanwhile, or this engine wants to have all of it.
            Err(Trouble::Engine(error)) if base > 0 && !error.is_engine_down() => {
                tracing::info!(image = %self.image, reason = chain(&error), "taking the whole image");
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
            std::iter::once(self.image).chain(&layers).map(|part| spool.hold(part)).collect();
        self.gather(shape, &layers).await?;
        (self.progress)("into the engine".to_owned());
        let archive = archive::pack(self.image, &shape.layers, base, &spool);
        let archive = futures_util::stream::unfold(archive, async |mut archive| {
            archive.recv().await.map(|piece| (piece, archive))
        });
        self.store.load(archive.boxed()).await?;
        if self.store.shape(self.image).await?.is_none_or(|taken| taken.layers != shape.layers) {
            return Err(Trouble::NotTaken);
        }
        drop(held);
        spool.drop_parts(std::iter::once(self.image).chain(&layers));
        Ok(())
    }

    /// Sees to it that the configuration and `layers` are in the spool.
    async fn gather(&mut self, shape: &Shape, layers: &BTreeSet<Digest>) -> Result<(), Trouble> {
        let spool = &self.images.spool;
        let missing: BTreeSet<Digest> =
            layers.iter().filter(|layer| spool.whole(layer).is_none()).cloned().collect();
        if !missing.is_empty() || spool.whole(self.image).is_none() {
            let parts = self.prepare(&missing).await?;
            let total = parts.iter().fold(0_u64, |total, part| total.saturating_add(part.size.0));
            spool.check_room(Bytes(total))?;
            let mut meter =
                Meter { done: 0, total, said: 0, node: &self.source.node, progress: self.progress };
            meter.say();
            for part in &parts {
                self.part(part, &mut meter).await?;
                if part.digest == *self.image {
                    self.check(shape)?;
                }
            }
        }
        self.check(shape)
    }

    /// The configuration must be of this image and name the layers that the other node has told.
    fn check(&self, shape: &Shape) -> Result<(), Trouble> {
        let config = self.images.spool.read(self.image, LARGEST_CONFIG)?;
        if archive::is_configuration(&config, self.image, &shape.layers) {
            return Ok(());
        }
        Err(Trouble::Wrong)
    }

    /// Has the parts made ready: the configuration and those `layers`.
    async fn prepare(&mut self, layers: &BTreeSet<Digest>) -> Result<Vec<Part>, Trouble> {
        let wanted = PartsWanted { layers: layers.clone() };
        let mut preparations = in_time(self.client.prepare(self.image, &wanted)).await?;
        loop {
            let next = timeout(SILENCE, preparations.try_next()).await.map_err(|_| Trouble::Silent)?;
            match next? {
                Some(Preparation::Going { done }) => {
                    (self.progress)(format!("from node {}, which has prepared {done}", self.source.node));
                }
                Some(Preparation::Ready { mut parts }) => {
                    let told: BTreeSet<&Digest> = parts.iter().map(|part| &part.digest).collect();
                    let asked: BTreeSet<&Digest> = std::iter::once(self.image).chain(layers).collect();
                    let config = parts.iter().position(|part| part.digest == *self.image);
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
            let asked = in_time(self.client.part(self.image, &part.digest, resumed)).await?;
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
            .field("image", self.image)
            .field("source", self.source)
            .finish_non_exhaustive()
    }
}
