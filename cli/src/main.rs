//! `tug`, the one binary: this file takes the command line apart and wires the parts together.

mod arguments;
mod build;
mod commands;
mod completion;
mod context;
mod daemon;
mod doctor;
mod failure;
mod manifest;
mod names;
mod place;
mod render;
#[cfg(test)]
mod sample;
mod time;
mod watch;

use std::process::ExitCode;

use clap::FromArgMatches;
use tokio::signal::unix::{SignalKind, signal};
use tug_api::Clock;

use crate::arguments::{Arguments, Command, Connection};
use crate::context::{Context, Interrupt, Surroundings};
use crate::failure::{Failure, INTERRUPTED};
use crate::place::{Place, Wish};
use crate::render::Screen;

/// The exit code after SIGTERM.
const TERMINATED: u8 = 143;

fn main() -> ExitCode {
    completion::answer();
    let words = || std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let matches = arguments::command().try_get_matches();
    let matches = matches.unwrap_or_else(|error| arguments::advised(error, words()).exit());
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut screen = Screen::of_process();
    // The holder is one sleeping thread: no runtime, no signals of its own.
    if let Command::Hold(hold) = &arguments.command
        && !hold.release
    {
        return exit(daemon::hold(hold), &mut screen);
    }
    let wish = Wish::new(&matches, &arguments.connection);
    let result = run(arguments, &wish, &mut screen);
    exit(result, &mut screen)
}

fn exit(result: Result<(), Failure>, screen: &mut Screen) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

fn run(arguments: Arguments, wish: &Wish, screen: &mut Screen) -> Result<(), Failure> {
    let surroundings = Surroundings::of_process()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::caused("start the runtime", &error))?;
    let result = runtime.block_on(dispatch(arguments, wish, screen, surroundings));
    // A read of standard input cannot be called off; it must not keep the process alive.
    runtime.shutdown_background();
    result
}

async fn dispatch(
    arguments: Arguments,
    wish: &Wish,
    screen: &mut Screen,
    surroundings: Surroundings,
) -> Result<(), Failure> {
    let interrupt = Interrupt::new();
    listen(interrupt.clone())?;
    let Arguments { connection, command: asked } = arguments;
    let place = if asked.asks_a_server() {
        wish.choose(&surroundings)?
    } else {
        Place::Socket(connection.socket.clone())
    };
    let (client, is_elsewhere) = (place.client()?, place.is_elsewhere());
    let screen = std::mem::replace(screen, Screen::of_process());
    let (clock, heard) = (Clock::system(), interrupt.clone());
    let mut context = Context { client, is_elsewhere, screen, clock, interrupt: heard, surroundings };
    // Daemons end in their own time.
    let is_daemon = matches!(asked, Command::Dev(_) | Command::Server(_) | Command::Agent(_));
    tokio::select! {
        biased;
        result = Box::pin(command(&asked, (&connection, wish), &mut context)) => result,
        () = interrupt.heard(), if !is_daemon => Err(interrupt.failure("")),
    }
}

/// Every command. One that wants to say something on Ctrl-C hears of it first.
#[expect(clippy::cognitive_complexity, reason = "a table: one line for each command")]
async fn command(
    command: &Command,
    (connection, wish): (&Connection, &Wish),
    context: &mut Context,
) -> Result<(), Failure> {
    match command {
        Command::Dev(arguments) => daemon::dev::run(context, arguments).await,
        Command::Check(arguments) => {
            commands::check::run(&mut context.screen, &context.surroundings, arguments)
        }
        Command::Plan(arguments) => commands::plan::run(context, arguments).await,
        Command::Apply(arguments) => commands::apply::run(context, arguments).await,
        Command::Ls(arguments) => commands::ls::run(context, arguments).await,
        Command::Ps(arguments) => commands::ps::run(context, arguments).await,
        Command::Why(arguments) => commands::why::run(context, arguments).await,
        Command::Events(arguments) => commands::events::run(context, arguments).await,
        Command::Logs(arguments) => commands::logs::run(context, arguments).await,
        Command::Top(arguments) => commands::top::run(context, arguments).await,
        Command::Exec(arguments) => commands::exec::run(context, arguments).await,
        Command::Scale(arguments) => commands::scale::run(context, arguments).await,
        Command::Restart(arguments) => commands::restart::run(context, arguments).await,
        Command::Rm(arguments) => commands::rm::run(context, arguments).await,
        Command::Server(arguments) => daemon::server(arguments, connection, context).await,
        Command::Agent(arguments) => daemon::agent(arguments, connection, context).await,
        Command::Join(arguments) => daemon::join::run(context, arguments).await,
        Command::Token(arguments) => commands::token::run(context, arguments).await,
        Command::Node(arguments) => commands::node::run(context, arguments).await,
        Command::Volume(arguments) => commands::volume::run(context, arguments).await,
        Command::Doctor(arguments) => commands::doctor::run(context, wish, arguments).await,
        Command::Restore(arguments) => daemon::restore(arguments, &mut context.screen).await,
        Command::Hold(arguments) => daemon::release(arguments).await,
        Command::Login(arguments) => commands::login::run(context, arguments).await,
        Command::Logout(arguments) => commands::places::logout(context, arguments),
        Command::Context(arguments) => commands::places::run(context, connection, arguments),
        Command::Whoami(arguments) => commands::login::whoami(context, arguments).await,
        Command::Completion(arguments) => commands::completion::run(&mut context.screen, arguments),
        Command::Version(arguments) => commands::version::run(context, arguments).await,
    }
}

/// Turns the first SIGINT or SIGTERM into a wish to stop, and the second one into the end.
fn listen(interrupt: Interrupt) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::caused("listen for signals", &error);
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::spawn(async move {
        loop {
            let code = tokio::select! {
                biased;
                _ = int.recv() => INTERRUPTED,
                _ = term.recv() => TERMINATED,
            };
            if interrupt.is_asked() {
                #[expect(clippy::exit, reason = "the user asked twice: nothing is worth waiting for")]
                std::process::exit(i32::from(code));
            }
            interrupt.ask(code);
        }
    });
    Ok(())
}
