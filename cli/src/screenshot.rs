//! `vnc screenshot`: a picture of a VM's screen.

use std::io::{IsTerminal, Write, stdout};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::args::{Screenshot, exactly};
use crate::client::Client;
use crate::guest::words;
use crate::lifecycle::subresource;

/// Takes it.
pub async fn take(client: &Client, namespace: &str, arguments: &Screenshot) -> Result<()> {
    let [name] = exactly(&arguments.name)?;
    let to_output = arguments.file == Path::new("-");
    if to_output && stdout().is_terminal() {
        bail!("a picture cannot be shown on a terminal: say --file FILE, or redirect the output");
    }
    let verb = if arguments.move_cursor { "vnc/screenshot?moveCursor=true" } else { "vnc/screenshot" };
    let picture = client.bytes(&subresource(namespace, "virtualmachineinstances", name, verb)).await;
    let picture = picture.map_err(|error| anyhow!("can't take a picture of VMI {name}: {}", words(&error, name)))?;
    if to_output {
        stdout().write_all(&picture).context("failed to write the picture")
    } else {
        std::fs::write(&arguments.file, &picture)
            .with_context(|| format!("failed to write the picture to `{}`", arguments.file.display()))
    }
}
