//! Tracks the messages that were handed to Kafka's producers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::pending;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::{MessageId, Refusal};

/// It outlives refusals, so that a message that the producer still has, or has delivered meanwhile,
/// is not handed to it again.
pub(super) struct Ledger {
    page: Mutex<Page>,
    /// The most informative error since the last delivery, and the time of the first.
    heard: watch::Sender<Option<(Instant, Refusal)>>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { page: Mutex::default(), heard: watch::Sender::new(None) }
    }
}

impl Ledger {
    pub fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a new producer. Returns its number.
    pub fn begin(&self) -> u32 {
        let mut page = self.page();
        page.generation += 1;
        page.failed = false;
        self.heard.send_replace(None);
        page.generation
    }

    /// Everything that is not settled will be sent again. Returns whether a message among it is
    /// refused for good.
    pub fn reopen(&self) -> bool {
        self.hear_nothing();
        let mut page = self.page();
        (page.broken, page.reported) = (false, false);
        page.again = (0..page.entries.len()).map(|n| page.first + n).collect();
        let poisoned = std::mem::take(&mut page.poisoned);
        if page.suspects == 0 {
            page.suspects = poisoned;
        }
        page.suspects > 0
    }

    /// Records an error of librdkafka. `telling` means that it is more informative than an earlier
    /// one.
    pub fn hear(&self, refusal: Refusal, informative: bool) {
        self.heard.send_if_modified(|heard| match heard {
            Some((_, said)) if informative && *said != refusal => {
                *said = refusal;
                true
            }
            Some(_) => false,
            None => heard.replace((Instant::now(), refusal)).is_none(),
        });
    }

    /// Records a delivery.
    pub fn hear_nothing(&self) {
        if self.heard.borrow().is_some() {
            self.heard.send_replace(None);
        }
    }

    /// The current error.
    pub fn trouble(&self) -> Option<Refusal> {
        self.heard.borrow().as_ref().map(|(_, refusal)| refusal.clone())
    }

    /// Waits until nothing has been delivered for this time after an error, and returns the error.
    pub async fn stalled(&self, time: Duration) -> Refusal {
        let (begun, mut heard) = (Instant::now(), self.heard.subscribe());
        loop {
            let trouble = heard.borrow_and_update().clone();
            let late = async {
                match trouble {
                    Some((since, refusal)) => {
                        // It may have begun before this shipment did.
                        tokio::time::sleep_until(since.max(begun) + time).await;
                        refusal
                    }
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                refusal = late => return refusal,
                // It cannot fail: this holds the sender.
                _ = heard.changed() => {}
            }
        }
    }
}

/// The state of a shipment that waits.
#[derive(Default)]
pub(super) struct Claim {
    /// Its messages without a report.
    left: AtomicUsize,
    reported: Notify,
}

impl Claim {
    /// Waits until everything has been reported, or a failure.
    pub async fn reported(&self) {
        self.reported.notified().await;
    }
}

/// The state of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A producer has it.
    Sent,
    /// It was delivered, and the engine does not know yet.
    Written,
    /// It was not delivered.
    Failed(RDKafkaErrorCode),
    /// It is settled.
    Settled,
}

struct Entry {
    id: MessageId,
    state: State,
    generation: u32,
    claim: Option<Arc<Claim>>,
}

#[derive(Default)]
pub(super) struct Page {
    /// The number of the first entry.
    first: usize,
    entries: VecDeque<Entry>,
    /// The numbers of messages that will be sent again, unless they are settled.
    again: VecDeque<usize>,
    /// The producer's number.
    pub generation: u32,
    /// The producer is unusable.
    pub failed: bool,
    /// Nothing is sent before the next opening.
    pub broken: bool,
    /// Whether the engine knows why.
    pub reported: bool,
    /// Messages that were refused for good since the last opening, together with others or alone.
    pub poisoned: usize,
    /// How many messages are still sent in one shipment at a time, to find the ones that were
    /// refused.
    pub suspects: usize,
}

impl Page {
    fn entry(&mut self, number: usize) -> Option<&mut Entry> {
        self.entries.get_mut(number.checked_sub(self.first)?)
    }

    pub fn state(&self, number: usize) -> State {
        let entry = number.checked_sub(self.first).and_then(|at| self.entries.get(at));
        entry.map_or(State::Settled, |entry| entry.state)
    }

    /// Claims a message for a shipment. Returns its number, and whether it must be handed to the
    /// producer.
    pub fn enter(&mut self, id: MessageId, claim: &Arc<Claim>) -> (usize, bool) {
        // They are sent again in the same order, without those that were set aside.
        while let Some(number) = self.again.pop_front() {
            let generation = self.generation;
            let Some(entry) = self.entry(number).filter(|entry| entry.id == id) else {
                self.settle(number);
                continue;
            };
            let sent = entry.state == State::Sent && entry.generation == generation;
            if sent || entry.state == State::Written {
                entry.claim = Some(Arc::clone(claim));
                claim.left.fetch_add(usize::from(sent), Relaxed);
                return (number, false);
            }
            self.settle(number);
            break;
        }
        claim.left.fetch_add(1, Relaxed);
        let (claim, generation) = (Some(Arc::clone(claim)), self.generation);
        self.entries.push_back(Entry { id, state: State::Sent, generation, claim });
        (self.first + self.entries.len() - 1, true)
    }

