//! A real guest under a real launcher, from start to end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sandbox;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Instant;

use holdfast_agent_api::launcher::{DomainState, Event, FailureClass, GuestInfo, PauseReason, Request, Response};
use holdfast_net::model::GuestNic;
use nix::sys::signal::Signal;
use sandbox::{DEADLINE, Sandbox, UID, nic, put_guest, vmi};
use serde_json::{Value, json};

fn guest_volumes() -> Value {
    json!([
        {"name": "root", "containerDisk": {"image": "guest"}},
        {"name": "seed", "cloudInitNoCloud": {"userData": "#!/bin/sh\necho T-USERDATA\n"}},
        {"name": "data", "emptyDisk": {"capacity": "16Mi"}},
    ])
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

#[test]
fn a_guest_lives() {
    let mut sandbox = Sandbox::start("life", |folder| put_guest(folder, "root"));
    let Response::Hello { vmi_uid, .. } = sandbox.ask(Request::Hello) else { panic!() };
    assert_eq!(vmi_uid, UID);
    assert_eq!(sandbox.domain().state, DomainState::None);
    let events = sandbox.watch();
    let spec = vmi("life", guest_volumes());
    let start = Instant::now();
    let took = |what: &str| println!("{what}: {:.2?}", start.elapsed());
    let status = sandbox.run(&spec, &[nic("default")]);
    took("running");
    assert!(status.machine.starts_with("pc-q35-"), "{status:?}");
    assert!(status.emulation);
    let targets = [("root", "vda"), ("seed", "vdb"), ("data", "vdc")];
    assert_eq!(status.volume_targets, targets.map(|(volume, target)| (volume.to_owned(), target.to_owned())));

    // DHCP, cloud-init and the agent, as the guest tells them.
    sandbox.wait("the guest is up", || sandbox.console().contains("T-UP"));
    took("guest up");
    let console = sandbox.console();
    assert!(console.contains("T-NET eth0 02:00:00:00:00:01 mtu=1450 10.0.2.2/24"), "{console}");
    assert!(console.contains("T-USERDATA"), "{console}");
    let info: GuestInfo = events.until(|event| match event {
        Event::Guest(info) if !info.interfaces.is_empty() => Some((**info).clone()),
        _ => None,
    });
    took("guest agent known");
    assert_eq!(info.interfaces[0].mac, "02:00:00:00:00:01");
    assert!(info.interfaces[0].addresses.contains(&"10.0.2.2".to_owned()), "{info:?}");
    assert_eq!(info.hostname, "life");
    assert!(sandbox.domain().agent_connected);

    // A second Sync finds everything as it should be.
    let hypervisor = sandbox.process("qemu-system").unwrap();
    sandbox.run(&spec, &[nic("default")]);
    assert_eq!(sandbox.process("qemu-system"), Some(hypervisor));

    confined_and_small(&sandbox);
    console_answers(&sandbox);
    pauses(&sandbox, &events);

    took("looked at");
    assert!(matches!(sandbox.ask(Request::Shutdown { grace_seconds: 60 }), Response::Done));
    let end = events.until_state(|state| matches!(state, DomainState::Final(_)));
    let DomainState::Final(end) = end else { unreachable!() };
    assert!(end.succeeded && end.reason == "Shutdown", "{end:?}");
    took("shut down");
    let (status, recorded) = sandbox.end();
    took("ended");
    assert!(status.success(), "{status}\n{}", sandbox.log());
    assert_eq!(recorded["succeeded"], true, "{recorded}");
}

fn confined_and_small(sandbox: &Sandbox) {
    let processes = sandbox.processes();
    for name in ["virt-launcher", "libvirtd", "qemu-system"] {
        assert!(processes.iter().any(|(_, found)| found.starts_with(name)), "{name}: {processes:?}");
    }
    for (pid, name) in processes {
        assert_eq!(field(pid, "Uid"), "107\t107\t107\t107", "{name}");
        assert_eq!(field(pid, "CapEff"), "0000000000000000", "{name}");
        assert_eq!(field(pid, "NoNewPrivs"), "1", "{name}");
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let pss = memory.lines().find(|line| line.starts_with("Pss:")).unwrap();
        println!("{name} ({pid}): {pss}");
    }
}

/// Logs in on the console, both ways through its socket.
fn console_answers(sandbox: &Sandbox) {
    let mut console = UnixStream::connect(sandbox.path(&format!("private/{UID}/virt-serial0"))).unwrap();
    console.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut seen = String::new();
    for (say, wanted) in [("root\n", "Password:"), ("guest\n", "T-LOGIN")] {
        console.write_all(say.as_bytes()).unwrap();
        while !seen.contains(wanted) {
            let mut bytes = [0u8; 256];
            let count = console.read(&mut bytes).unwrap_or_else(|error| panic!("{error}: {seen}"));
            assert_ne!(count, 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }
}

fn pauses(sandbox: &Sandbox, events: &sandbox::Events) {
    let paused = DomainState::Paused { reason: PauseReason::User };
    assert!(matches!(sandbox.ask(Request::Pause), Response::Done));
    assert_eq!(sandbox.domain().state, paused);
    events.until_state(|state| *state == paused);
    assert!(matches!(sandbox.ask(Request::Unpause), Response::Done));
    events.until_state(|state| *state == DomainState::Running);
}

#[test]
fn a_crash_is_a_failure() {
    let mut sandbox = Sandbox::start("crash", |_| {});
    let events = sandbox.watch();
    sandbox.run(&vmi("crash", json!([])), &[nic("default")]);
    assert!(matches!(sandbox.ask(Request::Reset), Response::Done));
    events.until(|event| matches!(event, Event::Rebooted).then_some(()));
    sandbox.kill(sandbox.process("qemu-system").unwrap(), Signal::SIGKILL);
    let DomainState::Final(end) = events.until_state(|state| matches!(state, DomainState::Final(_))) else {
        unreachable!()
    };
    assert!(!end.succeeded && end.reason == "Crashed", "{end:?}");
    let (status, recorded) = sandbox.end();
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(recorded["reason"], "Crashed");
}

#[test]
fn libvirtd_and_the_launcher_may_die_and_the_guest_lives() {
    // A name as long as they come: libvirt's own sockets have it in their paths.
    let name = "tough-".repeat(10);
    let name = format!("{name}vm1");
    let mut sandbox = Sandbox::start(&name, |_| {});
    let spec = vmi(&name, json!([{"name": "data", "emptyDisk": {"capacity": "16Mi"}}]));
    sandbox.run(&spec, &[nic("default")]);
    let hypervisor = sandbox.process("qemu-system").unwrap();
    let disk = || {
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(sandbox.path("disks/empty-disks/data.qcow2")).unwrap())
    };
    let inode = disk();

    let daemon = sandbox.process("libvirtd").unwrap();
    sandbox.kill(daemon, Signal::SIGKILL);
    sandbox.wait("another libvirtd runs", || sandbox.process("libvirtd").is_some_and(|pid| pid != daemon));
    sandbox.wait("the domain runs", || sandbox.domain().state == DomainState::Running);
    assert!(matches!(sandbox.ask(Request::Pause), Response::Done), "{}", sandbox.log());
    assert!(matches!(sandbox.ask(Request::Unpause), Response::Done));

    // One that hangs is noticed by its silence.
    let daemon = sandbox.process("libvirtd").unwrap();
    sandbox.kill(daemon, Signal::SIGSTOP);
    sandbox.wait("another libvirtd runs", || sandbox.process("libvirtd").is_some_and(|pid| pid != daemon));
    sandbox.wait("the domain is known to run", || sandbox.domain().state == DomainState::Running);

    // The launcher proper is given up if it dies at once, so it must have lived a while.
    let proper = || {
        let mut launchers = sandbox.processes();
        launchers.retain(|(pid, name)| name.starts_with("virt-launcher") && *pid != sandbox.pid);
        launchers.first().map(|(pid, _)| *pid)
    };
    let before = proper().unwrap();
    let age = || {
        let stat = std::fs::read_to_string(format!("/proc/{before}/stat")).unwrap();
        let started: f64 = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap().parse().unwrap();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        uptime.split_whitespace().next().unwrap().parse::<f64>().unwrap() - started / 100.0
    };
    sandbox.wait("the launcher is stable", || age() > 10.5);
    sandbox.kill(before, Signal::SIGKILL);
    let socket = sandbox.path("share/sockets/launcher.sock");
    sandbox.wait("another launcher listens", || {
        proper().is_some_and(|pid| pid != before) && UnixStream::connect(&socket).is_ok()
    });
    sandbox.wait("it has found the domain", || sandbox.domain().state == DomainState::Running);
    let status = sandbox.run(&spec, &[nic("default")]);
    assert_eq!(status.volume_targets, [("data".to_owned(), "vda".to_owned())]);
    assert_eq!(sandbox.process("qemu-system"), Some(hypervisor));
    assert_eq!(disk(), inode);

    // Without a guest that listens, the grace period ends by force.
    let events = sandbox.watch();
    assert!(matches!(sandbox.ask(Request::Shutdown { grace_seconds: 1 }), Response::Done));
    let DomainState::Final(end) = events.until_state(|state| matches!(state, DomainState::Final(_))) else {
        unreachable!()
    };
    assert!(!end.succeeded && end.reason == "Destroyed", "{end:?}");
    assert_eq!(sandbox.end().1["reason"], "Destroyed");
}

#[test]
fn a_start_that_failed_can_be_tried_again() {
    let mut sandbox = Sandbox::start("again", |_| {});
    let spec = vmi("again", json!([]));
    let missing = GuestNic { tap: "tap9".parse().unwrap(), dhcp_v4: None, ..nic("default") };
    let Response::Failed(failure) = sandbox.sync(&spec, &[missing]) else { panic!() };
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Retry, "StartFailed"), "{failure:?}");
    assert_eq!(sandbox.domain().state, DomainState::None);
    sandbox.run(&spec, &[nic("default")]);
    // A paused guest cannot hear that it shall end: it is not waited for.
    assert!(matches!(sandbox.ask(Request::Pause), Response::Done));
    sandbox.kill(sandbox.pid, Signal::SIGTERM);
    let (status, recorded) = sandbox.end();
    assert_eq!(status.code(), Some(1), "{status}\n{}", sandbox.log());
    assert_eq!(recorded["reason"], "Destroyed", "{recorded}");
}

