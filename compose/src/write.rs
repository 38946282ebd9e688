//! The resolved project as YAML, for people to see what is really deployed.

use tug_model::spec::Project;

/// Why a project was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The writer refused.
    #[error("write the project as YAML")]
    Write(#[source] serde_yaml::Error),
}

/// The project in canonical form: every default written out, keys in a stable order.
pub fn write(project: &Project) -> Result<String, WriteError> {
    serde_yaml::to_string(project).map_err(WriteError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryDisk, Request, load};

    #[test]
    fn what_is_written_reads_back_as_the_same_project() {
        let text = "
name: shop
services:
  web:
    image: nginx
    command: ['yes', '0o17', '1_000', 'a: b', '']
    environment: {A: 'no', B: '1.10', C: \"two\\nlines\", D: '# x'}
    ports: ['127.0.0.1:80:80', '53:53/udp']
    volumes: ['data:/d', '/a:/b:ro', {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    x-probe: {http: /, port: 80}
    deploy: {mode: global}
volumes: {data: }
";
        let disk = MemoryDisk::default().with("/p/compose.yaml", text);
        let request = Request {
            files: Vec::new(),
            project_name: None,
            profiles: Vec::new(),
            environment: std::collections::BTreeMap::new(),
            env_files: Vec::new(),
            ignore_unsupported: std::collections::BTreeSet::new(),
            working_directory: "/p".to_owned(),
            disk: &disk,
        };
        let project = load(&request).project.unwrap().project;
        let written = write(&project).unwrap();
        assert_eq!(serde_yaml::from_str::<Project>(&written).unwrap(), project, "{written}");
        assert_eq!(write(&project).unwrap(), written);
    }
}
