//! `virtctl delete`: the object and its document go; by default it is waited for.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

use crate::args::{Delete, Server};
use crate::client::{Client, is_not_found};
use crate::get::{Named, explained, named};
use crate::terminal;

/// How often it is looked whether an object is gone.
const LOOK: Duration = Duration::from_millis(200);

/// Deletes objects.
pub async fn run(client: &Client, server: &Server, delete: &Delete) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(delete.timeout);
    let mut going = Vec::new();
    for named in named(&delete.what)? {
        let Named::One(kind, name) = named else { bail!("name the objects to delete: KIND NAME... or KIND/NAME...") };
        let path = kind.path(Some(&server.namespace), Some(&name));
        let uid = client.get(&path).await.map_err(explained)?["metadata"]["uid"].clone();
        client.delete(&path).await.map_err(explained)?;
        let full = kind.full_name(&name);
        println!("{} \"{name}\" deleted", full.rsplit_once('/').map_or(full.as_str(), |(kind, _)| kind));
        going.push((full, path, uid));
    }
    for (full, path, uid) in going.into_iter().filter(|_| !delete.no_wait) {
        let bar = terminal::waiting(&format!("waiting until {full} is gone"));
        loop {
            match client.get(&path).await {
                Err(error) if is_not_found(&error) => break,
                Err(error) => return Err(explained(error)),
                // Another one of the same name.
                Ok(object) if object["metadata"]["uid"] != uid => break,
                Ok(_) if Instant::now() >= deadline => {
                    bail!("timed out after {} s: {full} is still there; see `virtctl describe`", delete.timeout)
                }
                Ok(_) => sleep(LOOK).await,
            }
        }
        bar.finish_and_clear();
    }
    Ok(())
}
