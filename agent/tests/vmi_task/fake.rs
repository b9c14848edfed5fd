//! A launcher with state in place of libvirt and QEMU: a process of its own, in the sandbox's network namespace,
//! as uid 107 without capabilities, as the real one is.
//!
//! It is this test's own binary, started anew to run the test `fake_launcher_process` only. The test drives it
//! over a second socket.

use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_agent_api::PROTOCOL_VERSION;
use holdfast_agent_api::frame;
use holdfast_agent_api::launcher::{
    DomainState, DomainStatus, Envelope, Event, FinalState, PauseReason, Request, Response,
};
use holdfast_net::model::GuestNic;
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

/// Folder of the fake's files; set in its process only.
pub const FOLDER: &str = "HOLDFAST_FAKE_LAUNCHER";

/// What the test tells the fake.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// What has it been told? Answered by [`Seen`].
    Tell,
    /// As the guest: send a DHCP request on the NIC's tap; as the launcher: read it from its socket. Answered by
    /// whether it is the same frame.
    SendDhcp { nic: usize, socket: usize },
    /// Cut all connections of the agent.
    Cut,
    /// The guest powered off. With `last_words` final.json is written; with `event` it is told; then exit.
    End { last_words: bool, event: bool },
}

/// What the fake has been told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub syncs: usize,
    pub nics: Vec<GuestNic>,
    pub sockets: usize,
    pub emulation: bool,
    pub shutdown: Option<u64>,
}

/// The fake as the test holds it.
pub struct Fake {
    child: Child,
    control: PathBuf,
}

impl Fake {
    /// Starts a fake for the VMI `uid` in `netns` (a name of `ip netns`), with its sockets in `folder`.
    pub fn start(netns: Option<&str>, folder: &Path, uid: &str) -> Self {
        let me = std::env::current_exe().unwrap();
        let mut command = match netns {
            Some(netns) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns, "setpriv"]);
                command
            }
            None => Command::new("setpriv"),
        };
        let drop = ["--reuid=107", "--regid=107", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
        command.args(drop).arg(me).args(["--exact", "fake_launcher_process", "--nocapture", "--test-threads=1"]);
        let child = command.env(FOLDER, folder).env("VMI_UID", uid).stdout(Stdio::null()).spawn().unwrap();
        Self { child, control: folder.join("control.sock") }
    }

    /// Gives an order. The fake may still be starting.
    pub fn order<T: for<'a> Deserialize<'a>>(&self, order: &Order) -> T {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match UnixStream::connect(&self.control) {
                Ok(stream) => break stream,
                Err(error) => assert!(std::time::Instant::now() < deadline, "the fake does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        frame::send(&stream, order, &[]).unwrap();
        frame::receive(&stream).unwrap().0
    }

    /// Ends the process without a word.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct State {
    folder: PathBuf,
    uid: String,
    seen: Seen,
    sockets: Vec<OwnedFd>,
    domain: DomainStatus,
    watchers: Vec<UnixStream>,
    connections: Vec<UnixStream>,
}

impl State {
    fn set(&mut self, state: DomainState) {
        self.domain.state = state;
        let event = Event::Domain(self.domain.clone());
        self.watchers.retain(|watcher| frame::send(watcher, &event, &[]).is_ok());
    }
}

/// The fake's process: returns at once where it is not one.
pub fn main() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let domain = DomainStatus {
        state: DomainState::None,
        machine: String::new(),
        agent_connected: false,
        volume_targets: Vec::new(),
        emulation: false,
        nics: None,
    };
    let state = State {
        uid: std::env::var("VMI_UID").unwrap(),
        seen: Seen::default(),
        sockets: Vec::new(),
        domain,
        watchers: Vec::new(),
        connections: Vec::new(),
        folder: folder.clone(),
    };
    let state = Arc::new(Mutex::new(state));
    let control = UnixListener::bind(folder.join("control.sock")).unwrap();
    let listener = UnixListener::bind(folder.join("launcher.sock")).unwrap();
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, shared) = (stream.unwrap(), Arc::clone(&shared));
            shared.lock().unwrap().connections.push(stream.try_clone().unwrap());
            std::thread::spawn(move || serve(&stream, &shared));
        }
    });
    for stream in control.incoming() {
        let stream = stream.unwrap();
        if let Ok((order, _)) = frame::receive::<Order>(&stream) {
            obey(&stream, &state, order);
        }
    }
}

