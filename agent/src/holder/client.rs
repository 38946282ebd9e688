//! The agent's side of the holder: finding it, starting it, asking it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::process::geteuid;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use tug_model::{Millis, NodeId, TaskId};

use super::message::{self, Answer, Question, Received, VERSION};
use super::{HolderConfig, Place};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a holder that was just started may take to listen, and how often we look.
const START: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

/// More sockets than this no holder has.
const MOST_SOCKETS: usize = 4096;

/// What went wrong with the holder.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its socket is there, but not to be connected to.
    #[error("connect to the holder at `{path}`")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("the holder at `{path}` is a process of another user")]
    Foreign {
        /// The socket.
        path: PathBuf,
    },
    /// Its program.
    #[error("start the holder by `{executable}`")]
    Start {
        /// The program.
        executable: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was started, and does not listen.
    #[error("the holder that was started by `{executable}` does not listen at `{path}`")]
    Silent {
        /// The program.
        executable: PathBuf,
        /// The socket.
        path: PathBuf,
    },
    /// A question or its answer.
    #[error("ask the holder to {what}")]
    Ask {
        /// What it was asked for.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not do what it was asked for.
    #[error("the holder refuses to {what}: {reason}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

/// A connection to a holder.
#[derive(Debug)]
pub struct Client {
    /// Of the sequenced-packet kind: it is only waited for as a stream, never read or written as one.
    socket: UnixStream,
}

// === impl Client ===

impl Client {
    /// Connects to a holder that runs; `None` if none does.
    pub async fn find(config: &HolderConfig) -> Result<Option<Self>, ClientError> {
        let connect_error = |source| ClientError::Connect { path: config.socket.clone(), source };
        let Some(socket) = connect_to(&config.socket).map_err(connect_error)? else {
            return Ok(None);
        };
        let peer = sockopt::socket_peercred(&socket).map_err(|error| connect_error(error.into()))?;
        if peer.uid != geteuid() {
            return Err(ClientError::Foreign { path: config.socket.clone() });
        }
        let socket = UnixStream::from_std(socket.into()).map_err(connect_error)?;
        let mut client = Self { socket };
        client.ask("speak our version", &Question::Hello { version: VERSION }, None).await?;
        Ok(Some(client))
    }

    /// Connects to the holder, and starts it where none runs.
    pub async fn find_or_start(config: &HolderConfig) -> Result<Self, ClientError> {
        if let Some(client) = Self::find(config).await? {
            return Ok(client);
        }
        // The child is not waited for here: tokio sees to its end, if it comes before ours.
        let _child = Command::new(&config.executable)
            .args(&config.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .kill_on_drop(false)
            .spawn()
            .map_err(|source| ClientError::Start { executable: config.executable.clone(), source })?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            sleep(LOOK).await;
            if let Some(client) = Self::find(config).await? {
                return Ok(client);
            }
        }
        Err(ClientError::Silent { executable: config.executable.clone(), path: config.socket.clone() })
    }

    /// A duplicate of every socket that the holder has.
    pub async fn kept(&mut self) -> Result<Vec<(Place, OwnedFd)>, ClientError> {
        let what = "give the sockets back";
        let mut sockets = Vec::new();
        while sockets.len() < MOST_SOCKETS {
            let (answer, descriptor) = self.ask(what, &Question::Get { number: sockets.len() }, None).await?;
            match (answer, descriptor) {
                (Answer::Kept { place }, Some(socket)) => sockets.push((place, socket)),
                (Answer::Done {} | Answer::Kept { .. } | Answer::Refused { .. }, _) => break,
            }
        }
        Ok(sockets)
    }

    /// Gives it a duplicate of `socket`, in the place of one that it may have under `place`.
    pub async fn keep(&mut self, place: Place, socket: BorrowedFd<'_>) -> Result<(), ClientError> {
        self.ask("keep a socket", &Question::Keep { place }, Some(socket)).await.map(drop)
    }

    /// Lets it close its duplicate of the socket of `place`.
    pub async fn forget(&mut self, place: Place) -> Result<(), ClientError> {
        self.ask("close a socket", &Question::Forget { place }, None).await.map(drop)
    }

    /// From now on it kills the container of `task` on the Engine behind that socket when the machine will have been up for
    /// `until`, unless it is told a later time before.
    pub async fn charge(
        &mut self,
        engine: &Path,
        node: &NodeId,
        task: TaskId,
        until: Millis,
    ) -> Result<(), ClientError> {
        let question = Question::Charge { engine: engine.to_owned(), node: node.clone(), task, until };
        self.ask("end a task in time", &question, None).await.map(drop)
    }

    /// Lets it close everything and end.
    pub async fn release(&mut self) -> Result<(), ClientError> {
        self.ask("end", &Question::Release {}, None).await.map(drop)
    }

    /// Returns when the holder has closed the connection, or says what nobody asked for.
    pub async fn closed(&self) {
        // Read, not only waited for: the socket is taken for readable until a read has found nothing.
        let _ =
            self.socket.async_io(Interest::READABLE, || Ok(message::receive::<Answer>(&self.socket)?)).await;
    }

    async fn ask(
        &mut self,
        what: &'static str,
        question: &Question,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(Answer, Option<OwnedFd>), ClientError> {
        let exchange = async {
            let socket = &self.socket;
            let send = || Ok(message::send(socket, question, descriptor)?);
            socket.async_io(Interest::WRITABLE, send).await?;
            socket.async_io(Interest::READABLE, || Ok(message::receive(socket)?)).await
        };
        let received = match timeout(ANSWER, exchange).await {
            Ok(Ok(Received::Message(answer, descriptor))) => Ok((answer, descriptor)),
            Ok(Ok(Received::Nonsense)) => Err(io::Error::from(io::ErrorKind::InvalidData)),
            Ok(Ok(Received::End)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        };
        match received.map_err(|source| ClientError::Ask { what, source })? {
            (Answer::Refused { reason }, _) => Err(ClientError::Refused { what, reason }),
            answer => Ok(answer),
        }
    }
}

/// A connected socket; `None` if nobody listens at `path`.
fn connect_to(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
