//! Acknowledgements out of order.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::LogId;

/// Messages that were handed to workers and are not all acknowledged yet. A window knows where the
/// checkpoint may be, and which messages must be delivered again.
///
/// A checkpoint says that *everything* up to a message is done, while workers finish in any order.
/// A window keeps the messages from the oldest open one on. Its
/// [`checkpoint`](AckWindow::checkpoint) is before the oldest message that is not acknowledged, so
/// a restart delivers that one again, and some later ones that were acknowledged already: delivery
/// is at least once.
///
/// A message is delivered again when its time is over, or when it is returned. The first
/// acknowledgement counts, also a late one of an earlier delivery.
///
/// The window does no I/O and reads no clock: the caller passes the time. The amortised cost of
/// each call is logarithmic in the number of messages in the window.
///
/// ```
/// use std::time::{Duration, Instant};
/// use jlog_core::{AckWindow, LogId};
///
/// let now = Instant::now();
/// let mut window = AckWindow::new(1000, Duration::from_secs(30));
/// for marker in 1..=3 {
///     window.deliver(LogId::new(0, marker), format!("message {marker}"), now)?;
/// }
/// window.acknowledge(LogId::new(0, 2));
/// assert_eq!(window.checkpoint(), None); // message 1 is open
/// window.acknowledge(LogId::new(0, 1));
/// assert_eq!(window.checkpoint(), Some(LogId::new(0, 2)));
///
/// assert!(window.redeliver(now).is_none());
/// let again = window.redeliver(now + Duration::from_secs(30)).unwrap();
/// assert_eq!((again.message.as_str(), again.deliveries), ("message 3", 2));
/// # Ok::<(), jlog_core::NotDelivered>(())
/// ```
#[derive(Debug)]
pub struct AckWindow<T> {
    capacity: usize,
    timeout: Duration,
    /// In the order of their ids; the first one is open.
    entries: VecDeque<Entry<T>>,
    open: usize,
    /// When each open message of a worker is delivered again, unless that time is beyond the
    /// clock's range.
    deadlines: BTreeSet<(Instant, LogId)>,
    returned: BTreeSet<LogId>,
    /// The last message that was delivered for the first time.
    newest: Option<LogId>,
    /// The last message before the window.
    done: Option<LogId>,
}

#[derive(Debug)]
struct Entry<T> {
    id: LogId,
    /// `None` once it is acknowledged.
    message: Option<T>,
    deliveries: u32,
    deadline: Option<Instant>,
}

/// A message that is delivered again.
#[derive(Debug, PartialEq, Eq)]
pub struct Redelivery<'a, T> {
    /// Its id, to acknowledge it by.
    pub id: LogId,
    /// The message.
    pub message: &'a T,
    /// How many times it has been delivered, including this time: 2 or more.
    pub deliveries: u32,
}

/// Why a window does not accept a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The window is full: a message must be acknowledged first, or several if the oldest one is
    /// open.
    #[error("the window holds {0} messages and is full: acknowledge the oldest ones before you read more")]
    Full(usize),
    /// A message with this id, or a later one, has been delivered already.
    #[error("message {id} does not come after message {newest}, which was delivered before it")]
    OutOfOrder {
        /// The message's id.
        id: LogId,
        /// The last one that was delivered.
        newest: LogId,
    },
}

impl<T> AckWindow<T> {
    /// A window of at most this many messages (at least 1), counted from the oldest open one to the
    /// newest. A message that is not acknowledged within the timeout is delivered again.
    pub fn new(capacity: usize, timeout: Duration) -> Self {
        Self {
            capacity: capacity.max(1),
            timeout,
            entries: VecDeque::new(),
            open: 0,
            deadlines: BTreeSet::new(),
            returned: BTreeSet::new(),
            newest: None,
            done: None,
        }
    }

