//! Handing opened macvtaps to libvirt, which can take them from nobody but a bridge helper.
//!
//! In session mode libvirt runs a helper for a NIC on a bridge: it is given the bridge's name and a socket, and answers
//! with the descriptor of an opened tap (as QEMU's own `qemu-bridge-helper` does). Ours is this
//! program again, under the name [`HELPER`]: it asks the launcher, beside whose socket it lies, for the macvtap of that
//! name. Invariant: a macvtap is open once, so what was handed over is not kept longer than the start takes.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_agent_api::frame::{self, FrameError};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// The name of the program as libvirt's bridge helper.
pub const HELPER: &str = "bridge-helper";
const SOCKET: &str = "taps.sock";
/// How long either side waits for the other.
const DEADLINE: Duration = Duration::from_secs(10);

/// Where the helper lies among the files of libvirt.
#[must_use]
pub fn helper(folder: &Path) -> PathBuf {
    folder.join(HELPER)
}

/// Why no macvtap was handed to libvirt.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// libvirt calls helpers in another way than this one knows.
    #[error("failed to read argument `{0}`")]
    Argument(&'static str),
    /// The launcher does not listen.
    #[error("failed to reach the launcher at `{}`", .path.display())]
    Launcher {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The launcher did not answer: it has no such macvtap.
    #[error("failed to get macvtap `{name}` from the launcher")]
    Tap {
        /// The macvtap.
        name: String,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// libvirt does not take it.
    #[error("failed to answer libvirt")]
    Libvirt(#[source] io::Error),
}

/// The macvtaps that a start can ask for, by name.
#[derive(Debug)]
pub struct Taps(Arc<Mutex<BTreeMap<String, OwnedFd>>>);

impl Taps {
    /// Listens for the helper in `folder`, and puts the helper there.
    ///
    /// # Errors
    /// When the folder does not take it, or there is no thread.
    pub fn serve(folder: &Path) -> io::Result<Self> {
        let socket = folder.join(SOCKET);
        for path in [&socket, &helper(folder)] {
            // A launcher before us left it.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        symlink(std::env::current_exe()?, helper(folder))?;
        let listener = UnixListener::bind(&socket)?;
        let taps = Arc::new(Mutex::new(BTreeMap::new()));
        let offered = taps.clone();
        let serve = move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = answer(&stream, &offered) {
                    tracing::warn!(error = crate::vm::chain(&error), "failed to hand a macvtap to libvirt's helper");
                }
            }
        };
        std::thread::Builder::new().name("taps".to_owned()).spawn(serve)?;
        Ok(Self(taps))
    }

    /// Puts these in the place of those before, which are closed.
    pub fn put(&self, taps: BTreeMap<String, OwnedFd>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = taps;
    }
}

/// Answers one helper; the end of the connection tells it that there is no such macvtap.
fn answer(stream: &UnixStream, taps: &Mutex<BTreeMap<String, OwnedFd>>) -> Result<(), FrameError> {
    deadline(stream)?;
    let (name, _) = frame::receive::<String>(stream)?;
    let taps = taps.lock().unwrap_or_else(PoisonError::into_inner);
    taps.get(&name).map_or(Ok(()), |tap| frame::send(stream, &(), &[tap.as_raw_fd()]))
}

fn deadline(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))
}

/// What the program does as the helper: `HELPER --use-vnet --br=NAME --fd=NUMBER`.
///
/// # Errors
/// [`HelperError`]; libvirt reports the words.
pub fn help(arguments: impl IntoIterator<Item = String>) -> Result<(), HelperError> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let value = |name: &'static str| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name));
        value.ok_or(HelperError::Argument(name))
    };
    let name = value("--br=")?;
    let libvirt: RawFd = value("--fd=")?.parse().map_err(|_| HelperError::Argument("--fd="))?;
    let path = Path::new(arguments.first().ok_or(HelperError::Argument("0"))?).with_file_name(SOCKET);
    let connected = UnixStream::connect(&path).and_then(|stream| deadline(&stream).map(|()| stream));
    let launcher = connected.map_err(|source| HelperError::Launcher { path, source })?;
    let missing = |source| HelperError::Tap { name: name.to_owned(), source };
    frame::send(&launcher, &name, &[]).map_err(missing)?;
    let ((), taps) = frame::receive::<()>(&launcher).map_err(missing)?;
    let taps: Vec<RawFd> = taps.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&taps)];
    let sent = sendmsg::<()>(libvirt, &[IoSlice::new(&[0])], &rights, MsgFlags::MSG_NOSIGNAL, None);
    sent.map(drop).map_err(|errno| HelperError::Libvirt(errno.into()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::*;

    #[test]
    fn the_helper_answers_with_the_tap_of_that_name() {
        let folder = tempfile::tempdir().unwrap();
        let taps = Taps::serve(folder.path()).unwrap();
        let (tap, mut other_end) = io::pipe().map(|(read, write)| (OwnedFd::from(write), read)).unwrap();
        taps.put(BTreeMap::from([("pod1".to_owned(), tap)]));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ask = |name: &str| {
            let program = helper(folder.path()).display().to_string();
            help([program, "--use-vnet".into(), format!("--br={name}"), format!("--fd={}", theirs.as_raw_fd())])
        };
        assert!(ask("pod2").unwrap_err().to_string().contains("`pod2`"));
        ask("pod1").unwrap();
        let mut byte = [0];
        let mut space = nix::cmsg_space!(RawFd);
        let mut into = [io::IoSliceMut::new(&mut byte)];
        let received =
            nix::sys::socket::recvmsg::<()>(ours.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::empty()).unwrap();
        let Some(nix::sys::socket::ControlMessageOwned::ScmRights(fds)) = received.cmsgs().unwrap().next() else {
            panic!("no descriptor")
        };
        // SAFETY: the descriptor has just been received and is nobody else's.
        let mut handed = unsafe { std::fs::File::from_raw_fd(fds[0]) };
        io::Write::write_all(&mut handed, b"x").unwrap();
        // What the launcher keeps is closed at the next start, and with the helper's the end of the pipe is reached.
        taps.put(BTreeMap::new());
        drop(handed);
        let mut text = String::new();
        io::Read::read_to_string(&mut other_end, &mut text).unwrap();
        assert_eq!(text, "x");
    }
}
