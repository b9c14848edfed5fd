//! Leader election by a Lease: of several processes of one kind, one works and the others wait.
//!
//! No clock is compared with another machine's. Who waits measures with its own monotonic clock for how long the Lease
//! has not changed, and takes it only after the whole duration that its holder promised; who holds counts from before
//! it sent its last successful renewal, and gives up while the others still have [`DURATION`] - [`DEADLINE`] to wait.
//! So two never lead at once, however wrong their clocks are, as long as they run equally fast.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a Lease that is not renewed stays its holder's.
const DURATION: Duration = Duration::from_secs(15);
/// How long a leader goes on without a renewal that succeeded.
const DEADLINE: Duration = Duration::from_secs(10);
const RENEW: Duration = Duration::from_secs(3);
/// Between two looks of a process that waits, and between two tries after an error.
const RETRY: Duration = Duration::from_secs(1);
const CALL: Duration = Duration::from_secs(5);

/// Why a process can never lead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses, and would refuse again.
    #[error("failed to take Lease `{0}`")]
    Refused(String, #[source] Box<kube::Error>),
}

/// The leadership. Dropping it gives the Lease up, [`Held::release`] waits until that is done.
#[derive(Debug)]
pub struct Held {
    renewal: JoinHandle<()>,
    stop: CancellationToken,
    lost: CancellationToken,
}

impl Held {
    /// Resolves when this process leads no more; it has to stop at once what only a leader does.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Gives the Lease up, so that the next one need not wait until it runs out.
    pub async fn release(mut self) {
        self.stop.cancel();
        let _ = (&mut self.renewal).await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until this process, which calls itself `identity`, leads.
///
/// # Errors
/// Where the API server refuses for good. While it cannot be reached, this waits.
pub async fn hold(client: Client, namespace: &str, lease_name: &str, identity: &str) -> Result<Held, Error> {
    let mut candidate = Candidate {
        api: Api::namespaced(client, namespace),
        name: lease_name.to_owned(),
        identity: identity.to_owned(),
        seen: None,
    };
    loop {
        let sent = Instant::now();
        match timeout(CALL, candidate.attempt()).await {
            Ok(Ok(Some(lease))) => {
                tracing::info!(lease = lease_name, identity, "leading");
                let (stop, lost) = (CancellationToken::new(), CancellationToken::new());
                let renewal = tokio::spawn(candidate.keep(lease, sent, stop.clone(), lost.clone()));
                return Ok(Held { renewal, stop, lost });
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) if is_final(&error) => return Err(Error::Refused(lease_name.to_owned(), Box::new(error))),
            Ok(Err(error)) => tracing::warn!(lease = lease_name, error = crate::chain(&error), "cannot take the Lease"),
            Err(_) => tracing::warn!(lease = lease_name, "the API server does not answer"),
        }
        sleep(RETRY).await;
    }
}

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The Lease as it was last seen, and since when it is so.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Candidate {
    /// One try: the Lease where it is ours now.
    async fn attempt(&mut self) -> Result<Option<Lease>, kube::Error> {
        let now = Instant::now();
        let written = match self.api.get_opt(&self.name).await? {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(taken(&LeaseSpec::default(), &self.identity)) };
                self.api.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                let spec = lease.spec.take().unwrap_or_default();
                let since = match &self.seen {
                    Some((seen, since)) if *seen == spec => *since,
                    _ => now,
                };
                let free = may_take(&spec, &self.identity, now - since);
                let next = taken(&spec, &self.identity);
                self.seen = Some((spec, since));
                if !free {
                    return Ok(None);
                }
                lease.spec = Some(next);
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match written {
            Ok(lease) => Ok(Some(lease)),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Renews `lease` until it is lost or this process wants to lead no more.
    async fn keep(self, mut lease: Lease, mut renewed: Instant, stop: CancellationToken, lost: CancellationToken) {
        let _told = lost.drop_guard();
        let mut pause = RENEW;
        loop {
            let over = renewed + DEADLINE;
            tokio::select! {
                () = stop.cancelled() => return self.give_up(lease).await,
                () = tokio::time::sleep_until(over) => break,
                () = sleep(pause) => {}
            }
            let sent = Instant::now();
            pause = RETRY;
            match tokio::time::timeout_at(over.min(sent + CALL), self.renew(&mut lease)).await {
                Ok(Ok(true)) => (renewed, pause) = (sent, RENEW),
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, error = crate::chain(&error), "cannot renew the Lease")
                }
                Err(_) => tracing::warn!(lease = self.name, "cannot renew the Lease: the API server does not answer"),
            }
        }
        tracing::error!(lease = self.name, identity = self.identity, "lost the Lease");
    }

    /// Whether it is still ours; an error leaves that open.
    async fn renew(&self, lease: &mut Lease) -> Result<bool, kube::Error> {
        let mut next = lease.clone();
        next.spec.get_or_insert_default().renew_time = Some(now());
        match self.api.replace(&self.name, &PostParams::default(), &next).await {
            Ok(written) => *lease = written,
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                // Somebody wrote it: perhaps a renewal of our own whose answer was lost. What is there now is renewed
                // at the next try, if it is ours.
                match self.api.get_opt(&self.name).await? {
                    Some(current) if holder(current.spec.as_ref()) == self.identity => *lease = current,
                    _ => return Ok(false),
                }
                return Err(kube::Error::Api(status));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    async fn give_up(&self, mut lease: Lease) {
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(now());
        match timeout(CALL, self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "gave the Lease up"),
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, error = crate::chain(&error), "cannot give the Lease up")
            }
            Err(_) => tracing::warn!(lease = self.name, "cannot give the Lease up: the API server does not answer"),
        }
    }
}

fn holder(spec: Option<&LeaseSpec>) -> &str {
    spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// Whether a Lease that has been as it is for `unchanged` may be taken by `identity`. One that bears our own identity
/// is that of a process of our name that has ended.
fn may_take(spec: &LeaseSpec, identity: &str, unchanged: Duration) -> bool {
    let holder = holder(Some(spec));
    let promised = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    holder.is_empty() || holder == identity || unchanged >= promised.map_or(DURATION, Duration::from_secs)
}

/// The Lease `before`, taken by `identity` now.
fn taken(before: &LeaseSpec, identity: &str) -> LeaseSpec {
    let now = now();
    let changes = holder(Some(before)) != identity && before.holder_identity.is_some();
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(changes))),
        ..LeaseSpec::default()
    }
}

