//! The loop of a VMI's task: look at what is wanted and what is there, do the next steps, wait for a change.
//!
//! Level-triggered: nothing is remembered that cannot be found out again, and each pass may be the first after a
//! restart. Invariants: pod interfaces are wired before the launcher is told of them; following events never
//! depends on the wiring, so that a running VM is seen whatever else fails; only the end of the launcher's
//! process, or its lasting absence, makes a VMI final without the launcher's own word.

use std::future::{Future, pending};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use holdfast_agent_api::launcher::{DomainState, Event, Failure, FailureClass, FinalState, Request};
use holdfast_agent_api::launcher::{Response, Sync};
use holdfast_api::kubevirt::VirtualMachineInstanceSpec;
use holdfast_net::kernel::{Changes, Place, Wiring};
use holdfast_net::model::GuestNic;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::launcher::{Launcher, LauncherError, Process, Watch};
use super::nics;
use super::wire::{self, Wired};
use crate::beneath;
use crate::repairs::{Heard, Repair};

use super::{NicInput, VmiContext, VmiInput, VmiReport, Wanted};

/// More than this a launcher has not to say in the end, in bytes.
const LONGEST_LAST_WORDS: u64 = 64 << 10;

/// From a change in the pod to the look at its wiring: changes come in groups.
const GATHER: Duration = Duration::from_millis(50);
/// How many times as long as a look took there is none after it, and at least how long.
const REST: (u32, Duration) = (10, Duration::from_millis(200));

/// How long a sandbox that ends may go on after its launcher.
const SUCCESSION: Duration = Duration::from_millis(500);

/// A sync under way.
type SyncJob = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// What decides on whether the launcher has to be told anew.
#[derive(Clone, Debug, PartialEq)]
struct SyncKey {
    spec: VirtualMachineInstanceSpec,
    nics: Vec<GuestNic>,
}

/// When to try a step (again), and how its last attempt failed.
#[derive(Debug)]
struct Attempt {
    at: Instant,
    delay: Duration,
    failure: Option<Failure>,
}

impl Attempt {
    fn due_now() -> Self {
        Self { at: Instant::now(), delay: Duration::ZERO, failure: None }
    }

    fn is_due(&self) -> bool {
        self.at <= Instant::now()
    }

    fn succeeded(&mut self, next: Duration) {
        *self = Self { at: Instant::now() + next, delay: Duration::ZERO, failure: None };
    }

    fn failed(&mut self, failure: Failure, context: &VmiContext) {
        let timing = &context.timing;
        // What is wrong in itself waits for a change, which makes it due at once; the slow retry is for causes outside.
        let first = if failure.class == FailureClass::Invalid { timing.retry_most } else { timing.retry_first };
        self.delay = (self.delay * 2).clamp(first, timing.retry_most);
        self.at = Instant::now() + self.delay;
        if self.failure.as_ref() != Some(&failure) {
            tracing::warn!(reason = failure.reason, "{}", failure.message);
        }
        self.failure = Some(failure);
        context.metrics.failures.inc();
    }
}

/// The state of the loop.
pub struct Worker {
    context: VmiContext,
    input: watch::Receiver<VmiInput>,
    report: watch::Sender<VmiReport>,
    /// Since when the launcher has been out of reach.
    absent_since: Instant,
    process: Option<Process>,
    watch: Option<Watch>,
    attach: Attempt,
    /// What the wiring was last made of: the spec, its NICs, and those of them that are no devices any more.
    wired_for: Option<(VirtualMachineInstanceSpec, Vec<NicInput>, Vec<String>)>,
    wired: Option<Wired>,
    wiring: Attempt,
    changes: Changes,
    /// Where changes are the pod's; unknown until it is wired.
    place: Option<Place>,
    /// When changes lead to another look at the wiring, at the earliest.
    rested: Instant,
    repairs: Heard,
    job: Option<(SyncKey, SyncJob)>,
    synced: Option<SyncKey>,
    sync: Attempt,
    stop: Attempt,
    /// When to compare what events told with the domain itself.
    look_at: Instant,
}

