//! The state of a group's messages: values and rules, without I/O and without a clock.
//!
//! A process asks for a [`Change`], writes it to the group's file, and applies it. Others read the
//! changes from the file and apply them in the same order, so that all have the same state. In
//! `model`, a model checker runs this code.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::LogId;

/// A message after [`GroupState::done`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The message.
    pub id: LogId,
    /// Messages with the same key are leased one after the other.
    pub key: Option<u64>,
    /// How often it has been leased.
    pub deliveries: u32,
    /// Its state.
    pub place: Place,
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// No worker has it, and it is not leased before this time.
    Waits {
        /// Milliseconds since 1970.
        until: u64,
        /// The length of the wait, in milliseconds.
        time: u64,
    },
    /// A worker has it.
    Leased {
        /// The lease's number.
        lease: u64,
        /// When it expires, in milliseconds since 1970.
        until: u64,
        /// The length of the lease, in milliseconds.
        time: u64,
    },
    /// It is acknowledged, but an earlier message is not.
    Done,
}

/// A change of the state: a record of the group's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Identifies the segment's file by device and inode. The ids of its messages mean nothing in
    /// another file.
    Segment {
        /// The segment.
        number: u32,
        /// Its file.
        file: (u64, u64),
    },
    /// The next message was added; no worker has it.
    Take {
        /// The message.
        id: LogId,
        /// Its key.
        key: Option<u64>,
        /// How often it had been leased before: 0, except in a file that replaces a longer one.
        deliveries: u32,
    },
    /// A worker has it from now on.
    Lease {
        /// The message.
        id: LogId,
        /// The lease's number.
        lease: u64,
        /// When it expires, in milliseconds since 1970.
        until: u64,
        /// How long it lasts, in milliseconds.
        time: u64,
        /// Whether it is a new delivery; otherwise a lease is extended.
        delivers: bool,
    },
    /// Its worker gave it back.
    Return {
        /// The message.
        id: LogId,
        /// It is not leased before this time, in milliseconds since 1970.
        until: u64,
        /// How long that is from now, in milliseconds.
        time: u64,
    },
    /// It is done.
    Acknowledge {
        /// The message.
        id: LogId,
    },
    /// The checkpoint has been stored.
    Commit {
        /// The checkpoint.
        id: LogId,
    },
}

/// The state of a group's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupState {
    /// The checkpoint as the group has stored it.
    pub committed: LogId,
    /// Everything up to here is done.
    pub done: LogId,
    /// The last message that was added.
    pub taken: LogId,
    /// No lease has had this number or a later one.
    pub next_lease: u64,
    /// Messages after `done`; the first one is not acknowledged.
    pub entries: VecDeque<Entry>,
    /// The files of their segments.
    pub segments: BTreeMap<u32, (u64, u64)>,
}

/// Whether a time span that ends at `until` is over. Setting the clock back does not make it
/// longer.
fn is_over(until: u64, time: u64, now: u64) -> bool {
    until <= now || until - now > time
}

impl GroupState {
    /// A group that begins after this checkpoint.
    pub fn new(checkpoint: LogId, next_lease: u64) -> Self {
        let (committed, done, taken) = (checkpoint, checkpoint, checkpoint);
        Self { committed, done, taken, next_lease, ..Self::default() }
    }

    /// Whether this group has stored the checkpoint, or was storing it when it was interrupted; or
    /// whether it moved forward past no open message (from the end of a segment to the beginning of
    /// the next, for example). Otherwise somebody has moved the subscriber.
    fn agrees_with(&self, checkpoint: LogId) -> bool {
        let open = self.entries.front().map(|first| first.id);
        checkpoint >= self.committed && (checkpoint <= self.done || open.is_none_or(|open| checkpoint < open))
    }

    /// The first step of a process that has locked the file: it records a checkpoint that moved
    /// forward. If somebody has moved the subscriber, the error is the state with which the group
    /// starts over.
    pub fn begin(&self, checkpoint: LogId) -> Result<Option<Change>, Self> {
        if !self.agrees_with(checkpoint) {
            return Err(Self::new(checkpoint, self.next_lease));
        }
        Ok((checkpoint > self.done).then_some(Change::Commit { id: checkpoint }))
    }

    /// Adds the next message that was read.
    pub fn take(&self, id: LogId, key: Option<u64>) -> Option<Change> {
        (id > self.taken).then_some(Change::Take { id, key, deliveries: 0 })
    }