#[test]
fn a_vm_that_never_ran_ends_at_once() {
    let mut sandbox = Sandbox::start("never", |_| {});
    let events = sandbox.watch();
    assert!(matches!(sandbox.ask(Request::Shutdown { grace_seconds: 60 }), Response::Done));
    events.until_state(|state| matches!(state, DomainState::Final(end) if end.reason == "NeverStarted"));
    assert_eq!(sandbox.end().1["succeeded"], true);
}

#[test]
fn a_bad_image_is_named() {
    let sandbox = Sandbox::start("bad", |folder| {
        let images = folder.join("share/container-disks");
        std::fs::create_dir_all(&images).unwrap();
        let mut image = vec![0u8; 512];
        image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        image[15] = 0x40;
        std::fs::write(images.join("root.img"), image).unwrap();
    });
    let spec = vmi("bad", json!([{"name": "root", "containerDisk": {"image": "guest"}}]));
    let Response::Failed(failure) = sandbox.sync(&spec, &[nic("default")]) else { panic!() };
    assert_eq!((failure.class, failure.reason.as_str()), (FailureClass::Invalid, "ImageInvalid"), "{failure:?}");
    assert!(failure.message.contains("`root`") && failure.message.contains("backing file"), "{}", failure.message);
    assert_eq!(sandbox.domain().state, DomainState::None);
}

#[test]
fn refuses_to_run_as_root() {
    let output = Command::new(env!("CARGO_BIN_EXE_virt-launcher"))
        .args(["--name", "x", "--namespace", "default", "--uid", UID])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("refusing to run: Uid"), "{words}");
}
