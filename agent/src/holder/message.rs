//! What an agent and its holder say to each other, and how it is put on the socket.
//!
//! The socket is a Unix socket of the sequenced-packet kind: one packet is one message, in JSON, at most
//! [`LONGEST`] bytes, and with it travels at most one file descriptor. The agent asks, the holder answers every
//! question with one packet:
//!
//! | question | descriptor | answer |
//! |---|---|---|
//! | `hello` with [`VERSION`], the first of all | | `done` |
//! | `get` number *n*, counted from 0 | | `kept` with the descriptor of the *n*-th socket, or `done` after the last |
//! | `keep` a socket under a place | it | `done` |
//! | `forget` the socket of a place | | `done`, also when there was none |
//! | `charge`: kill the container of a task at that time, unless a later one is said | | `done` |
//! | `release`: close everything and end | | `done` |
//!
//! Every question may be answered by `refused`; a packet that is not a question ends the connection. A holder outlives
//! the agent that started it, so a newer agent must speak the version of an older holder; the version is raised only
//! when that cannot be helped, and then a holder that refuses `hello` is left to its end and the ports are opened anew.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tug_model::{Millis, NodeId, TaskId};

use super::Place;

/// The version that is spoken here.
pub(super) const VERSION: u32 = 1;

/// The longest packet.
pub(super) const LONGEST: usize = 1024;

/// What an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Question {
    Hello { version: u32 },
    Get { number: usize },
    Keep { place: Place },
    Forget { place: Place },
    Charge { engine: PathBuf, node: NodeId, task: TaskId, until: Millis },
    Release {},
}

/// What the holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Answer {
    Kept { place: Place },
    Done {},
    Refused { reason: String },
}

/// A packet that was read.
#[derive(Debug)]
pub(super) enum Received<T> {
    Message(T, Option<OwnedFd>),
    /// Not a message of this protocol.
    Nonsense,
    /// The other side is gone.
    End,
}

/// Sends one message. The socket is nonblocking: [`Errno::AGAIN`] if the other side does not read.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let Ok(bytes) = serde_json::to_vec(message) else {
        return Err(Errno::INVAL);
    };
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Reads one message. The socket is nonblocking: [`Errno::AGAIN`] if there is none.
pub(super) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<Received<T>, Errno> {
    let mut bytes = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let packet = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    // All descriptors are taken out before anything is judged, so that none of them stays open.
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = ancillary {
            descriptors.extend(received);
        }
    }
    let descriptor = descriptors.pop();
    if packet.bytes == 0 && descriptor.is_none() {
        return Ok(Received::End);
    }
    let is_cut = packet.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    match bytes.get(..packet.bytes).map(serde_json::from_slice) {
        Some(Ok(message)) if !is_cut && descriptors.is_empty() => Ok(Received::Message(message, descriptor)),
        _ => Ok(Received::Nonsense),
    }
}
