//! Workers, in one process or several, that share one subscriber's messages.

mod file;
#[cfg(test)]
mod model;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;

use self::file::{About, GroupFile, any_lease};
use self::state::{Change, GroupState};
use crate::codec::names;
use crate::files::shared::Shared;
use crate::reader::Reader;
use crate::storage::{LockGuard, Waker};
use crate::subscriber::SubscriberName;
use crate::{Claim, Error, Jlog, LogId, OnDamage, OwnedMessage, ReaderOptions, Result, Timestamp, Wait};

/// How many messages are added at a time, so that the workers read a segment in pieces.
const TAKEN_AT_ONCE: usize = 256;
/// How often a waiting worker checks for messages that others have given back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type KeyOf = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// How a [`Group`] works. All workers of a group use the same.
#[derive(Clone)]
pub struct GroupOptions {
    lease: Duration,
    window: usize,
    key: Option<KeyOf>,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), window: 1000, key: None }
    }
}

impl fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, window, key } = self;
        f.debug_struct("GroupOptions")
            .field("lease", lease)
            .field("window", window)
            .field("key", &key.is_some())
            .finish()
    }
}

impl GroupOptions {
    /// How long a worker has for a message before another one may get it; 30 s by default, at least
    /// a millisecond. A worker that needs longer [extends](Group::extend) the lease.
    #[must_use]
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time.max(Duration::from_millis(1));
        self
    }

    /// The window of a group, counted from the oldest unacknowledged message: 1000 messages by
    /// default. Until that one is acknowledged, no message after the window is leased. The cost of
    /// a lease grows with this number.
    #[must_use]
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages.max(1);
        self
    }

    /// The key of a message. Messages with the same key are leased in order, each after the one
    /// before it is acknowledged. Messages without a key are leased in any order.
    #[must_use]
    pub fn key(mut self, key: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }
}

/// The right to a message, until it expires and another worker gets the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    id: LogId,
    number: u64,
}

impl Lease {
    /// The message.
    pub fn id(&self) -> LogId {
        self.id
    }
}

/// A message that a worker has.
#[derive(Clone, Debug)]
pub struct Leased {
    lease: Lease,
    deliveries: u32,
    time: Timestamp,
    body: Bytes,
}

impl Leased {
    /// The lease, which is needed to acknowledge the message or give it back.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Its id.
    pub fn id(&self) -> LogId {
        self.lease.id
    }

    /// How often it has been leased, including this time. Set a message aside if it has been leased
    /// many times and is never acknowledged.
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// When it was accepted, or the time that was given with it.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// Its bytes; clones share them.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// One of the workers that share a subscriber's messages, in this process or in others. Each
/// message is leased to one worker at a time.
///
/// The subscriber's checkpoint stays before the oldest message that is not acknowledged. The state
/// of the leases is in one file beside the checkpoint, which outlives every process. The messages
/// of a killed worker stay leased until their leases expire. Delivery is at least once: a message
/// can be delivered twice.
///
/// Workers share the subscriber ([`Claim::Shared`]); a reader that claims it alone is refused while
/// there is a worker. When somebody moves the subscriber, or a repair renumbers messages, the group
/// starts over at the checkpoint, and all earlier leases are void.
///
/// Each call locks the group's file, reads what others have written to it, and writes a few dozen
/// bytes. Nothing is synced: after a power failure, all messages after the checkpoint that had
/// reached the disk are delivered again.
///
/// ```
/// # let dir = tempfile::tempdir()?; let log = jlog_core::Jlog::create(dir.path().join("feed"))?;
/// # log.subscribe("workers", jlog_core::Start::Beginning)?; log.writer()?.append_batch(&["a", "b"])?;
/// use std::time::Duration;
/// use jlog_core::{GroupOptions, Wait};
///
/// let mut worker = log.group("workers", GroupOptions::default())?;
/// let mut other = log.group("workers", GroupOptions::default())?;
/// let (a, b) = (worker.lease(1, Wait::No)?, other.lease(1, Wait::No)?);
/// assert_eq!((&a[0].body()[..], &b[0].body()[..]), (&b"a"[..], &b"b"[..]));
///
/// other.acknowledge(b[0].lease())?;
/// assert_eq!(log.lag("workers")?.messages, 2); // the older one is not done
/// worker.give_back(a[0].lease(), Duration::ZERO)?;
/// let again = other.lease(10, Wait::No)?;
/// assert_eq!((&again[0].body()[..], again[0].deliveries()), (&b"a"[..], 2));
/// assert!(!worker.acknowledge(a[0].lease())?); // it is another worker's now
/// other.acknowledge(again[0].lease())?;
/// assert_eq!(log.lag("workers")?.messages, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Group {
    log: Jlog,
    shared: Arc<Shared>,
    name: SubscriberName,
    options: GroupOptions,
    /// Reads messages, claims the subscriber, and stores its checkpoint.
    reader: Reader,
    file: GroupFile,
    path: PathBuf,
    about: About,
    missed: u64,
}

