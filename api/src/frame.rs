//! The frames of an `exec` conversation, which runs in both directions at once over one request and its response:
//! one byte for the kind, four for the length of the payload (big-endian), the payload.
//!
//! The client sends [`Frame::Start`] first, then input, sizes, and the end of input; the node sends output and, last,
//! either the exit code or an error. The orchestrator passes the bytes on without looking at them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

/// The largest payload in bytes.
pub const LARGEST: usize = 1 << 20;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client: what to run. The first frame, once.
    Start(ExecStart),
    /// Client: bytes for standard input.
    Input(Bytes),
    /// Client: standard input ends here.
    InputEnd,
    /// Client: the terminal has this size now.
    Size(TerminalSize),
    /// Node: bytes from standard output, or from the terminal.
    Output(Bytes),
    /// Node: bytes from standard error.
    ErrorOutput(Bytes),
    /// Node: the command ended with this code. The last frame.
    Exit(i64),
    /// Node: it could not be run, and why. The last frame.
    Failed(String),
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecStart {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// With a terminal.
    #[serde(default)]
    pub tty: bool,
    /// With standard input.
    #[serde(default)]
    pub stdin: bool,
    /// More environment, as `KEY=value`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// As this user.
    #[serde(default)]
    pub user: Option<String>,
    /// In this directory.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// The terminal's size at the start.
    #[serde(default)]
    pub size: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// Why bytes are not frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection ended or broke.
    #[error("read or write the stream")]
    Io(#[from] std::io::Error),
    /// No frame has this kind.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// The payload is longer than [`LARGEST`].
    #[error("a frame of {0} bytes is larger than {LARGEST}")]
    TooLarge(usize),
    /// The payload is not what its kind says.
    #[error("malformed frame of kind {0}")]
    Payload(u8),
}

/// Turns frames into bytes and back.
#[derive(Debug, Default)]
pub struct FrameCodec;

const HEAD: usize = 5;

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), FrameError> {
        let (kind, payload): (u8, Bytes) = match frame {
            Frame::Start(start) => {
                (0, serde_json::to_vec(&start).map_err(|_| FrameError::Payload(0))?.into())
            }
            Frame::Input(bytes) => (1, bytes),
            Frame::InputEnd => (2, Bytes::new()),
            Frame::Size(size) => {
                (3, Bytes::from([size.rows.to_be_bytes(), size.columns.to_be_bytes()].concat()))
            }
            Frame::Output(bytes) => (4, bytes),
            Frame::ErrorOutput(bytes) => (5, bytes),
            Frame::Exit(code) => (6, Bytes::copy_from_slice(&code.to_be_bytes())),
            Frame::Failed(reason) => (7, reason.into()),
        };
        let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= LARGEST);
        let length = length.ok_or(FrameError::TooLarge(payload.len()))?;
        out.reserve(HEAD + payload.len());
        out.put_u8(kind);
        out.put_u32(length);
        out.put(payload);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some([kind, a, b, c, d]) = bytes.first_chunk::<HEAD>().copied() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LARGEST {
            return Err(FrameError::TooLarge(length));
        }
        if bytes.len() < HEAD + length {
            bytes.reserve(HEAD + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(HEAD);
        let payload = bytes.split_to(length).freeze();
        let malformed = || FrameError::Payload(kind);
        Ok(Some(match kind {
            0 => Frame::Start(serde_json::from_slice(&payload).map_err(|_| malformed())?),
            1 => Frame::Input(payload),
            2 => Frame::InputEnd,
            3 => {
                let [a, b, c, d] = <[u8; 4]>::try_from(&*payload).map_err(|_| malformed())?;
                Frame::Size(TerminalSize {
                    rows: u16::from_be_bytes([a, b]),
                    columns: u16::from_be_bytes([c, d]),
                })
            }
            4 => Frame::Output(payload),
            5 => Frame::ErrorOutput(payload),
            6 => Frame::Exit(i64::from_be_bytes(<[u8; 8]>::try_from(&*payload).map_err(|_| malformed())?)),
            7 => Frame::Failed(String::from_utf8_lossy(&payload).into_owned()),
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_however_the_bytes_are_cut() {
        let frames = [
            Frame::Start(ExecStart { command: vec!["sh".into()], tty: true, ..ExecStart::default() }),
            Frame::Input(Bytes::from_static(b"hello")),
            Frame::InputEnd,
            Frame::Size(TerminalSize { rows: 33, columns: 101 }),
            Frame::Output(Bytes::from_static(b"out")),
            Frame::ErrorOutput(Bytes::new()),
            Frame::Exit(-1),
            Frame::Failed("no such container".into()),
        ];
        let mut bytes = BytesMut::new();
        for frame in &frames {
            FrameCodec.encode(frame.clone(), &mut bytes).unwrap();
        }
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in bytes {
            buffer.put_u8(byte);
            while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_bad_frame_is_an_error() {
        for bytes in
            [&[9, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255], &[3, 0, 0, 0, 1, 7], &[0, 0, 0, 0, 1, b'{']]
        {
            assert!(FrameCodec.decode(&mut BytesMut::from(bytes)).is_err(), "{bytes:?}");
        }
    }
}
