//! Manifests of several files, and the files beside them.

use std::collections::BTreeMap;

use super::{disk, findings, load_from, same_lines};
use crate::{MemoryDisk, PathKind};

fn environment_of(disk: &MemoryDisk, service: &str) -> BTreeMap<String, String> {
    let outcome = load_from(disk, |_| {});
    let said = findings(&outcome);
    outcome.project.unwrap_or_else(|| panic!("{said}")).project.services[service]
        .container
        .environment
        .clone()
}

fn pairs(of: &BTreeMap<String, String>) -> String {
    of.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_manifest_is_found_by_its_names() {
    for name in crate::FILE_NAMES {
        let disk = MemoryDisk::default().with(&format!("/p/{name}"), "services: {web: {image: a}}");
        let outcome = load_from(&disk, |_| {});
        assert_eq!(outcome.project.unwrap().sources[0].path, name);
    }
    let said = findings(&load_from(&MemoryDisk::default(), |_| {}));
    assert!(said.contains("there is no manifest here: none of compose.yaml"), "{said}");
    let missing = load_from(&MemoryDisk::default(), |request| request.files.push("x.yaml".to_owned()));
    assert_eq!(findings(&missing), "error: x.yaml: there is no such file");
}

#[test]
fn later_files_are_laid_over_earlier_ones() {
    let disk = MemoryDisk::default()
        .with("/p/a.yaml", "name: one\nservices: {web: {image: a, ports: ['80'], environment: [A=1, B=2]}}")
        .with("/p/b.yaml", "name: two\nservices: {web: {image: b, environment: {B: 3}}, db: {image: c}}");
    let outcome = load_from(&disk, |request| request.files = vec!["a.yaml".to_owned(), "b.yaml".to_owned()]);
    let loaded = outcome.project.unwrap();
    assert_eq!(loaded.project.name.as_str(), "two");
    assert_eq!(loaded.project.services.len(), 2);
    assert_eq!(loaded.sources.len(), 2);
    let web = &loaded.project.services["web"];
    assert_eq!((web.container.image.as_str(), web.ports.len()), ("b", 1));
    assert_eq!(pairs(&web.container.environment), "A=1 B=3");
}

#[test]
fn it_is_kept_where_everything_was_written() {
    let disk = MemoryDisk::default()
        .with("/p/a.yaml", "services:\n  web:\n    image: a\n    ports:\n      - '80'\n      - '81'\n")
        .with("/p/b.yaml", "services: {web: {image: b}}");
    let outcome = load_from(&disk, |request| request.files = vec!["a.yaml".to_owned(), "b.yaml".to_owned()]);
    let places = outcome.project.unwrap().places;
    let at = |path: &str| places.find(path).unwrap_or_default();
    assert_eq!(at("services.web.ports[1]"), "a.yaml:6:9");
    assert_eq!(at("services.web.image"), "b.yaml:1:25");
    assert_eq!((at("services.web.ports[2]"), at("services.db")), (String::new(), String::new()));
    assert_eq!((places.items("services.web.ports"), places.items("services.web")), (2, 0));
}

#[test]
fn findings_name_the_file_that_is_wrong() {
    let disk = MemoryDisk::default()
        .with("/p/a.yaml", "services: {web: {image: a, tty: maybe}}")
        .with("/p/b.yaml", "services:\n  web: {prots: []}");
    let outcome = load_from(&disk, |request| request.files = vec!["a.yaml".to_owned(), "b.yaml".to_owned()]);
    same_lines(
        &findings(&outcome),
        "error: a.yaml:1:33: services.web.tty: expected true or false, got \"maybe\"
         error: b.yaml:2:9: services.web.prots: unknown key `prots`, did you mean `ports`?",
    );
}

#[test]
fn services_extend_services_of_this_and_of_other_files() {
    let text = "
services:
  web: {extends: {service: base, file: common/base.yaml}, environment: [B=2]}
  api: {extends: web, image: api}
";
    let base = "services: {base: {image: base, env_file: base.env, environment: [A=1, B=1], extends: root}, root: {tty: true}}";
    let disk = disk(text).with("/p/common/base.yaml", base).with("/p/common/base.env", "C=3\n");
    assert_eq!(pairs(&environment_of(&disk, "api")), "A=1 B=2 C=3");
    let outcome = load_from(&disk, |_| {});
    let services = outcome.project.unwrap().project.services;
    assert_eq!(services["api"].container.image, "api");
    assert!(services["api"].container.tty);

    let wrong = super::disk(
        "services: {web: {extends: bse}, base: {image: a}, c: {extends: {file: no.yaml, service: x}}}",
    );
    let said = findings(&load_from(&wrong, |_| {}));
    assert!(said.contains("there is no service `bse` to extend, did you mean `base`?"), "{said}");
    assert!(said.contains("no.yaml: there is no such file"), "{said}");
}

#[test]
fn included_projects_keep_their_own_folder_and_variables() {
    let text = "include: [other/compose.yaml]\nservices: {web: {image: a, depends_on: [db]}}\n";
    let other = "include: [{path: more.yaml, env_file: more.env}]\nservices: {db: {image: \"db:${TAG}\", env_file: db.env, networks: [n]}}\nnetworks: {n: }\n";
    let disk = disk(text)
        .with("/p/other/compose.yaml", other)
        .with("/p/other/.env", "TAG=5\n")
        .with("/p/other/db.env", "X=1\n")
        .with("/p/other/more.yaml", "services: {more: {image: \"more:${TAG}\"}}")
        .with("/p/other/more.env", "TAG=7\n");
    let outcome = load_from(&disk, |_| {});
    let said = findings(&outcome);
    let services = outcome.project.unwrap_or_else(|| panic!("{said}")).project.services;
    assert_eq!(services["db"].container.image, "db:5");
    assert_eq!(services["more"].container.image, "more:5", "the includer's variables come first");
    assert_eq!(pairs(&services["db"].container.environment), "X=1");

    let round = super::disk("include: [compose.yaml]\nservices: {web: {image: a}}\n");
    assert!(findings(&load_from(&round, |_| {})).contains("includes itself"));
    let clash = super::disk("include: [b.yaml]\nservices: {web: {image: a}}\n")
        .with("/p/b.yaml", "services: {web: {image: b}}");
    assert!(
        findings(&load_from(&clash, |_| {}))
            .contains("error: b.yaml:1:12: services.web: `web` is here too, line 2")
    );
}

#[test]
fn env_files_are_below_the_environment_of_the_manifest() {
    let text = "
services:
  web:
    image: a
    env_file: [one.env, {path: two.env, format: raw}, {path: no.env, required: false}]
    environment: {B: manifest}
";
    let disk = disk(text).with("/p/one.env", "A='1'\nB=file\nC=$A\n").with("/p/two.env", "A='2'\n");
    assert_eq!(pairs(&environment_of(&disk, "web")), "A='2' B=manifest C=a");
    let missing = super::disk("services: {web: {image: a, env_file: no.env}}");
    assert_eq!(
        findings(&load_from(&missing, |_| {})),
        "error: 1:38: services.web.env_file: `no.env`: there is no such file"
    );
    let bad = super::disk("services: {web: {image: a, env_file: x.env}}").with("/p/x.env", "A=1\nB C=2\n");
    let said = findings(&load_from(&bad, |_| {}));
    assert!(said.contains("x.env:2:1: services.web.env_file: the name of the variable `B C`"), "{said}");
}

#[test]
fn dot_env_is_below_the_users_environment() {
    let disk = disk("services: {web: {image: \"$A:$TAG\"}}")
        .with("/p/.env", "A=low\nTAG=1\n")
        .with("/p/x.env", "TAG=2\n");
    let image =
        |outcome: crate::Outcome| outcome.project.unwrap().project.services["web"].container.image.clone();
    assert_eq!(image(load_from(&disk, |_| {})), "a:1");
    assert_eq!(image(load_from(&disk, |request| request.env_files.push("x.env".to_owned()))), "a:2");
    let missing = load_from(&disk, |request| request.env_files.push("no.env".to_owned()));
    assert!(findings(&missing).contains("error: no.env: there is no such file"));
}

#[test]
fn a_file_beside_the_manifest_travels_as_a_config() {
    let disk = disk("services: {web: {image: a, volumes: ['./nginx.conf:/etc/nginx.conf:ro', '/srv:/srv']}}")
        .with("/p/nginx.conf", "listen 80;");
    let outcome = load_from(&disk, |_| {});
    let said = findings(&outcome);
    assert_eq!(
        said,
        "warning: 1:38: services.web.volumes[0]: the file `./nginx.conf` travels as a config: later changes need a deploy"
    );
    let project = outcome.project.unwrap().project;
    let container = &project.services["web"].container;
    assert_eq!((container.mounts.len(), container.configs.len()), (1, 1));
    let mount = &container.configs[0];
    assert_eq!((mount.target.as_str(), mount.mode), ("/etc/nginx.conf", Some(0o644)));
    assert_eq!(project.configs[&mount.config].content, b"listen 80;");
    assert_eq!(project.configs[&mount.config].hash(), mount.hash);
}

#[test]
fn folders_and_nothing_beside_the_manifest_are_refused() {
    let text = "services: {web: {image: a, volumes: ['./d:/d', './no:/n', './fifo:/f', './big:/b']}}";
    let disk = disk(text)
        .with("/p/d/x", "")
        .with("/p/big", vec![0; (1 << 20) + 1])
        .with_kind("/p/fifo", PathKind::Special);
    let said = findings(&load_from(&disk, |_| {}));
    for expected in [
        "`./d` is a folder beside the manifest, which is not on the node, use a named volume, an absolute path",
        "`./no` is a path beside the manifest, and there is nothing",
        "`./fifo` is a pipe, device or socket, not a regular file",
        "`./big` is larger than the 1 MiB of a config",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}

#[test]
fn configs_come_from_files_texts_and_variables() {
    let text = "
services: {web: {image: a, configs: [f, {source: c, target: /etc/c, mode: 0440, uid: '5'}, e]}}
configs: {f: {file: ./f.txt}, c: {content: \"hi $A\"}, e: {environment: A}}
";
    let outcome = load_from(&disk(text).with("/p/f.txt", "file"), |_| {});
    let said = findings(&outcome);
    let project = outcome.project.unwrap_or_else(|| panic!("{said}")).project;
    let content = |name: &str| String::from_utf8(project.configs[name].content.clone()).unwrap();
    assert_eq!((content("f"), content("c"), content("e")), ("file".into(), "hi a".into(), "a".into()));
    let mounts = &project.services["web"].container.configs;
    assert_eq!(mounts.iter().map(|m| m.target.as_str()).collect::<Vec<_>>(), ["/f", "/etc/c", "/e"]);
    assert_eq!((mounts[1].mode, mounts[1].uid), (Some(0o440), Some(5)));

    let wrong = "services: {web: {image: a}}\nconfigs: {a: {file: no}, b: {external: true}, c: {file: x, content: y}, d: {environment: NO}}";
    let said = findings(&load_from(&super::disk(wrong), |_| {}));
    for expected in [
        "configs.a.file: `no`: there is no such file",
        "configs.b.external: not yet",
        "configs.c: a config has one of",
        "configs.d.environment: the variable `NO` is not set",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
}
