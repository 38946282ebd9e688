//! `tug context` and `tug logout`: the control planes that are remembered.

use serde::Serialize;

use crate::arguments::{Connection, ContextArguments, ContextCommand, ListArguments, LogoutArguments};
use crate::context::Context;
use crate::failure::Failure;
use crate::place::LOCAL;
use crate::place::store::Store;
use crate::render::style::{self, paint};
use crate::render::table::{Columns, Value};
use crate::render::{Facts, structured};

/// One line of the list. The token itself is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Listed {
    name: String,
    current: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    servers: Vec<String>,
    cluster: String,
    token_id: String,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Does what is asked about contexts.
pub(crate) fn run(
    context: &mut Context,
    connection: &Connection,
    arguments: &ContextArguments,
) -> Result<(), Failure> {
    let store = Store::require(&context.surroundings)?;
    match &arguments.command {
        ContextCommand::Ls(arguments) => list(context, connection, &store, arguments),
        ContextCommand::Use(arguments) => {
            let name = arguments.context.as_str();
            let place = if name == LOCAL {
                format!("the socket {}", connection.socket.display())
            } else {
                let saved = store.read(name)?;
                format!("https://{}", saved.servers.first().map_or("nowhere", String::as_str))
            };
            store.set_current(name)?;
            context.screen.note(&format!("{} `{name}` is in use: {place}", paint(style::GOOD, "✓")));
            Ok(())
        }
        ContextCommand::Rm(arguments) => forget(context, &store, &arguments.context),
    }
}

/// Forgets the context that is named, or the one in use.
pub(crate) fn logout(context: &mut Context, arguments: &LogoutArguments) -> Result<(), Failure> {
    let store = Store::require(&context.surroundings)?;
    let name = match &arguments.context {
        Some(name) => name.clone(),
        None => store.current()?.ok_or_else(|| {
            Failure::new("no context is in use").hint("`tug context ls` shows them: name the one to forget")
        })?,
    };
    forget(context, &store, &name)
}

fn forget(context: &mut Context, store: &Store, name: &str) -> Result<(), Failure> {
    let token = store.read(name).ok().map(|saved| saved.token);
    store.remove(name)?;
    let sign = paint(style::GOOD, "✓");
    let goes_on = token.map_or_else(String::new, |token| {
        format!("; token {} is good until it expires or an admin removes it", token.id())
    });
    context.screen.note(&format!("{sign} `{name}` is forgotten here{goes_on}"));
    Ok(())
}

fn list(
    context: &mut Context,
    connection: &Connection,
    store: &Store,
    arguments: &ListArguments,
) -> Result<(), Failure> {
    let current = store.current()?;
    let mut all = vec![Listed {
        name: LOCAL.to_owned(),
        current: current.is_none(),
        socket: Some(connection.socket.display().to_string()),
        servers: Vec::new(),
        cluster: String::new(),
        token_id: String::new(),
        problem: None,
    }];
    for name in store.names()? {
        let current = current.as_deref() == Some(&name);
        let socket = None;
        all.push(match store.read(&name) {
            Ok(saved) => {
                let token_id = saved.token.id().to_owned();
                let (servers, cluster) = (saved.servers, saved.cluster);
                Listed { name, current, socket, servers, cluster, token_id, problem: None }
            }
            Err(failure) => {
                let (servers, cluster, token_id) = Default::default();
                Listed { name, current, socket, servers, cluster, token_id, problem: Some(failure.message) }
            }
        });
    }
    let facts = context.screen.facts;
    let text = structured::listed(&all, arguments.output.format, |wide| table(&all, facts, wide))?;
    context.screen.data(&text)
}

fn table(all: &[Listed], facts: Facts, wide: bool) -> String {
    let mut names = vec!["CONTEXT", "IN USE", "SERVER", "TOKEN", "DETAIL"];
    if wide {
        names.push("CLUSTER");
    }
    let mut table = Columns::new(&names);
    for one in all {
        let server = match (&one.socket, one.servers.as_slice()) {
            (Some(socket), _) => socket.clone(),
            (None, []) => String::new(),
            (None, [first, ..]) => format!("https://{first}"),
        };
        let mut row = vec![
            one.name.as_str().into(),
            if one.current { Value::styled("yes", style::GOOD) } else { "".into() },
            server.into(),
            one.token_id.as_str().into(),
            one.problem.as_deref().unwrap_or_default().into(),
        ];
        if wide {
            row.push(one.cluster.as_str().into());
        }
        table.row(row);
    }
    table.render(facts, !wide)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tug_api::client::Client;
    use tug_api::transport::Channel;

    use super::*;
    use crate::arguments::{Arguments, Command};
    use crate::place::store::tests::{saved, surroundings};
    use crate::render::Screen;

    #[test]
    fn contexts_are_listed_chosen_and_forgotten_without_a_token_shown() {
        let (_folder, surroundings) = surroundings();
        let store = Store::require(&surroundings).unwrap();
        store.write(&saved("prod")).unwrap();
        let (screen, out, err) = Screen::in_memory(Facts::default());
        let client = Client::new(Channel::unix("/nowhere"));
        let mut context = Context { surroundings, ..Context::of(client, screen) };
        let mut tug = |line: &str| {
            let Arguments { connection, command } =
                Arguments::try_parse_from(line.split_whitespace()).unwrap();
            if let Command::Context(arguments) = command {
                run(&mut context, &connection, &arguments)
            } else if let Command::Logout(arguments) = command {
                logout(&mut context, &arguments)
            } else {
                panic!("{line}")
            }
        };
        tug("tug context use prod --socket /s").unwrap();
        tug("tug context ls --socket /s").unwrap();
        insta::assert_snapshot!(out.text(), @r"
        CONTEXT  IN USE  SERVER                        TOKEN     DETAIL
        local            /s
        prod     yes     https://tug.example.org:7443  07070707
        ");
        tug("tug context ls -o json").unwrap();
        tug("tug logout").unwrap();
        assert_eq!(tug("tug logout").unwrap_err().message, "no context is in use");
        assert_eq!(tug("tug context use prod").unwrap_err().message, "there is no context `prod`");
        let said = out.text() + &err.text();
        assert!(!said.contains(&saved("prod").token.expose()[20..]), "{said}");
        assert!(said.contains("`prod` is forgotten here; token 07070707 is good until"), "{said}");
    }
}
