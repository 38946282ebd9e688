//! A store of images in memory that keeps Docker's rules: what `docker save` writes, what `docker load` takes.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tug_api::digest::digest_of;
use tug_api::image::{ImageName, Resolved, Shape};
use tug_model::Digest;

use crate::runtime::{Answer, Archive, Cause, Feed, ImageStore, Operation, RuntimeError};

#[derive(Debug, Default)]
pub(crate) struct Store(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    images: BTreeMap<Digest, Image>,
    names: BTreeMap<String, Digest>,
    /// The layers that each archive had which was taken.
    loads: Vec<Vec<Digest>>,
    exports: usize,
    takes_only_whole: bool,
}

/// An image: its configuration and its layers, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl Image {
    pub(crate) fn of(name: &str, layers: &[&[u8]]) -> Self {
        let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.to_vec()).collect();
        let digests: Vec<Digest> = layers.iter().map(|layer| digest_of(layer)).collect();
        let config = json!({ "name": name, "rootfs": { "type": "layers", "diff_ids": digests } });
        Self { config: serde_json::to_vec(&config).unwrap(), layers }
    }

    pub(crate) fn id(&self) -> Digest {
        digest_of(&self.config)
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| digest_of(layer)).collect()
    }

    pub(crate) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.len() as u64).sum()
    }

    /// As Docker up to 24 saves it: folders of made-up names, a link for a layer that is there twice, the list last.
    pub(crate) fn saved(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        append(&mut tar, &format!("{}.json", self.id().hex()), &self.config);
        let (mut first, mut listed) = (BTreeMap::new(), Vec::new());
        for (number, layer) in self.layers.iter().enumerate() {
            let folder = digest_of(format!("{number} of {}", self.id()).as_bytes()).hex().to_owned();
            append(&mut tar, &format!("{folder}/VERSION"), b"1.0");
            append(&mut tar, &format!("{folder}/json"), b"{}");
            let path = format!("{folder}/layer.tar");
            match first.get(layer) {
                None => append(&mut tar, &path, layer),
                Some(other) => {
                    let mut header = tar::Header::new_gnu();
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, &path, format!("../{other}")).unwrap();
                }
            }
            first.entry(layer.clone()).or_insert_with(|| path.clone());
            listed.push(path);
        }
        let manifest = json!([{ "Config": format!("{}.json", self.id().hex()), "Layers": listed }]);
        append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
        tar.into_inner().unwrap()
    }
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, path, content).unwrap();
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(crate) fn put(&self, image: &Image) {
        self.lock().images.insert(image.id(), image.clone());
    }

    pub(crate) fn tag(&self, name: &str, image: &Image) {
        self.lock().names.insert(name.to_owned(), image.id());
    }

    pub(crate) fn has(&self, image: &Digest) -> bool {
        self.lock().images.contains_key(image)
    }

    pub(crate) fn get(&self, image: &Digest) -> Option<Image> {
        self.lock().images.get(image).cloned()
    }

    pub(crate) fn loads(&self) -> Vec<Vec<Digest>> {
        self.lock().loads.clone()
    }

    pub(crate) fn exports(&self) -> usize {
        self.lock().exports
    }

    /// As engines do that keep images in another way.
    pub(crate) fn take_only_whole(&self) {
        self.lock().takes_only_whole = true;
    }

    fn take(&self, archive: &[u8]) -> Result<(), String> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().map_err(|error| error.to_string())? {
            let mut entry = entry.map_err(|error| error.to_string())?;
            let path = entry.path().map_err(|error| error.to_string())?.to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(|error| error.to_string())?;
            files.insert(path, content);
        }
        let file = |path: &str| files.get(path).cloned().ok_or_else(|| format!("no file {path}"));
        let manifest: serde_json::Value =
            serde_json::from_slice(&file("manifest.json")?).map_err(|error| error.to_string())?;
        let config = file(manifest[0]["Config"].as_str().unwrap_or_default())?;
        let wanted = super::archive::layers_of(&config).map_err(|error| error.to_string())?;
        let paths = manifest[0]["Layers"].as_array().cloned().unwrap_or_default();
        if paths.len() != wanted.len() {
            return Err("layers and their digests differ in number".to_owned());
        }
        let mut inner = self.lock();
        let (mut layers, mut brought) = (Vec::new(), Vec::new());
        for (number, (digest, path)) in wanted.iter().zip(&paths).enumerate() {
            let lies_here = |image: &&Image| image.digests().get(..=number) == wanted.get(..=number);
            let here = inner.images.values().find(lies_here).filter(|_| !inner.takes_only_whole);
            layers.push(if let Some(image) = here {
                image.layers[number].clone()
            } else {
                let content = file(path.as_str().unwrap_or_default())?;
                if digest_of(&content) != *digest {
                    return Err(format!("invalid diffID for layer {number}"));
                }
                brought.push(digest.clone());
                content
            });
        }
        let image = Image { config, layers };
        inner.images.insert(image.id(), image);
        inner.loads.push(brought);
        Ok(())
    }
}

impl ImageStore for Store {
    fn shape<'a>(&'a self, image: &'a Digest) -> Answer<'a, Option<Shape>> {
        let shape = self.get(image).map(|image| Shape {
            layers: image.digests(),
            size: tug_model::Bytes(image.size()),
            platform: "linux/amd64".to_owned(),
        });
        Box::pin(std::future::ready(Ok(shape)))
    }

    fn layers(&self) -> Answer<'_, Vec<Vec<Digest>>> {
        let layers = self.lock().images.values().map(Image::digests).collect();
        Box::pin(std::future::ready(Ok(layers)))
    }

    fn resolve<'a>(&'a self, name: &'a ImageName) -> Answer<'a, Option<Resolved>> {
        let id = self.lock().names.get(&name.reference).cloned();
        let resolved = |id| Resolved { id: Some(id), digest: None, tagged_at: tug_model::Timestamp(7) };
        Box::pin(std::future::ready(Ok(id.map(resolved))))
    }

    fn registry_digest<'a>(&'a self, reference: &'a str) -> Answer<'a, Option<Digest>> {
        Box::pin(std::future::ready(Ok(Some(digest_of(reference.as_bytes())))))
    }

    fn export<'a>(&'a self, image: &'a Digest) -> Answer<'a, Feed<Bytes>> {
        self.lock().exports += 1;
        let saved = self.get(image).map(|image| {
            let pieces: Vec<_> =
                image.saved().chunks(10_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
            stream::iter(pieces).boxed()
        });
        let missing = || RuntimeError::new(Operation::Export, image.as_str(), Cause::NotFound("no".into()));
        Box::pin(std::future::ready(saved.ok_or_else(missing)))
    }

    fn load(&self, archive: Archive) -> Answer<'_, ()> {
        Box::pin(async move {
            let failed = |reason| RuntimeError::new(Operation::Load, "an image", Cause::Failed(reason));
            let pieces: Vec<Bytes> =
                archive.try_collect().await.map_err(|error| failed(error.to_string()))?;
            self.take(&pieces.concat()).map_err(failed)
        })
    }
}
