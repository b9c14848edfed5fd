//! Which object is due when (pure): each at most once at a time, the earliest time that was asked for counts.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Key;

/// The wait after the first failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Times at which objects are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    order: BTreeSet<(Instant, Key)>,
    times: HashMap<Key, Instant>,
    running: HashSet<Key>,
    failures: HashMap<Key, u32>,
}

impl Schedule {
    /// Looks at `key` at that time, or before if that was said already.
    pub fn at(&mut self, key: Key, time: Instant) {
        match self.times.get(&key) {
            Some(known) if *known <= time => return,
            Some(known) => {
                self.order.remove(&(*known, key.clone()));
            }
            None => {}
        }
        self.times.insert(key.clone(), time);
        self.order.insert((time, key));
    }

    /// Takes out an object that is due and not being looked at; it is, from here on.
    pub fn next(&mut self, now: Instant) -> Option<Key> {
        let due = self.order.iter().take_while(|(time, _)| *time <= now);
        let (time, key) = due.into_iter().find(|(_, key)| !self.running.contains(key))?.clone();
        self.order.remove(&(time, key.clone()));
        self.times.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// The object was looked at.
    pub fn done(&mut self, key: &Key) {
        self.running.remove(key);
        self.failures.remove(key);
    }

    /// Looking at the object failed: it is due again after a wait that grows.
    pub fn failed(&mut self, key: &Key, now: Instant) {
        self.running.remove(key);
        let failures = self.failures.entry(key.clone()).or_default();
        let wait = FIRST_WAIT.saturating_mul(1 << (*failures).min(16)).min(LONGEST_WAIT);
        *failures += 1;
        self.at(key.clone(), now + wait);
    }

    /// When the next one is due that is not being looked at.
    pub fn wake(&self) -> Option<Instant> {
        self.order.iter().find(|(_, key)| !self.running.contains(key)).map(|(time, _)| *time)
    }

    /// How many are being looked at.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_time_counts_and_one_at_a_time() {
        let mut schedule = Schedule::default();
        let (now, key) = (Instant::now(), Key::new("n", "a"));
        let later = now + Duration::from_secs(9);
        schedule.at(key.clone(), later);
        assert_eq!((schedule.next(now), schedule.wake()), (None, Some(later)));
        schedule.at(key.clone(), now);
        schedule.at(key.clone(), later);
        assert_eq!(schedule.next(now), Some(key.clone()));
        schedule.at(key.clone(), now);
        assert_eq!((schedule.next(now), schedule.wake()), (None, None), "it is being looked at");
        schedule.done(&key);
        assert_eq!(schedule.next(now), Some(key));
    }

    #[test]
    fn waits_grow_until_one_succeeds() {
        let mut schedule = Schedule::default();
        let (now, key) = (Instant::now(), Key::new("n", "a"));
        let wait = |schedule: &mut Schedule| {
            schedule.at(key.clone(), now);
            assert_eq!(schedule.next(now), Some(key.clone()));
            schedule.failed(&key, now);
            schedule.wake().unwrap() - now
        };
        assert_eq!(wait(&mut schedule), FIRST_WAIT);
        assert_eq!(wait(&mut schedule), FIRST_WAIT * 2);
        for _ in 0..40 {
            wait(&mut schedule);
        }
        assert_eq!(wait(&mut schedule), LONGEST_WAIT);
        schedule.at(key.clone(), now);
        schedule.next(now);
        schedule.done(&key);
        assert_eq!(wait(&mut schedule), FIRST_WAIT);
    }
}