fn serve(stream: &UnixStream, shared: &Mutex<State>) {
    while let Ok((envelope, fds)) = frame::receive::<Envelope>(stream) {
        assert_eq!(envelope.version, PROTOCOL_VERSION);
        let mut state = shared.lock().unwrap();
        let response = match envelope.request {
            Request::Hello => Response::Hello { version: PROTOCOL_VERSION, vmi_uid: state.uid.clone() },
            Request::Sync(sync) => {
                state.seen.syncs += 1;
                state.seen.nics = sync.nics;
                state.seen.sockets = fds.len();
                state.seen.emulation = sync.emulation;
                state.sockets = fds;
                state.domain.machine = "pc-q35-7.2".to_owned();
                if state.domain.state == DomainState::None {
                    state.set(DomainState::Running);
                }
                Response::Domain(Box::new(state.domain.clone()))
            }
            Request::Watch => {
                frame::send(stream, &Event::Domain(state.domain.clone()), &[]).unwrap();
                state.watchers.push(stream.try_clone().unwrap());
                continue;
            }
            Request::Pause => {
                state.set(DomainState::Paused { reason: PauseReason::User });
                Response::Done
            }
            Request::Unpause => {
                state.set(DomainState::Running);
                Response::Done
            }
            Request::Shutdown { grace_seconds } => {
                state.seen.shutdown = Some(grace_seconds);
                state.set(DomainState::ShuttingDown);
                Response::Done
            }
            Request::Domain => Response::Domain(Box::new(state.domain.clone())),
            Request::Reset | Request::SoftReboot => Response::Done,
            Request::Guest => Response::Guest(Box::default()),
        };
        if frame::send(stream, &response, &[]).is_err() {
            return;
        }
    }
}

fn obey(stream: &UnixStream, shared: &Mutex<State>, order: Order) {
    let mut state = shared.lock().unwrap();
    match order {
        Order::Tell => frame::send(stream, &state.seen, &[]).unwrap(),
        Order::SendDhcp { nic, socket } => {
            let same = send_dhcp(&state.folder, &state.seen.nics[nic], &state.sockets[socket]);
            frame::send(stream, &same, &[]).unwrap();
        }
        Order::Cut => {
            for connection in state.connections.drain(..) {
                let _ = connection.shutdown(std::net::Shutdown::Both);
            }
            state.watchers.clear();
            frame::send(stream, &true, &[]).unwrap();
        }
        Order::End { last_words, event } => {
            let end = FinalState { succeeded: true, reason: "Shutdown".to_owned(), message: "off".to_owned() };
            if last_words {
                std::fs::write(state.folder.join("final.json"), serde_json::to_vec(&end).unwrap()).unwrap();
            }
            if event {
                state.set(DomainState::Final(end));
            }
            frame::send(stream, &true, &[]).unwrap();
            std::process::exit(0);
        }
    }
}

/// Opens the tap as a hypervisor does, sends a DHCP request as its guest, and reads it from the launcher's socket.
fn send_dhcp(folder: &Path, nic: &GuestNic, socket: &OwnedFd) -> Result<(), String> {
    let text = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let tun = folder.join("tun");
    let mut tap = std::fs::File::options().read(true).write(true).open(tun).map_err(text("open tun"))?;
    // SAFETY: all zero is a valid ifreq: an empty name and integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(nic.tap.as_str().bytes()) {
        *to = from as libc::c_char;
    }
    let queues = if nic.queues > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    if unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
        return Err(format!("open the tap: {}", std::io::Error::last_os_error()));
    }
    let sent = discover(nic.mac.octets());
    // Ten bytes of vnet header in front: no offload.
    let mut framed = vec![0; 10];
    framed.extend(&sent);
    tap.write_all(&framed).map_err(text("send on the tap"))?;
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut ready, 5000u16).map_err(|errno| format!("poll: {errno}"))? == 0 {
        return Err("the request did not reach the DHCP socket".to_owned());
    }
    let mut buffer = vec![0; 2048];
    let length = nix::unistd::read(socket, &mut buffer).map_err(|errno| format!("read the DHCP socket: {errno}"))?;
    if buffer[..length] == sent { Ok(()) } else { Err(format!("another frame: {:02x?}", &buffer[..length])) }
}

/// The bare frame of a DHCPDISCOVER: Ethernet, IPv4, UDP 68 to 67, BOOTP with message type 1.
fn discover(mac: [u8; 6]) -> Vec<u8> {
    let mut bootp = vec![0; 240];
    bootp[..4].copy_from_slice(&[1, 1, 6, 0]);
    bootp[28..34].copy_from_slice(&mac);
    bootp[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    bootp.extend([53, 1, 1, 255]);
    let udp_length = 8 + bootp.len() as u16;
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255];
    ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    frame.extend(ip);
    frame.extend(68u16.to_be_bytes());
    frame.extend(67u16.to_be_bytes());
    frame.extend(udp_length.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(bootp);
    frame
}
