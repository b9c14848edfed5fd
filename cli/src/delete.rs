//! `delete`: objects, with their documents in holdfastd's folder of manifests.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::args::Delete;
use crate::client::{CallError, Client};
use crate::kinds::Kind;
use crate::out::print;
use crate::target::targets;

/// Annotation that holdfastd gives to an object from a manifest: the file, relative to the folder.
const MANIFEST: &str = "holdfast.io/manifest";
/// How often it is looked whether an object is gone.
const LOOK: Duration = Duration::from_millis(200);

/// An object that was deleted, and may need time to go.
struct Going {
    what: String,
    path: String,
    uid: Value,
}

/// Deletes what the arguments name; the rest of it even where some of it cannot be.
pub async fn delete(client: &Client, namespace: &str, arguments: &Delete) -> Result<ExitCode> {
    let targets = targets("delete", &arguments.target)?;
    if targets.iter().any(|target| target.names.is_empty()) {
        bail!("error: resource(s) were provided, but no name was specified");
    }
    let mut code = ExitCode::SUCCESS;
    let mut all = Vec::new();
    for target in &targets {
        for name in &target.names {
            match delete_one(client, target.kind, namespace, name).await? {
                Ok(going) => all.push(going),
                Err(error) => {
                    eprintln!("{}", error.kubectl_text());
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    let deadline = Instant::now() + arguments.timeout;
    for going in all.iter().filter(|_| arguments.wait) {
        gone(client, going, deadline).await?;
    }
    Ok(code)
}

/// Deletes one object, and says so.
async fn delete_one(client: &Client, kind: &Kind, namespace: &str, name: &str) -> Result<Result<Going, CallError>> {
    let path = kind.path(Some(namespace), Some(name));
    let object = match client.get(&path).await {
        Ok(object) => object,
        Err(error) => return Ok(Err(error)),
    };
    if let Err(error) = client.delete(&path).await {
        return Ok(Err(error));
    }
    let what = format!("{} \"{name}\"", kind.full_name());
    let place = if kind.namespaced { format!(" from {namespace} namespace") } else { String::new() };
    print(&format!("{what} deleted{place}\n"))?;
    if let Some(file) = object["metadata"]["annotations"][MANIFEST].as_str() {
        eprintln!("Its document was taken out of {file} in the folder of manifests.");
    }
    Ok(Ok(Going { what, path, uid: object["metadata"]["uid"].clone() }))
}

/// Waits until the object is gone; another one of its name is not it.
async fn gone(client: &Client, going: &Going, deadline: Instant) -> Result<()> {
    loop {
        match client.get(&going.path).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(anyhow!(error.kubectl_text())),
            Ok(object) if object["metadata"]["uid"] != going.uid => return Ok(()),
            Ok(_) if Instant::now() >= deadline => {
                bail!("error: timed out waiting until {} is gone (--timeout); it still goes", going.what)
            }
            Ok(_) => sleep(LOOK).await,
        }
    }
}
