//! `tug node`: the machines.

use crate::arguments::{ListArguments, NodeArguments, NodeCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::{node, structured};

/// Does what is asked about nodes.
pub(crate) async fn run(context: &mut Context, arguments: &NodeArguments) -> Result<(), Failure> {
    match &arguments.command {
        NodeCommand::Ls(arguments) => list(context, arguments).await,
    }
}

async fn list(context: &mut Context, arguments: &ListArguments) -> Result<(), Failure> {
    let nodes = context.client.nodes().await?;
    let facts = context.screen.facts;
    let text = structured::listed(&nodes, arguments.output.format, |wide| node::nodes(&nodes, facts, wide))?;
    if text.is_empty() {
        context.screen.note("no node has joined: start one with `tug agent` or `tug server --agent`");
    }
    context.screen.data(&text)
}
