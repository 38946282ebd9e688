//! The control plane as the binary runs it: its state in a folder, its API on a Unix socket.

use std::io;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use tug_api::Clock;
use tug_api::error::chain;
use tug_model::Revision;
use tug_orchestrator::app::{self, CERTIFICATE_LIFE, Config, Error, Listen};
use tug_orchestrator::store;

use super::node::unusable;
use crate::arguments::{Listening, Reached};
use crate::failure::Failure;

/// A control plane that can be served.
#[derive(Debug)]
pub(super) struct Plane {
    /// The folder that the user named.
    private: PathBuf,
    /// Our own below it.
    state_dir: PathBuf,
    socket: PathBuf,
    /// Where other machines come in.
    listen: Option<Listen>,
    clock: Clock,
}

// === impl Plane ===

impl Plane {
    /// One that keeps its state below `state_dir`, where an agent may keep its own beside it.
    pub(super) fn new(state_dir: &Path, socket: &Path, clock: Clock) -> Self {
        let private = state_dir.to_path_buf();
        Self {
            private,
            state_dir: state_dir.join("server"),
            socket: socket.to_path_buf(),
            listen: None,
            clock,
        }
    }

    /// The same one, which other machines may reach as the options say.
    pub(super) fn reached_by(
        mut self,
        listening: Listening,
        advertised: &[Reached],
    ) -> Result<Self, Failure> {
        let Listening::At(address) = listening else { return Ok(self) };
        let servers = advertised.iter().map(|one| one.with_port_of(address, "--advertise"));
        let servers = servers.collect::<Result<_, _>>()?;
        self.listen = Some(Listen { address, servers, certificate_life: CERTIFICATE_LIFE });
        Ok(self)
    }

    /// Puts the state back from an export.
    pub(super) async fn restore(self, file: &Path) -> Result<Revision, Failure> {
        let config = Config::daemon(&self.state_dir, &self.socket)
            .map_err(|error| failure(&self.state_dir, &error))?;
        let file = file.to_path_buf();
        let restored = tokio::task::spawn_blocking(move || store::restore(&config.store, &file)).await;
        let restored = restored.map_err(|error| Failure::caused("restore the store", &error))?;
        restored.map_err(|error| Failure::caused("restore the store", &error).hint("nothing was changed"))
    }

    /// Serves until `stop`.
    pub(super) async fn serve(self, stop: CancellationToken) -> Result<(), Failure> {
        let failed = |error: Error| failure(&self.state_dir, &error);
        let config = Config::daemon(&self.state_dir, &self.socket).map_err(failed)?;
        let private = Some(self.private.clone());
        let config = Config { clock: self.clock, private, listen: self.listen.clone(), ..config };
        app::serve(config, stop).await.map_err(failed)
    }
}

fn failure(state_dir: &Path, error: &Error) -> Failure {
    match error {
        Error::StateDir(_) | Error::Folder { .. } | Error::Store(_) | Error::Authority(_) => {
            unusable("the control plane", state_dir, error)
        }
        Error::ListenTls { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
            Failure::new(format!("cannot listen on {address} for other machines: the port is taken"))
                .hint(format!("is another `tug server` running? `ss -ltnp 'sport = :{}'` shows who has it; choose another port with --listen ADDR:PORT, or `--listen none` for this machine alone", address.port()))
        }
        Error::ListenTls { address, source } => {
            Failure::caused(&format!("listen on {address} for other machines"), source)
                .hint("choose an address of this machine with --listen ADDR:PORT, or `--listen none`")
        }
        Error::Random(_)
        | Error::NoSocket
        | Error::Running { .. }
        | Error::NotASocket { .. }
        | Error::Listen { .. }
        | Error::Entrance(_)
        | Error::Crashed(_) => Failure::new(chain(error)),
    }
}
