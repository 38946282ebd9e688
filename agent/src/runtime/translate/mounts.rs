//! Volumes, bind mounts, memory and config files.
//!
//! Most become the Engine's typed mounts. A bind mount that shall make its missing path, or relabel it for `SELinux`,
//! becomes a line of the older `binds`, which every engine understands.

use bollard::models::{
    Mount as EngineMount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation,
    MountTmpfsOptions, MountType, MountVolumeOptions,
};
use tug_model::VolumeName;
use tug_model::quantity::Bytes;
use tug_model::spec::container::{Mount, MountSource};

use super::{Untranslatable, signed};
use crate::runtime::ContainerRequest;

/// Everything that is mounted into a container, in both of the Engine's forms.
#[derive(Debug, Default)]
pub(super) struct Mounted {
    pub(super) binds: Vec<String>,
    pub(super) mounts: Vec<EngineMount>,
}

/// The mounts of the container of `request`, its configs among them.
pub(super) fn mounts(request: &ContainerRequest) -> Result<Mounted, Untranslatable> {
    let mut mounted = Mounted::default();
    for mount in &request.template.container.mounts {
        mounted.add(request, mount)?;
    }
    for config in &request.template.container.configs {
        let file = request.config_files.get(&config.target);
        let file = file.ok_or_else(|| Untranslatable::Config(config.config.clone()))?;
        mounted.mounts.push(EngineMount {
            typ: Some(MountType::BIND),
            source: Some(file.to_string_lossy().into_owned()),
            target: Some(config.target.clone()),
            read_only: Some(true),
            ..EngineMount::default()
        });
    }
    Ok(mounted)
}

impl Mounted {
    fn add(&mut self, request: &ContainerRequest, mount: &Mount) -> Result<(), Untranslatable> {
        let base = EngineMount {
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            ..EngineMount::default()
        };
        let mount = match &mount.source {
            MountSource::Volume { name, nocopy, subpath } => EngineMount {
                typ: Some(MountType::VOLUME),
                source: Some(engine_name(request, name)?),
                volume_options: Some(MountVolumeOptions {
                    no_copy: Some(*nocopy),
                    subpath: subpath.clone(),
                    ..MountVolumeOptions::default()
                }),
                ..base
            },
            MountSource::Anonymous => EngineMount { typ: Some(MountType::VOLUME), ..base },
            MountSource::Bind { path, create, propagation, selinux } => {
                let old_form = *create || selinux.is_some();
                // A colon ends the path in the old form; there is no way to write it.
                if old_form && !path.contains(':') && !mount.target.contains(':') {
                    self.binds.push(bind(mount, path, propagation.as_deref(), selinux.as_deref()));
                    return Ok(());
                }
                EngineMount {
                    typ: Some(MountType::BIND),
                    source: Some(path.clone()),
                    bind_options: Some(MountBindOptions {
                        propagation: propagation.as_deref().map(parse_propagation).transpose()?,
                        create_mountpoint: create.then_some(true),
                        ..MountBindOptions::default()
                    }),
                    ..base
                }
            }
            MountSource::Tmpfs { size, mode } => EngineMount {
                typ: Some(MountType::TMPFS),
                tmpfs_options: Some(MountTmpfsOptions {
                    size_bytes: size.map(|Bytes(size)| signed(size)),
                    mode: mode.map(i64::from),
                    options: None,
                }),
                ..base
            },
        };
        self.mounts.push(mount);
        Ok(())
    }
}

fn engine_name(request: &ContainerRequest, name: &VolumeName) -> Result<String, Untranslatable> {
    let volume = request.resources.volumes.get(name);
    volume.map(|volume| volume.engine_name.clone()).ok_or_else(|| Untranslatable::Volume(name.clone()))
}

fn bind(mount: &Mount, path: &str, propagation: Option<&str>, selinux: Option<&str>) -> String {
    let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
    options.extend(selinux);
    options.extend(propagation);
    format!("{path}:{}:{}", mount.target, options.join(","))
}

fn parse_propagation(text: &str) -> Result<Propagation, Untranslatable> {
    text.parse().map_err(|_| Untranslatable::Propagation(text.to_owned()))
}
