//! The commands, one file each. They ask the server and decide; what they show is made in [`crate::render`].

pub(crate) mod apply;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod ls;
pub(crate) mod node;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod ps;
pub(crate) mod restart;
pub(crate) mod rm;
pub(crate) mod scale;
pub(crate) mod secret;
pub(crate) mod settle;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod why;

use crate::context::Context;
use crate::failure::{Failure, INTERRUPTED};

/// Asks a question that is answered with yes or no. `default` is what Enter means.
fn confirm(context: &mut Context, question: &str, default: bool) -> Result<bool, Failure> {
    let answer = dialoguer::Confirm::new().with_prompt(question).default(default).interact_opt();
    match answer {
        Ok(answer) => Ok(answer == Some(true)),
        Err(error) => {
            // The prompt hides the cursor and is not asked to show it again when it is interrupted.
            let _no_terminal = dialoguer::console::Term::stderr().show_cursor();
            let dialoguer::Error::IO(error) = error;
            if error.kind() == std::io::ErrorKind::Interrupted {
                context.interrupt.ask(INTERRUPTED);
                return Err(context.interrupt.failure(""));
            }
            Err(Failure::caused("ask", &error))
        }
    }
}
