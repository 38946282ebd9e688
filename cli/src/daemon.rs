//! The daemons: where the orchestrator and the agent are wired together, and nowhere else.
//!
//! On one machine both speak over the same Unix socket as everywhere: there is one code path, and the other commands can
//! be used beside `tug server --agent` and `tug dev`.

pub(crate) mod dev;
mod log;
mod node;
mod orchestrator;

use tokio_util::sync::CancellationToken;
use tug_agent::{Server, holder};
use tug_api::Clock;

use self::node::NodePlan;
use crate::arguments::{AgentArguments, Connection, HoldArguments, RestoreArguments, ServerArguments};
use crate::context::Interrupt;
use crate::failure::Failure;
use crate::render::Screen;

/// What daemons log where nobody asks for more or less.
const USUAL: &str = "info";

/// `tug server`: until SIGTERM or SIGINT, which is a success.
pub(crate) async fn server(
    arguments: &ServerArguments,
    connection: &Connection,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    log::init(&arguments.log, USUAL, None)?;
    let clock = Clock::system();
    let stop = stop_when_asked(interrupt);
    let plane = orchestrator::Plane::new(&arguments.state.folder, &connection.socket, clock);
    let plane = plane.reached_by(arguments.listen, &arguments.advertise)?;
    if !arguments.agent {
        return plane.serve(stop).await;
    }
    let options = &arguments.node;
    let own_server = Server::Socket(connection.socket.clone());
    let plan = NodePlan::new(arguments.state.folder.clone(), options, own_server)?;
    let node = plan.open(clock).await?;
    let agent_stop = stop.child_token();
    let serving = async {
        let served = plane.serve(stop.clone()).await;
        // Without its control plane the process has nothing to stay for, whatever the reason.
        agent_stop.cancel();
        served
    };
    let (served, ()) = tokio::join!(biased; serving, Box::pin(node.agent.run(agent_stop.clone())));
    served
}

/// `tug agent`: until SIGTERM or SIGINT, which is a success.
pub(crate) async fn agent(
    arguments: &AgentArguments,
    connection: &Connection,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    log::init(&arguments.log, USUAL, None)?;
    let state_dir = arguments.state.folder.clone();
    let plan = match (&arguments.server, node::joined(&state_dir)?) {
        (None, Some(membership)) => NodePlan::joined(state_dir, &arguments.node, &membership)?,
        (Some(socket), _) => NodePlan::new(state_dir, &arguments.node, Server::Socket(socket.clone()))?,
        (None, None) => NodePlan::new(state_dir, &arguments.node, Server::Socket(connection.socket.clone()))?,
    };
    let node = plan.open(Clock::system()).await?;
    Box::pin(node.agent.run(stop_when_asked(interrupt))).await;
    Ok(())
}

/// `tug restore`: while no server runs.
pub(crate) async fn restore(arguments: &RestoreArguments, screen: &mut Screen) -> Result<(), Failure> {
    let plane =
        orchestrator::Plane::new(&arguments.state.folder, &std::path::PathBuf::new(), Clock::system());
    let revision = plane.restore(&arguments.file).await?;
    screen.note(&format!(
        "the state of {} is back, as revision {revision}: start the server again",
        arguments.file.display()
    ));
    Ok(())
}

/// `tug hold`: keeps sockets until it is told to end. Without a runtime and without a word.
pub(crate) fn hold(arguments: &HoldArguments) -> Result<(), Failure> {
    let config = node::holder(&arguments.state.folder)?;
    holder::run(&config.socket, holder::ALONE).map_err(|error| Failure::caused("hold", &error))
}

/// `tug hold --release`: ends the holder, if one runs.
pub(crate) async fn release(arguments: &HoldArguments) -> Result<(), Failure> {
    let config = node::holder(&arguments.state.folder)?;
    let failed = |error: holder::ClientError| Failure::caused("release the sockets", &error);
    match holder::Client::find(&config).await.map_err(failed)? {
        Some(mut client) => client.release().await.map_err(failed),
        None => Ok(()),
    }
}

fn stop_when_asked(interrupt: &Interrupt) -> CancellationToken {
    let stop = CancellationToken::new();
    let (asked, token) = (interrupt.clone(), stop.clone());
    tokio::spawn(async move {
        asked.asked().await;
        token.cancel();
    });
    stop
}
