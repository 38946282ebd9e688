//! The programs of the examples: one static file each, compiled by the Rust compiler that is there anyway, so that
//! their images are built `FROM scratch` and no registry is asked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::step::{command, root, run};

/// Compiles `manifests/NAME/app/main.rs` to `manifests/NAME/app/NAME`, for every example, where it is older than its
/// source.
pub(crate) fn compile_all() -> Result<Vec<PathBuf>> {
    let host = host()?;
    let mut programs = Vec::new();
    for entry in fs::read_dir(root().join("manifests"))? {
        let folder = entry?.path();
        let source = folder.join("app/main.rs");
        if let Some(name) = folder.file_name().filter(|_| source.is_file()) {
            let program = folder.join("app").join(name);
            compile(&source, &program, &host)?;
            programs.push(program);
        }
    }
    Ok(programs)
}

fn compile(source: &Path, program: &Path, host: &str) -> Result<()> {
    if is_newer(program, source) {
        return Ok(());
    }
    println!("    {}", program.strip_prefix(root()).unwrap_or(program).display());
    // Naming the target, although it is the host, keeps the flag away from what runs during compilation.
    let flags = [
        "--edition",
        "2024",
        "-O",
        "-C",
        "panic=abort",
        "-C",
        "strip=symbols",
        "-C",
        "target-feature=+crt-static",
    ];
    let partial = program.with_extension("partial");
    run(command("rustc").args(flags).args(["--target", host]).arg("-o").arg(&partial).arg(source))?;
    fs::rename(&partial, program).with_context(|| format!("write {}", program.display()))
}

fn is_newer(program: &Path, source: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
    changed(program) > changed(source)
}

fn host() -> Result<String> {
    let output = command("rustc").arg("-vV").output().context("run rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV names no host"),
    }
}
