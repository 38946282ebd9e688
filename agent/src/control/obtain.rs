//! Getting hold of an image: it is here, or another node has it, or a registry.

use tug_api::error::chain;
use tug_model::Digest;
use tug_model::spec::container::PullPolicy;

use super::work::{Note, Tools};
use crate::image::{FetchError, Otherwise};
use crate::plan::{ImageWanted, Orders};
use crate::runtime::RuntimeError;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("image `{name}` comes from no other node ({elsewhere}) and cannot be pulled")]
    NotPulled {
        name: String,
        elsewhere: String,
        #[source]
        source: RuntimeError,
    },
    #[error("image `{0}` is not on this node, and its pull policy is `never`")]
    Absent(String),
    #[error("image `{0}` is not on this node for platform `{1}`, and its pull policy is `never`")]
    AbsentFor(String, String),
    #[error("image `{name}` ({}) is not on this node", image.short())]
    NotHad {
        name: String,
        image: Digest,
        #[source]
        source: FetchError,
    },
}

/// The id of an image, from this node, another one or a registry.
pub(super) async fn image(
    tools: &Tools,
    orders: &Orders,
    wanted: &ImageWanted,
) -> Result<String, ImageError> {
    // An id names one image only, which is for whatever platform it was built for.
    let pinned = Digest::parse(&wanted.reference).ok();
    let platform = wanted.platform.as_deref().filter(|_| pinned.is_none());
    let here = match (wanted.policy, platform) {
        (PullPolicy::Always, _) => None,
        (PullPolicy::Missing | PullPolicy::Never, None) => {
            tools.runtime.image_present(&wanted.reference).await?
        }
        (PullPolicy::Missing | PullPolicy::Never, Some(platform)) => {
            tools.runtime.image_present_for(&wanted.reference, platform).await?
        }
    };
    if let Some(id) = here {
        return Ok(id);
    }
    let meant = wanted.pin.as_deref().and_then(|pin| Digest::parse(pin).ok());
    if let Some(meant) = &meant
        && let Some(id) = tools.runtime.image_present(meant.as_str()).await?
    {
        return Ok(id);
    }
    let (notes, image) = (tools.notes.clone(), wanted.clone());
    let progress = Box::new(move |text: String| {
        // Nobody listens any more when the agent stops.
        let _ = notes.send(Note::Progress(image.clone(), text));
    });
    let has_registry = pinned.is_none() && wanted.policy != PullPolicy::Never;
    let otherwise = if has_registry { Otherwise::Registry } else { Otherwise::Nothing };
    let mut tried = None;
    if let Some(image) = pinned.or(meant) {
        match tools.images.fetch(&image, otherwise, &*progress).await {
            Ok(()) => return Ok(image.to_string()),
            Err(error) if has_registry => tried = Some(chain(&error)),
            Err(source) => {
                let name = orders.image_name(image.as_str()).unwrap_or(&wanted.reference).to_owned();
                return Err(ImageError::NotHad { name, image, source });
            }
        }
    }
    if wanted.policy == PullPolicy::Never {
        let reference = wanted.reference.clone();
        return Err(match platform {
            Some(platform) => ImageError::AbsentFor(reference, platform.to_owned()),
            None => ImageError::Absent(reference),
        });
    }
    progress(String::from("from the registry"));
    let pulled = tools.runtime.pull(&wanted.reference, wanted.platform.as_deref(), progress).await;
    pulled.map_err(|source| match tried {
        Some(elsewhere) => ImageError::NotPulled { name: wanted.reference.clone(), elsewhere, source },
        None => source.into(),
    })
}
