//! `tug ls`: the projects.

use crate::arguments::ListArguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::{status, structured};

/// Lists the projects.
pub(crate) async fn run(context: &mut Context, arguments: &ListArguments) -> Result<(), Failure> {
    let projects = context.client.projects().await?;
    let facts = context.screen.facts;
    let text = structured::listed(&projects, arguments.output.format, |wide| {
        status::projects(&projects, facts, wide)
    })?;
    if text.is_empty() {
        context.screen.note("nothing is deployed yet: `tug apply -f FILE`");
    }
    context.screen.data(&text)
}
