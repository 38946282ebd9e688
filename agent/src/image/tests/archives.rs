//! Taking archives apart and putting them together, whatever they are.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use tug_api::digest::digest_of;
use tug_model::Digest;

use crate::image::archive::{ArchiveError, pack, unpack};
use crate::image::fake::Image;
use crate::image::spool::{Spool, SpoolError};

fn sample() -> Image {
    let large: Vec<u8> = (0..50_000_u32).map(|n| u8::try_from(n * n % 251).unwrap()).collect();
    Image::of("sample", &[b"base", &large, b"top", b"base"])
}

fn layers(image: &Image) -> BTreeSet<Digest> {
    image.digests().into_iter().collect()
}

/// What is in the spool of `folder`: name and content of each file.
fn kept(folder: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder.join("spool")).into_iter().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Every file that has a name is what its name says, and nothing lies beside the spool.
fn is_clean(folder: &std::path::Path) -> bool {
    let beside = fs::read_dir(folder).unwrap().count();
    let named = |(name, content): &(String, Vec<u8>)| name.contains('.') || digest_of(content).hex() == *name;
    beside <= 1 && kept(folder).iter().all(named)
}

async fn packed(image: &Image, base: usize, spool: &Arc<Spool>) -> Vec<u8> {
    let mut queue = pack(&image.id(), &image.digests(), base, spool);
    let mut archive = Vec::new();
    while let Some(piece) = queue.recv().await {
        archive.extend_from_slice(&piece.unwrap());
    }
    archive
}

#[tokio::test]
async fn what_an_engine_saves_another_one_takes_with_only_the_layers_it_lacks() {
    let (folder, image) = (tempfile::tempdir().unwrap(), sample());
    let spool = Arc::new(Spool::new(folder.path().join("spool")));
    unpack(image.saved().as_slice(), &image.id(), &layers(&image), &spool).unwrap();
    assert_eq!(kept(folder.path()).len(), 4, "the configuration and three different layers");

    for base in 0..4 {
        let engine =
            crate::control::tests::fake::Engine::new(tug_api::Clock::starting_at(tug_model::Timestamp(0)));
        let lower: Vec<&[u8]> = image.layers.iter().take(base).map(Vec::as_slice).collect();
        engine.store().put(&Image::of("other", &lower));
        let archive = packed(&image, base, &spool).await;
        let archive = futures_util::stream::iter([Ok(bytes::Bytes::from(archive))]);
        crate::runtime::ImageStore::load(engine.store(), Box::pin(archive)).await.unwrap();
        assert_eq!(engine.store().get(&image.id()), Some(image.clone()));
        assert_eq!(engine.store().loads(), [image.digests()[base..].to_vec()]);
    }
}

#[test]
fn only_what_is_asked_for_is_kept() {
    let (folder, image) = (tempfile::tempdir().unwrap(), sample());
    let spool = Spool::new(folder.path().join("spool"));
    let top: BTreeSet<Digest> = [digest_of(b"top")].into();
    unpack(image.saved().as_slice(), &image.id(), &top, &spool).unwrap();
    let names: Vec<String> = kept(folder.path()).into_iter().map(|(name, _)| name).collect();
    let mut wanted = vec![image.id().hex().to_owned(), digest_of(b"top").hex().to_owned()];
    wanted.sort();
    assert_eq!(names, wanted);
}

#[test]
fn an_archive_without_a_layer_names_it() {
    let (folder, image) = (tempfile::tempdir().unwrap(), sample());
    let spool = Spool::new(folder.path().join("spool"));
    let compressed: BTreeSet<Digest> = [digest_of(b"kept in another way")].into();
    let error = unpack(image.saved().as_slice(), &image.id(), &compressed, &spool).unwrap_err();
    assert!(matches!(&error, ArchiveError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains(compressed.first().unwrap().as_str()), "{error}");
}

#[test]
fn names_lead_nowhere() {
    let (folder, image) = (tempfile::tempdir().unwrap(), sample());
    let spool = Spool::new(folder.path().join("spool"));
    let mut tar = tar::Builder::new(Vec::new());
    let names = ["../../escape", "/tmp/../escape", "blobs/sha256/../../../escape", "./", "a/../../b"];
    for (name, content) in names.iter().zip(image.layers.iter().chain([&image.config])) {
        // What the `tar` library would not write itself.
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o4777);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        tar.append_link(&mut header, image.id().hex(), "/etc/passwd").unwrap();
    }
    let archive = tar.into_inner().unwrap();
    let error = unpack(archive.as_slice(), &image.id(), &layers(&image), &spool).unwrap_err();
    // The one that claims to be a blob is not even read.
    assert!(error.to_string().contains(digest_of(b"top").as_str()), "{error}");
    assert!(is_clean(folder.path()), "{:?}", kept(folder.path()));
    assert_eq!(kept(folder.path()).len(), 3, "all but the top");
    assert!(!folder.path().parent().unwrap().join("escape").exists());
}

