//! What the guest agent tells, asked for with a deadline each.

use holdfast_agent_api::launcher::{GuestCommand, GuestDisk, GuestFileSystem, GuestInfo, GuestInterface, GuestUser};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Number;

use super::{Guest, LibvirtError};

/// Seconds that the agent has for one answer.
const DEADLINE: i32 = 5;

#[derive(Deserialize)]
struct Answer<T> {
    r#return: T,
}

#[derive(Deserialize)]
struct HostName {
    #[serde(rename = "host-name")]
    host_name: String,
}

#[derive(Deserialize)]
struct TimeZone {
    #[serde(default)]
    zone: String,
    offset: i64,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(rename = "hardware-address", default)]
    mac: String,
    #[serde(rename = "ip-addresses", default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "ip-address")]
    address: String,
}

#[derive(Default, Deserialize)]
struct Info {
    version: String,
    #[serde(default)]
    supported_commands: Vec<GuestCommand>,
}

#[derive(Deserialize)]
struct User {
    user: String,
    #[serde(default)]
    domain: String,
    #[serde(rename = "login-time")]
    login_time: Number,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileSystem {
    name: String,
    mountpoint: String,
    r#type: String,
    #[serde(default)]
    used_bytes: u64,
    #[serde(default)]
    total_bytes: u64,
    #[serde(default)]
    disk: Vec<Disk>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    #[serde(default)]
    serial: String,
    bus_type: String,
}

/// Asks for what changes while a guest runs (its host name and addresses), and with `all` for the rest, which is else
/// taken from `before`.
///
/// # Errors
/// [`LibvirtError`] when the agent does not answer at all; what an agent does not know stays empty.
pub fn query(guest: &Guest, before: &GuestInfo, all: bool) -> Result<GuestInfo, LibvirtError> {
    let mut info = before.clone();
    let interfaces: Option<Vec<Interface>> = ask(guest, "guest-network-get-interfaces")?;
    info.interfaces = interfaces.unwrap_or_default().into_iter().filter_map(interface).collect();
    let hostname: Option<HostName> = ask(guest, "guest-get-host-name")?;
    info.hostname = hostname.map(|answer| answer.host_name).unwrap_or_default();
    if !all {
        return Ok(info);
    }
    info.os = ask(guest, "guest-get-osinfo")?.unwrap_or_default();
    let timezone: Option<TimeZone> = ask(guest, "guest-get-timezone")?;
    info.timezone = timezone.map(|answer| format!("{}, {}", answer.zone, answer.offset)).unwrap_or_default();
    let agent: Info = ask(guest, "guest-info")?.unwrap_or_default();
    info.agent_version = agent.version;
    info.supported_commands = agent.supported_commands;
    info.users = users(ask(guest, "guest-get-users")?.unwrap_or_default());
    let file_systems: Option<Vec<FileSystem>> = ask(guest, "guest-get-fsinfo")?;
    info.file_systems = file_systems.unwrap_or_default().into_iter().map(file_system).collect();
    let frozen: Option<String> = ask(guest, "guest-fsfreeze-status")?;
    info.fs_freeze_status = frozen.filter(|status| status == "frozen").unwrap_or_default();
    Ok(info)
}

fn interface(interface: Interface) -> Option<GuestInterface> {
    let addresses: Vec<String> = interface.addresses.into_iter().map(|address| address.address).collect();
    let loopback = interface.name == "lo" || addresses.iter().any(|address| address == "127.0.0.1");
    let mac = interface.mac.to_ascii_lowercase();
    (!loopback).then_some(GuestInterface { name: interface.name, mac, addresses })
}

/// Each user once, with the first of the logins.
fn users(mut logins: Vec<User>) -> Vec<GuestUser> {
    let seconds = |user: &User| user.login_time.as_f64().unwrap_or_default();
    logins.sort_by(|a, b| (&a.domain, &a.user).cmp(&(&b.domain, &b.user)).then(seconds(a).total_cmp(&seconds(b))));
    logins.dedup_by(|later, first| (&later.domain, &later.user) == (&first.domain, &first.user));
    let user = |user: User| GuestUser { name: user.user, domain: user.domain, login_time: user.login_time };
    logins.into_iter().map(user).collect()
}

fn file_system(found: FileSystem) -> GuestFileSystem {
    let disk = |disk: Disk| GuestDisk { serial: disk.serial, bus_type: disk.bus_type };
    GuestFileSystem {
        disk_name: found.name,
        mount_point: found.mountpoint,
        r#type: found.r#type,
        used_bytes: found.used_bytes,
        total_bytes: found.total_bytes,
        disks: found.disk.into_iter().map(disk).collect(),
    }
}

/// One question; none where the agent answers with an error of its own or something unexpected.
fn ask<T: DeserializeOwned>(guest: &Guest, command: &str) -> Result<Option<T>, LibvirtError> {
    let request = serde_json::json!({ "execute": command }).to_string();
    match guest.agent(&request, DEADLINE) {
        Ok(answer) => Ok(serde_json::from_str::<Answer<T>>(&answer).ok().map(|answer| answer.r#return)),
        Err(error) if error.refused_by_agent => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_each_user_once() {
        let logins = r#"[{"user": "b", "login-time": 3.5}, {"user": "a", "login-time": 9}, {"user": "b", "login-time": 2.5},
            {"user": "b", "domain": "CORP", "login-time": 1}]"#;
        let told = users(serde_json::from_str(logins).unwrap());
        let told: Vec<_> = told.iter().map(|user| (&*user.name, &*user.domain, user.login_time.to_string())).collect();
        assert_eq!(told, [("a", "", "9".into()), ("b", "", "2.5".into()), ("b", "CORP", "1".into())]);
    }

    #[test]
    fn reads_file_systems() {
        let answer = r#"{"name": "vda1", "mountpoint": "/", "type": "ext4", "used-bytes": 5, "total-bytes": 9,
            "disk": [{"serial": "s", "bus-type": "virtio", "bus": 0, "target": 0}]}"#;
        let told = file_system(serde_json::from_str(answer).unwrap());
        assert_eq!((&*told.disk_name, told.used_bytes, told.total_bytes), ("vda1", 5, 9));
        assert_eq!(told.disks, [GuestDisk { serial: "s".to_owned(), bus_type: "virtio".to_owned() }]);
    }
}
