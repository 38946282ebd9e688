//! Reading manifests for a command: which files, with which environment, and what was found.

use std::collections::BTreeMap;

use tug_api::user::ApplyRequest;
use tug_compose::{Build, Finding, Level, Loaded, Outcome, RealDisk, Request};
use tug_model::{ServiceName, spec};

use crate::arguments::{ManifestArguments, ReadingArguments};
use crate::context::Surroundings;
use crate::failure::Failure;
use crate::render::{Screen, finding};

/// A manifest that can be deployed, once its images are built.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// What the server is asked for. Services with a build have an image name, but no image id yet.
    pub(crate) request: ApplyRequest,
    /// What has to be built first.
    pub(crate) builds: BTreeMap<ServiceName, Build>,
}

/// Reads `files` as one project.
pub(crate) fn load(files: Vec<String>, reading: &ReadingArguments, surroundings: &Surroundings) -> Outcome {
    tug_compose::load(&Request {
        files,
        project_name: reading.project_name.clone(),
        profiles: reading.profiles.clone(),
        environment: surroundings.environment.clone(),
        env_files: reading.env_files.iter().map(|path| path.display().to_string()).collect(),
        ignore_unsupported: reading.ignore_unsupported.iter().cloned().collect(),
        working_directory: surroundings.folder.display().to_string(),
        disk: &RealDisk,
    })
}

/// Reads the manifest of a command that needs a correct one; what there is to say about it is shown.
pub(crate) fn require(
    arguments: &ManifestArguments,
    surroundings: &Surroundings,
    screen: &mut Screen,
) -> Result<Manifest, Failure> {
    let files = arguments.files.iter().map(|path| path.display().to_string()).collect();
    let outcome = load(files, &arguments.reading, surroundings);
    for one in outcome.findings.iter().filter(|one| one.level != Level::Note) {
        screen.note(&finding::finding(one));
    }
    outcome.project.map(Manifest::new).ok_or_else(|| refused(&outcome.findings))
}

/// The failure that sums `findings` up.
pub(crate) fn refused(findings: &[Finding]) -> Failure {
    let count = finding::summary(findings).unwrap_or_else(|| "no project".to_owned());
    Failure::new(format!("the manifest cannot be used: {count}"))
}

// === impl Manifest ===

impl Manifest {
    fn new(loaded: Loaded) -> Self {
        let Loaded { mut project, builds, sources } = loaded;
        for name in builds.keys() {
            if let Some(service) = project.services.get_mut(name)
                && service.container.image.is_empty()
            {
                service.container.image = format!("{}-{}", project.name, name.as_str().to_ascii_lowercase());
            }
        }
        Self { request: ApplyRequest { spec: project, source: sources }, builds }
    }

    /// For a plan without building: assumes that built images are what `running` has.
    pub(crate) fn assume_built(&mut self, running: Option<&spec::Project>) {
        for name in self.builds.keys() {
            let Some(service) = self.request.spec.services.get_mut(name) else { continue };
            let before = running.and_then(|running| running.services.get(name));
            service.container.image_id = before.and_then(|before| before.container.image_id.clone());
        }
    }

    /// Notes which image was built for a service.
    pub(crate) fn set_image(&mut self, service: &ServiceName, id: String) {
        if let Some(service) = self.request.spec.services.get_mut(service) {
            service.container.image_id = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use tug_compose::MemoryDisk;

    use super::*;

    fn manifest(text: &str) -> Manifest {
        let disk =
            MemoryDisk::default().with("/app/compose.yaml", text).with("/app/Dockerfile", "FROM scratch");
        let outcome = tug_compose::load(&Request {
            files: Vec::new(),
            project_name: None,
            profiles: Vec::new(),
            environment: BTreeMap::new(),
            env_files: Vec::new(),
            ignore_unsupported: std::collections::BTreeSet::new(),
            working_directory: "/app".into(),
            disk: &disk,
        });
        Manifest::new(outcome.project.unwrap_or_else(|| panic!("{:?}", outcome.findings)))
    }

    #[test]
    fn a_built_service_without_an_image_is_named_after_its_project() {
        let text = "name: shop\nservices: {Web: {build: .}, api: {build: ., image: 'me/api:1'}}";
        let images: Vec<String> =
            manifest(text).request.spec.services.values().map(|one| one.container.image.clone()).collect();
        assert_eq!(images, ["shop-web", "me/api:1"]);
    }

    #[test]
    fn a_plan_assumes_the_image_that_runs() {
        let text = "name: shop\nservices: {web: {build: .}, db: {image: 'db:1'}}";
        let (web, db) = (ServiceName::parse("web").unwrap(), ServiceName::parse("db").unwrap());
        let mut running = manifest(text);
        running.set_image(&web, "sha256:1".into());
        let mut next = manifest(text);
        next.assume_built(Some(&running.request.spec));
        assert_eq!(next.request.spec, running.request.spec);
        next.assume_built(None);
        assert_eq!(next.request.spec.services[&web].container.image_id, None);
        assert_eq!(next.request.spec.services[&db].container.image_id, None);
    }
}
