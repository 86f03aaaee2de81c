//! The engine: it decides what is sent when, what is sent again, and when the checkpoint moves.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use jlog_core::{
    AckWindow, Checkpointer, Claim, Event, FeedIdentity, Jlog, LogId, OnDamage, OwnedBatch, ReaderOptions,
    Start, Timestamp,
};
use tokio::sync::watch;

use crate::aside::{self, SetAside};
use crate::backoff::Backoff;
use crate::source::Source;
use crate::{Destination, Feed, Limits, Outgoing, Progress, Refusal, RefusalKind, Report, Shipment, Totals};

/// A continuing refusal is reported again after this time.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// How often the shipper checks for a feed that disappeared.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why shipping ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The feed cannot be read, or its subscriber's checkpoint cannot be stored.
    #[error(transparent)]
    Feed(#[from] jlog_core::Error),
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

/// What happens to a message that the destination refuses for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnReject {
    /// It is retried forever, and everything after it waits.
    #[default]
    Block,
    /// It is written to this second feed, with the reason, the destination and its id, and counts
    /// as done.
    SetAside(PathBuf),
    /// It is reported and skipped.
    Skip,
}

/// Ends a shipper from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<watch::Sender<bool>>);

impl Stopper {
    /// Stops sending messages, and waits for outstanding answers up to the shipper's
    /// [`drain`](Shipper::drain) time. Calling it again has no effect.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// A handle for a destination that must end its waits then.
    #[cfg(feature = "exec")]
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

type Reports = Box<dyn FnMut(&Report) + Send>;
type Passes = Box<dyn Fn(&Outgoing) -> bool + Send + Sync>;

/// Ships one subscriber's messages to one destination. See the [crate's documentation](crate).
pub struct Shipper {
    path: PathBuf,
    subscriber: String,
    window_messages: usize,
    window_bytes: usize,
    on_reject: OnReject,
    once: bool,
    until: Option<Timestamp>,
    rate: Option<u32>,
    drain: Duration,
    timeout: Duration,
    backoff: (Duration, Duration),
    unwrap: bool,
    wait_for_feed: bool,
    filter: Option<Passes>,
    reports: Reports,
    progress: Progress,
    stop: Arc<watch::Sender<bool>>,
    log: Jlog,
}

impl std::fmt::Debug for Shipper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shipper")
            .field("path", &self.path)
            .field("subscriber", &self.subscriber)
            .finish_non_exhaustive()
    }
}

impl Shipper {
    /// A shipper for an existing subscriber.
    ///
    /// # Errors
    /// [`Error::Feed`] if the feed or the subscriber does not exist.
    pub fn new(feed: impl AsRef<Path>, subscriber: impl Into<String>) -> Result<Self, Error> {
        let (path, subscriber) = (feed.as_ref().to_owned(), subscriber.into());
        let log = Jlog::open(&path)?;
        log.checkpoint(&subscriber)?;
        Ok(Self {
            path,
            subscriber,
            window_messages: 10_000,
            window_bytes: 8 << 20,
            on_reject: OnReject::Block,
            once: false,
            until: None,
            rate: None,
            drain: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            backoff: (Duration::from_millis(100), Duration::from_secs(30)),
            unwrap: false,
            wait_for_feed: true,
            filter: None,
            reports: Box::new(|_| {}),
            progress: Progress::default(),
            stop: Arc::new(watch::Sender::new(false)),
            log,
        })
    }

    /// Sets how many messages and bytes may be unacknowledged: 10,000 and 8 MiB by default. That
    /// many may arrive twice after a crash, and that is roughly the memory that the shipper uses. A
    /// single message may be longer.
    #[must_use]
    pub fn window(mut self, messages: usize, bytes: usize) -> Self {
        (self.window_messages, self.window_bytes) = (messages.max(1), bytes.max(1));
        self
    }

    /// Sets what happens to a message that the destination refuses for good.
    #[must_use]
    pub fn on_reject(mut self, on_reject: OnReject) -> Self {
        self.on_reject = on_reject;
        self
    }

