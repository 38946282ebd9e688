//! Prints what is to be said about each manifest named on the command line: `cargo run --example check -- FILE…`.

#![expect(clippy::print_stdout, reason = "printing is what this example is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use tug_compose::{RealDisk, Request, load};

fn main() -> ExitCode {
    let mut refused = 0_u8;
    for file in std::env::args().skip(1) {
        let request = Request {
            files: vec![file.clone()],
            project_name: Some("example".to_owned()),
            profiles: vec!["*".to_owned()],
            environment: BTreeMap::new(),
            env_files: Vec::new(),
            ignore_unsupported: BTreeSet::new(),
            working_directory: std::env::current_dir().unwrap_or_default().display().to_string(),
            disk: &RealDisk,
        };
        let outcome = load(&request);
        for finding in &outcome.findings {
            println!("{finding}");
        }
        if outcome.project.is_none() {
            refused = refused.saturating_add(1);
        }
    }
    ExitCode::from(refused)
}
