//! The assignment and the endpoints that a node follows, checked and made ready for lookups.

use std::collections::BTreeMap;
use std::sync::Arc;

use tug_model::assignment::{AssignedTask, Assignment, Refusal, Resources};
use tug_model::endpoints::{Endpoints, ServiceEndpoints, Stamp};
use tug_model::report::Following;
use tug_model::task::{Desired, Template};
use tug_model::{NodeId, ProjectName, TaskId};

/// What a node was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    assignment: Assignment,
    /// Whether anybody told it, or it is only what the labels of containers say about the cluster.
    told: bool,
    tasks: BTreeMap<TaskId, AssignedTask>,
    templates: BTreeMap<TaskId, Arc<Template>>,
    resources: BTreeMap<ProjectName, Arc<Resources>>,
    endpoints: Arc<Endpoints>,
}

/// Why an assignment cannot be followed, whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A task is named twice.
    #[error("task `{0}` is assigned twice")]
    Twice(TaskId),
    /// A task's template is not among the templates.
    #[error("the template of task `{0}` is missing")]
    Template(TaskId),
    /// A network, volume or config that a task uses is not there.
    #[error("{what} `{name}` of task `{task}` is missing")]
    Resource {
        /// Whose.
        task: TaskId,
        /// `network`, `volume` or `config`.
        what: &'static str,
        /// Its key.
        name: String,
    },
}

// === impl Orders ===

impl Orders {
    /// What a node follows that was never told anything. A cluster that its containers name is not to be replaced by
    /// another.
    pub fn none(node: NodeId, cluster: String) -> Self {
        let assignment = Assignment { cluster, ..Assignment::empty(node) };
        Self {
            assignment,
            told: false,
            tasks: BTreeMap::new(),
            templates: BTreeMap::new(),
            resources: BTreeMap::new(),
            endpoints: Arc::default(),
        }
    }

    /// What people call the image that is known by this id.
    pub fn image_name(&self, id: &str) -> Option<&str> {
        let mut containers = self.templates.values().map(|template| &template.container);
        let container = containers.find(|container| container.image_id.as_deref() == Some(id))?;
        Some(&container.image)
    }

    /// Checks that everything the tasks need is there.
    pub fn new(assignment: Assignment) -> Result<Self, Flaw> {
        let shared: BTreeMap<_, _> =
            assignment.templates.iter().map(|(hash, template)| (hash, Arc::new(template.clone()))).collect();
        let mut tasks = BTreeMap::new();
        let mut templates = BTreeMap::new();
        for task in &assignment.tasks {
            match shared.get(&task.template) {
                Some(template) => {
                    check(&assignment, task, template)?;
                    templates.insert(task.id.clone(), Arc::clone(template));
                }
                None if is_stopping(task) => {}
                None => return Err(Flaw::Template(task.id.clone())),
            }
            if tasks.insert(task.id.clone(), task.clone()).is_some() {
                return Err(Flaw::Twice(task.id.clone()));
            }
        }
        let resources = assignment
            .projects
            .iter()
            .map(|(name, resources)| (name.clone(), Arc::new(resources.clone())))
            .collect();
        Ok(Self { assignment, told: true, tasks, templates, resources, endpoints: Arc::default() })
    }

    /// The same with these endpoints.
    #[must_use]
    pub fn with(self, endpoints: Arc<Endpoints>) -> Self {
        Self { endpoints, ..self }
    }

    /// The endpoints that the node is to know after these news, or why it does not take them.
    pub fn updated(&self, stamp: Stamp, news: Vec<ServiceEndpoints>) -> Result<Endpoints, Refusal> {
        self.endpoints.updated(&self.assignment, stamp, news)
    }

    /// Whether these orders may be followed by `next`, or why not. Beyond the rule for every assignment, one that
    /// takes everything away must be newer.
    pub fn superseded_by(&self, next: &Assignment) -> Result<(), Refusal> {
        self.assignment.superseded_by(next)?;
        let empties = next.tasks.is_empty() && !self.tasks.is_empty();
        let ours = (self.assignment.epoch, self.assignment.generation);
        if empties && (next.epoch, next.generation) == ours {
            return Err(Refusal::Older { ours: ours.1, theirs: next.generation });
        }
        Ok(())
    }

    /// The assignment itself.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Whether anybody told the node anything. If not, nothing is stopped.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// The cluster's id; empty while none is known.
    pub fn cluster(&self) -> &str {
        &self.assignment.cluster
    }

    /// Which assignment and which endpoints these are.
    pub fn following(&self) -> Following {
        Following {
            cluster: self.assignment.cluster.clone(),
            epoch: self.assignment.epoch,
            generation: self.assignment.generation,
            endpoints: self.endpoints.stamp.generation,
        }
    }

    /// Who may be given connections.
    pub fn endpoints(&self) -> &Arc<Endpoints> {
        &self.endpoints
    }

    /// The tasks, by id.
    pub fn tasks(&self) -> &BTreeMap<TaskId, AssignedTask> {
        &self.tasks
    }

    /// What a task is made of.
    pub fn template(&self, task: &TaskId) -> Option<&Arc<Template>> {
        self.templates.get(task)
    }

    /// The networks and volumes of a project.
    pub fn resources(&self, project: &ProjectName) -> Option<&Arc<Resources>> {
        self.resources.get(project)
    }
}

fn is_stopping(task: &AssignedTask) -> bool {
    matches!(task.desired, Desired::Stop { .. })
}

fn check(assignment: &Assignment, task: &AssignedTask, template: &Template) -> Result<(), Flaw> {
    if is_stopping(task) {
        return Ok(());
    }
    let missing = |what: &'static str, name: &str| {
        Err(Flaw::Resource { task: task.id.clone(), what, name: name.to_owned() })
    };
    let resources = assignment.projects.get(&task.project);
    for name in super::step::networks_of(template) {
        if !resources.is_some_and(|resources| resources.networks.contains_key(name)) {
            return missing("network", name.as_str());
        }
    }
    for name in super::step::volumes_of(template) {
        if !resources.is_some_and(|resources| resources.volumes.contains_key(name)) {
            return missing("volume", name.as_str());
        }
    }
    for config in &template.container.configs {
        if !assignment.configs.contains_key(&config.hash) {
            return missing("config", &config.config);
        }
    }
    Ok(())
}