    /// A lease of the oldest message that is free. A message is not free while an older one with
    /// the same key is not done.
    pub fn lease(&self, now: u64, time: u64) -> Option<Change> {
        let mut keys = HashSet::new();
        for Entry { id, key, place, .. } in &self.entries {
            let free = match *place {
                Place::Done => continue,
                Place::Waits { until, time } | Place::Leased { until, time, .. } => is_over(until, time, now),
            };
            let is_first = key.is_none_or(|key| keys.insert(key));
            if free && is_first {
                let (id, lease, until) = (*id, self.next_lease, now.saturating_add(time));
                return Some(Change::Lease { id, lease, until, time, delivers: true });
            }
        }
        None
    }

    /// Extends a lease that is still valid: no other worker has the message.
    pub fn extend(&self, id: LogId, lease: u64, now: u64, time: u64) -> Option<Change> {
        let until = now.saturating_add(time);
        self.holds(id, lease).then_some(Change::Lease { id, lease, until, time, delivers: false })
    }

    /// Acknowledges a message whose lease is still valid.
    pub fn acknowledge(&self, id: LogId, lease: u64) -> Option<Change> {
        self.holds(id, lease).then_some(Change::Acknowledge { id })
    }

    /// Gives back a message whose lease is still valid.
    pub fn give_back(&self, id: LogId, lease: u64, now: u64, time: u64) -> Option<Change> {
        let until = now.saturating_add(time);
        self.holds(id, lease).then_some(Change::Return { id, until, time })
    }

    /// The new checkpoint, if it has to change.
    pub fn commit(&self) -> Option<Change> {
        (self.done > self.committed).then_some(Change::Commit { id: self.done })
    }

    /// Whether the message still has this lease. The lease may have expired: as long as no other
    /// worker has the message, this one may still acknowledge it or give it back.
    pub fn holds(&self, id: LogId, lease: u64) -> bool {
        self.find(id).is_some_and(
            |at| matches!(self.entries[at].place, Place::Leased { lease: has, .. } if has == lease),
        )
    }

    /// When a message that cannot be leased now can be leased, in milliseconds since 1970.
    pub fn next_time(&self) -> Option<u64> {
        let times = self.entries.iter().filter_map(|entry| match entry.place {
            Place::Waits { until, .. } | Place::Leased { until, .. } => Some(until),
            Place::Done => None,
        });
        times.min()
    }

    /// Applies a change that was made for this state.
    pub fn apply(&mut self, change: &Change) {
        match *change {
            Change::Segment { number, file } => {
                self.segments.insert(number, file);
            }
            Change::Take { id, key, deliveries } if id > self.taken => {
                let place = Place::Waits { until: 0, time: 0 };
                self.entries.push_back(Entry { id, key, deliveries, place });
                self.taken = id;
            }
            Change::Take { .. } => {}
            Change::Lease { id, lease, until, time, delivers } => {
                if let Some(entry) = self.find(id).map(|at| &mut self.entries[at])
                    && entry.place != Place::Done
                {
                    entry.place = Place::Leased { lease, until, time };
                    entry.deliveries = entry.deliveries.saturating_add(delivers.into());
                }
                self.next_lease = self.next_lease.max(lease.saturating_add(1));
            }
            Change::Return { id, until, time } => {
                if let Some(entry) = self.find(id).map(|at| &mut self.entries[at])
                    && entry.place != Place::Done
                {
                    entry.place = Place::Waits { until, time };
                }
            }
            Change::Acknowledge { id } => {
                if let Some(at) = self.find(id) {
                    self.entries[at].place = Place::Done;
                }
                while let Some(first) = self.entries.front()
                    && first.place == Place::Done
                {
                    self.done = first.id;
                    self.entries.pop_front();
                }
                if self.segments.len() > 1 {
                    let first = self.entries.front().map_or(self.taken, |first| first.id).segment;
                    self.segments = self.segments.split_off(&first);
                }
            }
            Change::Commit { id } => {
                self.committed = id;
                self.done = self.done.max(id);
                self.taken = self.taken.max(id);
            }
        }
    }

