//! `tug node`: the machines.

mod change;
mod drain;

use tug_api::user::NodeStatus;

use crate::arguments::{
    Format, ListArguments, NodeArguments, NodeCommand, OutputArguments, ShowNodeArguments,
};
use crate::context::Context;
use crate::failure::Failure;
use crate::names;
use crate::render::{node, structured};

/// Does what is asked about nodes.
pub(crate) async fn run(context: &mut Context, arguments: &NodeArguments) -> Result<(), Failure> {
    match &arguments.command {
        NodeCommand::Ls(arguments) => list(context, arguments).await,
        NodeCommand::Show(arguments) => show(context, arguments).await,
        NodeCommand::Label(arguments) => change::label(context, arguments).await,
        NodeCommand::Drain(arguments) => drain::run(context, arguments).await,
        NodeCommand::Activate(arguments) => change::activate(context, arguments).await,
        NodeCommand::Rm(arguments) => change::remove(context, arguments).await,
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

async fn show(context: &mut Context, arguments: &ShowNodeArguments) -> Result<(), Failure> {
    let one = named(context, &arguments.node).await?;
    let (projects, mut volumes) = match arguments.output.format {
        Format::Table | Format::Wide => (context.client.projects().await?, context.client.volumes().await?),
        Format::Json | Format::Yaml => (Vec::new(), Vec::new()),
    };
    volumes.retain(|volume| volume.node == one.node.id);
    let (facts, now) = (context.screen.facts, context.clock.now());
    let text = structured::listed(&one, arguments.output.format, |_| {
        node::node(&one, (&projects, &volumes), now, facts)
    })?;
    context.screen.data(&text)
}

/// The node that the user means, as it stands.
async fn named(context: &Context, name: &str) -> Result<NodeStatus, Failure> {
    let nodes = context.client.nodes().await?;
    names::node(&nodes, name).cloned()
}

/// After a change: the node for tools; people were told in words.
fn changed(context: &mut Context, one: &NodeStatus, output: &OutputArguments) -> Result<(), Failure> {
    let text = structured::listed(one, output.format, |_| String::new())?;
    context.screen.data(&text)
}
