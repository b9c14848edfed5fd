//! One VMI, from its object's first appearance to its last trace.
//!
//! Level-triggered: each round looks at the object and at what is recorded of its sandbox, and takes the one step
//! that they call for; so it does not matter whether holdfastd was restarted in between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_agent::vmi::{Sandbox, VmiInput, VmiReport, VmiTask, Wanted};
use holdfast_api::kubevirt::{VirtualMachineInstance, VirtualMachineInstanceSpec};
use holdfast_api::status::{is_final, phase};
use rand::Rng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::launch::Folders;
use super::setup::{announce, set_up};
use super::status::{CONTROLLER, HANDLER, Teller};
use super::{SetupError, hotplug};
use crate::host::{Host, chain};
use crate::manifests::is_placeholder;
use crate::sandbox::{Process, Record, remove};
use crate::store::{EventKind, Key};

/// Seconds that a guest has to power off where its VMI says nothing.
pub const DEFAULT_GRACE: i64 = 30;
/// Waits between two attempts: the first, doubled with each, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long a task may take to learn how a launcher that is gone has ended.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// How long a launcher may take for the rest once its guest's grace period is over; then its sandbox is killed.
/// Upstream gives a pod the same.
const OVERTIME: Duration = Duration::from_secs(15);
/// How often a sandbox that cannot be removed is tried again.
const REMOVE_AGAIN: Duration = Duration::from_secs(5);

/// One VMI's run.
pub struct VmiRun {
    pub host: Arc<Host>,
    pub key: Key,
    pub uid: String,
    /// Changes of the VMI.
    pub wake: watch::Receiver<u64>,
}

impl VmiRun {
    /// Runs until the VMI is gone and nothing of it is left.
    pub async fn run(mut self) {
        let host = Arc::clone(&self.host);
        let teller = Teller::new(&host, &self.key.namespace, &self.key.name, &self.uid);
        let folder = host.vm_folder(&self.uid);
        let mut attempts = 0;
        loop {
            self.wake.mark_unchanged();
            let Some(vmi) = teller.vmi() else {
                self.take_down(&folder, &teller).await;
                return;
            };
            let record = Record::read(&folder);
            let has_launcher = matches!(&record, Ok(Some(record)) if record.launcher.is_some());
            if let Err(error) = record {
                // Not knowing what is there, nothing is done: starting a second one would be worse.
                tracing::error!(error = chain(&error), "a VMI's record is unreadable; waiting for a change");
                self.wait(REMOVE_AGAIN).await;
            } else if is_final(&vmi) || (vmi.metadata.deletion_timestamp.is_some() && !has_launcher) {
                self.take_down(&folder, &teller).await;
                teller.ended("Failed", "Deleted");
                if vmi.metadata.deletion_timestamp.is_some() {
                    teller.release();
                }
                self.wait(RETRY.1).await;
            } else if let Ok(Some(record)) = record
                && record.launcher.is_some()
            {
                attempts = 0;
                self.serve(vmi, record, &folder, &teller).await;
            } else if is_placeholder(&vmi.metadata) {
                self.wait(RETRY.1).await;
            } else {
                // What an earlier attempt, or an earlier holdfastd, left.
                self.take_down(&folder, &teller).await;
                if !self.start(&vmi, &folder, &teller).await {
                    self.back_off(&mut attempts).await;
                }
            }
        }
    }

    /// Sets it up; a VMI that is deleted meanwhile is not.
    async fn start(&mut self, vmi: &VirtualMachineInstance, folder: &Path, teller: &Teller<'_>) -> bool {
        let host = Arc::clone(&self.host);
        let result = tokio::select! {
            result = set_up(&host, vmi, teller) => result,
            () = self.deleted(teller) => return true,
        };
        let Err(error) = result else { return true };
        self.take_down(folder, teller).await;
        teller.failed(&error);
        false
    }