#[test]
fn a_part_that_is_not_what_it_should_be_gets_no_name_and_a_half_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path().join("spool"));
    let digest = digest_of(b"a whole part");
    let mut draft = spool.resume(&digest).unwrap();
    draft.write(b"a whole").unwrap();
    drop(draft);
    assert_eq!(spool.whole(&digest), None);

    let mut draft = Spool::new(folder.path().join("spool")).resume(&digest).unwrap();
    assert_eq!(draft.written(), 7);
    draft.write(b" part").unwrap();
    draft.finish().unwrap();
    assert_eq!(spool.whole(&digest), Some(12));

    let other = digest_of(b"other");
    let mut draft = spool.resume(&other).unwrap();
    draft.write(b"0ther").unwrap();
    assert!(matches!(draft.finish(), Err(SpoolError::Wrong { .. })));
    assert_eq!((spool.whole(&other), kept(folder.path()).len()), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_removed_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::new(folder.path().join("spool")));
    let put = |content: &[u8]| {
        let mut draft = spool.resume(&digest_of(content)).unwrap();
        draft.write(content).unwrap();
        draft.finish().unwrap();
        digest_of(content)
    };
    let (held, idle) = (put(b"held"), put(b"idle"));
    let half = digest_of(b"half");
    spool.resume(&half).unwrap().write(b"ha").unwrap();
    spool.begin(&half, "of-an-export").unwrap().write(b"x").unwrap();
    let user = spool.hold(&held);
    spool.sweep();
    assert_eq!(kept(folder.path()).len(), 4, "an export may be under way");
    tokio::time::sleep(std::time::Duration::from_secs(601)).await;
    spool.sweep();
    assert_eq!((spool.whole(&held), spool.whole(&idle), kept(folder.path()).len()), (Some(4), None, 2));
    drop(user);
    spool.sweep();
    assert!(spool.whole(&held).is_some(), "it was used just now");
    tokio::time::sleep(std::time::Duration::from_secs(601)).await;
    spool.sweep();
    assert!(kept(folder.path()).is_empty());
}

#[test]
fn more_than_the_disk_has_is_refused_before_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path().join("spool"));
    spool.check_room(tug_model::Bytes(1)).unwrap();
    let error = spool.check_room(tug_model::Bytes(u64::MAX)).unwrap_err();
    assert!(error.to_string().contains("make room"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_archive_that_was_cut_or_changed_gives_the_right_parts_or_none(
        cut in proptest::option::of(0..1_000_usize),
        flips in proptest::collection::vec((0..100_000_usize, 0..8_u8), 0..20),
        noise in proptest::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let (folder, image) = (tempfile::tempdir().unwrap(), sample());
        let mut archive = image.saved();
        let len = archive.len();
        for (place, bit) in flips {
            archive[place * len / 100_000] ^= 1 << bit;
        }
        if let Some(place) = cut {
            archive.truncate(place * len / 1_000);
            archive.extend_from_slice(&noise);
        }
        let spool = Spool::new(folder.path().join("spool"));
        let unpacked = unpack(archive.as_slice(), &image.id(), &layers(&image), &spool);
        prop_assert!(is_clean(folder.path()));
        let all = layers(&image).iter().chain([&image.id()]).all(|part| spool.whole(part).is_some());
        prop_assert_eq!(unpacked.is_ok(), all, "{:?}", unpacked);
    }
}
