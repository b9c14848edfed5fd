//! The one place that decides about the VM.
//!
//! A single thread owns all state and takes [`Message`]s from a channel: requests of the agent, changes that libvirt
//! announces, news of the guest agent, SIGTERM. Whatever can take long on a running domain is done by a short-lived
//! thread of its own, so that this one stays free to press the power button in time. Invariants: the domain's state
//! is what libvirt says now; the final state is on disk before anyone is told of it; after it nothing starts again.

mod end;
mod guest_info;
mod nics;
mod start;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use holdfast_agent_api::launcher::{
    DomainState, DomainStatus, Event, Failure, FailureClass, FinalState, GuestInfo, PauseReason, Request, Response,
};

use crate::dhcp;
use crate::libvirt::{Change, Daemon, Guest, Hypervisor, LibvirtError, Observed};
use crate::paths::Paths;
use crate::taps::Taps;

/// What the deciding thread is told.
#[derive(Debug)]
pub enum Message {
    /// A request of the agent, with the sockets that came with it; the answer goes to `reply`.
    Request {
        /// What is asked for; never `Hello` or `Watch`.
        request: Request,
        /// DHCP sockets and macvtaps of a `Sync`.
        sockets: Vec<OwnedFd>,
        /// Where the answer goes.
        reply: Sender<Response>,
    },
    /// Someone wants all events from now on, the present state first.
    Watch(Sender<Event>),
    /// libvirt announced a change, on the connection with this number.
    Libvirt(u64, Change),
    /// The guest agent told what it knows.
    Guest(Box<GuestInfo>),
    /// The agent has been told the final state.
    FinalSeen,
    /// The sandbox wants us to end: shut the guest down.
    Terminate,
}

/// Which VM this is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Namespace of the VMI.
    pub namespace: String,
    /// Name of the VMI.
    pub name: String,
    /// UID of the VMI.
    pub uid: String,
    /// Seconds that the guest has to power off when the sandbox ends.
    pub grace_seconds: u64,
}

/// Between attempts to get libvirtd back.
const RECONNECT: Duration = Duration::from_secs(1);

/// The VM and all that is known of it.
pub struct Vm {
    identity: Identity,
    paths: Paths,
    inbox: Receiver<Message>,
    outbox: Sender<Message>,
    daemon: Daemon,
    hypervisor: Option<Hypervisor>,
    /// Number of the present connection; messages of older ones are stale.
    connection: u64,
    /// Whether a domain was ever seen, so that its absence means that it is gone.
    started: bool,
    /// Whether the guest has a power button.
    acpi: bool,
    status: DomainStatus,
    guest_info: GuestInfo,
    watchers: Vec<Sender<Event>>,
    dhcp: Option<dhcp::Server>,
    /// Macvtaps of the last `Sync`, for the start.
    macvtaps: BTreeMap<String, OwnedFd>,
    /// Where libvirt fetches them; from the first of them on.
    taps: Option<Taps>,
    guest_info_poller: Sender<Option<Guest>>,
    stopping: Option<end::Stopping>,
    ended: Option<end::Ended>,
    reconnect_at: Option<Instant>,
    /// Whether the guest's console is copied to our output already.
    console_followed: bool,
}

