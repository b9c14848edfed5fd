//! The loop around the answers: one thread for all NICs of the VM.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use super::{Lease, frame};

/// Larger than any frame that a NIC's MTU allows; what is longer is cut and so not answered.
const FRAME: usize = 10_000;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    /// Its end tells the thread to stop.
    stop: Option<PipeWriter>,
}

impl Server {
    /// Answers each lease on its socket: raw Ethernet frames of one tap, DHCP requests only.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(leases: Vec<(Lease, OwnedFd)>) -> io::Result<Self> {
        if leases.is_empty() {
            return Ok(Self { thread: None, stop: None });
        }
        let (stopped, stop) = io::pipe()?;
        let builder = std::thread::Builder::new().name("dhcp".to_owned());
        let thread = builder.spawn(move || serve(&leases, &stopped))?;
        Ok(Self { thread: Some(thread), stop: Some(stop) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked is as stopped as one that returned.
            let _ = thread.join();
        }
    }
}

fn serve(leases: &[(Lease, OwnedFd)], stopped: &PipeReader) {
    let mut gone = vec![false; leases.len()];
    let mut buffer = vec![0u8; FRAME];
    loop {
        let mut polled = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        let live: Vec<usize> = (0..leases.len()).filter(|index| !gone[*index]).collect();
        polled.extend(live.iter().map(|index| PollFd::new(leases[*index].1.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "failed to wait for DHCP requests");
                return;
            }
        }
        if polled[0].any() == Some(true) {
            return;
        }
        for (slot, index) in polled[1..].iter().zip(live) {
            if slot.any() == Some(true) {
                let (lease, socket) = &leases[index];
                gone[index] = !take_one(lease, socket, &mut buffer);
            }
        }
    }
}

/// Answers one frame; false when the socket can never bring another one.
fn take_one(lease: &Lease, socket: &OwnedFd, buffer: &mut [u8]) -> bool {
    let length = match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => length,
        // A tap that is down for a moment says so once.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return true,
        Err(error) => {
            tracing::warn!(%error, mac = %lease.mac, "a DHCP socket is gone");
            return false;
        }
    };
    if let Some(answer) = frame::reply(lease, &buffer[..length]) {
        match send(socket.as_raw_fd(), &answer, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => tracing::debug!(mac = %lease.mac, "answered a DHCP request"),
            Err(error) => tracing::warn!(%error, mac = %lease.mac, "failed to answer a DHCP request"),
        }
    }
    true
}
