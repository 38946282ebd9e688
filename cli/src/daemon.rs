//! The daemons: where the orchestrator and the agent are wired together, and nowhere else.
//!
//! On one machine both speak over the same Unix socket as everywhere: there is one code path, and the other commands can
//! be used beside `tug server --agent` and `tug dev`.

pub(crate) mod dev;
pub(crate) mod join;
mod log;
mod node;
mod orchestrator;
mod start;
mod unit;

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tug_agent::{Server, holder};
use tug_api::Clock;

use self::node::NodePlan;
use self::unit::Unit;
use crate::arguments::{
    AgentArguments, Connection, HoldArguments, InstallOptions, RestoreArguments, ServerArguments,
};
use crate::context::{Context, Interrupt};
use crate::failure::Failure;
use crate::render::Screen;

/// What daemons log where nobody asks for more or less.
const USUAL: &str = "info";
/// What a path is made absolute with.
const FOLDER: &str = "find the current folder";

/// `tug server`: until SIGTERM or SIGINT, which is a success.
pub(crate) async fn server(
    arguments: &ServerArguments,
    connection: &Connection,
    context: &mut Context,
) -> Result<(), Failure> {
    let clock = Clock::system();
    let plane = orchestrator::Plane::new(&arguments.state.folder, &connection.socket, clock);
    let plane = plane.reached_by(arguments.listen, &arguments.advertise)?;
    let own_server = Server::Socket(connection.socket.clone());
    let plan = || NodePlan::new(arguments.state.folder.clone(), &arguments.node, own_server);
    let plan = arguments.agent.then(plan).transpose()?;
    if arguments.install.install {
        let words = arguments.words(&connection.socket).map_err(|error| Failure::caused(FOLDER, &error))?;
        return install(context, &Unit::server(words, arguments.agent)?, &arguments.install).await;
    }
    log::init(&arguments.log, USUAL, None)?;
    let stop = stop_when_asked(&context.interrupt);
    let Some(plan) = plan else { return plane.serve(stop).await };
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
    context: &mut Context,
) -> Result<(), Failure> {
    let state_dir = arguments.state.folder.clone();
    if arguments.install.install {
        NodePlan::new(state_dir, &arguments.node, Server::Joined)?;
        let words = arguments.words(&connection.socket).map_err(|error| Failure::caused(FOLDER, &error))?;
        return install(context, &Unit::agent(words)?, &arguments.install).await;
    }
    if arguments.detached {
        rustix::process::setsid().map_err(|error| Failure::caused("begin a session", &error))?;
    }
    log::init(&arguments.log, USUAL, None)?;
    let socket = |path: &PathBuf| Server::Socket(path.clone());
    let plan = match (&arguments.server, node::joined(&state_dir)?) {
        (None, Some(membership)) => NodePlan::joined(state_dir, &arguments.node, &membership)?,
        (Some(path), _) => NodePlan::new(state_dir, &arguments.node, socket(path))?,
        (None, None) => NodePlan::new(state_dir, &arguments.node, socket(&connection.socket))?,
    };
    let node = plan.open(Clock::system()).await?;
    Box::pin(node.agent.run(stop_when_asked(&context.interrupt))).await;
    Ok(())
}

/// `--install`: what would run here is run by systemd instead.
async fn install(context: &mut Context, unit: &Unit, options: &InstallOptions) -> Result<(), Failure> {
    if options.print {
        return context.screen.data(&unit.text());
    }
    let path = unit.install().await?;
    let name = unit.name;
    context
        .screen
        .note(&format!("{} runs, now and after every boot: systemctl status {name}", path.display()));
    Ok(())
}

/// `tug restore`: while no server runs.
pub(crate) async fn restore(arguments: &RestoreArguments, screen: &mut Screen) -> Result<(), Failure> {
    let plane = orchestrator::Plane::new(&arguments.state.folder, &PathBuf::new(), Clock::system());
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
