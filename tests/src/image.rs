//! The image that the tests with a real Engine run: `manifests/hello`, compiled and packed here, so that no registry
//! is asked and nothing but a Rust compiler is needed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use bollard::Docker;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures_util::TryStreamExt;

const SOURCE: &str = include_str!("../../manifests/hello/app/main.rs");
const DOCKERFILE: &str = include_str!("../../manifests/hello/app/Dockerfile");

/// The Engine's socket: `DOCKER_HOST=unix://…`, or the usual place.
pub fn socket() -> PathBuf {
    let host = std::env::vars().find_map(|(key, value)| (key == "DOCKER_HOST").then_some(value));
    let path = host.as_deref().and_then(|host| host.strip_prefix("unix://"));
    PathBuf::from(path.unwrap_or("/var/run/docker.sock"))
}

/// The hello program as a static file, compiled once for this version of its source.
pub fn hello_program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        SOURCE.hash(&mut hasher);
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().expect("a test lies in a folder");
        let program = folder.join(format!("hello-{:016x}", hasher.finish()));
        if !program.exists() {
            compile(&program);
        }
        program
    })
}

/// Builds the hello image under `tag`, such as `tug-tests-hello:1`, and returns its id. The Engine's build cache makes
/// the second time cheap.
pub async fn hello_image(tag: &str) -> String {
    let docker = Docker::connect_with_unix(&socket().to_string_lossy(), 120, bollard::API_DEFAULT_VERSION)
        .expect("these tests need a Docker Engine: `apt-get install docker.io`");
    hello_image_of(&docker, tag).await
}

/// The same, on another Engine.
pub async fn hello_image_of(docker: &Docker, tag: &str) -> String {
    let options = BuildImageOptionsBuilder::new().t(tag).rm(true).build();
    let body = bollard::body_full(context().into());
    let built: Result<Vec<_>, _> = docker.build_image(options, None, Some(body)).try_collect().await;
    built.expect("the hello image is built");
    let image = docker.inspect_image(tag).await.expect("the hello image is there");
    image.id.expect("an image has an id")
}

fn compile(program: &PathBuf) {
    // Test processes may race here: each writes its own file, and the last rename wins.
    let partial = program.with_extension(format!("{}.partial", std::process::id()));
    let source = partial.with_extension("rs");
    fs::write(&source, SOURCE).expect("the target folder is writable");
    let status = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "hello",
            "-O",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "target-feature=+crt-static", "-o"])
        .args([&partial, &source])
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the hello program compiles");
    fs::remove_file(source).expect("it was written above");
    fs::rename(partial, program).expect("both lie in one folder");
}

/// The build context: the Dockerfile and the program. Its times are those of 1970, so that equal contents are equal.
fn context() -> Vec<u8> {
    let program = fs::read(hello_program()).expect("it was compiled");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, mode, content) in [("Dockerfile", 0o644, DOCKERFILE.as_bytes()), ("hello", 0o755, &program)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        archive.append_data(&mut header, name, content).expect("writing to memory works");
    }
    archive.into_inner().expect("writing to memory works")
}