    /// Adds a message that is delivered for the first time, in the order of reading.
    ///
    /// # Errors
    /// [`NotDelivered::Full`] if there is no room ([`is_full`](AckWindow::is_full) says so before);
    /// and [`NotDelivered::OutOfOrder`]. The message is not in the window then.
    pub fn deliver(&mut self, id: LogId, message: T, now: Instant) -> Result<(), NotDelivered> {
        if let Some(newest) = self.newest.filter(|&newest| id <= newest) {
            return Err(NotDelivered::OutOfOrder { id, newest });
        }
        if self.is_full() {
            return Err(NotDelivered::Full(self.capacity));
        }
        let deadline = now.checked_add(self.timeout);
        self.deadlines.extend(deadline.map(|at| (at, id)));
        self.entries.push_back(Entry { id, message: Some(message), deliveries: 1, deadline });
        self.newest = Some(id);
        self.open += 1;
        Ok(())
    }

    /// Acknowledges a message and returns it. `None` if it is not open: acknowledged before, or
    /// never delivered.
    pub fn acknowledge(&mut self, id: LogId) -> Option<T> {
        let at = self.find(id)?;
        let entry = &mut self.entries[at];
        let message = entry.message.take()?;
        match entry.deadline.take() {
            Some(deadline) => self.deadlines.remove(&(deadline, id)),
            None => self.returned.remove(&id),
        };
        self.open -= 1;
        while let Some(first) = self.entries.front()
            && first.message.is_none()
        {
            self.done = Some(first.id);
            self.entries.pop_front();
        }
        Some(message)
    }

    /// Gives back a message that its worker will not process: it is delivered again at once.
    /// `false` if it is not open.
    pub fn give_back(&mut self, id: LogId) -> bool {
        let Some(entry) = self.find(id).map(|at| &mut self.entries[at]) else { return false };
        if entry.message.is_none() {
            return false;
        }
        if let Some(deadline) = entry.deadline.take() {
            self.deadlines.remove(&(deadline, id));
        }
        self.returned.insert(id);
        true
    }