impl Jlog {
    /// A worker of the group that shares this subscriber's messages. The group needs nothing but
    /// the subscriber.
    ///
    /// # Errors
    /// As [`reader_with`](Jlog::reader_with); [`Error::Io`] if the checkpoint or the group's file
    /// cannot be written.
    pub fn group(&self, subscriber: impl AsRef<[u8]>, options: GroupOptions) -> Result<Group> {
        let name = SubscriberName::new(subscriber)?;
        let with = ReaderOptions::default().on_damage(OnDamage::Skip).claim(Claim::Shared);
        let reader = self.reader_with(&name, with)?;
        reader.check_writable()?;
        let shared = Arc::clone(&self.shared);
        let checkpoint = shared.facts(&name.checkpoint_file());
        let checkpoint =
            checkpoint.map_err(|e| Error::io("look at", shared.at(&name.checkpoint_file()), e))?;
        let about = About { boot: shared.storage.boot_id(), checkpoint: checkpoint.identity };
        let file = GroupFile::open(&shared, &name, about, reader.stored_checkpoint()?)?;
        let path = shared.at(&name.group_file());
        Ok(Group { log: self.clone(), shared, name, options, reader, file, path, about, missed: 0 })
    }
}

impl Group {
    /// The subscriber's name.
    pub fn subscriber(&self) -> &SubscriberName {
        &self.name
    }

    /// How many messages this worker found dropped or damaged when it was about to lease them. The
    /// group counts them as done.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// A handle that ends a wait of this worker from another thread.
    ///
    /// # Errors
    /// [`Error::Io`] if the system has no descriptor left.
    pub fn waker(&mut self) -> Result<Waker> {
        self.reader.waker()
    }

    /// Leases up to `most` messages: the oldest that are free. Returns none if there are none
    /// within the time, or if the worker's [waker](Group::waker) was used.
    ///
    /// # Errors
    /// [`Error::Replaced`] or [`Error::Unsubscribed`] if the feed or the subscriber was removed;
    /// [`Error::Io`], [`Error::DiskFull`].
    pub fn lease(&mut self, most: usize, wait: Wait) -> Result<Vec<Leased>> {
        let begun = std::time::Instant::now();
        loop {
            let mut next = None;
            let leased = self.locked(|group| {
                let leased = group.lease_now(most)?;
                next = group.file.state.next_time();
                Ok(leased)
            })?;
            if !leased.is_empty() || most == 0 {
                return Ok(leased);
            }
            let left = match wait {
                Wait::No => return Ok(leased),
                Wait::Timeout(time) => match time.checked_sub(begun.elapsed()) {
                    Some(left) if !left.is_zero() => left,
                    _ => return Ok(leased),
                },
                Wait::Forever => LOOK_EVERY,
            };
            let until = next.map(|at| Duration::from_millis(at.saturating_sub(now()).max(1)));
            let pause = left.min(LOOK_EVERY).min(until.unwrap_or(LOOK_EVERY));
            let paused = std::time::Instant::now();
            // Messages after a full window must not end this wait.
            let full = self.file.state.entries.len() >= self.options.window;
            if !self.pause(pause, full)? && paused.elapsed() < pause {
                return Ok(Vec::new());
            }
        }
    }

