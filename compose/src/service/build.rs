//! `build:`.

use std::path::PathBuf;

use super::networks::extra_hosts;
use crate::build::{Build, Dockerfile};
use crate::context::Context;
use crate::disk::PathKind;
use crate::reader::{Cursor, Fields};
use crate::{image, schema};

pub(super) fn read(context: &Context<'_>, cursor: &Cursor<'_>) -> Option<Build> {
    if cursor.is_scalar() {
        let folder = folder(context, cursor)?;
        return Some(Build { context: folder, ..Build::default() });
    }
    let fields = cursor.fields(&schema::BUILD)?;
    let folder = match fields.get("context") {
        Some(cursor) => folder(context, &cursor),
        None => Some(context.absolute(cursor.place(), ".")),
    };
    let platforms = fields.texts("platforms");
    if platforms.len() > 1
        && let Some(cursor) = fields.get("platforms")
    {
        cursor.refuse("platforms", "not yet: an image for several platforms");
    }
    Some(Build {
        context: folder?,
        dockerfile: dockerfile(&fields),
        args: args(context, &fields),
        target: fields.text("target"),
        labels: fields.options("labels"),
        tags: tags(&fields),
        cache_from: fields.texts("cache_from"),
        no_cache: fields.flag("no_cache"),
        pull: fields.flag("pull"),
        platform: platforms.into_iter().next(),
        network: fields.text("network"),
        shm_size: fields.bytes("shm_size"),
        extra_hosts: fields.get("extra_hosts").map(|cursor| extra_hosts(&cursor)).unwrap_or_default(),
    })
}

fn folder(context: &Context<'_>, cursor: &Cursor<'_>) -> Option<PathBuf> {
    let written = cursor.text()?;
    if written.is_empty() {
        cursor.error("the folder to build in is empty");
        return None;
    }
    let is_remote =
        written.contains("://") || written.starts_with("git@") || written.starts_with("github.com/");
    if is_remote {
        cursor.refuse("build", "not yet: building from a repository; clone it first and name its folder");
        return None;
    }
    let path = context.absolute(cursor.place(), &written);
    match context.disk.kind(&path) {
        PathKind::Directory => {}
        PathKind::Missing => cursor.warning(format!("there is no folder `{written}`: the build will fail")),
        PathKind::File | PathKind::Special => {
            cursor.error_with_hint(
                format!("`{written}` is not a folder"),
                "`context` is the folder with the files",
            );
        }
    }
    Some(path)
}

fn dockerfile(fields: &Fields<'_>) -> Dockerfile {
    match (fields.text("dockerfile"), fields.get("dockerfile_inline")) {
        (Some(_), Some(cursor)) => {
            cursor.error("`dockerfile` and `dockerfile_inline` cannot both be given");
            Dockerfile::default()
        }
        (None, Some(cursor)) => cursor.text().map(Dockerfile::Inline).unwrap_or_default(),
        (Some(path), None) => Dockerfile::Path(path),
        (None, None) => Dockerfile::default(),
    }
}

fn args(context: &Context<'_>, fields: &Fields<'_>) -> std::collections::BTreeMap<String, String> {
    let Some(cursor) = fields.get("args") else { return std::collections::BTreeMap::new() };
    let value = |(key, value, _): (String, Option<String>, Cursor<'_>)| {
        let value = value.or_else(|| context.environment.get(&key).cloned())?;
        Some((key, value))
    };
    cursor.pairs().into_iter().filter_map(value).collect()
}

fn tags(fields: &Fields<'_>) -> Vec<String> {
    let mut tags = Vec::new();
    for item in fields.one_or_more("tags") {
        let Some(tag) = item.filled() else { continue };
        match image::check(&tag) {
            Ok(()) => tags.push(tag),
            Err(message) => item.error(message),
        }
    }
    tags
}