impl Vm {
    /// Takes over what a launcher before this one may have left: its final state, its libvirtd, its domain.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn new(
        identity: Identity,
        paths: Paths,
        inbox: Receiver<Message>,
        outbox: Sender<Message>,
    ) -> std::io::Result<Self> {
        let guest_info_poller = guest_info::poller(outbox.clone())?;
        let state = DomainState::None;
        let none = Vec::new();
        let mut vm = Self {
            daemon: Daemon::new(&paths.libvirt),
            identity,
            paths,
            inbox,
            outbox,
            hypervisor: None,
            connection: 0,
            started: false,
            acpi: true,
            status: DomainStatus {
                state,
                machine: String::new(),
                agent_connected: false,
                volume_targets: none,
                emulation: false,
                nics: None,
            },
            guest_info: GuestInfo::default(),
            watchers: Vec::new(),
            dhcp: None,
            macvtaps: BTreeMap::new(),
            taps: None,
            guest_info_poller,
            stopping: None,
            ended: None,
            // Before the first Sync: libvirtd starts while the agent wires. It may also have a domain already.
            reconnect_at: Some(Instant::now()),
            console_followed: false,
        };
        if let Some(end) = end::recorded(&vm.paths) {
            vm.status.state = DomainState::Final(end);
            vm.ended = Some(end::Ended::now());
            vm.reconnect_at = None;
        }
        Ok(vm)
    }

    /// Works until the domain is gone for good and the agent knows it (or had its time to ask).
    ///
    /// Returns whether the VM succeeded: whoever sees nothing but the end of this process learns it from its exit code.
    pub fn run(mut self) -> bool {
        loop {
            self.tick();
            if self.ended.as_ref().is_some_and(end::Ended::is_over) {
                break;
            }
            let message = match self.next_deadline() {
                Some(at) => self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => self.inbox.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                // The launcher keeps a sender itself.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.daemon.end();
        matches!(&self.status.state, DomainState::Final(end) if end.succeeded)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stopping = self.stopping.as_ref().map(end::Stopping::next);
        let ended = self.ended.as_ref().map(end::Ended::over_at);
        [stopping, ended, self.reconnect_at].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.reconnect_at.is_some_and(|at| at <= now) {
            self.reconnect();
        }
        self.go_on_stopping(now);
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Request { request, sockets, reply } => self.answer(request, sockets, reply),
            Message::Watch(watcher) => {
                self.refresh();
                let known = self.guest_info != GuestInfo::default();
                let told = watcher.send(Event::Domain(self.status.clone())).is_ok()
                    && (!known || watcher.send(Event::Guest(Box::new(self.guest_info.clone()))).is_ok());
                if told {
                    self.watchers.push(watcher);
                }
            }
            Message::Libvirt(connection, change) if connection == self.connection => self.changed(change),
            Message::Libvirt(..) => {}
            Message::Guest(info) => {
                if *info != self.guest_info {
                    self.guest_info = (*info).clone();
                    self.tell(&Event::Guest(info));
                }
            }
            Message::FinalSeen => self.ended.iter_mut().for_each(end::Ended::seen),
            Message::Terminate => {
                let grace = self.identity.grace_seconds;
                self.stop(Duration::from_secs(grace));
            }
        }
    }

    fn answer(&mut self, request: Request, sockets: Vec<OwnedFd>, reply: Sender<Response>) {
        let response = match request {
            Request::Sync(sync) => self.sync(&sync, sockets),
            Request::Domain => {
                self.refresh();
                Response::Domain(Box::new(self.status.clone()))
            }
            Request::Guest => Response::Guest(Box::new(self.guest_info.clone())),
            Request::Shutdown { grace_seconds } => {
                self.stop(Duration::from_secs(grace_seconds));
                Response::Done
            }
            Request::Pause => return self.act(reply, Guest::pause),
            Request::Unpause => return self.act(reply, Guest::unpause),
            Request::Reset => return self.act(reply, Guest::reset),
            Request::SoftReboot => {
                let agent = self.status.agent_connected;
                return self.act(reply, move |guest| guest.soft_reboot(agent));
            }
            Request::Hello | Request::Watch => Response::Done,
        };
        // A peer that went away needs no answer.
        let _ = reply.send(response);
    }

    /// Does something to the running domain on a thread of its own, then answers.
    fn act(
        &mut self,
        reply: Sender<Response>,
        action: impl FnOnce(&Guest) -> Result<(), LibvirtError> + Send + 'static,
    ) {
        let Some(guest) = self.guest().filter(|_| self.ended.is_none()) else {
            let _ =
                reply.send(failed(FailureClass::Conflict, "DomainNotRunning", "the domain does not run".to_owned()));
            return;
        };
        let (outbox, connection) = (self.outbox.clone(), self.connection);
        let thread = std::thread::Builder::new().name("action".to_owned()).spawn(move || {
            let response = match action(&guest) {
                Ok(()) => Response::Done,
                Err(error) if error.conflict => failed(FailureClass::Conflict, "DomainState", chain(&error)),
                Err(error) => failed(FailureClass::Retry, "HypervisorFailed", chain(&error)),
            };
            let _ = reply.send(response);
            let _ = outbox.send(Message::Libvirt(connection, Change::Lifecycle));
        });
        if let Err(error) = thread {
            tracing::error!(%error, "failed to start a thread");
        }
    }

    fn changed(&mut self, change: Change) {
        match change {
            Change::Lifecycle => self.refresh(),
            Change::Rebooted => {
                self.tell(&Event::Rebooted);
                self.refresh();
            }
            Change::Agent(connected) => {
                let guest = if connected { self.guest() } else { None };
                let _ = self.guest_info_poller.send(guest);
                self.refresh();
            }
            Change::Disconnected => {
                tracing::warn!("libvirtd is gone; starting it again");
                self.hypervisor = None;
                // It may hang rather than be gone: then it would take a new connection and never answer.
                self.daemon.end();
                let _ = self.guest_info_poller.send(None);
                self.reconnect_at = Some(Instant::now());
            }
        }
    }

    fn reconnect(&mut self) {
        self.reconnect_at = None;
        if self.ended.is_some() {
            return;
        }
        match self.connect() {
            Ok(()) => {
                self.refresh();
                if self.status.agent_connected {
                    let _ = self.guest_info_poller.send(self.guest());
                }
            }
            Err(error) => {
                tracing::warn!(error, "failed to get libvirtd back");
                self.reconnect_at = Some(Instant::now() + RECONNECT);
            }
        }
    }

    /// Starts libvirtd where it does not run, and connects.
    fn connect(&mut self) -> Result<(), String> {
        if self.hypervisor.is_some() {
            return Ok(());
        }
        self.daemon.ensure().map_err(|error| chain(&error))?;
        self.connection += 1;
        let (connection, outbox) = (self.connection, std::sync::Mutex::new(self.outbox.clone()));
        let forward = move |change| {
            if let Ok(outbox) = outbox.lock() {
                let _ = outbox.send(Message::Libvirt(connection, change));
            }
        };
        let name = crate::domain::name(&self.identity.namespace, &self.identity.name);
        let opened = Hypervisor::open(self.daemon.socket(), &name, forward);
        self.hypervisor = Some(opened.map_err(|error| chain(&error))?);
        Ok(())
    }

    fn guest(&self) -> Option<Guest> {
        self.hypervisor.as_ref().and_then(|hypervisor| hypervisor.guest().ok().flatten())
    }

    /// Reads the domain's state from libvirt and tells it on where it is another.
    fn refresh(&mut self) {
        let Some(hypervisor) = &self.hypervisor else { return };
        if self.ended.is_some() {
            return;
        }
        let observed = match hypervisor.guest() {
            Ok(Some(guest)) => guest.state().map(|state| Some((guest, state))),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let before = self.status.clone();
        match observed {
            Ok(Some((_, Observed::ShutOff(why)))) => self.shut_off(why),
            Ok(Some((guest, state))) => {
                self.started = true;
                if let Ok(live) = guest.description() {
                    self.status.machine = live.machine;
                    self.status.agent_connected = live.agent_connected;
                    self.status.emulation = live.emulation;
                    self.status.nics = Some(live.nics.iter().filter_map(nics::name_of).collect());
                }
                self.status.state = match state {
                    Observed::Paused(reason) => DomainState::Paused { reason },
                    Observed::Running if self.stopping.is_none() => DomainState::Running,
                    _ => DomainState::ShuttingDown,
                };
            }
            Ok(None) if self.started => self.vanished(),
            Ok(None) => {}
            // The connection's end is announced by itself.
            Err(error) => tracing::warn!(error = chain(&error), "failed to read the domain's state"),
        }
        if self.status != before {
            tracing::info!(state = ?self.status.state, "the domain changed");
            self.tell(&Event::Domain(self.status.clone()));
        }
    }

    fn tell(&mut self, event: &Event) {
        self.watchers.retain(|watcher| watcher.send(event.clone()).is_ok());
    }

    fn is_paused_by_user(&self) -> bool {
        self.status.state == DomainState::Paused { reason: PauseReason::User }
    }

    fn finish(&mut self, end: FinalState) {
        if let Err(error) = end::record(&self.paths, &end) {
            tracing::error!(error = chain(&error), "failed to record the final state");
        }
        tracing::info!(?end, "the domain is gone for good");
        self.status.state = DomainState::Final(end);
        self.status.agent_connected = false;
        self.ended = Some(end::Ended::now());
        self.stopping = None;
        self.dhcp = None;
        let _ = self.guest_info_poller.send(None);
    }
}

fn failed(class: FailureClass, reason: &str, message: String) -> Response {
    Response::Failed(Failure { class, reason: reason.to_owned(), message })
}

/// An error and all its causes in a line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