    /// Waits; `false` if the time is over or the waker was used.
    fn pause(&mut self, pause: Duration, full: bool) -> Result<bool> {
        if full {
            let end = self.log.end()?;
            self.reader.seek(end)?;
        }
        Ok(self.reader.next_batch(Wait::Timeout(pause))?.is_some())
    }

    /// Acknowledges a message. Returns `false` if another worker has the message by now, or if the
    /// group has started over: the message is then delivered again.
    ///
    /// # Errors
    /// As [`lease`](Group::lease).
    pub fn acknowledge(&mut self, lease: Lease) -> Result<bool> {
        self.change(|state| state.acknowledge(lease.id, lease.number))
    }

    /// Gives a message back: any worker may lease it again after this time. Returns `false` as
    /// [`acknowledge`](Group::acknowledge) does.
    ///
    /// # Errors
    /// As [`lease`](Group::lease).
    pub fn give_back(&mut self, lease: Lease, after: Duration) -> Result<bool> {
        self.change(|state| state.give_back(lease.id, lease.number, now(), millis(after)))
    }

    /// Extends a lease: its time starts again now. Returns `false` as
    /// [`acknowledge`](Group::acknowledge) does.
    ///
    /// # Errors
    /// As [`lease`](Group::lease).
    pub fn extend(&mut self, lease: Lease) -> Result<bool> {
        let time = millis(self.options.lease);
        self.change(|state| state.extend(lease.id, lease.number, now(), time))
    }

    /// Whether every current message is acknowledged.
    ///
    /// # Errors
    /// As [`lease`](Group::lease).
    pub fn is_done(&mut self) -> Result<bool> {
        self.locked(|group| {
            if !group.file.state.entries.is_empty() {
                return Ok(false);
            }
            group.reader.seek(group.file.state.taken)?;
            Ok(group.reader.next_batch(Wait::No)?.is_none())
        })
    }

    fn change(&mut self, ask: impl FnOnce(&GroupState) -> Option<Change>) -> Result<bool> {
        self.locked(|group| {
            let Some(change) = ask(&group.file.state) else { return Ok(false) };
            group.file.append(&group.path, &[change])?;
            group.commit()?;
            Ok(true)
        })
    }

    /// Stores the checkpoint up to which everything is done.
    fn commit(&mut self) -> Result<()> {
        if let Some(change @ Change::Commit { id }) = self.file.state.commit() {
            self.reader.store_checkpoint(id)?;
            self.file.append(&self.path, &[change])?;
        }
        Ok(())
    }

