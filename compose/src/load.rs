//! From the command line's words to a project: find the files, read them one after the other, merge, check.

mod complete;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tug_model::project::SourceFile;
use tug_model::{ProjectName, ServiceName};

use complete::Origin;

use crate::build::Build;
use crate::context::{Context, normalize};
use crate::disk::{Disk, PathKind, ReadError};
use crate::env_file::{self, Format};
use crate::finding::{Finding, Report};
use crate::places::Places;
use crate::tree::{self, Node, Place};
use crate::{merge, project};

/// The file names that are looked for, the preferred first.
pub const FILE_NAMES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// The largest manifest.
const LARGEST_FILE: usize = 1 << 20;

/// What to load.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The manifests as given, later ones merged over earlier ones. None: one of [`FILE_NAMES`] in the working
    /// directory.
    pub files: Vec<String>,
    /// The project's name, over the one in the file.
    pub project_name: Option<String>,
    /// The active profiles; `*` is all of them.
    pub profiles: Vec<String>,
    /// The environment of the user.
    pub environment: BTreeMap<String, String>,
    /// Files with more variables, below the environment. None: `.env` beside the first manifest, if there is one.
    pub env_files: Vec<String>,
    /// Keys that may be dropped where they are not supported.
    pub ignore_unsupported: BTreeSet<String>,
    /// Where relative paths of this request start; absolute.
    pub working_directory: String,
    /// Where files are read from.
    pub disk: &'a dyn Disk,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// The project; none if there is any error among the findings.
    pub project: Option<Loaded>,
    /// All that is to be said, in the order of the text.
    pub findings: Vec<Finding>,
}

/// A project, checked and resolved.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is to run.
    pub project: tug_model::spec::Project,
    /// Which images have to be built first.
    pub builds: BTreeMap<ServiceName, Build>,
    /// The manifests that it was made from.
    pub sources: Vec<SourceFile>,
    /// Where in them everything was written.
    pub places: Places,
}

/// Reads a project. Every mistake is among the findings, and nothing is left out without one.
pub fn load(request: &Request<'_>) -> Outcome {
    let report = Report::new(request.ignore_unsupported.clone());
    let mut loader = Loader {
        request,
        report: &report,
        folders: Vec::new(),
        sources: Vec::new(),
        environment: BTreeMap::new(),
        opened: BTreeMap::new(),
        extended_values: 0,
    };
    let result = loader.run();
    let project = result.filter(|_| !report.has_errors());
    Outcome { project, findings: report.into_findings() }
}

struct Loader<'a> {
    request: &'a Request<'a>,
    report: &'a Report,
    /// The folder that relative paths of each file start from, by the file's number.
    folders: Vec<PathBuf>,
    sources: Vec<SourceFile>,
    environment: BTreeMap<String, String>,
    /// Files that services are extended from; none where one cannot be used.
    opened: BTreeMap<PathBuf, Option<Rc<Node>>>,
    /// How many values were copied by `extends`.
    extended_values: usize,
}

// === impl Loader ===

