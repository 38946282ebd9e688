//! `build:`.

use std::path::PathBuf;

use tug_model::spec::container::ExtraHost;
use tug_model::spec::rule;

use super::networks::extra_hosts;
use crate::build::{Build, Dockerfile};
use crate::context::Context;
use crate::disk::PathKind;
use crate::reader::{Cursor, Fields};
use crate::schema;

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
        shm_size: fields.get("shm_size").and_then(|cursor| shm_size(&cursor)),
        extra_host: extra_host(&fields),
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

fn extra_host(fields: &Fields<'_>) -> Option<ExtraHost> {
    let cursor = fields.get("extra_hosts")?;
    let hosts = extra_hosts(&cursor);
    if hosts.len() > 1 {
        cursor.refuse("extra_hosts", "not yet: more than one of them in a build");
        return None;
    }
    hosts.into_iter().next()
}

fn shm_size(cursor: &Cursor<'_>) -> Option<i32> {
    let size = i32::try_from(cursor.bytes()?.0).ok();
    if size.is_none() {
        cursor.error("the Engine can be told less than 2 GiB");
    }
    size
}

fn tags(fields: &Fields<'_>) -> Vec<String> {
    let mut tags = Vec::new();
    for item in fields.one_or_more("tags") {
        let Some(tag) = item.filled() else { continue };
        let verdict = rule::image(&tag);
        tags.extend(item.kept(tag, verdict));
    }
    tags
}
