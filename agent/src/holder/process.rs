//! The process itself: one thread, no runtime, asleep nearly all the time.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt,
};
use rustix::process::geteuid;
use tokio::time::Instant;

use super::Place;
use super::charge::{Charge, Charges};
use super::message::{self, Answer, Question, Received, VERSION};

/// How often the holder looks whether its socket's file is still there.
const LOOK: Duration = Duration::from_secs(2);

/// More sockets than this are refused.
const MOST_SOCKETS: usize = 4096;

/// More agents than this at a time are refused: there is one, and for a moment its successor.
const MOST_AGENTS: usize = 8;

/// Why a holder could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The lock that keeps a second holder away.
    #[error("lock `{path}`")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its socket.
    #[error("listen on `{path}`")]
    Listen {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The thread that ends containers.
    #[error("watch what is to be ended")]
    Watch(#[source] io::Error),
    /// Waiting for anything to happen.
    #[error("wait for an agent")]
    Wait(#[source] io::Error),
}

/// What the holder has.
#[derive(Debug)]
struct Holder {
    door: OwnedFd,
    agents: Vec<Agent>,
    sockets: BTreeMap<Place, OwnedFd>,
    charges: Arc<Charges>,
    is_released: bool,
}

/// A connected agent.
#[derive(Debug)]
struct Agent {
    socket: OwnedFd,
    has_said_hello: bool,
}

/// Which file is at a path: another one of the same name is another file.
type FileId = (u64, u64);

/// Keeps sockets until told to end, until no agent was connected for `alone` and nothing is to be ended any more, or
/// until the file at `socket` is gone.
/// Returns at once, successfully, if another holder is there already.
///
/// Blocks the thread: it is meant to be all that its process does.
pub fn run(socket: &Path, alone: Duration) -> Result<(), HoldError> {
    // Fails only where the process leads a group already, and then it is out of the agent's group just as well.
    let _ = rustix::process::setsid();
    let Some(_lock) = lock(socket)? else {
        return Ok(());
    };
    raise_file_limit();
    let listen_error = |source| HoldError::Listen { path: socket.to_owned(), source };
    let door = open_door(socket).map_err(listen_error)?;
    let own_file = file_id(socket);
    let charges = Arc::new(Charges::default());
    let watched = Arc::clone(&charges);
    std::thread::Builder::new().spawn(move || watched.watch()).map_err(HoldError::Watch)?;
    let (agents, sockets) = (Vec::new(), BTreeMap::new());
    let mut holder = Holder { door, agents, sockets, charges, is_released: false };
    let mut alone_since = Instant::now();
    while !holder.is_released && own_file.is_some() && file_id(socket) == own_file {
        if !holder.agents.is_empty() || !holder.charges.is_empty() {
            alone_since = Instant::now();
        }
        let Some(rest) = alone.checked_sub(alone_since.elapsed()).filter(|rest| !rest.is_zero()) else {
            break;
        };
        holder.turn(rest.min(LOOK)).map_err(|error| HoldError::Wait(error.into()))?;
    }
    if file_id(socket) == own_file {
        // What is left of it only makes the next agent try in vain once.
        let _ = fs::remove_file(socket);
    }
    Ok(())
}

/// Lets this process have as many open files as it may.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed, what is allowed must do.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Takes the lock beside `socket`, which goes with the process; `None` if another holder has it.
fn lock(socket: &Path) -> Result<Option<File>, HoldError> {
    let mut path = socket.to_owned().into_os_string();
    path.push(".lock");
    let path = PathBuf::from(path);
    let locked = || -> io::Result<Option<File>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    locked().map_err(|source| HoldError::Lock { path: path.clone(), source })
}

fn open_door(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let door = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&door, &SocketAddrUnix::new(path)?)?;
    // Nobody can connect before `listen`, so nobody does with other permissions.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listen(&door, 16)?;
    Ok(door)
}

fn file_id(path: &Path) -> Option<FileId> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

// === impl Holder ===

impl Holder {
    /// Waits until something happens, at most `wait`, and answers.
    fn turn(&mut self, wait: Duration) -> Result<(), Errno> {
        let sockets = std::iter::once(&self.door).chain(self.agents.iter().map(|agent| &agent.socket));
        let mut polled: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
        let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut is_ready = polled.iter().map(|polled| !polled.revents().is_empty());
        let is_door_ready = is_ready.next().unwrap_or(false);
        let ready_agents: Vec<bool> = is_ready.collect();
        let agents = std::mem::take(&mut self.agents);
        for (mut agent, is_ready) in agents.into_iter().zip(ready_agents) {
            if !is_ready || self.hear(&mut agent) {
                self.agents.push(agent);
            }
        }
        if is_door_ready {
            self.welcome();
        }
        Ok(())
    }

    /// Lets an agent in, if it is one of ours.
    fn welcome(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(&self.door, flags) else {
            return;
        };
        let is_own = sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == geteuid());
        if is_own && self.agents.len() < MOST_AGENTS {
            self.agents.push(Agent { socket, has_said_hello: false });
        }
    }

    /// Reads one question and answers it; `false` if the connection is to be closed.
    fn hear(&mut self, agent: &mut Agent) -> bool {
        let (question, descriptor) = match message::receive(&agent.socket) {
            Ok(Received::Message(question, descriptor)) => (question, descriptor),
            Ok(Received::Nonsense | Received::End) => return false,
            Err(error) => return matches!(error, Errno::AGAIN | Errno::INTR),
        };
        let answer = self.answer(&question, descriptor, agent);
        let number = match question {
            Question::Get { number } if matches!(answer, Answer::Kept { .. }) => Some(number),
            Question::Get { .. }
            | Question::Hello { .. }
            | Question::Keep { .. }
            | Question::Forget { .. }
            | Question::Charge { .. }
            | Question::Release {} => None,
        };
        let socket = number.and_then(|number| self.sockets.values().nth(number));
        // An agent that does not read its answers is not waited for.
        message::send(&agent.socket, &answer, socket.map(AsFd::as_fd)).is_ok()
    }

    fn answer(&mut self, question: &Question, descriptor: Option<OwnedFd>, agent: &mut Agent) -> Answer {
        let refused = |reason: &str| Answer::Refused { reason: reason.to_owned() };
        match question {
            Question::Hello { version } if *version == VERSION => {
                agent.has_said_hello = true;
                Answer::Done {}
            }
            Question::Hello { .. } => refused("this holder speaks version 1"),
            _ if !agent.has_said_hello => refused("nobody said hello"),
            Question::Get { number } => match self.sockets.keys().nth(*number) {
                Some(place) => Answer::Kept { place: *place },
                None => Answer::Done {},
            },
            Question::Keep { place } => match descriptor {
                None => refused("no socket came with it"),
                Some(socket) if !is_listening_on(&socket, place.port) => {
                    refused("it is no socket that listens on that TCP port")
                }
                Some(_) if self.sockets.len() >= MOST_SOCKETS => refused("there are too many sockets"),
                Some(socket) => {
                    self.sockets.insert(*place, socket);
                    Answer::Done {}
                }
            },
            Question::Forget { place } => {
                self.sockets.remove(place);
                Answer::Done {}
            }
            Question::Charge { engine, node, task, until } => {
                let charge = Charge { engine: engine.clone(), node: node.clone(), until: *until };
                self.charges.set(task.clone(), charge);
                Answer::Done {}
            }
            Question::Release {} => {
                self.sockets.clear();
                self.is_released = true;
                Answer::Done {}
            }
        }
    }
}

fn is_listening_on(socket: &OwnedFd, port: u16) -> bool {
    let is_tcp = sockopt::socket_type(socket) == Ok(SocketType::STREAM);
    let is_listening = sockopt::socket_acceptconn(socket) == Ok(true);
    let address = rustix::net::getsockname(socket).ok();
    let address = address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
    is_tcp && is_listening && address.is_some_and(|address| address.port() == port)
}