    /// The changes that lead to this state from a [new](GroupState::new) one with the same `done`,
    /// `committed` and next lease.
    pub fn changes(&self) -> Vec<Change> {
        let mut changes: Vec<Change> =
            self.segments.iter().map(|(&number, &file)| Change::Segment { number, file }).collect();
        for Entry { id, key, deliveries, place } in &self.entries {
            let (id, key, deliveries) = (*id, *key, *deliveries);
            changes.push(Change::Take { id, key, deliveries });
            match *place {
                Place::Done => changes.push(Change::Acknowledge { id }),
                Place::Waits { until: 0, .. } => {}
                Place::Waits { until, time } => changes.push(Change::Return { id, until, time }),
                Place::Leased { lease, until, time } => {
                    changes.push(Change::Lease { id, lease, until, time, delivers: false });
                }
            }
        }
        changes
    }

    pub(crate) fn find(&self, id: LogId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(marker: u32) -> LogId {
        LogId::new(0, marker)
    }

    fn with(keys: &[Option<u64>]) -> GroupState {
        let mut state = GroupState::new(id(0), 1);
        for (n, key) in (1..).zip(keys) {
            let change = state.take(id(n), *key).unwrap();
            state.apply(&change);
        }
        state
    }

    fn lease(state: &mut GroupState, now: u64) -> Option<(u32, u64)> {
        let change = state.lease(now, 100)?;
        state.apply(&change);
        let Change::Lease { id, lease, .. } = change else { panic!("{change:?}") };
        Some((id.marker, lease))
    }

    fn done(state: &mut GroupState, marker: u32, lease: u64) -> bool {
        let change = state.acknowledge(id(marker), lease);
        change.inspect(|change| state.apply(change)).is_some()
    }

    #[test]
    fn a_message_is_with_one_worker_until_its_lease_expires() {
        let mut state = with(&[None, None]);
        assert_eq!((lease(&mut state, 0), lease(&mut state, 0)), (Some((1, 1)), Some((2, 2))));
        assert_eq!((lease(&mut state, 99), state.next_time()), (None, Some(100)));
        assert!(done(&mut state, 2, 2) && !done(&mut state, 2, 2));
        assert_eq!((state.done, state.commit()), (id(0), None), "the first one is not done");
        assert_eq!(lease(&mut state, 100), Some((1, 3)));
        assert!(!done(&mut state, 1, 1), "another worker has it");
        assert_eq!(state.entries[0].deliveries, 2);
        assert!(done(&mut state, 1, 3));
        assert_eq!(state.commit(), Some(Change::Commit { id: id(2) }));
        assert!(state.entries.is_empty());
    }

    #[test]
    fn an_expired_lease_that_nobody_else_got_still_counts() {
        let mut state = with(&[None]);
        lease(&mut state, 0);
        assert!(state.extend(id(1), 1, 500, 100).is_some());
        assert!(done(&mut state, 1, 1));
        assert!(state.extend(id(1), 1, 500, 100).is_none());
    }

    #[test]
    fn messages_with_one_key_come_one_after_the_other() {
        let mut state = with(&[Some(7), Some(7), Some(8), None]);
        assert_eq!(
            [lease(&mut state, 0), lease(&mut state, 0), lease(&mut state, 0)].map(|l| l.unwrap().0),
            [1, 3, 4]
        );
        assert_eq!(lease(&mut state, 0), None);
        let back = state.give_back(id(1), 1, 0, 50).unwrap();
        state.apply(&back);
        assert_eq!((lease(&mut state, 49), lease(&mut state, 50)), (None, Some((1, 4))));
        assert!(done(&mut state, 1, 4));
        assert_eq!(lease(&mut state, 50), Some((2, 5)));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_up_nothing() {
        let mut state = with(&[None]);
        lease(&mut state, 1_000_000);
        assert_eq!(lease(&mut state, 1_000_050), None);
        assert_eq!(lease(&mut state, 5), Some((1, 2)));
    }

    #[test]
    fn changes_make_the_same_state_again() {
        let mut state = with(&[Some(7), None, None, Some(9)]);
        state.apply(&Change::Segment { number: 0, file: (1, 2) });
        for _ in 0..3 {
            lease(&mut state, 5);
        }
        assert!(done(&mut state, 1, 1) && done(&mut state, 3, 3));
        let back = state.give_back(id(2), 2, 5, 50).unwrap();
        state.apply(&back);
        lease(&mut state, 5);
        let mut again = GroupState::new(state.done, state.next_lease);
        again.committed = state.committed;
        for change in state.changes() {
            again.apply(&change);
        }
        assert_eq!(again, state);
    }
}
