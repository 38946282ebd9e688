//! File systems of their own, for tests that fill one or cut its power. They need root.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, gone when it is dropped.
pub(super) struct Mount {
    point: tempfile::TempDir,
}

impl Mount {
    /// One in memory of this size.
    pub(super) fn tmpfs(size: &str) -> Self {
        Self::new(&["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"])
    }

    /// The ext4 in this file.
    pub(super) fn image(image: &Path) -> Self {
        Self::new(&["-o", "loop", image.to_str().unwrap()])
    }

    pub(super) fn path(&self) -> PathBuf {
        self.point.path().to_owned()
    }

    fn new(arguments: &[&str]) -> Self {
        let point = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(arguments).arg(point.path()));
        Self { point }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a store that a failed test left open would otherwise keep it.
        drop(Command::new("umount").arg("--lazy").arg(self.point.path()).status());
    }
}

/// Makes a file with an empty ext4 in it.
pub(super) fn make_ext4(image: &Path, megabytes: u64) {
    std::fs::File::create(image).unwrap().set_len(megabytes << 20).unwrap();
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
}

fn run(command: &mut Command) {
    let hint = "this test needs root, and mount and mkfs.ext4 (Debian: util-linux, e2fsprogs): run it as \
                `sudo -E env PATH=$PATH cargo xtask test`";
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
    assert!(output.status.success(), "{command:?}: {}; {hint}", String::from_utf8_lossy(&output.stderr));
}
