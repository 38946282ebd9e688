//! Images as archives, through the Engine's `save` and `load`.

use std::collections::BTreeMap;

use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use tug_api::image::Shape;
use tug_model::Digest;

use super::{Docker, Operation, RuntimeError, deadline, unsigned};

use crate::runtime::{Answer, Archive, Cause, Feed, ImageStore};

/// So many images are looked at beside each other.
const LOOKS: usize = 8;

impl ImageStore for Docker {
    fn shape<'a>(&'a self, image: &'a Digest) -> Answer<'a, Option<Shape>> {
        Box::pin(self.shape_of(image.as_str()))
    }

    fn layers(&self) -> Answer<'_, Vec<Vec<Digest>>> {
        Box::pin(async move {
            let call = self.call(Operation::Image, "any");
            let options = ListImagesOptionsBuilder::new().build();
            let listed =
                call.within(deadline::READ, |client| async move { client.list_images(Some(options)).await });
            let ids: BTreeMap<String, ()> = listed.await?.into_iter().map(|image| (image.id, ())).collect();
            let shapes = stream::iter(ids.into_keys())
                .map(|id| async move { self.shape_of(&id).await })
                .buffer_unordered(LOOKS);
            // One that was removed meanwhile, or is kept in another way, is no help.
            shapes
                .try_filter_map(|shape| async move { Ok(shape.map(|shape| shape.layers)) })
                .try_collect()
                .await
        })
    }

    fn export<'a>(&'a self, image: &'a Digest) -> Answer<'a, Feed<Bytes>> {
        Box::pin(async move {
            let call = self.call(Operation::Export, image);
            let pieces = call.client()?.export_image(image.as_str());
            let (failure, id) = (call.failure(), image.to_string());
            let late = move || {
                RuntimeError::new(Operation::Export, id.clone(), Cause::Timeout(deadline::EXPORT_SILENCE))
            };
            let feed = stream::unfold(Some((Box::pin(pieces), failure, late)), async |state| {
                let (mut pieces, failure, late) = state?;
                match timeout(deadline::EXPORT_SILENCE, pieces.next()).await {
                    Ok(Some(Ok(piece))) => Some((Ok(piece), Some((pieces, failure, late)))),
                    Ok(Some(Err(error))) => Some((Err(failure(error)), None)),
                    Ok(None) => None,
                    Err(_) => Some((Err(late()), None)),
                }
            });
            Ok(feed.boxed())
        })
    }

    fn load(&self, archive: Archive) -> Answer<'_, ()> {
        Box::pin(async move {
            let call = self.call(Operation::Load, "from another node");
            let client = call.client()?;
            let options = ImportImageOptionsBuilder::new().quiet(true).build();
            let mut messages = Box::pin(client.import_image_stream(options, archive, None));
            let loading = async {
                while let Some(message) = messages.try_next().await.map_err(|error| call.failed(error))? {
                    tracing::trace!(?message, "the engine takes an image");
                }
                Ok(())
            };
            let loaded = timeout(deadline::PULL, loading).await;
            loaded.unwrap_or_else(|_| Err(call.error(Cause::Timeout(deadline::PULL))))
        })
    }
}

// === impl Docker ===

impl Docker {
    async fn shape_of(&self, image: &str) -> Result<Option<Shape>, RuntimeError> {
        let call = self.call(Operation::Image, image);
        let id = image.to_owned();
        let looked =
            call.within(deadline::READ, |client| async move { client.inspect_image(&id).await }).await;
        let found = match looked {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let layers = found.root_fs.and_then(|root| root.layers).unwrap_or_default();
        let layers: Result<Vec<Digest>, _> = layers.iter().map(|layer| Digest::parse(layer)).collect();
        let size = tug_model::Bytes(unsigned(found.size));
        Ok(layers.ok().map(|layers| Shape { layers, size }))
    }
}
