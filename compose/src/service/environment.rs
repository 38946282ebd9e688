//! `environment` and `env_file`: the variables of the container, those of the manifest over those of files.

use std::collections::BTreeMap;
use std::error::Error as _;

use tug_model::spec::rule;

use crate::context::Context;
use crate::env_file::{self, Format};
use crate::reader::{Cursor, Fields};
use crate::schema;
use crate::tree::Place;

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// The largest file.
const LARGEST_FILE: usize = 1 << 20;

pub(super) fn read(context: &Context<'_>, fields: &Fields<'_>) -> Variables {
    let mut variables = Variables::new();
    if let Some(cursor) = fields.get("env_file") {
        let files = if cursor.is_map() { vec![cursor] } else { cursor.one_or_more() };
        for file in files {
            read_file(context, &file, &mut variables);
        }
    }
    if let Some(cursor) = fields.get("environment") {
        for (key, value, at) in cursor.pairs() {
            insert(context, &mut variables, (key, value), &at);
        }
    }
    if let Some(cursor) = fields.get("environment").or_else(|| fields.get("env_file")) {
        cursor.kept((), rule::variables(variables.len()));
    }
    variables
}

fn insert(
    context: &Context<'_>,
    variables: &mut Variables,
    (key, value): (String, Option<String>),
    at: &Cursor<'_>,
) {
    if let Err(message) = rule::variable_name(&key) {
        at.key_error(message);
        return;
    }
    // Without a value the variable is passed on from the environment; if it is not there either, it stays unset.
    let Some(value) = value.or_else(|| context.environment.get(&key).cloned()) else {
        variables.remove(&key);
        return;
    };
    if at.kept((), rule::variable(&key, &value)).is_some() {
        variables.insert(key, value);
    }
}

fn read_file(context: &Context<'_>, cursor: &Cursor<'_>, variables: &mut Variables) {
    let (path_cursor, required, format) = if cursor.is_scalar() {
        (cursor.clone(), true, Format::Dotenv)
    } else {
        let Some(fields) = cursor.fields(&schema::ENV_FILE) else { return };
        let Some(path) = fields.get("path") else { return fields.missing("path") };
        let required = fields.get("required").and_then(|cursor| cursor.flag()).unwrap_or(true);
        let format = fields.get("format").and_then(|cursor| cursor.choice(&[("raw", Format::Raw)]));
        (path, required, format.unwrap_or_default())
    };
    let Some(written) = path_cursor.text() else { return };
    let path = context.absolute(path_cursor.place(), &written);
    let file = match context.disk.read(&path, LARGEST_FILE) {
        Ok(file) => file,
        Err(crate::disk::ReadError::Missing) if !required => return,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let message = format!("`{written}`: {error}{cause}");
            return path_cursor.error(message);
        }
    };
    let Ok(text) = String::from_utf8(file.bytes) else {
        return path_cursor.error(format!("`{written}` is not UTF-8"));
    };
    match env_file::parse(&text, format, context.environment) {
        Ok(found) => {
            for (key, value) in found {
                insert(context, variables, (key, Some(value)), &path_cursor);
            }
        }
        Err(bad) => {
            let file = context.report.file(&path.display().to_string());
            for line in bad {
                let place = Place { file, line: line.line, column: 1 };
                context.report.error(place, &path_cursor.path, line.message);
            }
        }
    }
}
