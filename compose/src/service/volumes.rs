//! `volumes` and `tmpfs`: what is mounted into the container.

use std::path::Path;

use tug_model::VolumeName;
use tug_model::spec::container::{ConfigMount, Container, Mount, MountSource};
use tug_model::spec::resource::Config;
use tug_model::spec::rule;

use super::configs::octal;
use crate::context::{Context, normalize};
use crate::disk::{PathKind, ReadError};
use crate::reader::{Cursor, Fields};
use crate::{schema, suggest};

const RELATIVE: &str = "use a named volume, an absolute path of the node, or a config for a single file";

/// Reads the mounts into `container`; returns the named volumes that it uses, with where it says so.
pub(super) fn read<'a>(
    context: &Context<'_>,
    fields: &Fields<'a>,
    container: &mut Container,
) -> Vec<(VolumeName, Cursor<'a>)> {
    let mut used = Vec::new();
    for item in fields.get("volumes").map(|cursor| cursor.items()).unwrap_or_default() {
        let written = if item.is_map() { long(&item) } else { short(&item) };
        let Some(written) = written else { continue };
        let Some(target) = target(&written.target_at, &written.target) else { continue };
        let source = match written.source {
            Written::Path(path) => match bind(context, &written.source_at, &path, &written.options) {
                Some(Bound::Directory(source)) => source,
                Some(Bound::File(bytes, mode)) => {
                    let mount = ship(context, bytes, mode, target);
                    if is_free(&item, container, &mount.target) {
                        container.configs.push(mount);
                    }
                    continue;
                }
                None => continue,
            },
            Written::Volume(name, source) => {
                used.push((name, written.source_at));
                source
            }
            Written::Other(source) => source,
        };
        if is_free(&written.target_at, container, &target) {
            container.mounts.push(Mount { source, target, read_only: written.options.read_only });
        }
    }
    for item in fields.one_or_more("tmpfs") {
        let mount = tmpfs(&item).filter(|mount| is_free(&item, container, &mount.target));
        container.mounts.extend(mount);
    }
    used
}

/// Whether nothing is mounted at `target` yet; else that is said.
pub(super) fn is_free(item: &Cursor<'_>, container: &Container, target: &str) -> bool {
    let mounts = container.mounts.iter().map(|mount| &mount.target);
    let mut targets = mounts.chain(container.configs.iter().map(|mount| &mount.target));
    let is_taken = targets.any(|taken| taken == target);
    if is_taken {
        item.error(format!("something is mounted at `{target}` already"));
    }
    !is_taken
}

/// A mount as it stands in the manifest.
struct Entry<'a> {
    source: Written,
    source_at: Cursor<'a>,
    target: String,
    target_at: Cursor<'a>,
    options: Options,
}

enum Written {
    /// A path of the node, or one beside the manifest.
    Path(String),
    Volume(VolumeName, MountSource),
    Other(MountSource),
}

#[derive(Default)]
struct Options {
    read_only: bool,
    nocopy: bool,
    create: bool,
    propagation: Option<String>,
    selinux: Option<String>,
}

enum Bound {
    Directory(MountSource),
    File(Vec<u8>, u32),
}

/// `[SOURCE:]TARGET[:OPTION,…]`
fn short<'a>(item: &Cursor<'a>) -> Option<Entry<'a>> {
    let text = item.text()?;
    let parts: Vec<&str> = text.split(':').collect();
    let drive = parts.first().is_some_and(|first| first.len() == 1 && text.get(1..3) == Some(":\\"));
    if drive {
        item.error("paths of Windows are not supported");
        return None;
    }
    match parts.as_slice() {
        [target] => {
            let source = Written::Other(MountSource::Anonymous);
            Some(at_item(item, source, target, Options::default()))
        }
        [source, target] => entry(item, source, target, Options { create: true, ..Options::default() }),
        [source, target, options] => {
            let options = short_options(item, options)?;
            entry(item, source, target, options)
        }
        _ => {
            item.error(format!("\"{text}\" has more than three parts; write SOURCE:TARGET:OPTIONS"));
            None
        }
    }
}

fn entry<'a>(item: &Cursor<'a>, source: &str, target: &str, options: Options) -> Option<Entry<'a>> {
    let source = if source.starts_with(['/', '.', '~']) {
        Written::Path(source.to_owned())
    } else {
        let name = volume_name(item, source)?;
        let source = MountSource::Volume { name: name.clone(), nocopy: options.nocopy, subpath: None };
        Written::Volume(name, source)
    };
    Some(at_item(item, source, target, options))
}

