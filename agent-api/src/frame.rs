//! Frames on a unix stream socket: 4 bytes of length (big endian), then JSON; descriptors travel with the
//! first byte.
//!
//! Invariants: a frame is at most [`MAX_FRAME`] bytes and carries at most [`MAX_FDS`] descriptors; received
//! descriptors are close-on-exec; a deadline is the caller's, set on the socket before the call.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest body of a frame, in bytes: a VM spec with its cloud-init data stays far below.
pub const MAX_FRAME: usize = 4 << 20;
/// Length of what says how long the body is, in bytes.
pub const HEADER: usize = 4;
/// Most descriptors that one frame may carry.
pub const MAX_FDS: usize = 16;

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed, or its deadline passed.
    #[error("failed to exchange a frame")]
    Io(#[from] io::Error),
    /// A frame is larger than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is larger than {MAX_FRAME}")]
    TooLarge(usize),
    /// The body is not the JSON that was expected.
    #[error("failed to decode a frame")]
    Json(#[from] serde_json::Error),
}

/// Sends one message with `fds` beside it.
///
/// # Errors
/// [`FrameError::TooLarge`] before anything is sent; [`FrameError::Io`] when the socket fails.
pub fn send<T: Serialize>(stream: &UnixStream, message: &T, fds: &[RawFd]) -> Result<(), FrameError> {
    let frame = encode(message)?;
    let (header, body) = frame.split_at(HEADER);
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    // MSG_NOSIGNAL: a peer that went away is an error, not a signal.
    let sent =
        retry(|| sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(header)], control, MsgFlags::MSG_NOSIGNAL, None))?;
    let mut out = stream;
    out.write_all(&header[sent..])?;
    out.write_all(body)?;
    Ok(())
}

/// Receives one message and the descriptors that came with it.
///
/// # Errors
/// [`FrameError::Closed`] when the peer is gone between frames, [`FrameError::Io`] also when the socket's read
/// deadline passes, [`FrameError::TooLarge`] and [`FrameError::Json`] for a peer that speaks something else.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> Result<(T, Vec<OwnedFd>), FrameError> {
    let mut header = [0u8; HEADER];
    let (first, fds) = receive_header(stream, &mut header)?;
    if first == 0 {
        return Err(FrameError::Closed);
    }
    let mut input = stream;
    input.read_exact(&mut header[first..])?;
    let mut body = vec![0u8; length(header)?];
    input.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fds))
}

/// A frame, for streams that carry no descriptors.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let body = frame.len() - HEADER;
    let length = u32::try_from(body).ok().filter(|_| body <= MAX_FRAME).ok_or(FrameError::TooLarge(body))?;
    frame[..HEADER].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// How long the body behind a header is.
///
/// # Errors
/// [`FrameError::TooLarge`].
pub fn length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(header) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLarge(length)) } else { Ok(length) }
}

fn receive_header(stream: &UnixStream, header: &mut [u8; HEADER]) -> Result<(usize, Vec<OwnedFd>), FrameError> {
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    loop {
        let mut iov = [IoSliceMut::new(header)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(stream.as_raw_fd(), &mut iov, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(FrameError::Io(errno.into())),
            Ok(message) => {
                let mut fds = Vec::new();
                for control in message.cmsgs().map_err(io::Error::from)? {
                    if let ControlMessageOwned::ScmRights(received) = control {
                        // SAFETY: the kernel has just made these descriptors for this process, and nobody else knows them.
                        fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                return Ok((message.bytes, fds));
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, FrameError> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map_err(|errno| FrameError::Io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn carries_a_message_and_a_descriptor() {
        let (a, b) = UnixStream::pair().unwrap();
        let file = File::open("/proc/self/comm").unwrap();
        let text = "y".repeat(1 << 20);
        let sender = std::thread::spawn({
            let text = text.clone();
            move || send(&a, &text, &[file.as_raw_fd()]).unwrap()
        });
        let (received, fds) = receive::<String>(&b).unwrap();
        sender.join().unwrap();
        assert_eq!(received, text);
        let mut comm = String::new();
        File::from(fds.into_iter().next().unwrap()).read_to_string(&mut comm).unwrap();
        assert!(!comm.is_empty());
    }

    #[test]
    fn refuses_a_frame_beyond_the_limit() {
        let (a, b) = UnixStream::pair().unwrap();
        (&a).write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(receive::<String>(&b), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn ends_cleanly_between_frames() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(matches!(receive::<serde_json::Value>(&b), Err(FrameError::Closed)));
    }
}
