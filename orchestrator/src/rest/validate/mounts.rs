//! What a container is shown: volumes and configs that the project has, and paths that are what they seem.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use tug_model::spec::Project;
use tug_model::spec::container::{Container, MountSource};
use tug_model::spec::resource::Volume;

use super::{Findings, shown};

/// Checks the mounts of `container`, which stands at the path of the last argument.
pub(super) fn check(
    project: &Project,
    container: &Container,
    private: &[PathBuf],
    (at, findings): (&str, &mut Findings),
) {
    let mut targets = BTreeMap::new();
    for (index, mount) in container.mounts.iter().enumerate() {
        let at = format!("{at}.mounts[{index}]");
        target(&mount.target, &at, &mut targets, findings);
        source(project, &mount.source, private, (&format!("{at}.source"), findings));
    }
    for (index, mount) in container.configs.iter().enumerate() {
        let at = format!("{at}.configs[{index}]");
        target(&mount.target, &at, &mut targets, findings);
        match project.configs.get(&mount.config) {
            None => {
                let message = format!("`{}` is no config of the project", shown(&mount.config));
                findings.add(format!("{at}.config"), message);
            }
            Some(config) if config.hash() != mount.hash => {
                findings.add(format!("{at}.hash"), "this is not the hash of the config's content");
            }
            Some(_) => {}
        }
        if mount.mode.is_some_and(|mode| mode > 0o7777) {
            findings.add(format!("{at}.mode"), "permission bits are at most 7777 in octal");
        }
    }
    for (index, device) in container.devices.iter().enumerate() {
        if device.permissions.is_empty() || !device.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
            findings.add(format!("{at}.devices[{index}].permissions"), "use r, w and m");
        }
    }
}

fn target(path: &str, at: &str, seen: &mut BTreeMap<String, String>, findings: &mut Findings) {
    let field = format!("{at}.target");
    if let Some(mistake) = path_mistake(path) {
        findings.add(&field, mistake);
    } else if Path::new(path).parent().is_none() {
        findings.add(&field, "nothing can be mounted over the container's root");
    }
    if let Some(earlier) = seen.insert(path.trim_end_matches('/').to_owned(), field.clone()) {
        findings.add(field, format!("`{}` is mounted over twice, here and at {earlier}", shown(path)));
    }
}

fn source(
    project: &Project,
    source: &MountSource,
    private: &[PathBuf],
    (at, findings): (&str, &mut Findings),
) {
    match source {
        MountSource::Volume { name, subpath, .. } => {
            if !project.volumes.contains_key(name) {
                findings.add(format!("{at}.volume.name"), format!("`{name}` is no volume of the project"));
            }
            if let Some(subpath) = subpath {
                let inside = Path::new(subpath).components().all(|part| matches!(part, Component::Normal(_)));
                if subpath.is_empty() || !inside {
                    let message = format!("`{}` is no path within a volume", shown(subpath));
                    findings.add(format!("{at}.volume.subpath"), message);
                }
            }
        }
        MountSource::Bind { path, .. } => {
            let field = format!("{at}.bind.path");
            if let Some(mistake) = path_mistake(path) {
                findings.add(field, mistake);
            } else if is_private(path, private) {
                findings.forbid(field, belongs_to_tug(path));
            }
        }
        MountSource::Anonymous | MountSource::Tmpfs { .. } => {}
    }
}

/// Checks what the driver of a volume is told: the options of the usual one can name any folder of the machine.
pub(super) fn check_volume(volume: &Volume, private: &[PathBuf], (at, findings): (&str, &mut Findings)) {
    for (key, path) in volume.option_paths() {
        if is_private(path, private) {
            findings.forbid(format!("{at}.driver_opts.{}", shown(key)), belongs_to_tug(path));
        }
    }
}

fn is_private(path: &str, private: &[PathBuf]) -> bool {
    private.iter().any(|private| Path::new(path).starts_with(private))
}

fn belongs_to_tug(path: &str) -> String {
    format!("`{}` belongs to Tug itself: no container is shown anything of it", shown(path))
}

/// Why `path` is no plain absolute path; `None` when it is.
fn path_mistake(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some(format!("`{}` is not absolute: it starts with /", shown(path)));
    }
    if path.split('/').any(|part| part == "..") {
        return Some(format!("`{}` goes up with ..: write the path that is meant", shown(path)));
    }
    (path.len() > 4096).then(|| "the path is longer than 4096 bytes".to_owned())
}