fn at_item<'a>(item: &Cursor<'a>, source: Written, target: &str, options: Options) -> Entry<'a> {
    let (source_at, target_at) = (item.clone(), item.clone());
    Entry { source, source_at, target: target.to_owned(), target_at, options }
}

fn volume_name(item: &Cursor<'_>, text: &str) -> Option<VolumeName> {
    match VolumeName::parse(text) {
        Ok(name) => Some(name),
        Err(_) if text.contains('/') => {
            item.error_with_hint(
                format!("`{text}` is neither a volume nor a path"),
                format!("write `./{text}` for a path beside the manifest"),
            );
            None
        }
        Err(_) if text.is_empty() => {
            item.error("the source is empty");
            None
        }
        Err(error) => {
            item.error(error.to_string());
            None
        }
    }
}

fn short_options(item: &Cursor<'_>, text: &str) -> Option<Options> {
    const KNOWN: [&str; 16] = [
        "ro",
        "rw",
        "z",
        "Z",
        "nocopy",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "cached",
        "delegated",
        "consistent",
        "volume-nocopy",
        "default",
    ];
    let mut options = Options { create: true, ..Options::default() };
    for word in text.split(',') {
        match word {
            "ro" => options.read_only = true,
            "nocopy" | "volume-nocopy" => options.nocopy = true,
            "z" | "Z" => options.selinux = Some(word.to_owned()),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                options.propagation = Some(word.to_owned());
            }
            // What a mount is without any option, and hints for Docker Desktop.
            "rw" | "" | "cached" | "delegated" | "consistent" | "default" => {}
            _ => {
                let hint = suggest::nearest(word, KNOWN.into_iter());
                let message = format!("`{word}` is not an option of a mount");
                item.error_with(message, hint);
                return None;
            }
        }
    }
    Some(options)
}

fn long<'a>(item: &Cursor<'a>) -> Option<Entry<'a>> {
    let fields = item.fields(&schema::MOUNT)?;
    let kinds =
        [("volume", 'v'), ("bind", 'b'), ("tmpfs", 't'), ("image", 'i'), ("npipe", 'n'), ("cluster", 'c')];
    let Some(kind) = fields.get("type") else {
        fields.missing("type");
        return None;
    };
    let type_cursor = kind;
    let kind = type_cursor.choice(&kinds);
    let source = fields.get("source").filter(|cursor| cursor.filled().is_some());
    let mut options = Options { read_only: fields.flag("read_only"), ..Options::default() };
    let bind = fields.get("bind").and_then(|cursor| cursor.fields(&schema::MOUNT_BIND));
    let volume = fields.get("volume").and_then(|cursor| cursor.fields(&schema::MOUNT_VOLUME));
    let tmpfs = fields.get("tmpfs").and_then(|cursor| cursor.fields(&schema::MOUNT_TMPFS));
    bind_options(bind.as_ref(), &mut options);
    let tmpfs = MountSource::Tmpfs {
        size: tmpfs.as_ref().and_then(|fields| fields.bytes("size")),
        mode: tmpfs.as_ref().and_then(|fields| fields.get("mode")).and_then(|cursor| octal(&cursor)),
    };
    let Some(target_at) = fields.get("target") else {
        fields.missing("target");
        return None;
    };
    let written = match kind? {
        'b' => {
            let Some(source) = &source else {
                fields.missing("source");
                return None;
            };
            Written::Path(source.text()?)
        }
        'v' => volume_source(source.as_ref(), volume.as_ref())?,
        't' => Written::Other(tmpfs),
        'i' => {
            type_cursor.refuse("image", "not yet: mounting an image");
            return None;
        }
        _ => {
            type_cursor.refuse("volumes", "unsupported: pipes are for Windows, cluster volumes for Swarm");
            return None;
        }
    };
    let source_at = source.unwrap_or_else(|| item.clone());
    Some(Entry { source: written, source_at, target: target_at.text()?, target_at, options })
}

fn bind_options(fields: Option<&Fields<'_>>, options: &mut Options) {
    options.create = true;
    let Some(fields) = fields else { return };
    let propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
    let choices = propagations.map(|word| (word, word));
    options.propagation =
        fields.get("propagation").and_then(|cursor| cursor.choice(&choices)).map(str::to_owned);
    options.create = fields.get("create_host_path").and_then(|cursor| cursor.flag()).unwrap_or(true);
    let labels = [("z", "z"), ("Z", "Z")];
    options.selinux = fields.get("selinux").and_then(|cursor| cursor.choice(&labels)).map(str::to_owned);
    if let Some(cursor) = fields.get("recursive") {
        let words = ["enabled", "disabled", "writable", "readonly"].map(|word| (word, word));
        if cursor.choice(&words).is_some_and(|word| word != "enabled") {
            cursor.refuse("recursive", "not yet: what is mounted below the path is mounted too");
        }
    }
}