    /// Sets whether to ship the messages that the feed has now, and end when they are acknowledged.
    #[must_use]
    pub fn once(mut self, once: bool) -> Self {
        self.once = once;
        self
    }

    /// Ends before the first message of this time or later.
    #[must_use]
    pub fn until(mut self, time: Option<Timestamp>) -> Self {
        self.until = time;
        self
    }

    /// Sends at most this many messages per second; 0 counts as 1.
    #[must_use]
    pub fn rate(mut self, messages: Option<u32>) -> Self {
        self.rate = messages.map(|rate| rate.max(1));
        self
    }

    /// Sets how long to wait for answers after a [stop](Stopper::stop): 10 s by default, a day at
    /// most.
    #[must_use]
    pub fn drain(mut self, time: Duration) -> Self {
        self.drain = time.min(Duration::from_secs(24 * 3600));
        self
    }

    /// Sets how long to wait for an answer before the shipment counts as temporarily refused: 60 s
    /// by default.
    #[must_use]
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }

    /// Sets the first and the longest wait between tries: 100 ms and 30 s by default.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.backoff = (first.max(Duration::from_millis(1)), longest.max(first));
        self
    }

    /// Sets whether the feed holds messages that were set aside: they are sent in their original
    /// form, under their original ids.
    #[must_use]
    pub fn unwrap_set_aside(mut self, unwrap: bool) -> Self {
        self.unwrap = unwrap;
        self
    }

    /// Sets whether to wait when the feed or the subscriber is removed, and continue with its
    /// replacement; true by default. Otherwise, and with [`once`](Shipper::once), that is an error.
    ///
    /// Messages that were read before are still sent, and the replacement of their feed waits for
    /// them. If the destination refuses one of them for good, it does not
    /// [block](OnReject::Block): it is skipped. Messages that are not acknowledged when the shipper
    /// ends count as skipped, and are [reported](Report::Abandoned).
    #[must_use]
    pub fn wait_for_feed(mut self, wait: bool) -> Self {
        self.wait_for_feed = wait;
        self
    }

    /// Ships only messages for which this returns true. The others are counted
    /// ([`Totals::filtered`]), and the checkpoint moves past them. It is called once for each
    /// message, in the order of the feed.
    #[must_use]
    pub fn filter(mut self, passes: impl Fn(&Outgoing) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Box::new(passes));
        self
    }

    /// Sets the function that gets all reports. It is called from the shipping thread.
    #[must_use]
    pub fn on_report(mut self, report: impl FnMut(&Report) + Send + 'static) -> Self {
        self.reports = Box::new(report);
        self
    }

    /// Continues with the counters of a shipper that has ended. Messages that were in flight are
    /// read again.
    #[must_use]
    pub fn progress_of(mut self, progress: &Progress) -> Self {
        progress.begin_again();
        self.progress = progress.clone();
        self
    }

    /// The counters, readable from other threads.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// A handle that ends [`run`](Shipper::run) from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Ships until it is stopped or everything requested is done. Blocks this thread, and uses a
    /// second one that reads.
    ///
    /// Refusals do not end it: see [`RefusalKind`] for what happens to each kind.
    ///
    /// # Errors
    /// [`Error::Feed`] if the feed cannot be read, another reader has the subscriber
    /// ([`ReaderBusy`](jlog_core::Error::ReaderBusy)), or the feed disappeared and the shipper does
    /// not wait for it; [`Error::System`].
    pub fn run(mut self, mut destination: Box<dyn Destination>) -> Result<Totals, Error> {
        let system = |source| Error::System { action: "start a runtime", source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        let outcome = runtime.block_on(async {
            let outcome = self.run_all(&mut *destination).await;
            // Do not wait for a destination that hangs.
            let _ = tokio::time::timeout(self.drain, destination.close()).await;
            outcome
        });
        runtime.shutdown_background();
        outcome.map(|()| self.progress.totals())
    }

    fn passes(&self, message: &Outgoing) -> bool {
        self.filter.as_ref().is_none_or(|passes| passes(message))
    }

    async fn run_all(&mut self, destination: &mut dyn Destination) -> Result<(), Error> {
        let mut aside = match &self.on_reject {
            OnReject::SetAside(path) => Some(SetAside::new(path.clone())),
            _ => None,
        };
        let mut stop = self.stop.subscribe();
        let mut said = String::new();
        loop {
            let error = match self.open() {
                Ok(opened) => {
                    said.clear();
                    match Session::new(self, destination, &mut aside, opened).run().await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if !error.is_gone() || self.once || !self.wait_for_feed {
                return Err(error.into());
            }
            let why = error.to_string();
            if why != said {
                self.progress.failed(&why);
                (self.reports)(&Report::Waiting(why.clone()));
                said = why;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = stop.wait_for(|&stop| stop) => return Ok(()),
            }
        }
    }

    fn open(&mut self) -> Result<Opened, jlog_core::Error> {
        let (reported, events) = std::sync::mpsc::channel();
        // The receiver is gone once shipping has ended.
        let log =
            Jlog::options().on_event(move |event| drop(reported.send(event.clone()))).open(&self.path)?;
        let identity = log.identity()?;
        let options = ReaderOptions::default().on_damage(OnDamage::Skip).claim(Claim::Alone);
        let reader = log.reader_with(&self.subscriber, options)?;
        reader.check_writable()?;
        let checkpointer = reader.checkpointer()?;
        let end = if self.once { Some(log.end()?) } else { None };
        let source = Source::start(reader, self.once)?;
        self.log = log.clone();
        let feed = Feed::new(log, identity, self.subscriber.clone());
        Ok(Opened { source, checkpointer, feed, identity, end, events })
    }

    /// Calls `each` with the messages that would be sent, up to the current end, without sending
    /// them or moving the checkpoint. `each` returns whether to continue.
    ///
    /// # Errors
    /// [`Error::Feed`] if the feed cannot be read.
    pub fn dry_run(&self, mut each: impl FnMut(&Outgoing) -> bool) -> Result<(), Error> {
        let (identity, end) = (self.log.identity()?, self.log.end()?);
        let from = Start::After(self.log.checkpoint(&self.subscriber)?);
        let options = ReaderOptions::default().on_damage(OnDamage::Skip).peek(true);
        let mut reader = self.log.reader_from(&from, options)?;
        while let Some(batch) = reader.next_batch(jlog_core::Wait::No)? {
            for message in &batch {
                if message.id() > end || self.until.is_some_and(|until| message.time() >= until) {
                    return Ok(());
                }
                let body = Bytes::copy_from_slice(message.body());
                let message = aside::outgoing(identity, message.id(), message.time(), body, self.unwrap);
                if self.passes(&message) && !each(&message) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// A message that was read and is not in the window yet.
struct Incoming {
    id: LogId,
    message: Outgoing,
    /// Whether it is shipped; the bytes of a filtered message are not kept.
    passes: bool,
}

struct Opened {
    source: Source,
    checkpointer: Checkpointer,
    feed: Feed,
    identity: FeedIdentity,
    end: Option<LogId>,
    events: std::sync::mpsc::Receiver<Event>,
}

/// The state of the destination.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// It accepts shipments.
    Open,
    /// Once no shipment is in flight, it is opened (again), after this wait.
    Refused(Duration),
    /// It is being opened.
    Waits(Instant),
}

/// The messages of a shipment in flight, and its answer.
type Answered = (Vec<LogId>, Result<(), Refusal>);

/// A feed and a destination, from opening the feed until it ends or disappears.
struct Session<'a> {
    shipper: &'a mut Shipper,
    destination: &'a mut dyn Destination,
    name: String,
    aside: &'a mut Option<SetAside>,
    source: Source,
    checkpointer: Checkpointer,
    feed: Feed,
    identity: FeedIdentity,
    end: Option<LogId>,
    events: std::sync::mpsc::Receiver<Event>,
    limits: Limits,
    backoff: Backoff,
    incoming: VecDeque<Incoming>,
    /// The messages that were sent or must be sent again.
    window: AckWindow<Outgoing>,
    window_bytes: usize,
    in_flight: FuturesUnordered<BoxFuture<'static, Answered>>,
    phase: Phase,
    /// The last messages of shipments while the refused one is being searched for.
    cuts: BTreeSet<LogId>,
    /// The destination has everything up to here.
    known: Option<LogId>,
    stored: Option<LogId>,
    /// Whether reading has stopped.
    source_done: bool,
    /// Why the feed cannot be read any more.
    source_error: Option<jlog_core::Error>,
    stopping: Option<Instant>,
    /// When the next shipment may be sent, if there is a rate limit.
    paced: Option<Instant>,
    reported: Option<(String, Instant)>,
}

impl<'a> Session<'a> {
    fn new(
        shipper: &'a mut Shipper,
        destination: &'a mut dyn Destination,
        aside: &'a mut Option<SetAside>,
        opened: Opened,
    ) -> Self {
        let (name, limits) = (destination.name(), destination.limits());
        let backoff = Backoff::new(shipper.backoff.0, shipper.backoff.1);
        // The window never delivers messages again because of their age: each answer has its own
        // time limit.
        let window = AckWindow::new(shipper.window_messages, Duration::MAX);
        let Opened { source, checkpointer, feed, identity, end, events } = opened;
        Self {
            shipper,
            destination,
            name,
            aside,
            source,
            checkpointer,
            feed,
            identity,
            end,
            events,
            limits,
            backoff,
            incoming: VecDeque::new(),
            window,
            window_bytes: 0,
            in_flight: FuturesUnordered::new(),
            phase: Phase::Refused(Duration::ZERO),
            cuts: BTreeSet::new(),
            known: None,
            stored: None,
            source_done: false,
            source_error: None,
            stopping: None,
            paced: None,
            reported: None,
        }
    }

    fn report(&mut self, report: &Report) {
        (self.shipper.reports)(report);
    }

    /// Returns when everything is done, or the drain time is over.
    async fn run(mut self) -> Result<(), jlog_core::Error> {
        let mut stop = self.shipper.stop.subscribe();
        let outcome = loop {
            while let Ok(event) = self.events.try_recv() {
                self.report(&Report::Feed(event));
            }
            if self.stopping.is_none() && *stop.borrow_and_update() {
                self.stopping = Some(Instant::now() + self.shipper.drain);
                self.incoming.clear();
            }
            // Committed before anything is sent, so that at most one window is sent beyond the
            // checkpoint.
            let before = self.commit();
            self.send();
            let gone = before.and_then(|()| self.commit());
            let drained = self.window.is_empty() && (self.stopping.is_some() || self.incoming.is_empty());
            if drained && (self.source_done || self.stopping.is_some()) {
                break gone;
            }
            // Unacknowledged messages are sent again next time.
            let idle = self.in_flight.is_empty() && self.stopping.is_some() && self.phase != Phase::Open;
            if idle || self.stopping.is_some_and(|limit| limit <= Instant::now()) {
                break gone;
            }
            if let Phase::Refused(wait) = self.phase
                && self.in_flight.is_empty()
            {
                let now = Instant::now();
                self.phase = Phase::Waits(now.checked_add(wait).unwrap_or(now + Duration::from_secs(3600)));
            }
            if let Phase::Waits(at) = self.phase
                && at <= Instant::now()
            {
                self.open().await;
                continue;
            }
            let timer = match self.phase {
                Phase::Waits(at) => Some(at),
                _ => None,
            };
            let timer = [timer, self.paced, self.stopping].into_iter().flatten().min();
            let sleep = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            let wants = !self.source_done && self.stopping.is_none() && self.incoming.is_empty();
            tokio::select! {
                Some(answered) = self.in_flight.next(), if !self.in_flight.is_empty() => self.answered(answered),
                next = self.source.batches.recv(), if wants => self.fetched(next),
                () = sleep => {}
                _ = stop.changed(), if self.stopping.is_none() => {}
            }
        };
        if !self.window.is_empty()
            && let Some(why) = self.gone()
        {
            // No later run can read these messages again.
            let messages = self.window.open() as u64;
            self.shipper.progress.abandoned(messages);
            self.report(&Report::Abandoned { messages, why: why.to_string() });
        }
        outcome.map_or_else(Err, |()| self.source_error.take().map_or(Ok(()), Err))
    }

    /// Why the feed or the subscriber cannot be read any more, if it was removed or replaced.
    fn gone(&self) -> Option<jlog_core::Error> {
        self.checkpointer.check_not_replaced().err().filter(jlog_core::Error::is_gone)
    }

    fn fetched(&mut self, next: Option<jlog_core::Result<OwnedBatch>>) {
        match next {
            None => self.source_done = true,
            Some(Err(error)) => {
                self.source_done = true;
                self.source_error = Some(error);
            }
            Some(Ok(batch)) => {
                for message in &batch {
                    let past = self.end.is_some_and(|end| message.id() > end)
                        || self.shipper.until.is_some_and(|until| message.time() >= until);
                    if past {
                        self.source_done = true;
                        break;
                    }
                    let (id, time) = (message.id(), message.time());
                    let mut message =
                        aside::outgoing(self.identity, id, time, message.into_body(), self.shipper.unwrap);
                    let passes = self.shipper.passes(&message);
                    if !passes {
                        message.body = Bytes::new();
                    }
                    self.incoming.push_back(Incoming { id, message, passes });
                }
            }
        }
    }

    /// Sends as much as the limits allow.
    fn send(&mut self) {
        while self.phase == Phase::Open && self.in_flight.len() < self.limits.in_flight.max(1) {
            if self.paced.is_some_and(|at| at > Instant::now()) {
                return;
            }
            self.paced = None;
            let shipment = self.next_shipment();
            if shipment.is_empty() {
                return;
            }
            if let Some(rate) = self.shipper.rate {
                // At most a tenth of a second's messages, or one.
                let count = u32::try_from(shipment.len()).unwrap_or(u32::MAX);
                self.paced = Some(Instant::now() + Duration::from_secs(1) * count / rate);
            }
            let ids: Vec<LogId> = shipment.iter().map(|(id, _)| *id).collect();
            let shipment: Shipment = shipment.into_iter().map(|(_, message)| message).collect();
            let longest = shipment.first().map_or(0, |message| message.body.len());
            if longest > self.limits.message_bytes {
                let most = self.limits.message_bytes;
                let why = format!("it has {longest} bytes, and {} takes at most {most}", self.name);
                // Handled at once, so that no later message is sent before the fate of this one is
                // known.
                return self.answered((ids, Err(Refusal::message(why))));
            }
            let answer = self.destination.send(shipment);
            for text in self.destination.notices() {
                self.report(&Report::Notice { destination: self.name.clone(), text });
            }
            let timeout = self.shipper.timeout;
            self.in_flight.push(Box::pin(async move {
                let answer = tokio::time::timeout(timeout, answer).await;
                let late =
                    |_| Err(Refusal::temporary(format!("no answer within {} s", timeout.as_secs_f64())));
                (ids, answer.unwrap_or_else(late))
            }));
        }
    }

    /// The messages to send next, beginning with those that are sent again. A message that is too
    /// long is sent alone.
    fn next_shipment(&mut self) -> Vec<(LogId, Outgoing)> {
        let now = Instant::now();
        let mut shipment = Vec::new();
        let mut bytes = 0;
        let most = match self.shipper.rate {
            // This spreads a low rate evenly.
            Some(rate) => self.limits.messages.min(rate as usize / 10).max(1),
            None => self.limits.messages.max(1),
        };
        while shipment.len() < most {
            let fits = |len: usize| {
                shipment.is_empty() || (bytes + len <= self.limits.bytes && len <= self.limits.message_bytes)
            };
            let next = if self.window.has_returned() {
                let Some(again) = self.window.redeliver(now) else { break };
                let (id, message) = (again.id, again.message.clone());
                if !fits(message.body.len()) {
                    self.window.give_back(id);
                    break;
                }
                (id, message)
            } else {
                // New messages wait until all repeated ones are done, so that a failure does not
                // change the order further.
                let Some(&Incoming { id, ref message, passes }) = self.incoming.front() else { break };
                let len = message.body.len();
                if self.stopping.is_some() || self.window.is_full() || (passes && !fits(len)) {
                    break;
                }
                if passes && self.window_bytes + len > self.shipper.window_bytes && !self.window.is_empty() {
                    break;
                }
                let Some(Incoming { message, .. }) = self.incoming.pop_front() else { break };
                self.shipper.progress.read(1);
                if self.window.deliver(id, message.clone(), now).is_err() {
                    // Ids only grow, and there is room.
                    self.shipper.progress.skipped();
                    continue;
                }
                if !passes {
                    self.window.acknowledge(id);
                    self.shipper.progress.filtered();
                    continue;
                }
                self.window_bytes += len;
                if self.known.is_some_and(|known| id <= known) {
                    self.done(&[id]);
                    self.shipper.progress.known(1);
                    continue;
                }
                (id, message)
            };
            bytes += next.1.body.len();
            let (cut, alone) = (self.cuts.contains(&next.0), next.1.body.len() > self.limits.message_bytes);
            shipment.push(next);
            if cut || alone {
                break;
            }
        }
        shipment
    }

    /// Acknowledges messages that the destination has accepted.
    fn done(&mut self, ids: &[LogId]) {
        let (mut count, mut bytes) = (0, 0);
        for &id in ids {
            if let Some(message) = self.window.acknowledge(id) {
                count += 1;
                bytes += message.body.len();
            }
        }
        self.window_bytes -= bytes;
        if count > 0 {
            self.shipper.progress.acknowledged(count, bytes as u64);
        }
    }

    fn answered(&mut self, (ids, answer): Answered) {
        let Err(refusal) = answer else {
            self.done(&ids);
            return self.accepts();
        };
        let accepted = refusal.accepted.min(ids.len());
        let (accepted, left) = ids.split_at(accepted);
        self.done(accepted);
        if !accepted.is_empty() {
            self.accepts();
        }
        for &id in left {
            self.window.give_back(id);
        }
        if refusal.kind != RefusalKind::Behind {
            self.shipper.progress.refused(&refusal.why);
        }
        let wait = match (refusal.kind, left) {
            (_, []) | (RefusalKind::Behind, _) => Duration::ZERO,
            (RefusalKind::Message, &[first, ..]) | (RefusalKind::Shipment | RefusalKind::Some, &[first]) => {
                self.rejected(first, &refusal.why)
            }
            (RefusalKind::Some, left) if self.shipper.on_reject != OnReject::Block => {
                // Up to the first one that cannot be set aside now.
                let waits = left.iter().map(|&id| self.rejected(id, &refusal.why));
                waits.into_iter().find(|wait| !wait.is_zero()).unwrap_or_default()
            }
            (RefusalKind::Shipment | RefusalKind::Some, left) => {
                self.cuts.insert(left[left.len() / 2 - 1]);
                Duration::ZERO
            }
            (RefusalKind::Temporary(asked), _) => {
                self.refused(&refusal.why, false);
                self.backoff.wait(asked)
            }
            (RefusalKind::Misconfigured, _) => {
                self.refused(&refusal.why, true);
                self.backoff.wait(None)
            }
        };
        let longer = match self.phase {
            Phase::Refused(other) => wait.max(other),
            _ => wait,
        };
        self.phase = Phase::Refused(longer);
    }

    /// Handles a message that is refused for good. Returns how long to wait before continuing.
    fn rejected(&mut self, id: LogId, why: &str) -> Duration {
        let mut why = Cow::Borrowed(why);
        if self.shipper.on_reject == OnReject::Block {
            let Some(gone) = self.gone() else {
                self.refused(&why, true);
                return self.backoff.wait(None);
            };
            // It would block the replacement of its feed, from which nobody can remove it.
            why = Cow::Owned(format!("{why}; {gone}"));
        }
        // Remove it from the messages that will be sent again; there may be others before it.
        let (now, mut others, mut found) = (Instant::now(), Vec::new(), None);
        while let Some(again) = self.window.redeliver(now) {
            if again.id == id {
                found = Some(again.message.clone());
                break;
            }
            others.push(again.id);
        }
        for other in others {
            self.window.give_back(other);
        }
        let Some(message) = found else { return Duration::ZERO };
        if let Some(aside) = self.aside {
            let put = aside.put(&message, &self.shipper.path, &self.shipper.subscriber, &self.name, &why);
            if let Err(e) = put {
                self.window.give_back(id);
                let path = aside.path().display().to_string();
                self.refused(&format!("{why}; it cannot be set aside in {path}: {e}"), true);
                return self.backoff.wait(None);
            }
            self.shipper.progress.set_aside();
        } else {
            self.shipper.progress.skipped();
        }
        self.window.acknowledge(id);
        self.window_bytes -= message.body.len();
        let set_aside = self.aside.as_ref().map(|aside| aside.path().to_owned());
        self.report(&Report::Rejected { id: message.id, why: why.into_owned(), set_aside });
        Duration::ZERO
    }

    fn accepts(&mut self) {
        self.backoff.reset();
        if self.shipper.progress.set_failing(false) {
            self.reported = None;
            self.report(&Report::Resumed { destination: self.name.clone() });
        }
    }

    fn refused(&mut self, why: &str, misconfigured: bool) {
        self.shipper.progress.set_failing(true);
        let said = self.reported.as_ref();
        if said.is_some_and(|(text, at)| text == why && at.elapsed() < REPORT_AGAIN) {
            return;
        }
        self.reported = Some((why.to_owned(), Instant::now()));
        self.report(&Report::Refused { destination: self.name.clone(), why: why.to_owned(), misconfigured });
    }

    /// Opens the destination. Requires: no shipment is in flight.
    async fn open(&mut self) {
        let limit =
            self.stopping.map_or(self.shipper.timeout, |at| at.saturating_duration_since(Instant::now()));
        let mut stop = self.shipper.stop.subscribe();
        let stopped = async {
            if self.stopping.is_some() || stop.wait_for(|&stop| stop).await.is_err() {
                pending::<()>().await;
            }
        };
        let opened = tokio::select! {
            opened = tokio::time::timeout(limit, self.destination.open(&self.feed)) => opened,
            () = stopped => return,
        };
        let opened = opened.unwrap_or_else(|_| {
            Err(Refusal::temporary(format!("not connected within {} s", limit.as_secs_f64())))
        });
        match opened {
            Err(refusal) => {
                self.shipper.progress.refused(&refusal.why);
                let (asked, misconfigured) = match refusal.kind {
                    RefusalKind::Temporary(asked) => (asked, false),
                    _ => (None, true),
                };
                self.refused(&refusal.why, misconfigured);
                self.phase = Phase::Refused(self.backoff.wait(asked));
            }
            Ok(known) => {
                self.limits = self.destination.limits();
                self.known = self.known.max(known);
                self.phase = Phase::Open;
                self.drop_known();
            }
        }
    }

    /// Acknowledges repeated messages that the destination already has.
    fn drop_known(&mut self) {
        let Some(known) = self.known else { return };
        let now = Instant::now();
        while let Some(again) = self.window.redeliver(now) {
            let id = again.id;
            if id > known {
                self.window.give_back(id);
                return;
            }
            self.done(&[id]);
            self.shipper.progress.known(1);
        }
    }

    /// Stores the checkpoint up to which everything is done. Fails if the feed or the subscriber no
    /// longer exists.
    fn commit(&mut self) -> Result<(), jlog_core::Error> {
        let Some(done) = self.window.checkpoint().filter(|&done| Some(done) != self.stored) else {
            return Ok(());
        };
        match self.checkpointer.commit(done) {
            Ok(()) => self.stored = Some(done),
            Err(e @ (jlog_core::Error::Replaced { .. } | jlog_core::Error::Unsubscribed { .. })) => {
                self.source_done = true;
                return Err(e);
            }
            Err(e) => {
                let why = e.to_string();
                self.shipper.progress.failed(&why);
                if self
                    .reported
                    .as_ref()
                    .is_none_or(|(text, at)| *text != why || at.elapsed() >= REPORT_AGAIN)
                {
                    self.reported = Some((why.clone(), Instant::now()));
                    self.report(&Report::Checkpoint(why));
                }
            }
        }
        Ok(())
    }
}