impl Loader<'_> {
    fn run(&mut self) -> Option<Loaded> {
        let paths = self.find_files()?;
        let first = paths.first().map(|(_, path)| path.clone()).unwrap_or_default();
        let folder = first.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf);
        self.read_environment(&folder);
        let mut trees = Vec::new();
        for (name, path) in &paths {
            trees.push(self.read_tree(name, path, &folder));
        }
        let trees: Vec<Node> = trees.into_iter().collect::<Option<_>>()?;
        let name = self.project_name(&trees, &folder)?;
        self.environment.insert("COMPOSE_PROJECT_NAME".to_owned(), name.to_string());
        let mut merged: Option<Node> = None;
        for (tree, (_, path)) in trees.into_iter().zip(paths) {
            let environment = self.environment.clone();
            let origin = Origin { environment, chain: vec![path.clone()], path };
            let tree = self.complete(tree, &origin);
            merged = Some(match merged {
                None => tree,
                Some(before) => merge::files(self.report, before, tree),
            });
        }
        if self.extended_values > complete::MOST_VALUES {
            // Not all was taken in: what would be said about the rest is not the user's mistake.
            return None;
        }
        let mut merged = merged?;
        merge::take_away(&mut merged);
        let context = Context {
            report: self.report,
            disk: self.request.disk,
            project: &name,
            environment: &self.environment,
            folders: &self.folders,
            configs: std::cell::RefCell::default(),
        };
        let (project, builds) = project::read(&context, &merged, &self.profiles())?;
        let places = Places::of(self.report, &merged);
        Some(Loaded { project, builds, sources: std::mem::take(&mut self.sources), places })
    }

    fn absolute(&self, path: &str) -> PathBuf {
        normalize(&Path::new(&self.request.working_directory).join(path))
    }

    /// The manifests, as named and as absolute paths.
    fn find_files(&self) -> Option<Vec<(String, PathBuf)>> {
        if !self.request.files.is_empty() {
            let files = self.request.files.iter().map(|name| (name.clone(), self.absolute(name)));
            return Some(files.collect());
        }
        let exists = |name: &&str| self.request.disk.kind(&self.absolute(name)) != PathKind::Missing;
        if let Some(name) = FILE_NAMES.iter().find(|name| exists(name)) {
            return Some(vec![((*name).to_owned(), self.absolute(name))]);
        }
        let file = self.report.file(&self.request.working_directory);
        let names = FILE_NAMES.join(", ");
        let place = Place { file, line: 0, column: 0 };
        self.report.error_with_hint(
            place,
            "",
            format!("there is no manifest here: none of {names}"),
            "name one with -f",
        );
        None
    }

    /// `.env` or the files given for it, under the user's own environment.
    fn read_environment(&mut self, folder: &Path) {
        let request = self.request;
        let files: Vec<(String, PathBuf, bool)> = if request.env_files.is_empty() {
            vec![(".env".to_owned(), folder.join(".env"), false)]
        } else {
            request.env_files.iter().map(|name| (name.clone(), self.absolute(name), true)).collect()
        };
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for (name, path, required) in files {
            let text = match request.disk.read(&path, LARGEST_FILE) {
                Ok(content) => String::from_utf8(content.bytes),
                Err(ReadError::Missing | ReadError::Directory) if !required => continue,
                Err(error) => {
                    self.cannot_read(&name, &error);
                    continue;
                }
            };
            let file = self.new_file(&name, folder);
            let at = |line| Place { file, line, column: u32::from(line > 0) };
            let Ok(text) = text else {
                self.report.error(at(0), "", "the file is not UTF-8");
                continue;
            };
            match env_file::parse(&text, Format::Dotenv, &request.environment) {
                Ok(pairs) => found.extend(pairs),
                Err(bad) => bad.into_iter().for_each(|bad| self.report.error(at(bad.line), "", bad.message)),
            }
        }
        found.extend(request.environment.clone());
        self.environment = found;
    }

    fn cannot_read(&mut self, name: &str, error: &ReadError) {
        let file = self.new_file(name, Path::new("/"));
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        self.report.error(Place { file, line: 0, column: 0 }, "", format!("{error}{cause}"));
    }

    fn new_file(&mut self, name: &str, folder: &Path) -> u16 {
        self.folders.push(folder.to_path_buf());
        self.report.file(name)
    }

    /// The file as a tree with its merge keys resolved.
    fn read_tree(&mut self, name: &str, path: &Path, folder: &Path) -> Option<Node> {
        let bytes = match self.request.disk.read(path, LARGEST_FILE) {
            Ok(content) => content.bytes,
            Err(error) => {
                self.cannot_read(name, &error);
                return None;
            }
        };
        let file = self.new_file(name, folder);
        let mut tree = tree::parse(self.report, file, &bytes)?;
        tree::resolve(self.report, &mut tree, "");
        if tree.is_null() {
            let start = Place { file, line: 1, column: 1 };
            self.report.error(start, "", "the file is empty: it holds no services");
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.sources.push(SourceFile { path: name.to_owned(), text });
        Some(tree)
    }

    fn profiles(&self) -> BTreeSet<String> {
        let mut profiles: BTreeSet<String> = self.request.profiles.iter().cloned().collect();
        if profiles.is_empty()
            && let Some(list) = self.environment.get("COMPOSE_PROFILES")
        {
            profiles
                .extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        }
        profiles
    }

    /// The name: as asked for, from the environment, from the last file that has one, or after the folder.
    fn project_name(&self, trees: &[Node], folder: &Path) -> Option<ProjectName> {
        let place = trees.first().map(|tree| tree.place).unwrap_or_default();
        let whole = Place { line: 0, column: 0, ..place };
        let asked = self.request.project_name.clone();
        let asked = asked.or_else(|| {
            self.environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned()
        });
        if let Some(name) = asked {
            return self.parse_name(whole, "", &name);
        }
        let written = trees.iter().rev().find_map(|tree| tree.get("name").filter(|node| !node.is_null()));
        if let Some(node) = written {
            let Some(text) = node.as_text() else {
                self.report.error(node.place, "name", format!("expected a text, got {}", node.shown()));
                return None;
            };
            return match crate::interpolate::expand(text, &self.environment) {
                Ok(expanded) => self.parse_name(node.place, "name", &expanded.text),
                Err(message) => {
                    self.report.broken(node.place, "name", message);
                    None
                }
            };
        }
        let base = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
        let kept: String =
            base.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        let name = kept.trim_start_matches(['-', '_']);
        let name = name.get(..name.len().min(63)).unwrap_or_default();
        if name.is_empty() {
            let hint = "add `name: …` to the manifest";
            self.report.error_with_hint(whole, "", "the folder's name makes no name for the project", hint);
            return None;
        }
        self.parse_name(whole, "", name)
    }

    fn parse_name(&self, place: Place, path: &str, name: &str) -> Option<ProjectName> {
        match ProjectName::parse(name) {
            Ok(name) => Some(name),
            Err(error) => {
                self.report.error(place, path, error.to_string());
                None
            }
        }
    }
}