    /// Runs something while the group's file is locked and the changes of others are applied.
    fn locked<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.reader.check_not_replaced()?;
        loop {
            let file = Arc::clone(&self.file.file);
            let lock = LockGuard::new(&*file).map_err(|e| Error::io("lock", &self.path, e))?;
            if !self.file.is_named(&self.shared, &self.name) {
                drop(lock);
                self.reader.check_not_replaced()?;
                let checkpoint = self.reader.stored_checkpoint()?;
                self.file = GroupFile::open(&self.shared, &self.name, self.about, checkpoint)?;
                continue;
            }
            let known = self.file.refresh(&self.path)?;
            let checkpoint = self.reader.stored_checkpoint()?;
            let begins = self.file.state.begin(checkpoint);
            if known
                && let Ok(change) = &begins
                && self.has_segments()
                && !self.file.has_grown()
            {
                self.file.append(&self.path, change.as_slice())?;
                self.commit()?;
                let outcome = work(self);
                drop(lock);
                return outcome;
            }
            // If the group starts over, earlier leases are void.
            let state = match begins {
                _ if !known => GroupState::new(checkpoint, any_lease(&self.shared, &self.name.group_file())?),
                Err(fresh) => fresh,
                Ok(_) if !self.has_segments() => GroupState::new(checkpoint, self.file.state.next_lease),
                Ok(_) => self.file.state.clone(),
            };
            self.file.replace(&self.shared, &self.name, &state)?;
        }
    }

    /// Whether the segments of the messages are still the same files as when the messages were
    /// added.
    fn has_segments(&self) -> bool {
        let segments = &self.file.state.segments;
        let first = self.file.state.entries.front().map(|entry| entry.id.segment);
        segments.iter().filter(|&(&number, _)| first.is_some_and(|first| number >= first)).all(
            |(&number, &file)| {
                self.shared.facts(&names::segment(number)).is_ok_and(|facts| facts.identity == file)
            },
        )
    }

    fn lease_now(&mut self, most: usize) -> Result<Vec<Leased>> {
        let mut leased = Vec::new();
        // Messages that were just read need not be read again.
        let mut fresh: Vec<OwnedMessage> = Vec::new();
        while leased.len() < most {
            let Some(change) = self.file.state.lease(now(), millis(self.options.lease)) else {
                if self.take(&mut fresh)? {
                    continue;
                }
                break;
            };
            let Change::Lease { id, lease, .. } = change else { break };
            let found = fresh.binary_search_by_key(&id, |message| message.id()).ok().map(|at| &fresh[at]);
            let read = match found {
                Some(message) => Some((message.time(), message.body().clone())),
                None => match self.reader.read(id) {
                    Ok(message) => Some((message.time(), Bytes::copy_from_slice(message.body()))),
                    Err(e) if e.is_damage() || matches!(e, Error::NoSuchRecord { .. }) => None,
                    Err(e) => return Err(e),
                },
            };
            let Some((time, body)) = read else {
                self.file.append(&self.path, &[change, Change::Acknowledge { id }])?;
                self.missed += 1;
                self.commit()?;
                continue;
            };
            self.file.append(&self.path, &[change])?;
            let deliveries = self.file.state.find(id).map_or(1, |at| self.file.state.entries[at].deliveries);
            leased.push(Leased { lease: Lease { id, number: lease }, deliveries, time, body });
        }
        Ok(leased)
    }

    /// Adds the next messages; returns whether there were any.
    fn take(&mut self, fresh: &mut Vec<OwnedMessage>) -> Result<bool> {
        let state = &self.file.state;
        let room = self.options.window.saturating_sub(state.entries.len()).min(TAKEN_AT_ONCE);
        if room == 0 {
            return Ok(false);
        }
        if self.reader.position() != state.taken {
            self.reader.seek(state.taken)?;
        }
        let (batch, number, file) = loop {
            let Some(batch) = self.reader.next_batch(Wait::No)? else { return Ok(false) };
            let batch = batch.into_owned();
            let Some(number) = batch.iter().next().map(|message| message.id().segment) else { continue };
            match self.shared.facts(&names::segment(number)) {
                Ok(facts) => break (batch, number, facts.identity),
                // The segment was dropped while it was being read.
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.missed += batch.iter().count() as u64,
                Err(e) => return Err(Error::io("look at", self.shared.at(&names::segment(number)), e)),
            }
        };
        let state = &self.file.state;
        let mut changes = Vec::new();
        if !state.segments.contains_key(&number) {
            changes.push(Change::Segment { number, file });
        }
        for message in batch.iter().take(room) {
            let key = self.options.key.as_ref().and_then(|key| key(message.body())).map(|key| hash(&key));
            changes.extend(state.take(message.id(), key));
            fresh.push(message);
        }
        self.file.append(&self.path, &changes)?;
        Ok(true)
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    Timestamp::now_micros() / 1000
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// FNV-1a: the same in all versions of a program, as workers of different ones may share a group.
fn hash(key: &[u8]) -> u64 {
    key.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
