//! Images: looking for one, and fetching one with a report of how far it is.

use std::collections::BTreeMap;

use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;
use tug_model::quantity::Bytes;

use super::call::Call;
use super::{Docker, Operation, Progress, RuntimeError, deadline, unsigned};
use crate::runtime::Cause;

// === impl Docker ===

impl Docker {
    pub(super) async fn find_image(
        &self,
        reference: &str,
        platform: Option<&str>,
    ) -> Result<Option<String>, RuntimeError> {
        let call = self.call(Operation::Image, reference);
        check_reference(&call, reference)?;
        let found =
            call.within(deadline::READ, |client| async move { client.inspect_image(reference).await }).await;
        match found {
            Ok(image) if platform.is_some_and(|platform| is_for_another(&image, platform)) => Ok(None),
            Ok(image) => Ok(image.id),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn pull_image(
        &self,
        reference: &str,
        platform: Option<&str>,
        progress: Progress,
    ) -> Result<String, RuntimeError> {
        let call = self.call(Operation::Pull, reference);
        check_reference(&call, reference)?;
        let pull = follow_pull(&call, reference, platform, progress);
        let pulled = tokio::time::timeout(deadline::PULL, Box::pin(pull)).await;
        pulled.unwrap_or_else(|_| {
            let said = format!("it has not come within {} minutes", deadline::PULL.as_secs() / 60);
            Err(call.error(Cause::Failed(said)))
        })?;
        let id = self.find_image(reference, None).await?;
        id.ok_or_else(|| {
            call.error(Cause::Failed("the engine pulled it and does not have it now".to_owned()))
        })
    }
}

async fn follow_pull(
    call: &Call<'_>,
    reference: &str,
    platform: Option<&str>,
    progress: Progress,
) -> Result<(), RuntimeError> {
    let options = CreateImageOptionsBuilder::new().from_image(&with_tag(reference));
    let options = options.platform(platform.unwrap_or_default()).build();
    let client = call.client()?;
    let mut messages = Box::pin(client.create_image(Some(options), None, None));
    let mut layers = Layers::default();
    let mut said = String::new();
    loop {
        let next = tokio::time::timeout(deadline::PULL_SILENCE, messages.try_next()).await;
        let next = next.map_err(|_| call.error(Cause::Stalled(deadline::PULL_SILENCE)))?;
        let Some(message) = next.map_err(|error| call.failed(error))? else { return Ok(()) };
        layers.note(message);
        let text = layers.text();
        if text != said {
            progress(text.clone());
            said = text;
        }
    }
}

/// Whether the image is surely not for `platform`. What either does not say is no difference.
fn is_for_another(image: &ImageInspect, platform: &str) -> bool {
    let mut parts = platform.split('/');
    let (first, second, variant) = (parts.next(), parts.next(), parts.next());
    // One word alone is an architecture, or an operating system that images are made for.
    let (os, arch) = match (first, second) {
        (Some("linux" | "windows"), None) => (first, None),
        (arch, None) => (None, arch),
        (os, arch) => (os, arch),
    };
    let differs = |wanted: Option<&str>, found: &Option<String>| {
        let (wanted, found) = (wanted.unwrap_or_default(), found.as_deref().unwrap_or_default());
        !wanted.is_empty() && !found.is_empty() && plain_arch(wanted) != plain_arch(found)
    };
    differs(os, &image.os) || differs(arch, &image.architecture) || differs(variant, &image.variant)
}

/// The name that images have for an architecture, where people have more than one.
fn plain_arch(word: &str) -> String {
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "i486" | "i586" | "i686" => "386".to_owned(),
        "armhf" | "armel" => "arm".to_owned(),
        _ => word,
    }
}

/// References become part of a path, where they must not lead elsewhere. What they mean is the Engine's to judge.
pub(super) fn check_reference(call: &Call<'_>, reference: &str) -> Result<(), RuntimeError> {
    let known = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/' | b':' | b'@' | b'+')
    };
    let leads_elsewhere = reference.split('/').any(|part| matches!(part, "" | "." | ".."));
    if reference.is_empty() || leads_elsewhere || !reference.bytes().all(known) {
        return Err(call.error(Cause::Refused("this is not the name of an image".to_owned())));
    }
    Ok(())
}

/// The reference with the tag that it means: without one, the Engine would fetch every tag.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains(':') || last.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// How far the layers of an image are.
#[derive(Debug, Default)]
struct Layers {
    /// Received and total, by layer.
    layers: BTreeMap<String, (u64, u64)>,
    /// What the Engine does beside receiving.
    status: String,
}

// === impl Layers ===

