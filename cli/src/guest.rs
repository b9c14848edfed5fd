//! `guestosinfo`, `userlist` and `fslist`: what the guest agent tells, as JSON.

use anyhow::{Result, anyhow};

use crate::args::exactly;
use crate::client::{CallError, Client};
use crate::lifecycle::subresource;
use crate::out::print;

/// Prints what the guest's operating system is.
pub async fn os_info(client: &Client, namespace: &str, name: &[String]) -> Result<()> {
    show(client, namespace, name, "guestosinfo", "Error getting guestosinfo of").await
}

/// Prints who is logged in.
pub async fn users(client: &Client, namespace: &str, name: &[String]) -> Result<()> {
    show(client, namespace, name, "userlist", "Error listing users of").await
}

/// Prints the file systems.
pub async fn file_systems(client: &Client, namespace: &str, name: &[String]) -> Result<()> {
    show(client, namespace, name, "filesystemlist", "Error listing filesystems of").await
}

async fn show(client: &Client, namespace: &str, name: &[String], verb: &str, failed: &str) -> Result<()> {
    let [name] = exactly(name)?;
    let told = client.get(&subresource(namespace, "virtualmachineinstances", name, verb)).await;
    let told = told.map_err(|error| anyhow!("{failed} VirtualMachineInstance {name}, {}", words(&error, name)))?;
    Ok(print(&format!("{}\n", serde_json::to_string_pretty(&told)?))?)
}

/// What scripts know from upstream: a refusal in plain text is told as the server's error, with its text quoted.
pub fn words(error: &CallError, name: &str) -> String {
    match error {
        CallError::Refused { code: 500.., reason, message } if reason.is_empty() => format!(
            "an error on the server ({message:?}) has prevented the request from succeeding \
             (get virtualmachineinstances.kubevirt.io {name})"
        ),
        _ => error.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_refusal_is_the_servers() {
        let refused =
            |reason: &str| CallError::Refused { code: 500, reason: reason.into(), message: "no \"w\"".into() };
        let expected = "an error on the server (\"no \\\"w\\\"\") has prevented the request from succeeding \
                        (get virtualmachineinstances.kubevirt.io w)";
        assert_eq!(words(&refused(""), "w"), expected);
        assert_eq!(words(&refused("InternalError"), "w"), "no \"w\"");
    }
}
