//! Who may be given connections, service by service: what every node that opens the published ports is told.
//!
//! A service's endpoints are the same text for every node and travel whole, with a version that names their content: a
//! node is sent those that have changed, and nothing of the others. They are apart from the assignment, so that one task
//! more or less behind a port costs a node no more than the endpoints of that one service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::assignment::{Assignment, Refusal, Run};
use crate::name::{NodeId, ProjectName, ServiceName, TaskId};
use crate::project::ServiceRef;
use crate::quantity::{Revision, Timestamp};
use crate::spec::service::Port;

/// A service with published ports, and the tasks behind them, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEndpoints {
    /// Whose it is.
    pub project: ProjectName,
    /// Which service.
    pub service: ServiceName,
    /// A hash of the rest.
    pub version: String,
    /// The ports that every node opens for it, sorted; `published` is always set. None: it has none any more.
    pub ports: Vec<Port>,
    /// The nodes that have tasks which may be given connections.
    #[serde(default)]
    pub nodes: BTreeMap<NodeId, NodeEndpoints>,
}

/// The tasks of one service on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeEndpoints {
    /// Where the node's agent is reached by other agents, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The tasks, sorted. Whether they are healthy is known to their own agent.
    pub tasks: BTreeSet<TaskId>,
}

/// The commit that endpoints were computed from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "FlatStamp", into = "FlatStamp")]
pub struct Stamp {
    /// The cluster's id.
    pub cluster: String,
    /// Its epoch; see [`Assignment::epoch`].
    pub epoch: u64,
    /// The commit.
    pub generation: Revision,
    /// By which run of the control plane; see [`Assignment::run`].
    pub run: Option<Run>,
}

/// A stamp as it is written: without anything inside anything, since it travels in the query of a URI.
#[derive(Serialize, Deserialize)]
struct FlatStamp {
    cluster: String,
    epoch: u64,
    generation: Revision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_found: Option<Revision>,
}

/// All endpoints that a node knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Endpoints {
    /// The newest commit of which the node was told something.
    pub stamp: Stamp,
    /// The services, sorted by name.
    pub services: Vec<Arc<ServiceEndpoints>>,
}

/// What a node says that it knows: enough to be sent what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Known {
    /// The newest commit of which it was told something.
    pub generation: Revision,
    /// The version of each service that it knows.
    pub versions: Vec<(ServiceRef, String)>,
}

// === impl Stamp ===

impl From<FlatStamp> for Stamp {
    fn from(flat: FlatStamp) -> Self {
        let FlatStamp { cluster, epoch, generation, run_at, run_found } = flat;
        let run = run_at.zip(run_found).map(|(at, found)| Run { at, found });
        Self { cluster, epoch, generation, run }
    }
}

impl From<Stamp> for FlatStamp {
    fn from(stamp: Stamp) -> Self {
        let Stamp { cluster, epoch, generation, run } = stamp;
        let (run_at, run_found) = run.map(|Run { at, found }| (at, found)).unzip();
        Self { cluster, epoch, generation, run_at, run_found }
    }
}

// === impl ServiceEndpoints ===

impl ServiceEndpoints {
    /// Endpoints under the version that their content has.
    pub fn new(service: ServiceRef, mut ports: Vec<Port>, nodes: BTreeMap<NodeId, NodeEndpoints>) -> Self {
        ports.sort_unstable();
        let json = serde_json::to_vec(&(&ports, &nodes)).expect("endpoints hold nothing that JSON cannot");
        let version = blake3::hash(&json).to_hex().chars().take(16).collect();
        let ServiceRef { project, service } = service;
        Self { project, service, version, ports, nodes }
    }

