//! DEL while the agent is away: a note, `deleted/<key>` beside the agent's socket, that the agent carries out
//! when it is back.
//!
//! Why not an error: a runtime that cannot DEL cannot end the pod, and a node whose agent is being replaced
//! would be full of pods that terminate for ever. Why not a bare success: where the namespace lives on (a NIC
//! that is unplugged), nothing would ever take the interface away. The note says what the agent's own answer
//! says: accepted, done behind it. It need not outlive a reboot, as no namespace does.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use holdfast_agent_api::cni::{NOTES, Request};

/// Leaves the note of `request`, complete or not at all.
pub fn leave(socket: &Path, request: &Request) -> io::Result<()> {
    let folder = socket.parent().unwrap_or(Path::new("/")).join(NOTES);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let key = request.note_key();
    let staged = folder.join(format!(".{key}.{}", std::process::id()));
    let mut file = File::create(&staged)?;
    serde_json::to_writer(&mut file, request)?;
    file.flush()?;
    fs::rename(&staged, folder.join(key))
}
