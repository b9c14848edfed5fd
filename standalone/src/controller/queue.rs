//! Which VM to look at, and when.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::store::Key;

/// Keys with the earliest time that each is due at.
#[derive(Debug, Default)]
pub struct Queue(BTreeMap<Key, Instant>);

impl Queue {
    /// Looks at `key` at that time, or before if that was said already.
    pub fn at(&mut self, key: Key, time: Instant) {
        self.0.entry(key).and_modify(|known| *known = (*known).min(time)).or_insert(time);
    }

    /// A key that is due; it is taken out.
    pub fn due(&mut self, now: Instant) -> Option<Key> {
        let key = self.0.iter().find(|(_, time)| **time <= now).map(|(key, _)| key.clone())?;
        self.0.remove(&key);
        Some(key)
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Kind;

    #[test]
    fn the_earliest_time_counts() {
        let mut queue = Queue::default();
        let key = Key::new(Kind::VirtualMachine, "default", "a");
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        queue.at(key.clone(), later);
        assert_eq!((queue.due(now), queue.next()), (None, Some(later)));
        queue.at(key.clone(), now);
        queue.at(key.clone(), later);
        assert_eq!(queue.due(now), Some(key));
        assert_eq!((queue.due(later), queue.next()), (None, None));
    }
}
