//! Rules on probes and access credentials.

use super::{Causes, Context, Rule};
use crate::kubevirt::Probe;

pub(super) const RULES: &[Rule] = &[probes, credentials];

fn probes(context: &Context, causes: &mut Causes) {
    for (field, probe) in
        [("readinessProbe", &context.spec.readiness_probe), ("livenessProbe", &context.spec.liveness_probe)]
    {
        if let Some(probe) = probe {
            check_probe(context.path(field), probe, causes);
        }
    }
}

fn check_probe(at: String, probe: &Probe, causes: &mut Causes) {
    let set =
        [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.guest_agent_ping.is_some()];
    match set.into_iter().filter(|set| *set).count() {
        0 => {
            let message =
                format!("either {at}.tcpSocket, {at}.exec or {at}.httpGet must be set if a {at} is specified");
            causes.required(at, message);
        }
        1 => {}
        _ => {
            let message = format!("{at} must have exactly one probe type set");
            causes.invalid(at, message);
        }
    }
}

fn credentials(context: &Context, causes: &mut Causes) {
    for (index, credential) in context.spec.access_credentials.iter().enumerate() {
        let at = context.path(format_args!("accessCredentials[{index}]"));
        if credential.ssh_public_key.is_some() == credential.user_password.is_some() {
            let message = format!("{at} must have exactly one access credential type set");
            causes.invalid(at, message);
            continue;
        }
        if let Some(key) = &credential.ssh_public_key {
            let method = &key.propagation_method;
            let set = [method.config_drive.is_some(), method.no_cloud.is_some(), method.qemu_guest_agent.is_some()];
            check_one(&format!("{at}.sshPublicKey.propagationMethod"), "propagation method", &set, causes);
            check_one(&format!("{at}.sshPublicKey.source"), "source type", &[key.source.secret.is_some()], causes);
            if method.qemu_guest_agent.as_ref().is_some_and(|agent| agent.users.is_empty()) {
                let field = format!("{at}.sshPublicKey.propagationMethod.qemuGuestAgent.users");
                causes.invalid(field, format!("{at} requires at least one user to be present in the users list"));
            }
        }
        if let Some(password) = &credential.user_password {
            let at = format!("{at}.userPassword");
            let method = [password.propagation_method.qemu_guest_agent.is_some()];
            check_one(&format!("{at}.propagationMethod"), "propagation method", &method, causes);
            check_one(&format!("{at}.source"), "source type", &[password.source.secret.is_some()], causes);
        }
    }
}

fn check_one(at: &str, what: &str, set: &[bool], causes: &mut Causes) {
    if set.iter().filter(|set| **set).count() != 1 {
        causes.invalid(at, format!("{at} must have exactly one {what} set"));
    }
}
