//! Where the server is that a command asks: behind the socket of this machine, or elsewhere, as `tug login` stored it.

pub(crate) mod store;

use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;
use tug_api::client::Client;
use tug_api::tls;
use tug_api::transport::{Channel, TlsServer};

use self::store::{Saved, Store};
use crate::arguments::Connection;
use crate::context::Surroundings;
use crate::failure::Failure;

/// The name by which the socket of this machine is chosen among contexts.
pub(crate) const LOCAL: &str = "local";

/// Where the server is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Behind this socket.
    Socket(PathBuf),
    /// Elsewhere.
    Elsewhere(Box<Saved>),
}

/// What was said about where the server is, and how plainly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    socket: PathBuf,
    socket_said: Said,
    context: Option<String>,
    context_said: Said,
}

/// How plainly something was said. The plainer word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Not,
    InEnvironment,
    OnCommandLine,
}

// === impl Wish ===

impl Wish {
    /// What the command line and the environment say.
    pub(crate) fn new(matches: &ArgMatches, connection: &Connection) -> Self {
        let said = |id: &str| match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Said::OnCommandLine,
            Some(ValueSource::EnvVariable) => Said::InEnvironment,
            Some(_) | None => Said::Not,
        };
        let context = connection.context.clone().filter(|name| !name.is_empty());
        let context_said = if context.is_some() { said("context") } else { Said::Not };
        Self { socket: connection.socket.clone(), socket_said: said("socket"), context, context_said }
    }

    /// The place that is meant: what was said most plainly, else the context that is in use, else the socket.
    pub(crate) fn choose(&self, surroundings: &Surroundings) -> Result<Place, Failure> {
        let socket = || Place::Socket(self.socket.clone());
        let name = match &self.context {
            Some(_) if self.context_said == self.socket_said => {
                return Err(Failure::usage("a socket and a context are named: which one is meant?")
                    .hint("leave out --socket and TUG_SOCKET, or --context and TUG_CONTEXT"));
            }
            Some(name) if self.context_said > self.socket_said => Some(name.clone()),
            Some(_) | None if self.socket_said > Said::Not => None,
            Some(_) | None => match Store::of(surroundings) {
                Some(store) => store.current()?,
                None => None,
            },
        };
        match name.filter(|name| name != LOCAL) {
            None => Ok(socket()),
            Some(name) => {
                let store = Store::require(surroundings)?;
                Ok(Place::Elsewhere(Box::new(store.read(&name)?)))
            }
        }
    }
}

// === impl Place ===

impl Place {
    /// What asks the server there.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        match self {
            Self::Socket(path) => Ok(Client::new(Channel::unix(path))),
            Self::Elsewhere(saved) => saved.client(),
        }
    }

    /// Whether the server is reached by TLS: it may be on another machine.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere(_))
    }
}

// === impl Saved ===

impl Saved {
    /// What asks the server, with the token. Whoever does not show a chain to the authority is not talked to.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let config = tls::pinned_client_config(&self.authority)
            .map_err(|error| Failure::caused("prepare the connection", &error))?;
        let server = TlsServer { addresses: self.servers.clone(), name: tls::server_name(), config };
        Ok(Client::new(Channel::tls(server).bearing(&self.token)))
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::arguments::{self, Arguments};

    fn wish(line: &str) -> Wish {
        let matches = arguments::command().try_get_matches_from(line.split_whitespace()).unwrap();
        let arguments = Arguments::from_arg_matches(&matches).unwrap();
        Wish::new(&matches, &arguments.connection)
    }

    fn chosen(wish: &Wish, surroundings: &Surroundings) -> String {
        match wish.choose(surroundings) {
            Ok(Place::Socket(path)) => path.display().to_string(),
            Ok(Place::Elsewhere(saved)) => saved.name,
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn the_plainest_word_counts() {
        let (folder, surroundings) = store::tests::surroundings();
        let store = Store::require(&surroundings).unwrap();
        let socket = arguments::SOCKET;
        assert_eq!(chosen(&wish("tug ls"), &surroundings), socket);
        assert_eq!(
            chosen(&wish("tug ls"), &Surroundings::default()),
            socket,
            "without a home it is the socket"
        );
        store.write(&store::tests::saved("prod")).unwrap();
        store.write(&store::tests::saved("test")).unwrap();
        store.set_current("prod").unwrap();
        assert_eq!(chosen(&wish("tug ls"), &surroundings), "prod");
        assert_eq!(chosen(&wish("tug --context test ls"), &surroundings), "test");
        assert_eq!(chosen(&wish("tug ls --context test"), &surroundings), "test", "after the command too");
        assert_eq!(chosen(&wish("tug ls --context local"), &surroundings), socket);
        assert_eq!(chosen(&wish("tug ls --socket /s"), &surroundings), "/s");
        let both = wish("tug ls --socket /s --context test");
        assert!(chosen(&both, &surroundings).contains("which one is meant"));
        let environment = Wish { context_said: Said::InEnvironment, ..both };
        assert_eq!(
            chosen(&environment, &surroundings),
            "/s",
            "the command line is plainer than the environment"
        );
        assert_eq!(chosen(&wish("tug ls --context tset"), &surroundings), "there is no context `tset`");
        drop(folder);
    }
}
