//! What a manifest takes from other files: `extends` and `include`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{LARGEST_FILE, Loader};
use crate::env_file::{self, Format};
use crate::finding::Report;
use crate::interpolate::interpolate;
use crate::reader::Cursor;
use crate::suggest::nearest;
use crate::tree::{Entry, Node, Place, Value, join};
use crate::{merge, schema};

/// The most values that `extends` may copy.
pub(super) const MOST_VALUES: usize = 200_000;

/// The longest chain of files that take from each other.
const LONGEST_CHAIN: usize = 20;

/// What is the same for everything that one file takes in.
#[derive(Clone)]
pub(super) struct Origin {
    /// The variables that are put into the file.
    pub(super) environment: BTreeMap<String, String>,
    /// The file, as an absolute path.
    pub(super) path: PathBuf,
    /// The files that brought us here, this one included.
    pub(super) chain: Vec<PathBuf>,
}

// === impl Loader ===

impl Loader<'_> {
    /// Puts variables into a tree and takes in what it extends and includes.
    pub(super) fn complete(&mut self, mut tree: Node, origin: &Origin) -> Node {
        interpolate(self.report, &mut tree, &origin.environment, "");
        self.extend_services(&mut tree, origin);
        self.include(&mut tree, origin);
        tree
    }

    fn extend_services(&mut self, tree: &mut Node, origin: &Origin) {
        let services = tree.get("services").map(Node::entries).unwrap_or_default();
        let extending = services.iter().filter(|entry| entry.value.get("extends").is_some());
        let names: Vec<String> = extending.map(|entry| entry.key.clone()).collect();
        for name in names {
            if self.extended_values > MOST_VALUES {
                break;
            }
            let way = &mut vec![(origin.path.clone(), name.clone())];
            let Some(service) = self.extended(tree, &name, origin, way) else { continue };
            if let Some(old) = tree.get_mut("services").and_then(|services| services.get_mut(&name)) {
                *old = service;
            }
        }
    }

    /// The service with everything that it extends below it; `None` where it extends nothing.
    fn extended(
        &mut self,
        tree: &Node,
        name: &str,
        origin: &Origin,
        way: &mut Vec<(PathBuf, String)>,
    ) -> Option<Node> {
        let mut service = tree.get("services")?.get(name)?.clone();
        let path = format!("services.{name}.extends");
        let extends = remove(&mut service, "extends")?.value;
        let Some((base_name, file)) = read_extends(self.report, &extends, &path) else {
            return Some(service);
        };
        let at = extends.place;
        let opened = match &file {
            None => None,
            Some(file) => match self.open(file, at, &path, origin) {
                Some(opened) => Some(opened),
                None => return Some(service),
            },
        };
        let (base_tree, base_origin) =
            opened.as_ref().map_or((tree, origin), |(tree, origin)| (tree.as_ref(), origin));
        let step = (base_origin.path.clone(), base_name.clone());
        if way.len() > LONGEST_CHAIN {
            let message = format!("a chain of more than {LONGEST_CHAIN} services that extend each other");
            self.report.error(at, &path, message);
            return Some(service);
        }
        if way.contains(&step) {
            let names: Vec<&str> = way.iter().map(|(_, name)| name.as_str()).collect();
            let message = format!("the services extend each other: {} -> {base_name}", names.join(" -> "));
            self.report.error(at, &path, message);
            return Some(service);
        }
        let services = base_tree.get("services");
        let Some(plain) = services.and_then(|services| services.get(&base_name)) else {
            let known = services.map(Node::entries).unwrap_or_default();
            let hint = nearest(&base_name, known.iter().map(|entry| entry.key.as_str()));
            let message = format!("there is no service `{base_name}` to extend");
            self.report.add(crate::Level::Error, (at, &path), &message, hint);
            return Some(service);
        };
        way.push(step);
        let base = self.extended(base_tree, &base_name, base_origin, way).unwrap_or_else(|| plain.clone());
        way.pop();
        self.extended_values += size(&base);
        if self.extended_values > MOST_VALUES {
            let message = format!("services that are extended add up to more than {MOST_VALUES} values");
            self.report.error(at, &path, message);
            return Some(service);
        }
        Some(merge::services(self.report, base, service, name))
    }

    /// Another file, with variables put in and nothing taken in yet; read once, however often it is named. Its
    /// relative paths start at its own folder.
    fn open(&mut self, file: &str, at: Place, path: &str, origin: &Origin) -> Option<(Rc<Node>, Origin)> {
        let whole = self.beside(at, file);
        if !self.opened.contains_key(&whole) {
            let folder = whole.parent().unwrap_or_else(|| Path::new("/")).to_path_buf();
            let mut tree = self.read_tree(&self.shown(&whole, file), &whole, &folder);
            if let Some(tree) = &mut tree {
                interpolate(self.report, tree, &origin.environment, "");
            }
            self.opened.insert(whole.clone(), tree.map(Rc::new));
        }
        let Some(tree) = self.opened.get(&whole).cloned().flatten() else {
            self.report.error(at, path, format!("`{file}` cannot be used"));
            return None;
        };
        Some((tree, Origin { path: whole, ..origin.clone() }))
    }

    fn include(&mut self, tree: &mut Node, origin: &Origin) {
        let Some(include) = remove(tree, "include") else { return };
        let report = self.report;
        let parent = Node::map(include.place, vec![include]);
        let root = Cursor::root(&parent, report);
        for (_, cursor) in root.entries() {
            for item in cursor.items() {
                let Some(included) = self.included(&item, origin) else { continue };
                import(report, tree, included);
            }
        }
    }

    /// What one item of `include` brings: its files, merged and complete.
    fn included(&mut self, item: &Cursor<'_>, origin: &Origin) -> Option<Node> {
        let (paths, directory, env_files) = if item.is_scalar() {
            (vec![item.clone()], None, Vec::new())
        } else {
            let fields = item.fields(&schema::INCLUDE)?;
            let paths = fields.one_or_more("path");
            if paths.is_empty() {
                fields.missing("path");
            }
            (paths, fields.get("project_directory"), fields.one_or_more("env_file"))
        };
        let files: Vec<(Cursor<'_>, String)> =
            paths.into_iter().filter_map(|cursor| cursor.filled().map(|path| (cursor, path))).collect();
        let first = files.first().map(|(cursor, path)| self.beside(cursor.place(), path))?;
        let own = first.parent().unwrap_or_else(|| Path::new("/")).to_path_buf();
        let folder = match directory.and_then(|cursor| cursor.filled().map(|path| (cursor.place(), path))) {
            Some((place, path)) => self.beside(place, &path),
            None => own,
        };
        let environment = self.included_environment(&env_files, &folder, origin);
        let mut merged: Option<Node> = None;
        for (cursor, path) in files {
            let whole = self.beside(cursor.place(), &path);
            if origin.chain.contains(&whole) || origin.chain.len() > LONGEST_CHAIN {
                cursor.error(format!("`{path}` includes itself"));
                return None;
            }
            let name = self.shown(&whole, &path);
            let Some(tree) = self.read_tree(&name, &whole, &folder) else {
                cursor.error(format!("`{path}` cannot be used"));
                return None;
            };
            let mut chain = origin.chain.clone();
            chain.push(whole.clone());
            let inner = Origin { environment: environment.clone(), path: whole, chain };
            let tree = self.complete(tree, &inner);
            merged = Some(match merged {
                None => tree,
                Some(before) => merge::files(self.report, before, tree),
            });
        }
        merged
    }

    /// The includer's variables over those of the files given, or of `.env` in the included project's folder.
    fn included_environment(
        &self,
        files: &[Cursor<'_>],
        folder: &Path,
        origin: &Origin,
    ) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let disk = self.request.disk;
        if files.is_empty() {
            let text = disk.read(&folder.join(".env"), LARGEST_FILE).ok();
            let text = text.and_then(|content| String::from_utf8(content.bytes).ok()).unwrap_or_default();
            let pairs = env_file::parse(&text, Format::Dotenv, &origin.environment);
            found.extend(pairs.unwrap_or_default());
        }
        for cursor in files {
            let Some(path) = cursor.filled() else { continue };
            let content = match disk.read(&self.beside(cursor.place(), &path), LARGEST_FILE) {
                Ok(content) => content.bytes,
                Err(error) => {
                    cursor.error(format!("`{path}`: {error}"));
                    continue;
                }
            };
            let text = String::from_utf8_lossy(&content);
            match env_file::parse(&text, Format::Dotenv, &origin.environment) {
                Ok(pairs) => found.extend(pairs),
                Err(bad) => {
                    for bad in bad {
                        cursor.error(format!("`{path}` line {}: {}", bad.line, bad.message));
                    }
                }
            }
        }
        found.extend(origin.environment.clone());
        found
    }

    fn beside(&self, place: Place, path: &str) -> PathBuf {
        let folder = self.folders.get(usize::from(place.file)).cloned().unwrap_or_default();
        crate::context::normalize(&folder.join(path))
    }

    /// How a file is named in findings: from the working directory, where it is below it.
    fn shown(&self, whole: &Path, written: &str) -> String {
        let below = whole.strip_prefix(&self.request.working_directory);
        below.map_or_else(|_| written.to_owned(), |path| path.display().to_string())
    }
}

