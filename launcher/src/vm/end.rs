//! How a VM ends: asked to, by itself, or by force.

use std::io;
use std::time::{Duration, Instant};

use holdfast_agent_api::launcher::{DomainState, FinalState};
use holdfast_api::kubevirt::VirtualMachineInstance;

use super::{Vm, chain};
use crate::libvirt::ShutOff;
use crate::paths::{self, Paths};

/// The guest is asked again this often: one that is still booting does not listen yet.
const PRESS_AGAIN: Duration = Duration::from_secs(5);
/// What the hypervisor has to end a domain that is destroyed; after that the sandbox's end must do.
const DESTROY: Duration = Duration::from_secs(30);
/// How long the agent has to come and hear of the end.
const LINGER: Duration = Duration::from_secs(10);
/// What other connections have to finish an answer.
const SETTLE: Duration = Duration::from_millis(50);

/// A domain on its way out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    grace: Duration,
    destroy_at: Instant,
    press_at: Instant,
    asked: bool,
    destroyed: bool,
    give_up_at: Instant,
}

impl Stopping {
    fn new(grace: Duration) -> Self {
        let now = Instant::now();
        let destroy_at = now + grace;
        Self { grace, destroy_at, press_at: now, asked: false, destroyed: false, give_up_at: destroy_at + DESTROY }
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Instant {
        if self.destroyed { self.give_up_at } else { self.press_at.min(self.destroy_at) }
    }
}

/// A domain that is gone, while the agent may still ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    over_at: Instant,
}

impl Ended {
    pub(super) fn now() -> Self {
        Self { over_at: Instant::now() + LINGER }
    }

    /// The agent knows: nothing is left to wait for but answers that are being written.
    pub(super) fn seen(&mut self) {
        self.over_at = self.over_at.min(Instant::now() + SETTLE);
    }

    pub(super) fn over_at(&self) -> Instant {
        self.over_at
    }

    pub(super) fn is_over(&self) -> bool {
        self.over_at <= Instant::now()
    }
}

/// The final state that was recorded here, if any.
pub(super) fn recorded(paths: &Paths) -> Option<FinalState> {
    let contents = std::fs::read(paths.final_state()).ok()?;
    serde_json::from_slice(&contents).ok()
}

/// Records the final state.
pub(super) fn record(paths: &Paths, end: &FinalState) -> io::Result<()> {
    paths::replace(&paths.final_state(), &serde_json::to_vec(end)?)
}

/// Whether the guest has ACPI and so a power button.
pub(super) fn has_acpi(vmi: &VirtualMachineInstance) -> bool {
    let acpi = vmi.spec.domain.features.as_ref().and_then(|features| features.acpi.as_ref());
    acpi.is_none_or(|acpi| acpi.enabled != Some(false))
}

impl Vm {
    /// Begins to stop the guest; a shorter grace period than before takes over.
    pub(super) fn stop(&mut self, grace: Duration) {
        if self.ended.is_some() {
            return;
        }
        if !self.started && self.reconnect_at.is_some() {
            // A launcher before this one may have started it.
            self.reconnect();
        }
        if !self.started && self.ended.is_none() {
            let message = "the VM was stopped before it ran".to_owned();
            self.finish(FinalState { succeeded: true, reason: "NeverStarted".to_owned(), message });
            self.tell_end();
            return;
        }
        if self.ended.is_some() {
            return;
        }
        // A guest that was paused by a user cannot hear the power button.
        let grace = if self.is_paused_by_user() { Duration::ZERO } else { grace };
        let stopping = Stopping::new(grace);
        if self.stopping.is_none_or(|before| stopping.destroy_at < before.destroy_at) {
            self.stopping = Some(stopping);
        }
        self.refresh();
    }

    /// Does what is due on the way out.
    pub(super) fn go_on_stopping(&mut self, now: Instant) {
        let Some(mut stopping) = self.stopping else { return };
        if stopping.destroyed {
            if stopping.give_up_at <= now {
                let message = "the hypervisor did not end the VM in time; it ends with its sandbox".to_owned();
                self.finish(FinalState { succeeded: false, reason: "Destroyed".to_owned(), message });
                self.tell_end();
            }
            return;
        }
        let destroy = stopping.destroy_at <= now;
        if !destroy && stopping.press_at > now {
            return;
        }
        // The agent's word is the surest; a guest that does not follow it gets the button.
        let agent = self.status.agent_connected && !stopping.asked;
        stopping.destroyed = destroy;
        stopping.asked = true;
        stopping.press_at = now + PRESS_AGAIN;
        self.stopping = Some(stopping);
        let Some(guest) = self.guest() else { return };
        let thread = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            let done = if destroy { guest.destroy() } else { guest.shut_down(agent) };
            if let Err(error) = done {
                tracing::warn!(error = chain(&error), "failed to stop the guest");
            }
        });
        if let Err(error) = thread {
            tracing::error!(%error, "failed to start a thread");
        }
    }

    /// libvirt says that the domain does not run.
    pub(super) fn shut_off(&mut self, why: ShutOff) {
        let end = |succeeded, reason: &str, message: &str| FinalState {
            succeeded,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let end = match why {
            // Between its definition and its start; a failed start is told to the one who asked for it.
            ShutOff::NeverRan | ShutOff::NotStarted if !self.started => return,
            ShutOff::Shutdown => end(true, "Shutdown", "the guest powered off"),
            ShutOff::Destroyed => match self.stopping.filter(|stopping| stopping.destroyed) {
                Some(stopping) => {
                    let seconds = stopping.grace.as_secs();
                    let message = format!("the VM was destroyed after its grace period of {seconds} s");
                    end(!self.acpi, "Destroyed", &message)
                }
                None => end(!self.acpi, "Destroyed", "the VM was destroyed"),
            },
            ShutOff::NeverRan | ShutOff::NotStarted | ShutOff::Crashed => {
                end(false, "Crashed", "the hypervisor ended unexpectedly")
            }
        };
        self.finish(end);
    }

    /// libvirt knows no such domain any more.
    pub(super) fn vanished(&mut self) {
        let message = "the domain is no longer known to libvirt".to_owned();
        self.finish(FinalState { succeeded: false, reason: "Crashed".to_owned(), message });
    }

    fn tell_end(&mut self) {
        debug_assert!(matches!(self.status.state, DomainState::Final(_)));
        let event = holdfast_agent_api::launcher::Event::Domain(self.status.clone());
        self.tell(&event);
    }
}
