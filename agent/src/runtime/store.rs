//! The second half of the seam to the container engine: images as archives, so that they can be given to another node.

use std::fmt;
use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tug_api::image::{ImageName, Resolved, Shape};
use tug_model::Digest;

use super::{Answer, Feed};

/// An archive on its way to the engine.
pub type Archive = BoxStream<'static, io::Result<Bytes>>;

/// An engine that gives images away and takes them.
pub trait ImageStore: fmt::Debug + Send + Sync + 'static {
    /// What an image is made of; `None`: it is not here.
    fn shape<'a>(&'a self, image: &'a Digest) -> Answer<'a, Option<Shape>>;

    /// The layers of each image that is here, the lowest first.
    fn layers(&self) -> Answer<'_, Vec<Vec<Digest>>>;

    /// What a name means here; `None`: nothing, or something for another platform.
    fn resolve<'a>(&'a self, name: &'a ImageName) -> Answer<'a, Option<Resolved>>;

    /// What its registry has under a name now.
    fn registry_digest<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Digest>>;

    /// A tar archive that has, under whatever names, the configuration and all layers of an image. It may take minutes to
    /// begin.
    fn export<'a>(&'a self, image: &'a Digest) -> Answer<'a, Feed<Bytes>>;

    /// Takes an archive in the format of `docker save`. Layers may be missing from it that lie in the same place of an
    /// image that is here, with the same below them. The engine checks every layer against the configuration.
    fn load(&self, archive: Archive) -> Answer<'_, ()>;
}
