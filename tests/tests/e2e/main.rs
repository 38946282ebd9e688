//! Users' sentences, on the machine's real Engine, with the real `tug` binary: orchestrator and agent as processes,
//! containers, sockets, files. The tests take turns; each cleans up whatever happens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod access;
mod cluster;
mod commands;
mod daemons;
mod demo;
mod durability;
mod engine;
mod examples;
mod exclusive;
mod healing;
mod join;
mod nodes;
mod order;
mod readme;
mod registry;
mod streams;
mod survival;
mod traffic;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tug_tests::image;
use tug_tests::tug::{Tug, free_port};

/// The example program's image, built here: its name.
async fn hello_image() -> String {
    let name = "tug-test-hello:1";
    image::hello_image(name).await;
    name.to_owned()
}

/// The number in an environment variable, for a run that is longer than usual.
fn number<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::vars().find_map(|(key, value)| (key == variable).then_some(value))?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// One `POST` over a connection of its own: the answer, as far as there is one.
async fn post(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("POST {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A project of one service `web` of the example program, behind a free port.
struct Web {
    tug: Tug,
    project: tug_model::ProjectName,
    image: String,
    port: u16,
}

impl Web {
    /// Starts Tug and deploys `replicas` of it.
    async fn start(name: &str, replicas: u32) -> Result<Self> {
        Self::start_on(Tug::start().await?, name, replicas).await
    }

    /// Deploys `replicas` of it.
    async fn start_on(tug: Tug, name: &str, replicas: u32) -> Result<Self> {
        let web = Self { project: tug.project(name), tug, image: hello_image().await, port: free_port() };
        web.tug.apply(&web.manifest(replicas, "1")).await?;
        Ok(web)
    }

    /// Its manifest, with `version` in the environment.
    fn manifest(&self, replicas: u32, version: &str) -> String {
        let Self { project, image, port, .. } = self;
        format!(
            "name: {project}\n\
             services:\n  \
               web:\n    \
                 image: {image}\n    \
                 pull_policy: never\n    \
                 init: true\n    \
                 ports: ['{port}:8080']\n    \
                 environment: {{VERSION: '{version}'}}\n    \
                 x-probe: {{http: /healthz, port: 8080}}\n    \
                 stop_grace_period: 5s\n    \
                 deploy: {{replicas: {replicas}}}\n"
        )
    }

    /// `project/web`, as the command line names it.
    fn service(&self) -> String {
        format!("{}/web", self.project)
    }
}