impl Layers {
    fn note(&mut self, message: CreateImageInfo) {
        let Some(status) = message.status else { return };
        let Some(id) = message.id else {
            self.status = status;
            return;
        };
        match (status.as_str(), message.progress_detail) {
            ("Downloading", Some(detail)) => {
                self.layers.insert(id, (unsigned(detail.current), unsigned(detail.total)));
            }
            ("Download complete" | "Pull complete" | "Extracting", _) => {
                if let Some((received, total)) = self.layers.get_mut(&id) {
                    *received = *total;
                }
            }
            _ => {}
        }
    }

    fn text(&self) -> String {
        if self.layers.is_empty() {
            return self.status.clone();
        }
        let received = self.layers.values().map(|(received, _)| received).sum();
        let total = self.layers.values().map(|(_, total)| total).sum();
        format!("{} of {}", Bytes(received), Bytes(total))
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;
    use tug_model::NodeId;

    use super::*;

    fn message(id: &str, status: &str, progress: Option<(i64, i64)>) -> CreateImageInfo {
        CreateImageInfo {
            id: (!id.is_empty()).then(|| id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: progress
                .map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) }),
            error_detail: None,
        }
    }

    #[test]
    fn progress_is_summed_over_the_layers() {
        let mut layers = Layers::default();
        layers.note(message("", "Pulling from library/nginx", None));
        assert_eq!(layers.text(), "Pulling from library/nginx");
        layers.note(message("a", "Pulling fs layer", None));
        layers.note(message("a", "Downloading", Some((1 << 20, 4 << 20))));
        layers.note(message("b", "Downloading", Some((1 << 19, 1 << 20))));
        assert_eq!(layers.text(), "1.5 MiB of 5.0 MiB");
        layers.note(message("a", "Download complete", None));
        layers.note(message("b", "Extracting", Some((1, 1 << 20))));
        assert_eq!(layers.text(), "5.0 MiB of 5.0 MiB");
    }

    /// As an engine does whose registry has taken the question and does not answer it.
    #[tokio::test(start_paused = true)]
    async fn a_pull_of_which_nothing_comes_is_given_up_after_two_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let _silent = tokio::net::UnixListener::bind(&path).unwrap();
        let docker = Docker::new(&path, NodeId::parse("n1").unwrap());
        let began = tokio::time::Instant::now();
        let error = docker.pull_image("127.0.0.1:5000/shop/web:1", None, Box::new(drop)).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Stalled(deadline::PULL_SILENCE)), "{error:?}");
        assert_eq!(began.elapsed().as_secs(), 120);
        assert!(!error.is_engine_down(), "it is a registry that hangs");
    }

    #[test]
    fn a_reference_without_a_tag_means_latest() {
        for (given, asked) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("host:5000/nginx", "host:5000/nginx:latest"),
            ("nginx@sha256:ab", "nginx@sha256:ab"),
            ("host:5000/a/b:1@sha256:ab", "host:5000/a/b:1@sha256:ab"),
        ] {
            assert_eq!(with_tag(given), asked);
        }
    }

    #[test]
    fn a_reference_cannot_lead_out_of_its_path() {
        let docker = Docker::new(std::path::Path::new("/none"), NodeId::parse("n1").unwrap());
        let call = docker.call(Operation::Image, "x");
        for bad in ["", "../containers/x", "a/../b", "a//b", "a?b", "a#b", "a b", "a%2fb", "/a"] {
            assert!(check_reference(&call, bad).unwrap_err().is_permanent(), "{bad}");
        }
        for good in ["nginx", "host:5000/a/b:1.2-x_y", "a@sha256:0f", "sha256:0f"] {
            assert!(check_reference(&call, good).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_image_for_another_platform_is_known_by_what_it_says() {
        let image = |os: &str, arch: &str, variant: &str| ImageInspect {
            os: Some(os.to_owned()),
            architecture: Some(arch.to_owned()),
            variant: Some(variant.to_owned()),
            ..ImageInspect::default()
        };
        for (image, platform, is_another) in [
            (image("linux", "amd64", ""), "linux/amd64", false),
            (image("linux", "amd64", ""), "Linux/x86_64", false),
            (image("linux", "amd64", ""), "linux", false),
            (image("linux", "amd64", ""), "amd64", false),
            (image("linux", "amd64", ""), "arm64", true),
            (image("linux", "amd64", ""), "linux/arm64", true),
            (image("linux", "amd64", ""), "windows/amd64", true),
            (image("linux", "arm64", ""), "linux/arm64/v8", false),
            (image("linux", "arm", "v6"), "linux/arm/v7", true),
            (image("linux", "arm", "v7"), "linux/arm", false),
            (ImageInspect::default(), "linux/arm64", false),
        ] {
            assert_eq!(is_for_another(&image, platform), is_another, "{platform} {image:?}");
        }
    }
}
