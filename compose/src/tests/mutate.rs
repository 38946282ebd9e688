//! A slip of the fingers in any key or typed value of a valid manifest is reported at its line and column; and no
//! bytes whatever make the reader panic.

use proptest::prelude::*;

use super::{findings, load_text};
use crate::Level;

/// A valid manifest. On a line that ends with `# key`, a typo in the key must be an error; with `# both`, one in the
/// value must be too; with `# value`, only there (the key is a name that people choose).
const VALID: &str = "\
name: shop # key
x-common: &common
  restart: on-failure # both
  logging: # key
    driver: json-file # key
services: # key
  web:
    <<: *common
    image: nginx:1.27 # key
    command: [\"nginx\", \"-g\", \"daemon off;\"] # key
    environment: # key
      A: one
    ports: # key
      - 8080 # value
      - target: 80
        published: 8081 # both
        protocol: tcp # both
        mode: ingress # both
    depends_on: # key
      db:
        condition: service_healthy # both
        required: true # both
    networks: # key
      front:
        aliases: [www] # key
        ipv4_address: 172.28.0.9 # both
    volumes: # key
      - type: volume
        source: data # both
        target: /data # key
        read_only: true # both
        volume: # key
          nocopy: true # both
    healthcheck: # key
      test: [\"CMD\", \"true\"] # key
      interval: 10s # both
      timeout: 5s # both
      retries: 3 # both
      start_period: 1m30s # both
    deploy: # key
      mode: replicated # both
      replicas: 3 # both
      resources: # key
        limits: # key
          cpus: 0.5 # both
          memory: 512m # both
          pids: 100 # both
        reservations: # key
          memory: 64m # both
      restart_policy: # key
        condition: any # both
        delay: 5s # both
        max_attempts: 3 # both
      placement: # key
        max_replicas_per_node: 2 # both
    ulimits: # key
      nofile: # both
        soft: 1024 # both
        hard: 2048 # both
    init: true # both
    tty: false # both
    stop_signal: SIGTERM # both
    stop_grace_period: 20s # both
    pull_policy: missing # both
    dns: 1.1.1.1 # both
    mem_swappiness: 10 # both
    oom_score_adj: 100 # both
    x-probe:
      http: /healthz # key
      port: 80 # both
      interval: 2s # both
  db:
    image: postgres:17 # key
    restart: unless-stopped # both
    pid: host # both
    configs: # key
      - settings # value
networks: # key
  front:
    internal: true # both
    ipam: # key
      config: # key
        - subnet: 172.28.0.0/16
          gateway: 172.28.0.1 # both
volumes: # key
  data:
    external: false # both
configs: # key
  settings:
    content: hello # key
";

/// A place to slip at: the line, the column and the length of a word, all in bytes, which are characters here.
fn sites() -> Vec<(usize, usize, usize)> {
    let mut sites = Vec::new();
    for (number, line) in VALID.lines().enumerate() {
        let Some((text, kind)) = line.split_once(" # ") else { continue };
        let start = text.find(|c: char| c != ' ' && c != '-').unwrap();
        let key = text.get(start..).unwrap().split(':').next().unwrap();
        if kind != "value" {
            sites.push((number, start, key.len()));
        }
        let value =
            text.split_once(": ").map_or_else(|| (text.len() > key.len()).then_some(key), |(_, v)| Some(v));
        if let Some(value) = value.filter(|_| kind != "key") {
            sites.push((number, text.rfind(value).unwrap(), value.len()));
        }
    }
    sites
}

#[test]
fn the_manifest_is_valid_as_it_stands() {
    let outcome = load_text(VALID);
    assert!(outcome.project.is_some(), "{}", findings(&outcome));
    assert!(outcome.findings.iter().all(|finding| finding.level == Level::Note), "{}", findings(&outcome));
    assert!(sites().len() > 90, "{}", sites().len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_typo_is_reported_where_it_is(
        site in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        letter in prop::sample::select(vec!['q', 'x', 'j', 'Q']),
    ) {
        let sites = sites();
        let (line, column, length) = *site.get(&sites);
        let mut lines: Vec<String> = VALID.lines().map(str::to_owned).collect();
        lines[line].insert(column + at.index(length + 1), letter);
        let text = lines.join("\n");
        let outcome = load_text(text.as_str());
        prop_assert!(outcome.project.is_none(), "{}", lines[line]);
        let place = (u32::try_from(line + 1).unwrap(), u32::try_from(column + 1).unwrap());
        let is_told = outcome.findings.iter().any(|f| f.level == Level::Error && (f.line, f.column) == place);
        prop_assert!(is_told, "{place:?} {}\n{}", lines[line], findings(&outcome));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        load_text(bytes);
    }

    #[test]
    fn no_text_of_yaml_makes_it_panic(text in "[-:?,\\[\\]{}#&*!|>'\"%@` \\n\ta-c0-9$é]{0,200}") {
        load_text(text.as_str());
        load_text(format!("services:\n  web:\n    image: x\n    command: {text}"));
    }

    #[test]
    fn no_damage_to_a_manifest_makes_it_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..40, any::<u8>()), 1..6),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, length, byte) in cuts {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, [byte]);
        }
        load_text(bytes);
    }
}
