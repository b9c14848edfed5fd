//! Calls a controller for each object that something happened to.

use std::future::Future;
use std::time::{Duration, Instant};

use holdfast_kubernetes::chain;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::Key;
use super::schedule::Schedule;
use crate::metrics::QueueMetrics;

/// How many objects of one kind are looked at at the same time.
const CONCURRENCY: usize = 16;

/// What came of looking at an object.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is as it shall be until something happens.
    Done,
    /// Look again after that time at the latest.
    After(Duration),
    /// It is not as it shall be, which has been told where users look: try again, less and less often.
    Retry,
}

/// Tells a controller of objects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue(mpsc::UnboundedSender<(Key, Instant)>);

/// The other end of a [`Queue`].
pub struct Inbox(mpsc::UnboundedReceiver<(Key, Instant)>);

impl Queue {
    /// A queue, and what [`work`] takes.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Inbox(receiver))
    }

    /// Something happened to this object.
    pub fn add(&self, key: Key) {
        self.add_in(key, Duration::ZERO);
    }

    /// Something happened to this object that more may follow upon: all of it is one look, after that time.
    pub fn add_in(&self, key: Key, wait: Duration) {
        // A controller that has ended looks at nothing any more.
        let _ = self.0.send((key, Instant::now() + wait));
    }
}

/// Looks at objects until all senders are gone. An error is logged here, and the object is tried again.
pub async fn work<F, R, E>(name: &'static str, mut inbox: Inbox, metrics: QueueMetrics, reconcile: F)
where
    F: Fn(Key) -> R,
    R: Future<Output = Result<Outcome, E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let mut schedule = Schedule::default();
    let mut tasks: JoinSet<(Key, Option<Result<Outcome, E>>)> = JoinSet::new();
    loop {
        while schedule.running() < CONCURRENCY
            && let Some(key) = schedule.next(Instant::now())
        {
            // A panic is a bug in looking at this one object; the others go on. Who leads no more looks at nothing any
            // more: with this future, what it began ends.
            let job = AbortOnDropHandle::new(tokio::spawn(reconcile(key.clone())));
            tasks.spawn(async move { (key, job.await.ok()) });
        }
        metrics.depth(schedule.waiting());
        let wake = schedule.wake().filter(|_| schedule.running() < CONCURRENCY);
        tokio::select! {
            key = inbox.0.recv() => match key {
                Some((key, time)) => schedule.at(key, time),
                None => return,
            },
            Some(Ok((key, result))) = tasks.join_next() => {
                let now = Instant::now();
                metrics.looked(matches!(result, Some(Ok(_))));
                match result {
                    Some(Ok(Outcome::Done)) => schedule.done(&key),
                    Some(Ok(Outcome::After(wait))) => {
                        schedule.done(&key);
                        schedule.at(key, now + wait);
                    }
                    Some(Ok(Outcome::Retry)) => schedule.failed(&key, now),
                    Some(Err(error)) => {
                        tracing::warn!(controller = name, object = %key, error = chain(&error), "failed to reconcile");
                        schedule.failed(&key, now);
                    }
                    None => {
                        tracing::error!(controller = name, object = %key, "looking at it panicked");
                        schedule.failed(&key, now);
                    }
                }
            }
            () = sleep_until(wake) => {}
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