    /// Of which service.
    pub fn service_ref(&self) -> ServiceRef {
        ServiceRef { project: self.project.clone(), service: self.service.clone() }
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// These, with `news` in the place of what was known of the same services; or why a node that follows `assignment`
    /// does not take them.
    pub fn updated(
        &self,
        assignment: &Assignment,
        stamp: Stamp,
        news: Vec<ServiceEndpoints>,
    ) -> Result<Self, Refusal> {
        if stamp.cluster != assignment.cluster {
            let (ours, theirs) = (assignment.cluster.clone(), stamp.cluster);
            return Err(Refusal::OtherCluster { ours, theirs });
        }
        if stamp.epoch < assignment.epoch {
            return Err(Refusal::Older { ours: assignment.generation, theirs: stamp.generation });
        }
        let is_ours = self.stamp.cluster == stamp.cluster;
        if is_ours && (stamp.epoch, stamp.generation) < (self.stamp.epoch, self.stamp.generation) {
            return Err(Refusal::Older { ours: self.stamp.generation, theirs: stamp.generation });
        }
        if is_ours && stamp.epoch == self.stamp.epoch {
            Run::knows(stamp.run, self.stamp.run, self.stamp.generation)?;
        }
        let known = if is_ours { self.services.as_slice() } else { &[] };
        let mut services: BTreeMap<ServiceRef, Arc<ServiceEndpoints>> =
            known.iter().map(|known| (known.service_ref(), Arc::clone(known))).collect();
        for service in news {
            if service.ports.is_empty() {
                services.remove(&service.service_ref());
            } else {
                services.insert(service.service_ref(), Arc::new(service));
            }
        }
        Ok(Self { stamp, services: services.into_values().collect() })
    }

    /// What a node that knows these says about it.
    pub fn known(&self) -> Known {
        let versions = self.services.iter().map(|it| (it.service_ref(), it.version.clone()));
        Known { generation: self.stamp.generation, versions: versions.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, tasks: &[&str]) -> ServiceEndpoints {
        let service = ServiceRef {
            project: ProjectName::parse("shop").unwrap(),
            service: ServiceName::parse(name).unwrap(),
        };
        let port =
            serde_json::json!({ "target": 80, "published": 8080, "protocol": "tcp", "mode": "ingress" });
        let tasks = tasks.iter().map(|task| TaskId::parse(task).unwrap()).collect();
        let nodes = [(NodeId::parse("n1").unwrap(), NodeEndpoints { address: None, tasks })].into();
        ServiceEndpoints::new(service, vec![serde_json::from_value(port).unwrap()], nodes)
    }

    fn stamp(cluster: &str, epoch: u64, generation: u64) -> Stamp {
        Stamp { cluster: cluster.into(), epoch, generation: Revision(generation), run: None }
    }

    fn assignment() -> Assignment {
        Assignment {
            cluster: "home".into(),
            epoch: 2,
            generation: Revision(5),
            ..Assignment::empty(NodeId::parse("n1").unwrap())
        }
    }

    #[test]
    fn a_version_names_the_content() {
        assert_eq!(service("web", &["a.1"]).version, service("web", &["a.1"]).version);
        assert_ne!(service("web", &["a.1"]).version, service("web", &["a.2"]).version);
    }

    #[test]
    fn what_is_sent_takes_the_place_of_what_was_known_and_the_rest_stays() {
        let first = vec![service("web", &["a.1"]), service("api", &["b.1"])];
        let known = Endpoints::default().updated(&assignment(), stamp("home", 2, 5), first).unwrap();
        let news = vec![service("web", &["a.1", "a.2"])];
        let next = known.updated(&assignment(), stamp("home", 2, 6), news).unwrap();
        let names: Vec<&str> = next.services.iter().map(|it| it.service.as_str()).collect();
        assert_eq!(names, ["api", "web"]);
        assert!(Arc::ptr_eq(&next.services[0], &known.services[0]));
        assert_eq!(next.services[1].nodes.values().map(|node| node.tasks.len()).sum::<usize>(), 2);
        assert_eq!(next.known().versions.len(), 2);

        let gone = ServiceEndpoints::new(next.services[1].service_ref(), Vec::new(), BTreeMap::new());
        let rest = next.updated(&assignment(), stamp("home", 2, 7), vec![gone]).unwrap();
        assert_eq!(rest.services, [Arc::clone(&known.services[0])]);
    }

    #[test]
    fn what_is_older_or_of_another_cluster_is_refused() {
        let known = Endpoints { stamp: stamp("home", 2, 9), ..Endpoints::default() };
        for (refused, of) in [
            (stamp("home", 2, 8), "an older commit"),
            (stamp("home", 1, 99), "an older epoch"),
            (stamp("other", 2, 99), "another cluster"),
        ] {
            assert!(known.updated(&assignment(), refused, Vec::new()).is_err(), "{of}");
        }
        assert!(known.updated(&assignment(), stamp("home", 2, 9), Vec::new()).is_ok());
        assert!(known.updated(&assignment(), stamp("home", 3, 1), Vec::new()).is_ok(), "a later epoch");
        let untold = Assignment::empty(NodeId::parse("n1").unwrap());
        assert!(known.updated(&untold, stamp("home", 3, 1), Vec::new()).is_err(), "before any assignment");
    }

    #[test]
    fn what_was_known_of_another_cluster_is_forgotten() {
        let services = vec![Arc::new(service("old", &["a.1"]))];
        let known = Endpoints { stamp: stamp("other", 7, 90), services };
        let next = known.updated(&assignment(), stamp("home", 2, 5), vec![service("web", &["a.1"])]).unwrap();
        assert_eq!(next.services.len(), 1);
        assert_eq!(next.services[0].service.as_str(), "web");
    }
}