fn remove(node: &mut Node, key: &str) -> Option<Entry> {
    let Value::Map(entries) = &mut node.value else { return None };
    let position = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.remove(position)).filter(|entry| !entry.value.is_null())
}

/// `extends: NAME` or `extends: {service: NAME, file: PATH}`.
fn read_extends(report: &Report, node: &Node, path: &str) -> Option<(String, Option<String>)> {
    let cursor = Cursor { node, path: path.to_owned(), key_place: node.place, report };
    if cursor.is_scalar() {
        return cursor.filled().map(|name| (name, None));
    }
    let fields = cursor.fields(&schema::EXTENDS)?;
    let file = fields.text("file");
    let Some(name) = fields.text("service") else {
        fields.missing("service");
        return None;
    };
    Some((name, file))
}

/// Adds what an included project declares; the same name with another content is an error.
fn import(report: &Report, tree: &mut Node, included: Node) {
    let Value::Map(sections) = included.value else { return };
    for section in sections {
        let is_shared =
            matches!(section.key.as_str(), "services" | "networks" | "volumes" | "configs" | "secrets");
        if !is_shared || section.value.is_null() {
            continue;
        }
        if tree.get(&section.key).is_none_or(Node::is_null) {
            remove_null(tree, &section.key);
            if let Value::Map(entries) = &mut tree.value {
                entries.push(section);
            }
            continue;
        }
        let Value::Map(entries) = section.value.value else { continue };
        let Some(Value::Map(known)) = tree.get_mut(&section.key).map(|node| &mut node.value) else {
            continue;
        };
        for entry in entries {
            let Some(other) = known.iter().find(|other| other.key == entry.key) else {
                known.push(entry);
                continue;
            };
            if !same(&other.value, &entry.value) {
                let path = join(&section.key, &entry.key);
                let message =
                    format!("`{}` is here too, line {} of the includer", entry.key, other.place.line);
                report.error_with_hint(
                    entry.place,
                    &path,
                    message,
                    "change one of them, or merge the files with -f",
                );
            }
        }
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
    }
}

fn remove_null(tree: &mut Node, key: &str) {
    if let Value::Map(entries) = &mut tree.value {
        entries.retain(|entry| entry.key != key);
    }
}

/// Whether two trees say the same, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
        (Value::List(a), Value::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Map(a), Value::Map(b)) => {
            let in_b = |entry: &Entry| {
                b.iter()
                    .find(|other| other.key == entry.key)
                    .is_some_and(|other| same(&entry.value, &other.value))
            };
            a.len() == b.len() && a.iter().all(in_b)
        }
        _ => false,
    }
}
