//! What a machine must have for a lab, and which Debian package brings it.

use std::path::Path;

use anyhow::{Result, ensure};

/// Where Debian and Docker put what is needed.
pub(super) const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec/docker";

/// Each program with the Debian package that it is in.
const PROGRAMS: [(&str, &str); 11] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("find", "findutils"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("iptables", "iptables"),
    ("dockerd", "docker.io"),
    ("docker-init", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
];

const WAY_OUT: &str = "this test makes Docker hosts of its own on this machine";

/// Succeeds when a lab can be made here; the error says everything that is missing.
pub(super) fn check() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "{WAY_OUT}, and for that it must run as root: run all tests as root, or leave out those that need a lab with \
         `cargo xtask test --without-lab`"
    );
    let missing = missing(|program| PATH.split(':').any(|folder| Path::new(folder).join(program).exists()));
    ensure!(
        missing.is_empty(),
        "{WAY_OUT}, and {} missing: `apt-get install {}`, or leave out the tests that need a lab with `cargo xtask test \
         --without-lab`",
        said(&missing),
        packages(&missing)
    );
    Ok(())
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    PROGRAMS.into_iter().filter(|(program, _)| !is_there(program)).collect()
}

fn said(missing: &[(&str, &str)]) -> String {
    let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    format!("{} {}", programs.join(", "), if programs.len() == 1 { "is" } else { "are" })
}

fn packages(missing: &[(&str, &str)]) -> String {
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    packages.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_packages() {
        let missing = missing(|program| !["ip", "unshare", "nsenter"].contains(&program));
        assert_eq!(said(&missing), "unshare, nsenter, ip are");
        assert_eq!(packages(&missing), "util-linux iproute2");
    }
}
