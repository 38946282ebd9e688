//! What the Docker Engine says about itself.

use std::path::PathBuf;

use bollard::Docker;
use bollard::models::{LocalNodeState, SystemInfo, SystemVersion};
use tug_api::error::chain;

use super::super::{Engine, NoEngine};

/// How long the Engine may take, in seconds.
const PATIENCE: u64 = 10;

/// The Engine at `docker`, and the folder in which it keeps everything.
pub(super) async fn look(docker: &str) -> (Result<Engine, NoEngine>, Option<PathBuf>) {
    let path = docker.strip_prefix("unix://").unwrap_or(docker);
    let none = |reason: String, is_forbidden| {
        (Err(NoEngine { socket: docker.to_owned(), reason, is_forbidden }), None)
    };
    if path.contains("://") {
        return none("a node runs the Engine of its own machine, by its socket".to_owned(), false);
    }
    // The library's own errors do not tell what is wrong with a socket.
    if let Err(error) = tokio::net::UnixStream::connect(path).await {
        return none(error.to_string(), error.kind() == std::io::ErrorKind::PermissionDenied);
    }
    let asked = async {
        let client = Docker::connect_with_unix(path, PATIENCE, bollard::API_DEFAULT_VERSION)?;
        futures_util::future::try_join(client.info(), client.version()).await
    };
    match asked.await {
        Ok((info, version)) => {
            let root = info.docker_root_dir.clone().map(PathBuf::from);
            (Ok(engine(info, version)), root)
        }
        Err(error) => none(chain(&error), false),
    }
}

fn engine(info: SystemInfo, version: SystemVersion) -> Engine {
    let components = version.components.unwrap_or_default();
    let is_podman = components.iter().any(|component| component.name.starts_with("Podman"));
    let security = info.security_options.unwrap_or_default();
    let swarm = info.swarm.and_then(|swarm| swarm.local_node_state);
    Engine {
        version: version.version.unwrap_or_default(),
        api: version.api_version.unwrap_or_default(),
        is_podman,
        is_rootless: security.iter().any(|option| option == "name=rootless"),
        live_restore: info.live_restore_enabled == Some(true),
        in_swarm: swarm
            .is_some_and(|state| !matches!(state, LocalNodeState::EMPTY | LocalNodeState::INACTIVE)),
        cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        memory_limit: info.memory_limit == Some(true),
        storage_driver: info.driver.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_says_is_understood() {
        let info = r#"{"Driver":"overlay2","MemoryLimit":true,"CgroupVersion":"2","LiveRestoreEnabled":false,
            "DockerRootDir":"/var/lib/docker","SecurityOptions":["name=seccomp,profile=default","name=rootless"],
            "Swarm":{"LocalNodeState":"active"}}"#;
        let version = r#"{"Version":"4.3.1","ApiVersion":"1.41","Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#;
        let found = engine(serde_json::from_str(info).unwrap(), serde_json::from_str(version).unwrap());
        assert!(
            found.is_podman
                && found.is_rootless
                && found.in_swarm
                && found.memory_limit
                && !found.live_restore
        );
        assert_eq!((found.cgroup_version.as_str(), found.storage_driver.as_str()), ("2", "overlay2"));
        let silent = engine(SystemInfo::default(), SystemVersion::default());
        assert!(!silent.in_swarm && !silent.is_podman && !silent.memory_limit, "{silent:?}");
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let (found, _) = look("unix:///nowhere/docker.sock").await;
        let none = found.unwrap_err();
        assert!(none.reason.contains("No such file") && !none.is_forbidden, "{none:?}");
        assert!(look("ssh://host").await.0.unwrap_err().reason.contains("its own machine"));
    }
}
