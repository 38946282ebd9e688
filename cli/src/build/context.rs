//! A build's context as a tar stream, made while it is sent: nothing of it is held in memory but the piece at hand.
//!
//! What `.dockerignore` (or `NAME.dockerignore` beside a recipe of that name) excludes is not sent; the recipe always
//! is, under a name of its own where it stands outside of the context or in the manifest. Owners are root, as Docker's
//! own client makes them; modes and links are kept; sockets, pipes and devices are left out.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tar::{Builder, EntryType, Header};
use tokio::sync::mpsc::Sender;
use tug_compose::{Build, Dockerfile};
use walkdir::WalkDir;

use super::ignore::{BadPattern, Ignore};

/// The name of a recipe that is not a file of the context.
const OUTSIDE: &str = ".tug.Dockerfile";
/// How much is sent at once.
const PIECE: usize = 128 << 10;
/// The largest recipe.
const LARGEST_RECIPE: u64 = 4 << 20;

/// What will be sent.
#[derive(Debug)]
pub(crate) struct Plan {
    root: PathBuf,
    ignore: Ignore,
    /// The patterns are ours to apply: the Engine must not find another `.dockerignore` and apply that too.
    hide_ignore_file: bool,
    /// The recipe's name in the stream.
    pub(crate) dockerfile: String,
    /// Its text, where it is not a file of the context.
    recipe: Option<Vec<u8>>,
}

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// The folder cannot be read.
    #[error("open the context {path}")]
    Root {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a file.
    #[error("the context {0} is not a folder")]
    NotAFolder(String),
    /// The recipe cannot be read.
    #[error("read {path}")]
    Recipe {
        /// The recipe.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `.dockerignore` cannot be read.
    #[error("read {path}")]
    IgnoreFile {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `.dockerignore` holds something else than patterns.
    #[error("understand {path}")]
    Pattern {
        /// The file.
        path: String,
        /// Which.
        #[source]
        source: BadPattern,
    },
    /// The folder cannot be walked through.
    #[error("list the context")]
    Walk(#[source] walkdir::Error),
    /// A file cannot be sent.
    #[error("send {path}")]
    Send {
        /// The file, seen from the context.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Hands pieces to the connection.
struct Pieces(Sender<Result<Bytes, io::Error>>);

// === impl Plan ===

impl Plan {
    /// Looks at the context without reading it.
    pub(crate) fn new(build: &Build) -> Result<Self, ContextError> {
        let root = build.context.clone();
        let shown = root.display().to_string();
        let metadata =
            fs::metadata(&root).map_err(|source| ContextError::Root { path: shown.clone(), source })?;
        if !metadata.is_dir() {
            return Err(ContextError::NotAFolder(shown));
        }
        let (dockerfile, recipe, own_ignore) = match &build.dockerfile {
            Dockerfile::Inline(text) => (OUTSIDE.to_owned(), Some(text.clone().into_bytes()), None),
            Dockerfile::Path(path) => find_recipe(&root, path)?,
        };
        let own_ignore = own_ignore.filter(|path| path.exists());
        let hide_ignore_file = own_ignore.is_some();
        let ignore = read_ignore(&own_ignore.unwrap_or_else(|| root.join(".dockerignore")))?;
        Ok(Self { root, ignore, hide_ignore_file, dockerfile, recipe })
    }

    /// Writes the stream. Blocks; an error is told to the other end too, so that half a context is never built.
    pub(crate) fn pack(self, pieces: Sender<Result<Bytes, io::Error>>) -> Result<(), ContextError> {
        let end = pieces.clone();
        let packed = self.write(BufWriter::with_capacity(PIECE, Pieces(pieces)));
        if let Err(error) = &packed {
            let _hung_up = end.blocking_send(Err(io::Error::other(tug_api::error::chain(error))));
        }
        packed
    }

    fn write(&self, out: impl Write) -> Result<(), ContextError> {
        let mut tar = Builder::new(out);
        if let Some(recipe) = &self.recipe {
            let mut header = header_for(EntryType::Regular, 0o644, recipe.len() as u64);
            tar.append_data(&mut header, &self.dockerfile, recipe.as_slice())
                .map_err(|source| ContextError::Send { path: self.dockerfile.clone(), source })?;
        }
        let walk = WalkDir::new(&self.root).min_depth(1).sort_by_file_name().into_iter();
        let walk = walk.filter_entry(|entry| {
            let path = self.relative(entry.path());
            !(entry.file_type().is_dir() && self.leaves_out(&path) && self.ignore.excludes_all_of(&path))
        });
        for entry in walk {
            let entry = entry.map_err(ContextError::Walk)?;
            let path = self.relative(entry.path());
            if self.leaves_out(&path) {
                continue;
            }
            append(&mut tar, entry.path(), &path).map_err(|source| ContextError::Send { path, source })?;
        }
        let finished = tar.into_inner().and_then(|mut out| out.flush());
        finished.map_err(|source| ContextError::Send { path: "the end".to_owned(), source })
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn leaves_out(&self, path: &str) -> bool {
        if path == ".dockerignore" {
            return self.hide_ignore_file;
        }
        // The Engine needs the recipe, and takes it away itself where it is excluded.
        path != self.dockerfile && self.ignore.excludes(path)
    }
}

/// The recipe's name in the stream, its text where it is no file of the context, and where patterns of its own may be.
#[expect(clippy::type_complexity, reason = "three answers to one question, taken apart at once")]
fn find_recipe(root: &Path, path: &str) -> Result<(String, Option<Vec<u8>>, Option<PathBuf>), ContextError> {
    let full = root.join(path);
    let failed = |source| ContextError::Recipe { path: full.display().to_string(), source };
    let real = full.canonicalize().map_err(failed)?;
    let size = fs::metadata(&real).map_err(failed)?.len();
    let mut beside = full.clone().into_os_string();
    beside.push(".dockerignore");
    let inside = root.canonicalize().ok().and_then(|root| Some(real.strip_prefix(root).ok()?.to_path_buf()));
    if let Some(inside) = inside {
        return Ok((inside.to_string_lossy().into_owned(), None, Some(beside.into())));
    }
    if size > LARGEST_RECIPE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok((OUTSIDE.to_owned(), Some(fs::read(&real).map_err(failed)?), Some(beside.into())))
}

fn read_ignore(path: &Path) -> Result<Ignore, ContextError> {
    let shown = path.display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ignore::default()),
        Err(source) => return Err(ContextError::IgnoreFile { path: shown, source }),
    };
    Ignore::parse(&text).map_err(|source| ContextError::Pattern { path: shown, source })
}

fn append(tar: &mut Builder<impl Write>, full: &Path, path: &str) -> io::Result<()> {
    let metadata = fs::symlink_metadata(full)?;
    let relative = Path::new(path);
    if metadata.is_symlink() {
        let mut header = header_of(&metadata, EntryType::Symlink, 0);
        return tar.append_link(&mut header, relative, fs::read_link(full)?);
    }
    if metadata.is_dir() {
        let mut header = header_of(&metadata, EntryType::Directory, 0);
        return tar.append_data(&mut header, relative, io::empty());
    }
    if !metadata.is_file() {
        return Ok(());
    }
    let file = File::open(full)?;
    let mut header = header_of(&metadata, EntryType::Regular, metadata.len());
    let mut content = Exactly { file: file.take(metadata.len()), left: metadata.len() };
    tar.append_data(&mut header, relative, &mut content)
}

fn header_of(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn header_for(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

/// A file of exactly the size that was announced: one that shrinks meanwhile is an error, not a broken stream.
struct Exactly {
    file: io::Take<File>,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::other("the file became shorter while it was read"));
        }
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}

// === impl ContextError ===

impl ContextError {
    /// Whether only the other end did not want any more of it.
    pub(crate) fn is_hung_up(&self) -> bool {
        matches!(self, Self::Send { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn build(folder: &Path, dockerfile: Dockerfile) -> Build {
        Build { context: folder.to_path_buf(), dockerfile, ..Build::default() }
    }

    fn names(plan: &Plan) -> Vec<String> {
        let mut bytes = Vec::new();
        plan.write(&mut bytes).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        tar.entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().trim_end_matches('/').to_owned())
            .collect()
    }

    #[test]
    fn what_is_ignored_is_not_sent_but_the_recipe_is() {
        let folder = folder(&[
            (".dockerignore", "*\n!src\nsrc/secret\n"),
            ("Dockerfile", "FROM scratch"),
            ("README.md", ""),
            ("src/main.rs", ""),
            ("src/secret", ""),
            ("target/big", ""),
        ]);
        let plan = Plan::new(&build(folder.path(), Dockerfile::default())).unwrap();
        assert_eq!(names(&plan), [".dockerignore", "Dockerfile", "src", "src/main.rs"]);
        assert_eq!(plan.dockerfile, "Dockerfile");
    }

    #[test]
    fn a_recipe_may_have_patterns_of_its_own() {
        let folder = folder(&[
            (".dockerignore", "a"),
            ("web.Dockerfile", "FROM scratch"),
            ("web.Dockerfile.dockerignore", "b"),
            ("a", ""),
            ("b", ""),
        ]);
        let plan = Plan::new(&build(folder.path(), Dockerfile::Path("web.Dockerfile".into()))).unwrap();
        assert_eq!(names(&plan), ["a", "web.Dockerfile", "web.Dockerfile.dockerignore"]);
    }

    #[test]
    fn a_recipe_from_elsewhere_is_sent_along() {
        let folder = folder(&[("app/a", ""), ("Dockerfile", "FROM outside")]);
        let context = folder.path().join("app");
        let outside = Plan::new(&build(&context, Dockerfile::Path("../Dockerfile".into()))).unwrap();
        assert_eq!(names(&outside), [OUTSIDE, "a"]);
        let inline = Plan::new(&build(&context, Dockerfile::Inline("FROM scratch".into()))).unwrap();
        assert_eq!(names(&inline), [OUTSIDE, "a"]);
        assert_eq!(inline.dockerfile, OUTSIDE);
    }

    #[test]
    fn modes_and_links_are_kept_and_owners_are_root() {
        let folder = folder(&[("run.sh", "#!/bin/sh"), ("Dockerfile", "")]);
        fs::set_permissions(folder.path().join("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
        symlink("run.sh", folder.path().join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
        let plan = Plan::new(&build(folder.path(), Dockerfile::default())).unwrap();
        let mut bytes = Vec::new();
        plan.write(&mut bytes).unwrap();
        let mut tar = tar::Archive::new(bytes.as_slice());
        let seen: Vec<(String, u32, u64, EntryType)> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let name = entry.path().unwrap().to_string_lossy().into_owned();
                (name, header.mode().unwrap() & 0o777, header.uid().unwrap(), header.entry_type())
            })
            .collect();
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.contains(&("run.sh".into(), 0o750, 0, EntryType::Regular)), "{seen:?}");
        assert!(seen.iter().any(|one| one.0 == "link" && one.3 == EntryType::Symlink));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = folder(&[("a", "")]);
        let message = |build: &Build| tug_api::error::chain(&Plan::new(build).unwrap_err());
        let no_recipe = message(&build(folder.path(), Dockerfile::default()));
        assert!(no_recipe.contains("Dockerfile: No such file"), "{no_recipe}");
        let no_folder = message(&build(&folder.path().join("x"), Dockerfile::default()));
        assert!(no_folder.starts_with("open the context"), "{no_folder}");
        let a_file = message(&build(&folder.path().join("a"), Dockerfile::default()));
        assert!(a_file.contains("is not a folder"), "{a_file}");
    }

    #[tokio::test]
    async fn a_context_is_sent_in_pieces_and_a_reader_that_goes_ends_it() {
        let folder = folder(&[("Dockerfile", ""), ("big", &"x".repeat(3 << 20))]);
        let plan = Plan::new(&build(folder.path(), Dockerfile::default())).unwrap();
        let (sender, mut queue) = tokio::sync::mpsc::channel(2);
        let packing = tokio::task::spawn_blocking(move || plan.pack(sender));
        let first = queue.recv().await.unwrap().unwrap();
        assert!(first.len() < 1 << 20, "{}", first.len());
        drop(queue);
        assert!(packing.await.unwrap().unwrap_err().is_hung_up());
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let folder = folder(&[("a", "123")]);
        let file = File::open(folder.path().join("a")).unwrap();
        let mut content = Exactly { file: file.take(10), left: 10 };
        assert!(io::copy(&mut content, &mut io::sink()).unwrap_err().to_string().contains("shorter"));
    }
}
