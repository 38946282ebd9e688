//! `configs` and `secrets` of a service: contents of the project, shown as files.

use std::path::Path;

use tug_model::spec::container::{ConfigMount, Container};
use tug_model::spec::rule;

use super::volumes::is_free;
use crate::context::normalize;
use crate::reader::{Cursor, Fields};
use crate::schema;

/// Reads the mounts into `container`; their hashes are filled in when the contents are known.
pub(super) fn read<'a>(fields: &Fields<'a>, container: &mut Container) -> Vec<(String, Cursor<'a>)> {
    if let Some(cursor) = fields.get("secrets") {
        let items = cursor.items();
        let checked = items.iter().filter_map(mount).count();

        if checked > 0 {
            cursor.refuse_key("secrets", "not yet: secrets");
        }
    }
    let mut used = Vec::new();
    for item in fields.get("configs").map(|cursor| cursor.items()).unwrap_or_default() {
        let Some((mount, source)) = mount(&item) else { continue };
        if is_free(&item, container, &mount.target) {
            used.push((mount.config.clone(), source));
            container.configs.push(mount);
        }
    }
    used
}

/// The mount, and where it names what is mounted.
fn mount<'a>(item: &Cursor<'a>) -> Option<(ConfigMount, Cursor<'a>)> {
    if !item.is_map() {
        let config = item.filled()?;
        let target = format!("/{config}");
        item.kept((), rule::mount_target(&target))?;
        let mount = ConfigMount { config, hash: String::new(), target, mode: None, uid: None, gid: None };
        return Some((mount, item.clone()));
    }
    let fields = item.fields(&schema::FILE_GRANT)?;
    let Some(source) = fields.get("source") else {
        fields.missing("source");
        return None;
    };
    let config = source.filled()?;
    let target_at = fields.get("target");
    let written = target_at.as_ref().map_or_else(|| Some(config.clone()), Cursor::filled)?;
    let target = Path::new("/").join(written).display().to_string();
    target_at.as_ref().unwrap_or(&source).kept((), rule::mount_target(&target))?;
    let target = normalize(Path::new(&target)).display().to_string();
    let mount = ConfigMount {
        config,
        hash: String::new(),
        target,
        mode: fields.get("mode").and_then(|cursor| octal(&cursor)),
        uid: fields.number("uid", 0..=u32::MAX),
        gid: fields.number("gid", 0..=u32::MAX),
    };
    Some((mount, source))
}

/// Permission bits: `0440` or `0o440` is octal, as everywhere; a plain number is one in YAML too, and means what its
/// decimal digits say.
pub(super) fn octal(cursor: &Cursor<'_>) -> Option<u32> {
    let text = cursor.text()?;
    let digits = text.strip_prefix("0o").or_else(|| text.strip_prefix('0')).filter(|rest| !rest.is_empty());
    let bits = match digits {
        Some(digits) => u32::from_str_radix(digits, 8).ok(),
        None if cursor.is_number() => text.parse().ok(),
        None => u32::from_str_radix(&text, 8).ok(),
    };
    let Some(bits) = bits.filter(|bits| *bits <= 0o7777) else {
        cursor.error_with_hint(format!("{} is not a mode", cursor.node.shown()), "write e.g. 0440");
        return None;
    };
    if digits.is_none() && cursor.is_number() && bits > 0 {
        cursor.warning(format!("{text} is a decimal number and means 0{bits:o}; write octal as 0{text}"));
    }
    Some(bits)
}
