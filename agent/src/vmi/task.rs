//! The handle of a VMI's task: what starts it, feeds it, reads it and gives the VM commands.
//!
//! Dropping the handle ends the task and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent_api::launcher::{DomainState, GuestInfo, Request, Response};
use holdfast_net::kernel::Wiring;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::launcher::{Launcher, LauncherError};
use super::worker::Worker;
use crate::repairs::Repairs;

use super::{Capabilities, VmiInput, VmiReport, Wanted};

/// What all tasks of a node share.
#[derive(Clone, Debug)]
pub struct VmiContext {
    /// The state folder; the records of bindings go below it.
    pub state: PathBuf,
    /// The host's wiring.
    pub wiring: Wiring,
    /// Whether CPUs are emulated: because it was asked for, or because KVM cannot run a guest here.
    pub emulation: bool,
    /// What is known of QEMU here, for launchers.
    pub capabilities: Arc<Capabilities>,
    /// Tells of repairs of its attachments.
    pub repairs: Repairs,
    /// Deadlines and intervals.
    pub timing: Timing,
    /// What is counted.
    pub metrics: VmiMetrics,
}

/// Deadlines and intervals of a task.
#[derive(Clone, Debug)]
pub struct Timing {
    /// For an answer of the launcher.
    pub call: Duration,
    /// For the domain to run, images made and all.
    pub sync: Duration,
    /// For the launcher to listen, from the start of the task.
    pub launcher_start: Duration,
    /// For a launcher whose socket is there and refuses: it has died, unless it is just about to listen.
    pub launcher_refuses: Duration,
    /// Between two looks at wiring and domain for drift.
    pub check: Duration,
    /// Before the first retry; doubled with each.
    pub retry_first: Duration,
    /// Between two retries, at most.
    pub retry_most: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            call: Duration::from_secs(5),
            sync: Duration::from_secs(120),
            launcher_start: Duration::from_secs(60),
            launcher_refuses: Duration::from_secs(3),
            check: Duration::from_secs(30),
            retry_first: Duration::from_millis(20),
            retry_most: Duration::from_secs(10),
        }
    }
}

/// What the tasks count.
#[derive(Clone, Debug, Default)]
pub struct VmiMetrics {
    /// Steps that a look for drift had to do on a binding that was complete before.
    pub drift_repairs: Counter,
    /// Connections to a launcher that ended before its domain did.
    pub launcher_disconnects: Counter,
    /// Steps towards what is wanted that failed.
    pub failures: Counter,
}

impl VmiMetrics {
    /// Names the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("vmi");
        let mut add = |name, help, counter: &Counter| registry.register(name, help, counter.clone());
        add("drift_repairs", "Steps done to repair bindings of running VMs", &self.drift_repairs);
        add("launcher_disconnects", "Connections to launchers that broke", &self.launcher_disconnects);
        add("failures", "Steps towards a VMI's wanted state that failed", &self.failures);
    }
}

/// Why a command was not carried out. The texts are those that clients of the KubeVirt API know.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no domain that runs.
    #[error("VMI is not running")]
    NotRunning,
    /// It is paused already.
    #[error("VMI is already paused")]
    AlreadyPaused,
    /// It is not paused.
    #[error("VMI is not paused")]
    NotPaused,
    /// It is paused, and the command needs a guest that runs.
    #[error("VMI is paused")]
    Paused,
    /// The guest agent is not there to ask.
    #[error("VMI does not have guest agent connected")]
    NoGuestAgent,
    /// The launcher did not do it.
    #[error(transparent)]
    Launcher(#[from] LauncherError),
}

impl CommandError {
    /// Whether the command does not fit the VMI's state (HTTP 409), as opposed to a failure (HTTP 500).
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::NotRunning | Self::AlreadyPaused | Self::NotPaused | Self::Paused => true,
            // Clients of the KubeVirt API get a 500 for this one.
            Self::NoGuestAgent => false,
            Self::Launcher(LauncherError::Refused { failure, .. }) => {
                failure.class == holdfast_agent_api::launcher::FailureClass::Conflict
            }
            Self::Launcher(_) => false,
        }
    }
}

/// A VMI on this node.
#[derive(Debug)]
pub struct VmiTask {
    input: watch::Sender<VmiInput>,
    report: watch::Receiver<VmiReport>,
    call: Duration,
    worker: JoinHandle<()>,
}

