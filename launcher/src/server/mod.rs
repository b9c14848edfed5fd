//! The launcher's side of the protocol: a unix socket, a thread for each connection.
//!
//! Only root and the launcher's own user may speak. A request of another version, or one that cannot be read, is
//! answered with a failure that says so.

mod connection;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::vm::Message;

/// Most connections at a time; the agent needs two.
const CONNECTIONS: usize = 16;

/// Why nobody can be served.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on `{path}`")]
pub struct ListenError {
    path: std::path::PathBuf,
    #[source]
    source: io::Error,
}

/// Listens on `path` and serves from now on; a socket that an earlier launcher left is replaced.
///
/// # Errors
/// [`ListenError`] when the socket cannot be made.
pub fn serve(path: &Path, vmi_uid: &str, vm: Sender<Message>) -> Result<(), ListenError> {
    let failed = |source| ListenError { path: path.to_owned(), source };
    let listener = listen(path).map_err(failed)?;
    let vmi_uid = vmi_uid.to_owned();
    let connections = Arc::new(());
    let accept = move || {
        for stream in listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    continue;
                }
            };
            if Arc::strong_count(&connections) > CONNECTIONS || !may_speak(&stream) {
                tracing::warn!("turned a connection away");
                continue;
            }
            let (held, vm, vmi_uid) = (Arc::clone(&connections), vm.clone(), vmi_uid.clone());
            let thread = std::thread::Builder::new().name("connection".to_owned());
            let spawned = thread.spawn(move || {
                connection::serve(&stream, &vmi_uid, &vm);
                drop(held);
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "failed to start a thread");
            }
        }
    };
    std::thread::Builder::new().name("server".to_owned()).spawn(accept).map(drop).map_err(failed)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Beside the socket's mode: the peer is root or of the launcher's own user.
fn may_speak(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    getsockopt(&stream.as_fd(), PeerCredentials).is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}
