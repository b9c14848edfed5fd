//! What the guest agent tells: the operating system, the users, the file systems, in upstream's shapes.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_agent::vmi::CommandError;
use holdfast_agent_api::launcher::{GuestCommand, GuestFileSystem, GuestInfo, GuestUser};
use serde_json::{Map, Value, json};

use super::verbs::{absent, failed};
use super::{Serving, refuse};

/// VirtualMachineInstanceGuestAgentInfo.
pub async fn os_info(state: State<Serving>, path: Path<(String, String)>) -> Response {
    ask(state, path, all).await
}

/// VirtualMachineInstanceGuestOSUserList.
pub async fn users(state: State<Serving>, path: Path<(String, String)>) -> Response {
    ask(state, path, |guest| json!({"metadata": {}, "items": items(&guest.users, user)})).await
}

/// VirtualMachineInstanceFileSystemList.
pub async fn file_systems(state: State<Serving>, path: Path<(String, String)>) -> Response {
    ask(state, path, |guest| json!({"metadata": {}, "items": items(&guest.file_systems, file_system)})).await
}

async fn ask(
    State(serving): State<Serving>,
    Path((namespace, name)): Path<(String, String)>,
    tell: impl FnOnce(&GuestInfo) -> Value,
) -> Response {
    let Some(entry) = serving.running.get(&namespace, &name) else { return absent(&name) };
    match entry.task.guest_info().await {
        Ok(guest) => Json(tell(&guest)).into_response(),
        Err(error @ CommandError::NoGuestAgent) => refuse(StatusCode::CONFLICT, error.to_string()),
        Err(error) => failed(&error),
    }
}

fn all(guest: &GuestInfo) -> Value {
    let text = |map: &mut Map<String, Value>, key: &str, value: &str| {
        if !value.is_empty() {
            map.insert(key.to_owned(), value.into());
        }
    };
    let mut os = Map::new();
    for (key, field) in OS {
        text(&mut os, field, guest.os.get(key).map(String::as_str).unwrap_or_default());
    }
    let mut info = Map::new();
    text(&mut info, "guestAgentVersion", &guest.agent_version);
    if !guest.supported_commands.is_empty() {
        info.insert("supportedCommands".to_owned(), items(&guest.supported_commands, command));
    }
    text(&mut info, "hostname", &guest.hostname);
    info.insert("os".to_owned(), os.into());
    text(&mut info, "timezone", &guest.timezone);
    if !guest.users.is_empty() {
        info.insert("userList".to_owned(), items(&guest.users, user));
    }
    info.insert("fsInfo".to_owned(), json!({"disks": items(&guest.file_systems, file_system)}));
    text(&mut info, "fsFreezeStatus", &guest.fs_freeze_status);
    info.into()
}

/// Keys of the agent's answer, and the API's fields.
const OS: [(&str, &str); 8] = [
    ("name", "name"),
    ("kernel-release", "kernelRelease"),
    ("version", "version"),
    ("pretty-name", "prettyName"),
    ("version-id", "versionId"),
    ("kernel-version", "kernelVersion"),
    ("machine", "machine"),
    ("id", "id"),
];

fn items<T>(all: &[T], one: impl Fn(&T) -> Value) -> Value {
    all.iter().map(one).collect()
}

fn user(user: &GuestUser) -> Value {
    let mut told = json!({"userName": user.name});
    if !user.domain.is_empty() {
        told["domain"] = user.domain.as_str().into();
    }
    if user.login_time.as_f64() != Some(0.0) {
        told["loginTime"] = user.login_time.clone().into();
    }
    told
}

fn command(command: &GuestCommand) -> Value {
    let mut told = json!({"name": command.name});
    if command.enabled {
        told["enabled"] = true.into();
    }
    told
}

fn file_system(found: &GuestFileSystem) -> Value {
    let mut told = json!({
        "diskName": found.disk_name,
        "mountPoint": found.mount_point,
        "fileSystemType": found.r#type,
        "usedBytes": found.used_bytes,
        "totalBytes": found.total_bytes,
    });
    if !found.disks.is_empty() {
        told["disk"] = items(&found.disks, |disk| {
            let mut told = json!({"busType": disk.bus_type});
            if !disk.serial.is_empty() {
                told["serial"] = disk.serial.as_str().into();
            }
            told
        });
    }
    told
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_guest_tells_has_upstreams_shape() {
        let guest: GuestInfo = serde_json::from_value(json!({
            "hostname": "g", "timezone": "UTC, 0", "agentVersion": "7.2.0",
            "os": {"id": "debian", "pretty-name": "Debian", "kernel-release": "6.1"},
            "users": [{"name": "root", "loginTime": 1700000000.5}],
            "supportedCommands": [{"name": "guest-ping", "enabled": true}, {"name": "guest-exec", "enabled": false}],
            "fileSystems": [{"diskName": "vda1", "mountPoint": "/", "type": "ext4", "usedBytes": 1, "totalBytes": 2,
                "disks": [{"busType": "virtio"}]}],
        }))
        .unwrap();
        let file_system = json!({"diskName": "vda1", "mountPoint": "/", "fileSystemType": "ext4", "usedBytes": 1,
            "totalBytes": 2, "disk": [{"busType": "virtio"}]});
        assert_eq!(
            all(&guest),
            json!({
                "guestAgentVersion": "7.2.0", "hostname": "g", "timezone": "UTC, 0",
                "supportedCommands": [{"name": "guest-ping", "enabled": true}, {"name": "guest-exec"}],
                "os": {"id": "debian", "prettyName": "Debian", "kernelRelease": "6.1"},
                "userList": [{"userName": "root", "loginTime": 1700000000.5}],
                "fsInfo": {"disks": [file_system]},
            })
        );
        assert_eq!(all(&GuestInfo::default()), json!({"os": {}, "fsInfo": {"disks": []}}));
    }
}
