//! `tug doctor`: looks at the machine, says what is wrong and what to do.

use crate::arguments::DoctorArguments;
use crate::context::Context;
use crate::doctor::look::{Where, look};
use crate::doctor::{Finding, Level, judge};
use crate::failure::{FAILED, Failure};
use crate::place::Wish;
use crate::render::{doctor, structured};

/// Checks this machine. A failure decides the exit code, a warning does not.
pub(crate) async fn run(
    context: &mut Context,
    wish: &Wish,
    arguments: &DoctorArguments,
) -> Result<(), Failure> {
    let at = Where {
        docker: &arguments.engine.docker,
        state_dir: &arguments.state.folder,
        place: wish.choose(&context.surroundings),
    };
    let findings = judge::judge(&look(at, context.clock).await);
    let text = structured::listed(&findings, arguments.output.format, |_| doctor::findings(&findings))?;
    context.screen.data(&text)?;
    let count = |level| findings.iter().filter(|finding: &&Finding| finding.level == level).count();
    context.screen.note(&doctor::summary(count(Level::Warn), count(Level::Fail)));
    if count(Level::Fail) > 0 { Err(Failure::silent(FAILED)) } else { Ok(()) }
}
