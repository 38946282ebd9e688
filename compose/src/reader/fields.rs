//! The fields of a map whose keys were held against the table.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use tug_model::{Bytes, Millis};

use super::Cursor;
use crate::schema::{Fate, Schema};

/// A map whose keys were checked against a table.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    cursor: Cursor<'a>,
    schema: &'static Schema,
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(cursor: Cursor<'a>, schema: &'static Schema) -> Self {
        Self { cursor, schema }
    }

    /// The value under `key`; `None` where it is absent or empty.
    pub(crate) fn get(&self, key: &'static str) -> Option<Cursor<'a>> {
        self.get_or_null(key).filter(|cursor| !cursor.node.is_null())
    }

    /// The value under `key`, also where there is a key and no value.
    pub(crate) fn get_or_null(&self, key: &'static str) -> Option<Cursor<'a>> {
        debug_assert_eq!(
            self.schema.fate(key),
            Some(Fate::Read),
            "`{key}` is not a key that the schema of a {} reads",
            self.schema.what
        );
        let entries = self.cursor.node.entries();
        entries.iter().find(|entry| entry.key == key).map(|entry| self.cursor.under(entry))
    }

    /// The whole map.
    pub(crate) fn cursor(&self) -> &Cursor<'a> {
        &self.cursor
    }

    /// Says that `key` must be there.
    pub(crate) fn missing(&self, key: &str) {
        self.cursor.error(format!("`{key}` is missing"));
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<String> {
        self.get(key)?.filled()
    }

    pub(crate) fn flag(&self, key: &'static str) -> bool {
        self.get(key).and_then(|cursor| cursor.flag()).unwrap_or_default()
    }

    pub(crate) fn duration(&self, key: &'static str) -> Option<Millis> {
        self.get(key)?.duration()
    }

    pub(crate) fn time(&self, key: &'static str, range: &RangeInclusive<Millis>) -> Option<Millis> {
        self.get(key)?.time(range)
    }

    pub(crate) fn bytes(&self, key: &'static str) -> Option<Bytes> {
        self.get(key)?.bytes()
    }

    pub(crate) fn texts(&self, key: &'static str) -> Vec<String> {
        self.get(key).map(|cursor| cursor.texts()).unwrap_or_default()
    }

    /// A list of texts, or one text.
    pub(crate) fn one_or_more(&self, key: &'static str) -> Vec<Cursor<'a>> {
        self.get(key).map(|cursor| cursor.one_or_more()).unwrap_or_default()
    }

    pub(crate) fn number<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        self.get(key)?.number(range)
    }

    pub(crate) fn options(&self, key: &'static str) -> BTreeMap<String, String> {
        self.get(key).map(|cursor| cursor.options()).unwrap_or_default()
    }
}