impl Drop for VmiTask {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl VmiTask {
    /// Starts the task; it adopts what is there already. Needs a tokio runtime.
    pub fn spawn(context: VmiContext, input: VmiInput) -> Self {
        let meta = &input.vmi.metadata;
        let span = tracing::info_span!(
            "vmi",
            namespace = meta.namespace.as_deref().unwrap_or_default(),
            name = meta.name.as_deref().unwrap_or_default()
        );
        let call = context.timing.call;
        let (input, inputs) = watch::channel(input);
        let (reports, report) = watch::channel(VmiReport::default());
        let worker = tokio::spawn(Worker::new(context, inputs, reports).run().instrument(span));
        Self { input, report, call, worker }
    }

    /// Says anew what shall be.
    pub fn update(&self, input: VmiInput) {
        self.input.send_if_modified(|current| std::mem::replace(current, input.clone()) != input);
    }

    /// What shall be, as it was said last.
    pub fn input(&self) -> VmiInput {
        self.input.borrow().clone()
    }

    /// The reports, the present one first.
    pub fn report(&self) -> watch::Receiver<VmiReport> {
        self.report.clone()
    }

    /// Asks the guest to power off, and ends the domain after `grace_seconds`. Returns at once; a report tells the end.
    pub fn shutdown(&self, grace_seconds: u64) {
        let wanted = Wanted::Shutdown { grace_seconds };
        self.input.send_if_modified(|input| std::mem::replace(&mut input.wanted, wanted) != wanted);
    }

    /// Whether the task itself came to an end, which only a defect leads to.
    pub fn is_finished(&self) -> bool {
        self.worker.is_finished()
    }

    /// Stops the vCPUs.
    ///
    /// # Errors
    /// Also when they are stopped already.
    pub async fn pause(&self) -> Result<(), CommandError> {
        match self.state() {
            DomainState::Running | DomainState::ShuttingDown => self.ask("pause", Request::Pause).await,
            DomainState::Paused { .. } => Err(CommandError::AlreadyPaused),
            DomainState::None | DomainState::Final(_) => Err(CommandError::NotRunning),
        }
    }

    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// Also when they run.
    pub async fn unpause(&self) -> Result<(), CommandError> {
        match self.state() {
            DomainState::Paused { .. } => self.ask("unpause", Request::Unpause).await,
            DomainState::Running | DomainState::ShuttingDown => Err(CommandError::NotPaused),
            DomainState::None | DomainState::Final(_) => Err(CommandError::NotRunning),
        }
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// When there is no domain, or the launcher fails.
    pub async fn reset(&self) -> Result<(), CommandError> {
        if !self.report.borrow().is_alive() {
            return Err(CommandError::NotRunning);
        }
        self.ask("reset", Request::Reset).await
    }

    /// Asks the guest to reboot.
    ///
    /// # Errors
    /// When the guest does not run, or the launcher fails.
    pub async fn soft_reboot(&self) -> Result<(), CommandError> {
        match self.state() {
            DomainState::Running | DomainState::ShuttingDown => self.ask("reboot", Request::SoftReboot).await,
            DomainState::Paused { .. } => Err(CommandError::Paused),
            DomainState::None | DomainState::Final(_) => Err(CommandError::NotRunning),
        }
    }

    /// What the guest agent tells right now.
    ///
    /// # Errors
    /// When there is no guest agent, or the launcher fails.
    pub async fn guest_info(&self) -> Result<GuestInfo, CommandError> {
        let (alive, connected) = {
            let report = self.report.borrow();
            (report.is_alive(), report.domain.agent_connected)
        };
        match (alive, connected) {
            (false, _) => Err(CommandError::NotRunning),
            (true, false) => Err(CommandError::NoGuestAgent),
            (true, true) => match self.call("query the guest agent of", Request::Guest).await? {
                Response::Guest(info) => Ok(*info),
                _ => Err(LauncherError::Unexpected { verb: "query the guest agent of" }.into()),
            },
        }
    }

    fn state(&self) -> DomainState {
        self.report.borrow().domain.state.clone()
    }

    async fn ask(&self, verb: &'static str, request: Request) -> Result<(), CommandError> {
        match self.call(verb, request).await? {
            // The domain's new state may come as the answer; it comes as an event in any case.
            Response::Done | Response::Domain(_) => Ok(()),
            _ => Err(LauncherError::Unexpected { verb }.into()),
        }
    }

    async fn call(&self, verb: &'static str, request: Request) -> Result<Response, LauncherError> {
        let launcher = Launcher::of(&self.input.borrow());
        launcher.call(verb, request, Vec::new(), self.call).await
    }
}