    /// Records that the producer did not take the last message. Returns whether it was the only
    /// one.
    pub fn take_back(&mut self, number: usize) -> bool {
        if let Some(claim) = self.entry(number).and_then(|entry| entry.claim.take()) {
            claim.left.fetch_sub(1, Relaxed);
        }
        self.entries.pop_back();
        self.entries.is_empty()
    }

    /// Records a producer's report about a message.
    pub fn report(&mut self, number: usize, state: State) {
        let Some(entry) = self.entry(number).filter(|entry| entry.state == State::Sent) else { return };
        entry.state = state;
        if let Some(claim) = &entry.claim {
            let last = claim.left.fetch_sub(1, Relaxed) == 1;
            if last || state != State::Written {
                claim.reported.notify_one();
            }
        }
    }

    /// Settles a message.
    pub fn settle(&mut self, number: usize) {
        if let Some(entry) = self.entry(number) {
            (entry.state, entry.claim) = (State::Settled, None);
        }
        while self.entries.front().is_some_and(|entry| entry.state == State::Settled) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Records that a shipment no longer waits for this message.
    pub fn release(&mut self, number: usize, claim: &Arc<Claim>) {
        if let Some(entry) = self.entry(number)
            && entry.claim.as_ref().is_some_and(|other| Arc::ptr_eq(other, claim))
        {
            entry.claim = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use jlog_core::{FeedIdentity, LogId, Timestamp};

    use super::*;

    fn id(feed: u8, marker: u32) -> MessageId {
        let feed: FeedIdentity = format!("{feed:032x}").parse().unwrap();
        MessageId { feed, id: LogId::new(0, marker), time: Timestamp { seconds: 1, micros: 0 } }
    }

    /// Claims these messages. Returns those that are handed to the producer, and how many are
    /// waited for.
    fn claim(ledger: &Ledger, feed: u8, markers: &[u32]) -> (Vec<u32>, usize) {
        let claim = Arc::new(Claim::default());
        let mut page = ledger.page();
        let new = |&marker: &u32| page.enter(id(feed, marker), &claim).1.then_some(marker);
        (markers.iter().filter_map(new).collect(), claim.left.load(Relaxed))
    }

    fn report(ledger: &Ledger, numbers: &[usize], state: State) {
        numbers.iter().for_each(|&number| ledger.page().report(number, state));
    }

    #[test]
    fn what_the_producer_has_or_delivered_is_not_handed_to_it_again() {
        let ledger = Ledger::default();
        ledger.begin();
        ledger.reopen();
        assert_eq!(claim(&ledger, 1, &[1, 2, 3, 4]), (vec![1, 2, 3, 4], 4));
        report(&ledger, &[0, 1], State::Written);
        ledger.page().settle(0);
        ledger.reopen();
        assert_eq!(claim(&ledger, 1, &[2, 3, 4, 5]), (vec![5], 3));
        assert_eq!(ledger.page().state(1), State::Written);
    }

    #[test]
    fn what_failed_or_is_lost_with_a_producer_is_handed_to_the_next_one() {
        let ledger = Ledger::default();
        ledger.begin();
        ledger.reopen();
        claim(&ledger, 1, &[1, 2, 3]);
        report(&ledger, &[0], State::Failed(RDKafkaErrorCode::Fail));
        report(&ledger, &[1], State::Written);
        ledger.begin();
        ledger.reopen();
        assert_eq!(claim(&ledger, 1, &[1, 2, 3]), (vec![1, 3], 2));
        // The first producer's report arrives late, and is about a message that the second one has.
        report(&ledger, &[2], State::Written);
        let states: Vec<State> = (1..5).map(|number| ledger.page().state(number)).collect();
        assert_eq!(states, [State::Written, State::Settled, State::Sent, State::Sent]);
    }

    #[test]
    fn what_does_not_come_again_is_forgotten() {
        let ledger = Ledger::default();
        ledger.begin();
        ledger.reopen();
        claim(&ledger, 1, &[1, 2, 3]);
        report(&ledger, &[0], State::Failed(RDKafkaErrorCode::MessageSizeTooLarge));
        ledger.reopen();
        // The first one was set aside.
        assert_eq!(claim(&ledger, 1, &[2]), (vec![], 1));
        assert_eq!(ledger.page().first, 1);
        ledger.reopen();
        // The feed was created again, with the same places.
        assert_eq!(claim(&ledger, 2, &[2, 3]), (vec![2, 3], 2));
        let page = ledger.page();
        assert_eq!((page.first, page.entries.len()), (3, 2));
    }

    #[test]
    fn a_message_that_the_producer_does_not_take_leaves_nothing_behind() {
        let ledger = Ledger::default();
        let waits = Arc::new(Claim::default());
        let mut page = ledger.page();
        for (marker, first) in [(1, true), (2, false)] {
            let (number, _) = page.enter(id(1, marker), &waits);
            if !first {
                assert!(!page.take_back(number));
            }
        }
        assert_eq!((page.entries.len(), waits.left.load(Relaxed)), (1, 1));
        assert!(page.take_back(0));
        assert_eq!((page.entries.len(), waits.left.load(Relaxed)), (0, 0));
    }
}