impl Worker {
    /// A loop that knows nothing yet.
    pub fn new(context: VmiContext, input: watch::Receiver<VmiInput>, report: watch::Sender<VmiReport>) -> Self {
        Self {
            changes: context.wiring.changes(),
            place: None,
            rested: Instant::now(),
            repairs: context.repairs.heard(),
            context,
            input,
            report,
            absent_since: Instant::now(),
            process: None,
            watch: None,
            attach: Attempt::due_now(),
            wired_for: None,
            wired: None,
            wiring: Attempt::due_now(),
            job: None,
            synced: None,
            sync: Attempt::due_now(),
            stop: Attempt::due_now(),
            look_at: Instant::now(),
        }
    }

    /// Runs until the handle is dropped.
    pub async fn run(mut self) {
        loop {
            let wake = self.pass().await;
            if self.report.borrow().final_state().is_some() {
                self.watch = None;
                // Nothing can follow; the last report stays readable.
                while self.input.changed().await.is_ok() {}
                return;
            }
            tokio::select! {
                // Events before the process's end: its last words count.
                biased;
                event = next_event(self.watch.as_mut()) => self.heard(event),
                result = finished(self.job.as_mut()) => self.synced(result),
                () = exited(self.process.as_ref()) => self.ended().await,
                changed = self.input.changed() => if changed.is_err() { return },
                repair = self.repairs.next() => self.repaired(repair),
                () = changed(&mut self.changes, self.place.as_ref()) => self.disturbed(),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Does what is due; returns when something will be due again.
    async fn pass(&mut self) -> Instant {
        let input = self.input.borrow_and_update().clone();
        if self.watch.is_none() && self.attach.is_due() {
            self.attach(&input).await;
        } else if self.watch.is_some() && self.look_at <= Instant::now() {
            self.look(&input).await;
        }
        match input.wanted {
            // The look comes first: a VM that has ended meanwhile shall not be wired anew.
            _ if self.report.borrow().final_state().is_some() => {}
            Wanted::Run => {
                self.wire(&input).await;
                self.start_sync(&input);
            }
            Wanted::Shutdown { grace_seconds } => self.stop(&input, grace_seconds).await,
        }
        self.tell(|_| {});
        let mut wake = if self.watch.is_some() { self.look_at } else { self.attach.at };
        match input.wanted {
            Wanted::Run => {
                wake = wake.min(self.wiring.at);
                if self.sync.failure.is_some() {
                    wake = wake.min(self.sync.at);
                }
            }
            Wanted::Shutdown { .. } => {
                if self.stop.failure.is_some() {
                    wake = wake.min(self.stop.at);
                }
            }
        }
        wake
    }

    async fn attach(&mut self, input: &VmiInput) {
        let launcher = Launcher::of(input);
        let call = self.context.timing.call;
        let attached = async { Ok((launcher.attach(call).await?, launcher.watch(call).await?)) }.await;
        match attached {
            Ok((process, watch)) => {
                tracing::debug!(pid = process.pid, "attached to the launcher");
                let pid = u32::try_from(process.pid).ok();
                self.process = Some(process);
                self.watch = Some(watch);
                self.attach.succeeded(Duration::ZERO);
                self.look_at = Instant::now() + self.context.timing.check;
                // A launcher that was away may have come back empty.
                self.synced = None;
                self.tell(|report| report.launcher_pid = pid);
            }
            Err(error) => self.not_attached(input, &error),
        }
    }

    /// Asks for the domain's state, in case that an event was lost or the launcher hangs.
    async fn look(&mut self, input: &VmiInput) {
        let call = self.context.timing.call;
        self.look_at = Instant::now() + self.context.timing.check;
        match Launcher::of(input).call("look at", Request::Domain, Vec::new(), call).await {
            Ok(Response::Domain(status)) => {
                if status.nics.iter().flatten().any(|name| nics::is_leaving(&input.vmi, name)) {
                    // The guest did not let a NIC go when it was asked: it is asked again.
                    self.synced = None;
                }
                self.heard(Some(Event::Domain(*status)));
            }
            Ok(_) => self.attach.failed(LauncherError::Unexpected { verb: "look at" }.failure(), &self.context),
            Err(error) => {
                self.heard(None);
                self.attach.failed(error.failure(), &self.context);
            }
        }
    }

    fn not_attached(&mut self, input: &VmiInput, error: &LauncherError) {
        if let Some(end) = read_final(input) {
            return self.finish(end);
        }
        let LauncherError::Absent { source, .. } = error else {
            return self.attach.failed(error.failure(), &self.context);
        };
        let timing = &self.context.timing;
        let patience = match source.kind() {
            std::io::ErrorKind::ConnectionRefused => timing.launcher_refuses,
            _ => timing.launcher_start,
        };
        if self.process.is_none() && self.absent_since.elapsed() >= patience {
            return self.finish(lost(&format!("it did not listen within {} s", patience.as_secs_f32())));
        }
        // Expected while it starts: no failure, and soon again.
        self.attach.delay = (self.attach.delay * 2).clamp(timing.retry_first, timing.retry_first * 16);
        self.attach.at = Instant::now() + self.attach.delay;
    }

    async fn wire(&mut self, input: &VmiInput) {
        let gone = unplugged(input, self.leaving(input), self.context.timing.call).await;
        let made_of = (input.vmi.spec.clone(), input.nics.clone(), gone.clone());
        let changed = self.wired_for.as_ref() != Some(&made_of);
        if !changed && !self.wiring.is_due() {
            return;
        }
        let begin = Instant::now();
        match wire::wire(&self.context.wiring, &self.context.state, input, &gone).await {
            Ok((wired, steps)) => {
                if !steps.is_empty() && !changed && self.wiring.failure.is_none() {
                    self.context.metrics.drift_repairs.inc_by(steps.len() as u64);
                    let what = steps.join("; ");
                    tracing::warn!(what, "repaired the VMI's wiring, which somebody else had changed");
                    self.tell(|report| report.repairs = (report.repairs.0 + 1, what));
                }
                self.place = place_of(&self.context.wiring, &input.sandbox.netns).await;
                self.tell(|report| {
                    report.nics.clone_from(&wired.reports);
                    report.unplugged = gone;
                });
                self.wired = Some(wired);
                self.wiring.succeeded(self.context.timing.check);
            }
            Err(error) => self.wiring.failed(error.failure(), &self.context),
        }
        self.wired_for = Some(made_of);
        self.rested = Instant::now() + (begin.elapsed() * REST.0).max(REST.1);
    }

    /// The NICs that are wanted gone, once the launcher was told.
    fn leaving(&self, input: &VmiInput) -> Vec<String> {
        let told = self.synced.as_ref().is_some_and(|key| key.spec == input.vmi.spec) && self.sync.failure.is_none();
        let all = input.nics.iter().map(|nic| &nic.interface);
        all.filter(|nic| told && nics::is_leaving(&input.vmi, nic)).cloned().collect()
    }

    /// Something in the pod may have changed.
    fn disturbed(&mut self) {
        if self.wiring.failure.is_none() {
            self.wiring.at = self.wiring.at.min(self.rested.max(Instant::now() + GATHER));
        }
    }

    /// Something of its attachments was mended.
    fn repaired(&self, repair: Repair) {
        if repair.container_id == self.input.borrow().sandbox.id {
            self.tell(|report| report.repairs = (report.repairs.0 + 1, repair.what));
        }
    }

    /// Tells the launcher what to run, unless it knows.
    fn start_sync(&mut self, input: &VmiInput) {
        let (Some(wired), Some(_)) = (&self.wired, &self.watch) else { return };
        if self.wiring.failure.is_some() {
            return;
        }
        let key = SyncKey { spec: input.vmi.spec.clone(), nics: wired.nics.clone() };
        let running = self.job.as_ref().map(|(key, _)| key);
        let is_known = self.synced.as_ref() == Some(&key) && (self.sync.failure.is_none() || !self.sync.is_due());
        if is_known || running == Some(&key) {
            return;
        }
        self.job = Some((key.clone(), Box::pin(sync(self.context.clone(), input.clone(), key.nics))));
    }

    fn synced(&mut self, result: Result<(), Failure>) {
        self.synced = self.job.take().map(|(key, _)| key);
        match result {
            Ok(()) => self.sync.succeeded(Duration::ZERO),
            Err(failure) => self.sync.failed(failure, &self.context),
        }
    }

    async fn stop(&mut self, input: &VmiInput, grace_seconds: u64) {
        let told = self.report.borrow().stopping == Some(grace_seconds);
        if told || self.watch.is_none() || !(self.stop.failure.is_none() || self.stop.is_due()) {
            return;
        }
        let call = self.context.timing.call;
        match Launcher::of(input).call("stop", Request::Shutdown { grace_seconds }, Vec::new(), call).await {
            Ok(_) => {
                self.stop.succeeded(Duration::ZERO);
                self.tell(|report| report.stopping = Some(grace_seconds));
            }
            Err(error) => self.stop.failed(error.failure(), &self.context),
        }
    }

    /// An event of the launcher, or the end of its stream.
    fn heard(&mut self, event: Option<Event>) {
        match event {
            Some(Event::Domain(status)) => self.tell(|report| {
                if !status.agent_connected {
                    report.guest = None;
                }
                report.domain = status;
            }),
            Some(Event::Guest(info)) => self.tell(|report| report.guest = Some(*info)),
            Some(Event::Rebooted) => tracing::debug!("the guest rebooted"),
            None => {
                self.watch = None;
                self.absent_since = Instant::now();
                self.attach = Attempt::due_now();
                self.context.metrics.launcher_disconnects.inc();
            }
        }
    }

    /// The launcher's process has ended: its last words are in its file, or still on the way. One that died is started
    /// again in its sandbox, and takes over its VM.
    async fn ended(&mut self) {
        let input = self.input.borrow().clone();
        let process = self.process.take();
        if let Some(end) = read_final(&input) {
            return self.finish(end);
        }
        let patience = self.context.timing.call;
        if let Some(mut watch) = self.watch.take() {
            let rest = async {
                while let Some(event) = watch.next().await {
                    self.heard(Some(event));
                }
            };
            // Bounded, for a child of the launcher may hold the connection open.
            let _ = timeout(patience, rest).await;
        }
        if self.report.borrow().final_state().is_some() {
            return;
        }
        let again = match process {
            Some(process) => process.has_successor(SUCCESSION).await,
            None => false,
        };
        if let Some(end) = read_final(&input) {
            self.finish(end);
        } else if again {
            tracing::warn!("the launcher died; its sandbox starts it again");
            self.heard(None);
        } else {
            self.finish(lost("its process ended without telling how the VM did"));
        }
    }

    fn finish(&mut self, end: FinalState) {
        tracing::info!(reason = end.reason, succeeded = end.succeeded, "the VM has ended: {}", end.message);
        self.tell(|report| report.domain.state = DomainState::Final(end));
    }

    /// Changes the report; readers are woken only where it is another one.
    fn tell(&self, change: impl FnOnce(&mut VmiReport)) {
        let attempts = [&self.wiring, &self.attach, &self.sync, &self.stop];
        let failure = attempts.into_iter().find_map(|attempt| attempt.failure.clone());
        let connected = self.watch.is_some();
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            report.failure = if report.final_state().is_some() { None } else { failure };
            if !connected {
                report.launcher_pid = None;
            }
            *report != before
        });
    }
}

async fn sync(context: VmiContext, input: VmiInput, nics: Vec<GuestNic>) -> Result<(), Failure> {
    let encode = |error: serde_json::Error| Failure {
        class: FailureClass::Bug,
        reason: "EncodeFailed".to_owned(),
        message: format!("failed to encode the VMI: {error}"),
    };
    let sockets = wire::dhcp_sockets(&context.wiring, &input.sandbox.netns, &nics).await;
    let mut descriptors = sockets.map_err(|error| error.failure())?;
    if nics.iter().any(|nic| nic.macvtap) && !is_started(&context, &input).await? {
        let taps = wire::macvtaps(&context.wiring, &input.sandbox.netns, &nics).await;
        descriptors.extend(taps.map_err(|error| error.failure())?);
    }
    let mut vmi = input.vmi.clone();
    vmi.status = None;
    let vmi = serde_json::to_value(&vmi).map_err(encode)?;
    let capabilities = context.capabilities.of(context.emulation).to_vec();
    let request = Request::Sync(Box::new(Sync { vmi, nics, emulation: context.emulation, capabilities }));
    match Launcher::of(&input).call("start", request, descriptors, context.timing.sync).await {
        // The state itself comes as an event, in order with those that follow it.
        Ok(Response::Domain(_)) => Ok(()),
        Ok(_) => Err(LauncherError::Unexpected { verb: "start" }.failure()),
        Err(error) => Err(error.failure()),
    }
}

/// Whether the launcher has a domain, which has its taps.
async fn is_started(context: &VmiContext, input: &VmiInput) -> Result<bool, Failure> {
    match Launcher::of(input).call("look at", Request::Domain, Vec::new(), context.timing.call).await {
        Ok(Response::Domain(status)) => Ok(status.state != DomainState::None),
        Ok(_) => Err(LauncherError::Unexpected { verb: "look at" }.failure()),
        Err(error) => Err(error.failure()),
    }
}

/// Those of the NICs that the launcher was told to unplug that are no devices any more. It is asked: an event may be from
/// before it was told.
async fn unplugged(input: &VmiInput, leaving: Vec<String>, call: Duration) -> Vec<String> {
    if leaving.is_empty() {
        return leaving;
    }
    match Launcher::of(input).call("look at", Request::Domain, Vec::new(), call).await {
        Ok(Response::Domain(status)) => {
            let there = status.nics;
            leaving.into_iter().filter(|nic| there.as_ref().is_some_and(|there| !there.contains(nic))).collect()
        }
        _ => Vec::new(),
    }
}

/// What the launcher wrote down before it ended.
fn read_final(input: &VmiInput) -> Option<FinalState> {
    last_words(&input.sandbox.share_dir)
}

/// What a launcher wrote down before it ended, in the folder that it sees as /var/run/kubevirt.
pub fn last_words(share_dir: &Path) -> Option<FinalState> {
    let text = match beneath::read(share_dir, Path::new("final.json"), LONGEST_LAST_WORDS) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Some(lost("its last words are no file"));
        }
        Err(_) => return None,
    };
    // It is renamed into place, so a broken one is no unfinished one.
    Some(serde_json::from_slice(&text).unwrap_or_else(|_| lost("its last words are unreadable")))
}

fn lost(how: &str) -> FinalState {
    FinalState { succeeded: false, reason: "LauncherLost".to_owned(), message: format!("launcher lost: {how}") }
}

async fn next_event(watch: Option<&mut Watch>) -> Option<Event> {
    match watch {
        Some(watch) => watch.next().await,
        None => pending().await,
    }
}

/// Where changes are those of a pod.
async fn place_of(wiring: &Wiring, netns: &Path) -> Option<Place> {
    let places = wiring.places_of(vec![netns.to_owned()]).await;
    places
        .inspect_err(|error| tracing::warn!(%error, "changes in a pod are found at the next look only"))
        .ok()?
        .pop()?
}

/// Returns when something may have changed in this place.
async fn changed(changes: &mut Changes, there: Option<&Place>) {
    loop {
        let place = changes.next().await;
        if place == Place::Anywhere || Some(&place) == there {
            return;
        }
    }
}

async fn finished(job: Option<&mut (SyncKey, SyncJob)>) -> Result<(), Failure> {
    match job {
        Some((_, job)) => job.await,
        None => pending().await,
    }
}

async fn exited(process: Option<&Process>) {
    match process {
        Some(process) => process.exited().await,
        None => pending().await,
    }
}
