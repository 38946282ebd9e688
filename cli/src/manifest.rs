//! Reading manifests for a command: which files, with which environment, and what was found.

mod located;

use std::collections::BTreeMap;

use tug_api::ApiError;
use tug_api::client::CallError;
use tug_api::user::ApplyRequest;
use tug_compose::{Build, Finding, Level, Loaded, Outcome, Places, RealDisk, Request};
use tug_model::spec::container::PullPolicy;
use tug_model::{ServiceName, spec};

use self::located::place;
use crate::arguments::{ManifestArguments, ReadingArguments};
use crate::context::Surroundings;
use crate::failure::Failure;
use crate::render::{Screen, finding};

/// A manifest that can be deployed, once its images are built.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    /// What the server is asked for. Services with a build have an image name, but no image id yet.
    pub(crate) request: ApplyRequest,
    /// What has to be built first.
    pub(crate) builds: BTreeMap<ServiceName, Build>,
    /// Where everything was written.
    pub(crate) places: Places,
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
        let Loaded { mut project, builds, sources, places } = loaded;
        for name in builds.keys() {
            if let Some(service) = project.services.get_mut(name)
                && service.container.image.is_empty()
            {
                service.container.image = format!("{}-{}", project.name, name.as_str().to_ascii_lowercase());
            }
        }
        Self { request: ApplyRequest { spec: project, source: sources }, builds, places }
    }

    /// What the server says of the project, with where that was written instead of how the server calls it.
    pub(crate) fn located(&self, error: CallError) -> CallError {
        let CallError::Api(mut error) = error else { return error };
        let spec = serde_json::to_value(&self.request.spec).unwrap_or_default();
        let locate = |error: &mut ApiError| {
            let field = error.field.as_deref().and_then(|field| field.strip_prefix("spec."));
            if let Some((field, place)) =
                field.and_then(|field| Some((field, place(&self.places, &spec, field)?)))
            {
                error.field = Some(format!("{place}: {field}"));
            }
        };
        locate(&mut error);
        error.also.iter_mut().for_each(locate);
        error.into()
    }

    /// For a plan without building: assumes that built images are what `running` has.
    pub(crate) fn assume_built(&mut self, running: Option<&spec::Project>) {
        for name in self.builds.keys() {
            let Some(service) = self.request.spec.services.get_mut(name) else { continue };
            let before = running.and_then(|running| running.services.get(name));
            service.container.image_id = before.and_then(|before| before.container.image_id.clone());
        }
    }

    /// What is not built yet is looked for nowhere.
    pub(crate) fn pull_no_builds(&mut self) {
        for name in self.builds.keys() {
            let Some(service) = self.request.spec.services.get_mut(name) else { continue };
            if service.container.image_id.is_none() {
                service.container.pull_policy = PullPolicy::Never;
            }
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
    fn what_the_server_finds_wrong_is_shown_where_it_was_written() {
        let text = "name: shop\nservices:\n  web:\n    image: a\n    ports:\n      - '80:80'\n    volumes: [/a:/a]\n";
        let manifest = manifest(text);
        let said = |field: &str| {
            let wrong = ApiError::new(tug_api::Code::Conflict, "no").field(field);
            let all =
                ApiError::all([wrong, ApiError::new(tug_api::Code::Invalid, "nor this").field("spec.name")]);
            Failure::from(manifest.located(all.unwrap().into())).message
        };
        insta::assert_snapshot!(said("spec.services.web.ports[0]"), @r"
        compose.yaml:6:9: services.web.ports[0]: no
        compose.yaml:1:7: name: nor this
        ");
        let first = |field: &str| said(field).lines().next().unwrap().to_owned();
        insta::assert_snapshot!(first("spec.services.web.container.mounts[0].source.bind.path"),
            @"compose.yaml:7:15: services.web.container.mounts[0].source.bind.path: no");
        insta::assert_snapshot!(first("if-revision"), @"if-revision: no");
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