fn now() -> MicroTime {
    MicroTime(Timestamp::now())
}

/// Whether the same call would be refused again.
fn is_final(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => (400..500).contains(&status.code) && status.code != 429,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(identity: &str) -> LeaseSpec {
        taken(&LeaseSpec::default(), identity)
    }

    #[test]
    fn a_lease_of_another_is_left_alone_until_its_duration_has_passed_here() {
        let lease = held_by("other");
        assert!(!may_take(&lease, "me", Duration::ZERO));
        assert!(!may_take(&lease, "me", DURATION - Duration::from_millis(1)));
        assert!(may_take(&lease, "me", DURATION));
    }

    #[test]
    fn the_clock_of_the_holder_does_not_matter() {
        let mut lease = held_by("other");
        lease.renew_time = Some(MicroTime("1999-01-01T00:00:00Z".parse().unwrap()));
        assert!(!may_take(&lease, "me", Duration::from_secs(1)));
    }

    #[test]
    fn a_lease_that_was_given_up_or_is_our_own_is_free_at_once() {
        assert!(may_take(&LeaseSpec::default(), "me", Duration::ZERO));
        assert!(may_take(&held_by(""), "me", Duration::ZERO));
        assert!(may_take(&held_by("me"), "me", Duration::ZERO));
    }

    #[test]
    fn a_holder_that_promised_more_is_waited_for() {
        let lease = LeaseSpec { lease_duration_seconds: Some(60), ..held_by("other") };
        assert!(!may_take(&lease, "me", Duration::from_secs(59)));
        assert!(may_take(&lease, "me", Duration::from_secs(60)));
    }

    #[test]
    fn a_transition_is_a_change_of_holder() {
        let first = held_by("a");
        assert_eq!(first.lease_transitions, Some(0));
        let again = taken(&first, "a");
        assert_eq!(again.lease_transitions, Some(0));
        assert_eq!(taken(&again, "b").lease_transitions, Some(1));
    }

    #[test]
    fn a_leader_gives_up_before_another_may_take_over() {
        assert!(RENEW < DEADLINE && DEADLINE < DURATION);
        assert!(RENEW + RETRY < DEADLINE, "one renewal may fail");
    }
}
