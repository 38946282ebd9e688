//! `tug completion`: completions for a shell.

use clap_complete::Generator;

use crate::arguments::{CompletionArguments, command};
use crate::failure::Failure;
use crate::render::Screen;

/// Prints the completions.
pub(crate) fn run(screen: &mut Screen, arguments: &CompletionArguments) -> Result<(), Failure> {
    screen.raw(&completions(arguments.shell)?)
}

fn completions(shell: clap_complete::Shell) -> Result<Vec<u8>, Failure> {
    let mut command = command();
    command.set_bin_name("tug");
    command.build();
    let mut script = Vec::new();
    shell.try_generate(&command, &mut script)?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(completions(*shell).unwrap()).unwrap();
            assert!(script.contains("apply") && script.contains("restart"), "{shell}");
        }
    }
}
