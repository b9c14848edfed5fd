//! One of each kind is planted, and found; once it is gone, it is no longer found.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::process::Program;

/// What takes a planted thing away again.
struct Planted(Box<dyn FnMut()>);

impl Drop for Planted {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn run(program: &str, arguments: &[&str]) {
    Program::new(program).args(arguments).output().unwrap();
}

/// A short name that no other test has.
fn unique(kind: &str) -> String {
    format!("hf-{kind}{}", std::process::id())
}

/// Plants one thing, whose trace is of this kind and has a name that is, or ends in, `name`: it must be found then,
/// and no longer when it is gone.
fn found(kind: Kind, name: &str, plant: impl FnOnce() -> Planted) {
    let before = Snapshot::take().unwrap();
    let planted = plant();
    let traces = |snapshot: Snapshot| -> Vec<Trace> {
        let new = snapshot.0.difference(&before.0).cloned();
        new.filter(|trace| trace.kind == kind && trace.name.ends_with(name)).collect()
    };
    assert_eq!(traces(Snapshot::take().unwrap()).len(), 1, "{kind:?} {name} is not found");
    drop(planted);
    assert_eq!(traces(Snapshot::take().unwrap()), [], "{kind:?} {name} is gone and still found");
}

#[test]
fn link() {
    let name = unique("l");
    found(Kind::Link, &name, || {
        run("ip", &["link", "add", &name, "type", "bridge"]);
        let name = name.clone();
        Planted(Box::new(move || run("ip", &["link", "del", &name])))
    });
}

#[test]
fn network_namespace() {
    let name = unique("n");
    found(Kind::NetworkNamespace, &name, || {
        run("ip", &["netns", "add", &name]);
        let name = name.clone();
        Planted(Box::new(move || run("ip", &["netns", "del", &name])))
    });
}

#[test]
fn nft_table() {
    let name = unique("t");
    found(Kind::NftTable, &name, || {
        run("nft", &["add", "table", "inet", &name]);
        let name = name.clone();
        Planted(Box::new(move || run("nft", &["delete", "table", "inet", &name])))
    });
}

#[test]
fn mount() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    found(Kind::Mount, &format!("{path} (tmpfs)"), || {
        run("mount", &["-t", "tmpfs", "hf-leak", &path]);
        let path = path.clone();
        Planted(Box::new(move || run("umount", &[&path])))
    });
}

#[test]
fn mount_in_another_namespace() {
    let name = unique("m");
    let script = format!(
        "mount -t tmpfs x /mnt && mkdir /mnt/{name} && mount -t tmpfs x /mnt/{name} && readlink /proc/self/ns/mnt && \
         exec sleep 60"
    );
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", &script];
    let mut child = Command::new("unshare").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let namespace = first_line(&mut child);
    let planted = ended(child);
    let wanted = Trace { kind: Kind::Mount, name: format!("/mnt/{name} (tmpfs) in {namespace}") };
    assert!(Snapshot::take().unwrap().0.contains(&wanted));
    drop(planted);
    assert!(!Snapshot::take().unwrap().0.contains(&wanted));
}

#[test]
fn process_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("virt-launcher");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let count = || {
        let all = Snapshot::take().unwrap().0;
        all.iter().filter(|trace| trace.name.contains(program.to_str().unwrap())).count()
    };
    let planted = ended(Command::new(&program).arg("60").spawn().unwrap());
    assert_eq!(count(), 1);
    drop(planted);
    assert_eq!(count(), 0);
}

#[test]
fn process_by_namespace() {
    let script = "readlink /proc/self/ns/net; exec sleep 60";
    let mut child = Command::new("unshare").args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let name = first_line(&mut child);
    let planted = ended(child);
    let count = || Snapshot::take().unwrap().0.iter().filter(|trace| trace.name.ends_with(&name)).count();
    assert_eq!(count(), 1);
    drop(planted);
    assert_eq!(count(), 0);
}

#[test]
fn file() {
    let path = format!("/tmp/{}", unique("f"));
    found(Kind::File, &path, || {
        std::fs::write(&path, "").unwrap();
        let path = path.clone();
        Planted(Box::new(move || std::fs::remove_file(&path).unwrap()))
    });
}

#[test]
fn cgroup() {
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
    let Some(hierarchy) = hierarchies.into_iter().find(|path| Path::new(path).join("cgroup.procs").exists()) else {
        println!("skipped: this machine has no control groups at /sys/fs/cgroup");
        return;
    };
    let path = format!("{hierarchy}/holdfast-{}", unique("c"));
    found(Kind::Cgroup, &path, || {
        std::fs::create_dir(&path).unwrap();
        let path = path.clone();
        Planted(Box::new(move || std::fs::remove_dir(&path).unwrap()))
    });
}

#[test]
fn ovs_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (database, socket) = (path("conf.db"), path("db.sock"));
    run("ovsdb-tool", &["create", &database, "/usr/share/openvswitch/vswitch.ovsschema"]);
    let server = Command::new("ovsdb-server")
        .args([&database, &format!("--remote=punix:{socket}"), "--unixctl", &path("ctl")])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = ended(server);
    process::wait_for("the OVSDB server", Duration::from_secs(10), || Ok(Path::new(&socket).exists().then_some(())))
        .unwrap();
    let db = format!("--db=unix:{socket}");
    run("ovs-vsctl", &[&db, "--no-wait", "add-br", "br0"]);
    found(Kind::OvsPort, &format!("{socket}/br0/p0"), || {
        run("ovs-vsctl", &[&db, "--no-wait", "add-port", "br0", "p0"]);
        Planted(Box::new(move || run("ovs-vsctl", &[&db, "--no-wait", "del-port", "br0", "p0"])))
    });
}

#[test]
fn the_error_names_what_leaked() {
    let path = format!("/tmp/{}", unique("e"));
    let before = Snapshot::take().unwrap();
    std::fs::write(&path, "").unwrap();
    let error = none_within(Duration::ZERO, &before, "the suite").unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.starts_with("the suite left ") && error.contains(&format!("  file {path}")), "{error}");
}

/// Ends and reaps the process when it is dropped.
fn ended(mut child: Child) -> Planted {
    Planted(Box::new(move || process::end(&mut child)))
}

fn first_line(child: &mut Child) -> String {
    use std::io::BufRead as _;
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}
