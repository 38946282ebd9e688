//! `tug completion`: completions for a shell.

use crate::arguments::CompletionArguments;
use crate::completion;
use crate::failure::Failure;
use crate::render::Screen;

/// Prints what the shell reads.
pub(crate) fn run(screen: &mut Screen, arguments: &CompletionArguments) -> Result<(), Failure> {
    screen.raw(&completion::script(arguments.shell)?)
}