    async fn deleted(&mut self, teller: &Teller<'_>) {
        loop {
            let going = teller.vmi().is_none_or(|vmi| vmi.metadata.deletion_timestamp.is_some());
            if going || self.wake.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits longer with each attempt, and for less where something changed that may help.
    async fn back_off(&mut self, attempts: &mut u32) {
        let wait = RETRY.0.saturating_mul(1 << (*attempts).min(8)).min(RETRY.1);
        let jitter = rand::rng().random_range(0.75..1.25);
        *attempts += 1;
        let mut world = self.host.world.subscribe();
        let teller_host = Arc::clone(&self.host);
        let teller = Teller::new(&teller_host, &self.key.namespace, &self.key.name, &self.uid);
        tokio::select! {
            () = sleep(wait.mul_f64(jitter)) => {}
            _ = world.changed() => *attempts = 0,
            () = self.deleted(&teller) => {}
        }
    }

    /// Waits for a change of the VMI.
    async fn wait(&mut self, longest: Duration) {
        if let Ok(Err(_)) = timeout(longest, self.wake.changed()).await {
            // No supervisor any more: the process ends.
            std::future::pending().await
        }
    }

    /// Looks after a VMI whose launcher was started, by whichever holdfastd, until it has ended.
    async fn serve(&mut self, vmi: VirtualMachineInstance, mut record: Record, folder: &Path, teller: &Teller<'_>) {
        announce(&self.host, &record);
        if phase(&vmi) != "Running" {
            teller.scheduled(&record);
        }
        let process = match record.launcher.map(Process::find).transpose() {
            Ok(process) => process.flatten(),
            Err(error) => {
                tracing::warn!(error = chain(&error), "failed to look for a launcher");
                None
            }
        };
        let task = Arc::new(VmiTask::spawn(self.host.vmi.clone(), self.input(vmi, &record, folder)));
        let _known = self.host.tasks.enter(&self.uid, Arc::clone(&task));
        let mut reports = task.report();
        let mut before = VmiReport::default();
        let mut gone = Box::pin(ended(process.as_ref()));
        let mut is_gone = false;
        let mut overdue = overdue(teller.vmi().as_ref());
        let mut plugging = Plugging::default();
        loop {
            let report = reports.borrow_and_update().clone();
            if report != before {
                teller.reported(&before, &report);
                before = report;
            }
            if before.final_state().is_some() {
                return;
            }
            if is_gone {
                // Its task reads the last words; when it finds none, there are none.
                if timeout(LAST_WORDS, reports.changed()).await.is_err() || task.is_finished() {
                    teller.ended("Failed", "LauncherLost");
                    teller.event(EventKind::Warning, HANDLER, "Stopped", "The VirtualMachineInstance crashed.");
                    return;
                }
                continue;
            }
            let vmi = teller.vmi().filter(|vmi| vmi.metadata.deletion_timestamp.is_none());
            if let Some(vmi) = vmi.filter(|_| before.is_alive() && plugging.is_due()) {
                let done = hotplug::fit(&self.host, &vmi, &before, &mut record, folder, teller).await;
                plugging.ended(done, teller);
                if let Some(vmi) = teller.vmi() {
                    task.update(self.input(vmi, &record, folder));
                }
            }
            tokio::select! {
                () = at(plugging.again()) => {}
                changed = reports.changed() => {
                    if changed.is_err() {
                        // A defect: the loop starts another task.
                        tracing::error!("a VMI's task ended by itself");
                        sleep(REMOVE_AGAIN).await;
                        return;
                    }
                }
                () = &mut gone => is_gone = true,
                () = at(overdue) => {
                    overdue = None;
                    kill(process.as_ref(), teller);
                }
                woken = self.wake.changed() => {
                    if woken.is_err() {
                        return std::future::pending().await;
                    }
                    match teller.vmi() {
                        Some(vmi) => {
                            // A shorter grace period counts, a later look at the same one does not.
                            overdue = overdue.into_iter().chain(self::overdue(Some(&vmi))).min();
                            plugging.changed(&vmi);
                            task.update(self.input(vmi, &record, folder));
                        }
                        // Its object was taken away under it, finalizer and all.
                        None => task.shutdown(0),
                    }
                }
            }
        }
    }

    fn input(&self, vmi: VirtualMachineInstance, record: &Record, folder: &Path) -> VmiInput {
        let folders = Folders::of(folder);
        let wanted = match vmi.metadata.deletion_timestamp {
            None => Wanted::Run,
            Some(_) => Wanted::Shutdown { grace_seconds: grace_seconds(&vmi) },
        };
        VmiInput {
            vmi,
            sandbox: Sandbox {
                id: record.id.clone(),
                netns: self.host.netns.join(&record.id),
                share_dir: folders.share.clone(),
                private_dir: folders.private.join(&self.uid),
                launcher_socket: folders.share.join("sockets/launcher.sock"),
            },
            nics: hotplug::joined(record),
            wanted,
        }
        .joined()
    }

    /// Takes down what there is of a sandbox, however long that takes.
    async fn take_down(&mut self, folder: &Path, teller: &Teller<'_>) {
        if !folder.exists() {
            return;
        }
        let record = Record::read(folder).ok().flatten();
        loop {
            let errors = remove(folder, &self.host.ground()).await;
            if errors.is_empty() {
                break;
            }
            for error in errors {
                let message = chain(&error);
                tracing::warn!("{message}");
                teller.event(EventKind::Warning, CONTROLLER, "FailedKillPod", &message);
            }
            sleep(REMOVE_AGAIN).await;
        }
        if let Some(record) = record {
            self.host.pods.remove(&record.namespace, &record.pod_name);
            let message = format!("Deleted virtual machine pod {}", record.pod_name);
            teller.event(EventKind::Normal, CONTROLLER, "SuccessfulDelete", &message);
        }
    }
}

/// When NICs are plugged and unplugged again after it failed.
#[derive(Default)]
struct Plugging {
    /// The spec that was looked at last.
    spec: Option<VirtualMachineInstanceSpec>,
    attempts: u32,
    failed_at: Option<Instant>,
    /// Whether the VMI says that it failed.
    told: bool,
}

impl Plugging {
    /// A changed spec is looked at at once.
    fn changed(&mut self, vmi: &VirtualMachineInstance) {
        if self.spec.as_ref() != Some(&vmi.spec) {
            *self = Self { spec: Some(vmi.spec.clone()), attempts: 0, failed_at: None, told: self.told };
        }
    }

    fn again(&self) -> Option<Instant> {
        let wait = RETRY.0.saturating_mul(1 << self.attempts.min(8)).min(RETRY.1);
        self.failed_at.map(|failed| failed + wait)
    }

    fn is_due(&self) -> bool {
        self.again().is_none_or(|again| again <= Instant::now())
    }

    fn ended(&mut self, done: Result<(), SetupError>, teller: &Teller<'_>) {
        match done {
            Ok(()) => {
                self.failed_at = None;
                if std::mem::take(&mut self.told) {
                    teller.plugged();
                }
            }
            Err(error) => {
                self.told = true;
                teller.failed(&error);
                self.attempts += 1;
                self.failed_at = Some(Instant::now());
            }
        }
    }
}

/// Seconds that the guest has to power off.
fn grace_seconds(vmi: &VirtualMachineInstance) -> u64 {
    let grace = vmi.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE);
    u64::try_from(grace).unwrap_or(0)
}

/// When a launcher that is to end has had its time, counted from now; none for one that is to run.
fn overdue(vmi: Option<&VirtualMachineInstance>) -> Option<Instant> {
    let vmi = vmi.filter(|vmi| vmi.metadata.deletion_timestamp.is_some())?;
    Instant::now().checked_add(Duration::from_secs(grace_seconds(vmi)).saturating_add(OVERTIME))
}

/// Returns at that time; never where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Ends a sandbox whose launcher did not end by itself; whoever waits for that learns of it.
fn kill(process: Option<&Process>, teller: &Teller<'_>) {
    let message = "The launcher did not end in its time; its sandbox is killed.";
    tracing::warn!(message);
    teller.event(EventKind::Warning, HANDLER, "Killing", message);
    if let Some(Err(error)) = process.map(Process::kill) {
        tracing::error!(error = chain(&error), "failed to kill a sandbox");
    }
}

/// Returns when a launcher has ended; at once where there is none.
async fn ended(process: Option<&Process>) {
    if let Some(process) = process
        && let Err(error) = process.ended().await
    {
        tracing::warn!(error = chain(&error), "failed to wait for a launcher");
    }
}