fn volume_source(source: Option<&Cursor<'_>>, options: Option<&Fields<'_>>) -> Option<Written> {
    let nocopy = options.is_some_and(|fields| fields.flag("nocopy"));
    let subpath = options.and_then(|fields| fields.get("subpath"));
    let Some(source) = source else {
        if let Some(cursor) = subpath {
            cursor.error("a volume without a name has no directories to choose from");
        }
        return Some(Written::Other(MountSource::Anonymous));
    };
    let name = volume_name(source, &source.text()?)?;
    let subpath = subpath.and_then(|cursor| {
        let text = cursor.filled()?;
        let verdict = rule::subpath(&text);
        cursor.kept(text, verdict)
    });
    Some(Written::Volume(name.clone(), MountSource::Volume { name, nocopy, subpath }))
}

fn target(item: &Cursor<'_>, text: &str) -> Option<String> {
    item.kept((), rule::mount_target(text))?;
    Some(normalize(Path::new(text)).display().to_string())
}

/// What a bind mount shows: a path of the node, or the content of a file beside the manifest.
fn bind(context: &Context<'_>, item: &Cursor<'_>, path: &str, options: &Options) -> Option<Bound> {
    if path.starts_with('~') {
        item.error_with_hint(
            format!("`{path}` is somebody's home folder, and nobody's on another node"),
            "write an absolute path",
        );
        return None;
    }
    if !path.starts_with('/') {
        return beside(context, item, path, options);
    }
    item.kept((), rule::path(path))?;
    Some(Bound::Directory(MountSource::Bind {
        path: normalize(Path::new(path)).display().to_string(),
        create: options.create,
        propagation: options.propagation.clone(),
        selinux: options.selinux.clone(),
    }))
}

/// A path beside the manifest is not on the node: a file travels as a config, a folder cannot.
fn beside(context: &Context<'_>, item: &Cursor<'_>, path: &str, options: &Options) -> Option<Bound> {
    let whole = context.absolute(item.place(), path);
    let message = match context.disk.kind(&whole) {
        PathKind::Directory => format!("`{path}` is a folder beside the manifest, which is not on the node"),
        PathKind::Missing => format!("`{path}` is a path beside the manifest, and there is nothing"),
        PathKind::Special => format!("`{path}` is a pipe, device or socket, not a regular file"),
        PathKind::File => match context.disk.read(&whole, Config::LARGEST) {
            Ok(file) => {
                let change = if options.read_only { "" } else { ", read-only" };
                item.warning(format!(
                    "the file `{path}` travels as a config{change}: later changes need a deploy"
                ));
                return Some(Bound::File(file.bytes, file.mode));
            }
            Err(ReadError::TooLarge { .. }) => format!("`{path}` is larger than the 1 MiB of a config"),
            Err(error) => format!("`{path}`: {error}"),
        },
    };
    item.error_with_hint(message, RELATIVE);
    None
}

/// Keeps the content as a config of the project, named by its hash.
fn ship(context: &Context<'_>, bytes: Vec<u8>, mode: u32, target: String) -> ConfigMount {
    let config = Config { content: bytes };
    let hash = config.hash();
    let name = format!("file-{hash}");
    context.configs.borrow_mut().insert(name.clone(), config);
    ConfigMount { config: name, hash, target, mode: Some(mode & 0o777), uid: None, gid: None }
}

/// `/run` or `/run:size=64m,mode=1777`.
fn tmpfs(item: &Cursor<'_>) -> Option<Mount> {
    let text = item.text()?;
    let (path, options) = text.split_once(':').unwrap_or((&text, ""));
    let target = target(item, path)?;
    let (mut size, mut mode, mut read_only) = (None, None, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => match crate::reader::quantity::bytes(value) {
                Ok(bytes) => size = Some(bytes),
                Err(message) => item.error(message),
            },
            Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                Ok(bits) if bits <= 0o7777 => mode = Some(bits),
                _ => item.error(format!("`{value}` is not a mode; write e.g. 1777")),
            },
            None if option == "ro" => read_only = true,
            None if matches!(option, "rw" | "noexec" | "nosuid" | "nodev") => {
                if option != "rw" {
                    item.note(format!("`{option}` is what the Engine does anyway"));
                }
            }
            Some(("uid" | "gid", _) | _) | None => {
                item.refuse("tmpfs", &format!("not yet: the option `{option}`"));
            }
        }
    }
    Some(Mount { source: MountSource::Tmpfs { size, mode }, target, read_only })
}