    /// The next message to deliver again, which then has the whole timeout once more. That is the
    /// oldest of the returned ones, or else the one whose time has been over for longest.
    pub fn redeliver(&mut self, now: Instant) -> Option<Redelivery<'_, T>> {
        let id = match self.returned.pop_first() {
            Some(id) => id,
            None => {
                let &(deadline, id) = self.deadlines.first()?;
                if deadline > now {
                    return None;
                }
                self.deadlines.pop_first();
                id
            }
        };
        let deadline = now.checked_add(self.timeout);
        self.deadlines.extend(deadline.map(|at| (at, id)));
        let at = self.find(id)?;
        let entry = &mut self.entries[at];
        entry.deadline = deadline;
        entry.deliveries = entry.deliveries.saturating_add(1);
        let message = entry.message.as_ref()?;
        Some(Redelivery { id, message, deliveries: entry.deliveries })
    }

    /// When [`redeliver`](AckWindow::redeliver) may have something next: `None` if no message is
    /// with a worker. A returned message is available at once.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Whether returned messages are waiting to be delivered again.
    pub fn has_returned(&self) -> bool {
        !self.returned.is_empty()
    }

    /// The id that may be stored as the checkpoint: the last message before the oldest open one.
    /// `None` until the first message is done. It never goes back.
    pub fn checkpoint(&self) -> Option<LogId> {
        self.done
    }

    /// How many messages are not acknowledged.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many messages are in the window, including acknowledged ones after an open one.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything that was delivered is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is no room for another message.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    fn find(&self, id: LogId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(50);

    #[derive(Clone, Debug)]
    enum Step {
        Deliver(u32),
        Acknowledge(usize),
        GiveBack(usize),
        Redeliver,
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..4u32).prop_map(Step::Deliver),
            4 => (0..40usize).prop_map(Step::Acknowledge),
            1 => (0..40usize).prop_map(Step::GiveBack),
            2 => Just(Step::Redeliver),
            2 => (0..60u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// The state of a message, according to a plain list of all messages.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum State {
        With { since: u64, deliveries: u32 },
        Returned { deliveries: u32 },
        Done,
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_list(steps in steps(), capacity in 1..12usize) {
            let begin = Instant::now();
            let mut at = 0u64;
            let mut window = AckWindow::new(capacity, TIMEOUT);
            let mut plain: BTreeMap<LogId, State> = BTreeMap::new();
            let mut next = LogId::new(3, 0);
            let mut checkpoint = None;
            for step in steps {
                let now = begin + Duration::from_millis(at);
                let nth = |n: usize| plain.keys().nth_back(n).copied().unwrap_or(LogId::new(9, 9));
                let span = plain.values().skip_while(|state| **state == State::Done).count();
                match step {
                    // Every fourth message begins a segment.
                    Step::Deliver(kind) => {
                        next = if kind == 0 { LogId::new(next.segment + 1, 1) } else { LogId::new(next.segment, next.marker + 1) };
                        let taken = window.deliver(next, next, now);
                        if span == capacity {
                            prop_assert_eq!(taken, Err(NotDelivered::Full(capacity)));
                        } else {
                            prop_assert_eq!(taken, Ok(()));
                            plain.insert(next, State::With { since: at, deliveries: 1 });
                            let twice = window.deliver(next, next, now);
                            prop_assert_eq!(twice, Err(NotDelivered::OutOfOrder { id: next, newest: next }));
                        }
                    }
                    Step::Acknowledge(n) => {
                        let id = nth(n);
                        let open = plain.get(&id).is_some_and(|state| *state != State::Done);
                        prop_assert_eq!(window.acknowledge(id), open.then_some(id));
                        if open {
                            plain.insert(id, State::Done);
                        }
                    }
                    Step::GiveBack(n) => {
                        let id = nth(n);
                        let state = plain.get(&id).copied();
                        let deliveries = match state {
                            Some(State::With { deliveries, .. } | State::Returned { deliveries }) => Some(deliveries),
                            _ => None,
                        };
                        prop_assert_eq!(window.give_back(id), deliveries.is_some());
                        if let Some(deliveries) = deliveries {
                            plain.insert(id, State::Returned { deliveries });
                        }
                    }
                    Step::Redeliver => {
                        let returned = plain.iter().find_map(|(&id, &state)| match state {
                            State::Returned { deliveries } => Some((id, deliveries)),
                            _ => None,
                        });
                        let over = plain.iter().filter_map(|(&id, &state)| match state {
                            State::With { since, deliveries } if since + 50 <= at => Some((since, id, deliveries)),
                            _ => None,
                        });
                        let expected = returned.or(over.min().map(|(_, id, deliveries)| (id, deliveries)));
                        let got = window.redeliver(now).map(|again| (again.id, *again.message, again.deliveries));
                        prop_assert_eq!(got, expected.map(|(id, deliveries)| (id, id, deliveries + 1)));
                        if let Some((id, deliveries)) = expected {
                            plain.insert(id, State::With { since: at, deliveries: deliveries + 1 });
                        }
                    }
                    Step::Pass(millis) => at += millis,
                }
                let done = plain.iter().take_while(|(_, state)| **state == State::Done).last();
                prop_assert_eq!(window.checkpoint(), done.map(|(&id, _)| id));
                prop_assert!(window.checkpoint() >= checkpoint, "it never goes back");
                checkpoint = window.checkpoint();
                prop_assert_eq!(window.open(), plain.values().filter(|state| **state != State::Done).count());
                prop_assert_eq!(window.len(), plain.values().skip_while(|state| **state == State::Done).count());
                prop_assert_eq!(window.is_empty(), window.open() == 0);
                let next_timeout = plain.values().filter_map(|state| match state {
                    State::With { since, .. } => Some(begin + Duration::from_millis(since + 50)),
                    _ => None,
                });
                prop_assert_eq!(window.next_timeout(), next_timeout.min());
                let returned = plain.values().any(|state| matches!(state, State::Returned { .. }));
                prop_assert_eq!(window.has_returned(), returned);
            }
        }
    }

    #[test]
    fn a_timeout_beyond_the_clock_never_comes() {
        let now = Instant::now();
        let mut window = AckWindow::new(0, Duration::MAX);
        let id = LogId::new(0, 1);
        window.deliver(id, (), now).unwrap();
        assert_eq!(
            (window.next_timeout(), window.redeliver(now).is_none(), window.is_full()),
            (None, true, true)
        );
        assert!(window.give_back(id) && window.redeliver(now).is_some());
        assert_eq!((window.acknowledge(id), window.checkpoint()), (Some(()), Some(id)));
    }
}
