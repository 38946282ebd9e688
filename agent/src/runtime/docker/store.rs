//! Images as archives, through the Engine's `save` and `load`.

use std::collections::BTreeMap;

use bollard::query_parameters::{ImportImageOptionsBuilder, ListImagesOptionsBuilder};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;
use tug_api::image::{ImageName, Resolved, Shape};
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

    fn resolve<'a>(&'a self, name: &'a ImageName) -> Answer<'a, Option<Resolved>> {
        Box::pin(async move {
            let here = self.find_image(&name.reference, name.platform.as_deref()).await?;
            let Some(id) = here.and_then(|id| Digest::parse(&id).ok()) else { return Ok(None) };
            let call = self.call(Operation::Image, &name.reference);
            let image = id.to_string();
            let found = call
                .within(deadline::READ, |client| async move { client.inspect_image(&image).await })
                .await?;
            let named = found.repo_digests.unwrap_or_default();
            let digest = named.iter().find_map(|named| {
                let (repository, digest) = named.split_once('@')?;
                Digest::parse(digest)
                    .ok()
                    .filter(|_| repository_of(repository) == repository_of(&name.reference))
            });
            let tagged_at = found.metadata.and_then(|metadata| metadata.last_tag_time);
            let tagged_at = tagged_at.as_deref().and_then(super::inspect::parse_time).unwrap_or_default();
            Ok(Some(Resolved { id: Some(id), digest, tagged_at }))
        })
    }

    fn registry_digest<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Digest>> {
        Box::pin(async move {
            let call = self.call(Operation::Image, reference);
            super::images::check_reference(&call, reference)?;
            let asked = call.within(deadline::REGISTRY, |client| async move {
                client.inspect_registry_image(reference, None).await
            });
            Ok(asked.await?.descriptor.digest.and_then(|digest| Digest::parse(&digest).ok()))
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
        let platform = match (found.os, found.architecture) {
            (Some(os), Some(arch)) => format!("{os}/{arch}"),
            (_, None) | (None, _) => String::new(),
        };
        Ok(layers.ok().map(|layers| Shape { layers, size, platform }))
    }
}

/// The part of an image's name that says where it is from, in its shortest form.
fn repository_of(name: &str) -> &str {
    let name = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        Some(_) | None => name,
    };
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_many_names() {
        for (name, repository) in [
            ("nginx", "nginx"),
            ("nginx:1.27", "nginx"),
            ("docker.io/library/nginx:1.27", "nginx"),
            ("docker.io/me/app", "me/app"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/app:1", "host:5000/app"),
        ] {
            assert_eq!(repository_of(name), repository, "{name}");
        }
    }
}
