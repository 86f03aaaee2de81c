//! A stream's sink with everything around it: format, queue, counters, repetitions, errors.

mod latency;
mod losses;
mod queue;

use std::any::Any;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use latency::Latency;
use losses::{Losses, Lost, counted};
use queue::{Batch, GivenUp, Queue};

use crate::format::{Flags, Format, Layout, event_body, render, render_for_people};
use crate::level::Level;
use crate::options::{StreamOptions, WhenFull};
use crate::patience::{self, Patience};
use crate::record::{Doing, Record, While, now_micros};
use crate::sink::{FileSink, Lines, MemorySink, Sink, SinkSpec, WriteError, journald};
use crate::sync::{
    CachePadded, Condvar, Flag, Mutex, MutexGuard, Thread, is_this_thread, lock_at_once, lock_until, spawn,
    wait, wait_a_while, wait_until,
};

pub use latency::WriteTimes;
pub use queue::QueueStats;

/// Called with each line as text before a sink gets it. A hook that returns `false` stops the line.
pub(crate) type TextHook = Arc<dyn Fn(&Record<'_>, &[u8]) -> bool + Send + Sync>;

/// The minimum time between two reports of a sink's errors on stderr.
const TELL_EVERY_MICROS: u64 = 10_000_000;

/// Between batches, lines gather for this time, or until there are `ENOUGH_BYTES`: waking a thread
/// for every line costs the threads that log more than the write itself.
const GATHER: Duration = Duration::from_micros(500);
const ENOUGH_BYTES: usize = 1 << 20;
const JSON: u8 = Format::Json as u8;
const EVENT: u8 = Format::Event as u8;
#[cfg(feature = "flatbuffers")]
const FLAT_BUFFER: u8 = Format::FlatBuffer as u8;
/// Memory of up to this many bytes is kept from one line to the next.
const KEEP_LINE: usize = 64 << 10;
/// How often periodic work is done while there is nothing to write.
const TICK: Duration = Duration::from_secs(1);

/// How many bytes beyond a full queue may be taken by reports of lines that limits have left out.
/// Further reports are dropped.
const REPORT_BYTES: usize = 64 << 10;
/// How long such a report waits for the thread that is writing to a sink without a queue.
const REPORT_WAIT: Duration = Duration::from_millis(100);

/// Stands for the size of a sink that has none.
const NO_SIZE: u64 = u64::MAX;

/// A flush that has begun.
#[derive(Debug)]
pub(crate) struct Flush {
    /// A line that is still to be written.
    line: Option<Vec<u8>>,
    /// The number of lines that must have left the queue.
    until: u64,
}

/// The counters of a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lines written.
    pub lines: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Lines dropped because the queue was full.
    pub dropped: u64,
    /// Lines that could not be written.
    pub failed: u64,
    /// Lines left out because they repeated the previous line.
    pub repeated: u64,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stream: String,
    /// The specification that the sink was created from.
    pub(crate) spec: SinkSpec,
    pub(crate) sink: Arc<dyn Sink>,
    /// The number of its format.
    format: AtomicU8,
    /// Whether people read the sink's output.
    for_people: bool,
    /// Whether the sink is a ring, which has its own lock and counters, so that several threads may
    /// write to it at once.
    is_ring: bool,
    layout: Layout,
    wraps: bool,
    needs_times: bool,
    keeps_back: bool,
    needs_ticks: bool,
    when_full: WhenFull,
    dedup_micros: u64,
    max_line: usize,
    queue_bytes: usize,
    drain_limit: Duration,
    asynchronous: Flag,
    /// On a cache line of its own, because taking the lock takes the cache line from other threads.
    queue: CachePadded<Mutex<Queue>>,
    /// Signals that there is something to write, or that the writer must end.
    work: Condvar,
    /// Signals that there is room, or that everything is written.
    room: Condvar,
    written: Written,
    latency: Latency,
    /// Held while a thread writes to the sink, for as long as the sink takes. Descriptions and
    /// counters do not need it, and so do not wait.
    writing: Mutex<()>,
    /// How many threads wait for `writing` in order to write their lines.
    waiting: AtomicU64,
    /// How many lines of such threads were given up. They count as dropped until the threads come
    /// back.
    late: AtomicU64,
    /// Whether the sink has not taken a line in time. Until it takes one, threads that may drop
    /// their lines do not wait.
    behind: AtomicBool,
    losses: Mutex<Losses>,
    /// Whether to reopen the sink after the current write.
    reopens: Flag,
    size: AtomicU64,
    repetition: Mutex<Repetition>,
    thread: Mutex<Option<Thread>>,
    reported: AtomicU64,
}

/// Counts what went through the sink. Reading the counts does not wait for a write.
#[derive(Debug, Default)]
struct Written {
    lines: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
}

/// Adds to a counter that only the holder of the right to write changes.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// The state of `dedup_seconds`.
#[derive(Debug, Default)]
struct Repetition {
    repeated: u64,
    last: Option<Repeated>,
}

#[derive(Debug)]
struct Repeated {
    message: Vec<u8>,
    facility: String,
    first: u64,
    /// When the line arrived, which may differ from the line's time.
    came: Instant,
    times: u64,
    flags: Flags,
}

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Ends the queues of these sinks, all at the same time so that none waits for another.
pub(crate) fn go_sync(slots: &[Arc<Slot>]) {
    slots.iter().for_each(|slot| slot.stop());
    let deadlines: Vec<Instant> = slots.iter().map(|slot| slot.deadline()).collect();
    slots.iter().zip(deadlines).for_each(|(slot, deadline)| slot.go_sync(deadline));
}

impl Slot {
    /// The sink, if it is a ring.
    pub(crate) fn ring(&self) -> Option<&MemorySink> {
        (&*self.sink as &dyn Any).downcast_ref()
    }

    pub(crate) fn new(
        stream: &str,
        sink: Arc<dyn Sink>,
        spec: SinkSpec,
        options: &StreamOptions,
    ) -> Arc<Self> {
        let can = sink.capabilities();
        let slot = Self {
            stream: stream.to_owned(),
            spec,
            format: AtomicU8::new(0),
            for_people: can.is_terminal,
            is_ring: (&*sink as &dyn Any).is::<MemorySink>(),
            layout: Layout {
                split: can.splits_lines,
                escape: options.escape || can.is_terminal,
                spans: options.spans,
            },
            wraps: can.wraps,
            needs_times: can.needs_times,
            keeps_back: can.keeps_back,
            needs_ticks: can.needs_ticks || options.dedup.is_some(),
            sink,
            when_full: options.when_full.unwrap_or_default(),
            dedup_micros: options.dedup.map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            max_line: options.max_line,
            queue_bytes: options.queue_bytes,
            drain_limit: options.drain_limit,
            asynchronous: Flag::new(false),
            queue: CachePadded::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            written: Written::default(),
            latency: Latency::default(),
            writing: Mutex::default(),
            waiting: AtomicU64::new(0),
            late: AtomicU64::new(0),
            behind: AtomicBool::new(false),
            losses: Mutex::default(),
            reopens: Flag::new(false),
            size: AtomicU64::new(NO_SIZE),
            repetition: Mutex::default(),
            thread: Mutex::default(),
            reported: AtomicU64::new(0),
        };
        slot.set_format(options.format);
        Arc::new(slot)
    }

    pub(crate) fn set_format(&self, format: Format) {
        self.format.store(format as u8, Ordering::Relaxed);
    }

    fn format(&self) -> Format {
        match self.format.load(Ordering::Relaxed) {
            JSON => Format::Json,
            EVENT => Format::Event,
            #[cfg(feature = "flatbuffers")]
            FLAT_BUFFER => Format::FlatBuffer,
            _ => Format::Plain,
        }
    }

    fn render(&self, format: Format, flags: Flags, record: &Record<'_>, line: &mut Vec<u8>) {
        if format == Format::Event && self.for_people {
            render_for_people(record, line);
        } else {
            render(format, flags, self.layout, record, line);
        }
    }

    /// Gives the sink a queue and a thread, if it may have one.
    pub(crate) fn go_async(self: &Arc<Self>) {
        let _busy = While::busy();
        let mut thread = self.thread.lock();
        if thread.is_some() || !self.sink.capabilities().may_be_asynchronous {
            return;
        }
        let writer = {
            let mut queue = self.queue.lock();
            // Set under the lock: a thread that finds the queue open must queue its next line, too,
            // or that line would overtake the one in the queue.
            self.asynchronous.store(true, Ordering::Release);
            (queue.stop, queue.ended) = (false, false);
            queue.writer += 1;
            queue.writer
        };
        let slot = Arc::clone(self);
        let name = format!("log-{}", self.stream).chars().take(15).collect();
        match spawn(name, move || slot.write_queue(writer)) {
            Ok(handle) => *thread = Some(handle),
            // Without a thread, the threads that log write their lines themselves.
            Err(e) => {
                self.queue.lock().stop = true;
                self.write_queue(writer);
                self.report(&format!("no thread for its queue: {e}"));
            }
        }
    }

    /// Holds back lines that are logged from now on, until the guard is dropped. Requires: signal
    /// handlers do not log.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.writing.lock()
    }

    pub(crate) fn drain_limit(&self) -> Duration {
        self.drain_limit
    }

    /// The deadline of a wait for this sink that begins now. There is no wait for a sink that was
    /// given up and is not back yet: a program that ends drains and flushes, and would wait each
    /// time.
    pub(crate) fn deadline(&self) -> Instant {
        let _busy = While::busy();
        let now = Instant::now();
        if self.queue.lock().stuck > 0 || self.late.load(Ordering::Relaxed) > 0 {
            return now;
        }
        self.limit_from(now)
    }

    fn limit_from(&self, now: Instant) -> Instant {
        // A limit beyond the range of the clock is no limit: a year will do.
        now.checked_add(self.drain_limit).unwrap_or(now + Duration::from_secs(31_536_000))
    }

    /// Tells the thread to write everything that waits, and to end.
    pub(crate) fn stop(&self) {
        let _busy = While::busy();
        if self.thread.lock().is_some() {
            self.queue.lock().stop = true;
            self.work.notify_all();
            self.room.notify_all();
        }
    }

    /// Whether the queue has ended, and nothing is being written any more.
    pub(crate) fn has_ended(&self) -> bool {
        let _busy = While::busy();
        let threaded = lock_at_once(&self.thread).map(|thread| thread.is_some());
        match threaded {
            Some(true) => self.queue.lock().ended,
            Some(false) => lock_at_once(&self.writing).is_some(),
            // Another thread is ending it right now.
            None => false,
        }
    }

    /// Writes everything that waits, and ends the thread. Lines that are not written by the
    /// deadline are counted as dropped and reported; a thread that is still inside the sink ends
    /// when it returns from there.
    pub(crate) fn go_sync(&self, deadline: Instant) {
        let _busy = While::busy();
        // Held to the end: a new thread must not begin before the old one has written its lines.
        let mut held = self.thread.lock();
        let Some(thread) = held.take() else {
            drop(held);
            return self.wait_for_those_who_write(deadline);
        };
        let mut queue = self.queue.lock();
        queue.stop = true;
        self.work.notify_all();
        self.room.notify_all();
        if is_this_thread(&thread) {
            return;
        }
        while !queue.ended {
            let in_time;
            (queue, in_time) = wait_until(&self.room, queue, deadline);
            if !in_time && !queue.ended {
                let given_up = queue.give_up();
                let why = self.not_taken();
                self.note_loss(given_up.left, io::Error::new(io::ErrorKind::TimedOut, &*why));
                // The thread that would have reported these is gone.
                self.losses.lock().unreported.lines += given_up.unreported;
                self.room.notify_all();
                drop(queue);
                self.report_not_written(&given_up, &why);
                return;
            }
        }
        drop(queue);
        // If it panicked, it was in the sink, and its lines are counted as failed.
        let _ = thread.join();
    }

    /// Waits for threads that write their lines themselves. Lines that are not written by the
    /// deadline are reported, and count as dropped until they are written.
    fn wait_for_those_who_write(&self, deadline: Instant) {
        // A sink that calls this would wait for itself.
        if self.is_ring || Doing::now() == Doing::Writing || lock_until(&self.writing, deadline).is_some() {
            return;
        }
        let mut queue = self.queue.lock();
        if self.late.load(Ordering::Relaxed) == 0 {
            let lines = self.lines_under_way(&queue);
            if lines == 0 {
                return;
            }
            self.late.store(lines, Ordering::Relaxed);
            queue.dropped += lines;
            drop(queue);
            // Each is a thread's only line, which the sink has not taken whole.
            let given_up = GivenUp { left: Lost { lines, within_sink: 0 }, unreported: 0 };
            let why = self.not_taken();
            self.note_loss(given_up.left, io::Error::new(io::ErrorKind::TimedOut, &*why));
            self.report_not_written(&given_up, &why);
        }
    }

    /// How many lines belong to threads that are in the sink or wait for it. The lines of a queue's
    /// thread that was given up, and is not back, are already counted as dropped.
    fn lines_under_way(&self, queue: &Queue) -> u64 {
        u64::from(queue.stuck == 0) + self.waiting.load(Ordering::Relaxed)
    }

    /// Why lines are given up.
    fn not_taken(&self) -> String {
        format!("its sink has not taken them for {:?}", self.drain_limit)
    }

    /// Reports lines that were given up.
    fn report_not_written(&self, &GivenUp { left, unreported }: &GivenUp, why: &str) {
        let dropped = match unreported {
            0 => String::new(),
            unreported => format!("; {} dropped before, as its queue was full", counted(unreported)),
        };
        self.report_on_stderr(&format!("{left} not written: {why}{dropped}"));
    }

    /// Makes the thread write everything that was logged before soon. Returns what to pass to
    /// [`finish_drain`](Self::finish_drain).
    pub(crate) fn start_drain(&self) -> u64 {
        let _busy = While::busy();
        let queue = self.queue.lock();
        self.work.notify_one();
        queue.taken + queue.batch.ends.len() as u64
    }

    /// Waits until everything that was logged before is written.
    ///
    /// # Errors
    /// The sink takes too long; the error says how much is left.
    pub(crate) fn finish_drain(&self, until: u64, deadline: Instant) -> io::Result<()> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that drains would wait for itself.
            return Ok(());
        }
        let mut queue = self.queue.lock();
        queue.draining += 1;
        let mut in_time = true;
        while queue.done < until && in_time {
            self.work.notify_one();
            (queue, in_time) = wait_until(&self.room, queue, deadline);
        }
        queue.draining -= 1;
        match until.saturating_sub(queue.done) {
            0 => Ok(()),
            lines => {
                let left = Lost { lines, within_sink: lines.min(queue.taken - queue.done) };
                Err(self.takes_too_long(&format!("{left} not written yet")))
            }
        }
    }

    fn takes_too_long(&self, what: &str) -> io::Error {
        let why = format!("{what}: its sink takes longer than {:?}", self.drain_limit);
        io::Error::new(io::ErrorKind::TimedOut, why)
    }

    /// Does something with the sink when no thread is writing to it.
    ///
    /// # Errors
    /// The error of the work, or that a write takes too long.
    pub(crate) fn with_sink<R>(
        &self,
        deadline: Instant,
        work: impl FnOnce(&dyn Sink) -> io::Result<R>,
    ) -> io::Result<R> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that calls this would wait for itself.
            return work(&*self.sink);
        }
        let Some(_writing) = lock_until(&self.writing, deadline) else {
            return Err(self.takes_too_long("it is busy"));
        };
        let _doing = While::doing(Doing::Writing);
        work(&*self.sink)
    }

    /// Reopens the sink: now, or at the end of a write that takes long.
    pub(crate) fn reopen(&self, deadline: Instant) -> io::Result<()> {
        // Set before the wait: the writing thread checks this after its write, and cannot miss it.
        self.reopens.store(true, Ordering::SeqCst);
        self.with_sink(deadline, |sink| {
            if self.reopens.swap(false, Ordering::SeqCst) { sink.reopen() } else { Ok(()) }
        })
    }

    /// The first half of a flush: reports repetitions, and makes the thread write everything that
    /// was logged before soon.
    pub(crate) fn start_flush(&self) -> Flush {
        let _busy = While::busy();
        let mut line = self.ended_repetition(&mut self.repetition.lock());
        let mut queue = self.queue.lock();
        if self.asynchronous.load(Ordering::Acquire)
            && !queue.stop
            && let Some(line) = line.take()
        {
            // Even if the queue is full: this line is short.
            queue.push(&line, now_micros());
        }
        drop(queue);
        Flush { line, until: self.start_drain() }
    }

    /// The second half of a flush: waits for the first half, and makes the lines durable. Also
    /// fails if lines were lost since the last flush.
    pub(crate) fn finish_flush(&self, flush: Flush, deadline: Instant) -> io::Result<()> {
        let _busy = While::busy();
        if Doing::now() == Doing::Writing {
            // A sink that flushes would wait for itself.
            return Ok(());
        }
        let flushed = self.finish_drain(flush.until, deadline).and_then(|()| {
            let Some(_writing) = lock_until(&self.writing, deadline) else {
                let what = match self.lines_under_way(&self.queue.lock()) {
                    0 => "a write that was given up has not ended".to_owned(),
                    lines => format!("{} not written yet", counted(lines)),
                };
                return Err(self.takes_too_long(&what));
            };
            if let Some(line) = flush.line {
                let ends = [(line.len(), now_micros())];
                self.write(&Lines { bytes: &line, ends: &ends, start: 0 });
            }
            let _doing = While::doing(Doing::Writing);
            guarded(|| self.sink.idle().and_then(|()| self.sink.flush()))
        });
        let mut losses = self.losses.lock();
        match (std::mem::take(&mut losses.lost), losses.why.take()) {
            (lost, Some(why)) => Err(io::Error::new(why.kind(), format!("{lost} lost: {why}"))),
            _ => flushed,
        }
    }

    /// The size of what the sink writes to, in bytes. During a write, this is the size when it was
    /// last asked for.
    pub(crate) fn size(&self) -> Option<u64> {
        let _busy = While::busy();
        let quick = self.is_ring || (&*self.sink as &dyn Any).is::<FileSink>();
        if quick {
            return self.sink.size();
        }
        if let Some(_writing) = lock_until(&self.writing, Instant::now()) {
            self.size
                .store(self.sink.size().map_or(NO_SIZE, |size| size.min(NO_SIZE - 1)), Ordering::Relaxed);
        }
        Some(self.size.load(Ordering::Relaxed)).filter(|&size| size != NO_SIZE)
    }

    /// The state of the queue; `None` if there is none.
    pub(crate) fn queue(&self) -> Option<QueueStats> {
        let _busy = While::busy();
        if !self.asynchronous.load(Ordering::Acquire) {
            return None;
        }
        let queue = self.queue.lock();
        let oldest = queue.batch.ends.first().map(|&(_, micros)| micros);
        Some(QueueStats {
            lines: queue.batch.ends.len() as u64,
            bytes: queue.batch.size() as u64,
            limit: self.queue_bytes as u64,
            oldest_micros: oldest.filter(|&micros| micros > 0),
            writing_micros: self.latency.since(),
            writes: self.latency.times(),
        })
    }

    /// How often its file was rotated; `None` if it is not a file.
    pub(crate) fn rotations(&self) -> Option<u64> {
        (&*self.sink as &dyn Any).downcast_ref::<FileSink>().map(FileSink::rotations)
    }

    pub(crate) fn counters(&self) -> Counters {
        let _busy = While::busy();
        let dropped = self.queue.lock().dropped;
        let repeated = self.repetition.lock().repeated;
        let Written { lines, bytes, failed } = &self.written;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ring = (&*self.sink as &dyn Any).downcast_ref::<MemorySink>();
        let (lines, bytes) = ring.map_or_else(|| (count(lines), count(bytes)), MemorySink::taken);
        Counters { lines, bytes, dropped, failed: count(failed), repeated }
    }

    /// Takes a line.
    pub(crate) fn deliver(&self, record: &Record<'_>, flags: Flags, hooks: &[TextHook]) {
        if self.dedup_micros > 0 && self.repeats(record, flags) {
            return;
        }
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        line.clear();
        let accepted = self.deliver_in(record, flags, hooks, &mut line);
        if line.capacity() <= KEEP_LINE {
            // A thread that is ending cannot keep it.
            let _ = LINE.try_with(|kept| kept.set(line));
        }
        if !accepted && self.dedup_micros > 0 {
            // A line that was not written cannot be repeated.
            self.repetition.lock().last = None;
        }
    }

    fn deliver_in(&self, record: &Record<'_>, flags: Flags, hooks: &[TextHook], line: &mut Vec<u8>) -> bool {
        let format = self.format();
        self.render(format, flags, record, line);
        // The text before and after a message is not counted.
        if line.len() > self.max_line && record.message().len() > self.max_line {
            self.too_large(record.message().len());
            false
        } else {
            if format == Format::Plain && !hooks.iter().all(|hook| hook(record, line)) {
                return false;
            }
            if self.wraps {
                self.sink.wrap(record, format, line);
            }
            self.give(line, if self.needs_times { record.micros() } else { 0 })
        }
    }

    fn too_large(&self, bytes: usize) {
        let why = format!("a line of {bytes} bytes is too long: {} are allowed (max_line)", self.max_line);
        self.lose(1, io::Error::new(io::ErrorKind::InvalidInput, why));
    }

    /// Queues a line, or writes it. Returns `false` if it is known to be lost.
    fn give(&self, line: &[u8], micros: u64) -> bool {
        if !self.asynchronous.load(Ordering::Acquire) {
            return self.write_one(line, micros);
        }
        let mut queue = self.queue.lock();
        let mut size = queue.batch.size();
        if queue.stop || (size + line.len() > self.queue_bytes && !queue.batch.ends.is_empty()) {
            queue = match self.wait_for_room(queue, line, micros) {
                Ok(queue) => queue,
                Err(accepted) => return accepted,
            };
            size = queue.batch.size();
        }
        queue.push(line, micros);
        let enough = self.enough_bytes();
        let wake = std::mem::take(&mut queue.asleep) || (size < enough && queue.batch.size() >= enough);
        drop(queue);
        if wake {
            self.work.notify_one();
        }
        true
    }

    /// Waits until the queue has room for a line. If the queue ends or may not be waited for, the
    /// line is written or dropped here; then returns whether it was accepted.
    #[cold]
    fn wait_for_room<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        line: &[u8],
        micros: u64,
    ) -> Result<MutexGuard<'a, Queue>, bool> {
        loop {
            if queue.stop {
                // The thread writes its lines before it ends: this line comes after them.
                while queue.stuck == 0 && (queue.busy || !queue.batch.ends.is_empty()) {
                    queue = wait(&self.room, queue);
                }
                if queue.stuck > 0 {
                    // The sink has not returned from a write that was given up.
                    queue.dropped += 1;
                    drop(queue);
                    let why = "its sink does not come back from a write";
                    let line = Lost { lines: 1, within_sink: 0 };
                    self.note_loss(line, io::Error::new(io::ErrorKind::TimedOut, why));
                    return Err(false);
                }
                drop(queue);
                return Err(self.write_one(line, micros));
            }
            let size = queue.batch.size() + line.len();
            if queue.batch.ends.is_empty() || size <= self.queue_bytes {
                return Ok(queue);
            }
            let reports = Doing::now() == Doing::Reporting;
            if reports && size <= self.queue_bytes.saturating_add(REPORT_BYTES) {
                return Ok(queue);
            }
            match self.when_full {
                WhenFull::Block if !reports => {
                    self.work.notify_one();
                    queue = wait(&self.room, queue);
                }
                _ => {
                    queue.dropped += 1;
                    if queue.unreported == 0 {
                        queue.since = now_micros();
                    }
                    queue.unreported += 1;
                    return Err(false);
                }
            }
        }
    }

    fn enough_bytes(&self) -> usize {
        ENOUGH_BYTES.min(self.queue_bytes / 2)
    }

    fn write_one(&self, line: &[u8], micros: u64) -> bool {
        let ends = [(line.len(), micros)];
        let lines = Lines { bytes: line, ends: &ends, start: 0 };
        if self.is_ring {
            let written = self.write_to_sink(&lines);
            return written.map_err(|e| self.lose(1, e.error)).is_ok();
        }
        let Some(_writing) = self.right_to_write() else {
            if Doing::now() == Doing::Reporting {
                let why = "a report is not written: its sink is busy";
                self.lose(1, io::Error::new(io::ErrorKind::TimedOut, why));
            } else {
                self.give_up_line();
            }
            return false;
        };
        let written = self.write(&lines);
        // Without a queue, no thread calls `idle` when there is nothing more to write.
        if self.keeps_back {
            let _writing = While::doing(Doing::Writing);
            if let Err(e) = guarded(|| self.sink.line_written()) {
                self.report(&e.to_string());
            }
        }
        written
    }

    /// How long this thread waits for the sink; `None` means without a limit.
    fn patience(&self) -> Option<Instant> {
        if Doing::now() == Doing::Reporting {
            return Some(Instant::now() + REPORT_WAIT);
        }
        self.gives_up().then(|| {
            let now = Instant::now();
            if self.behind.load(Ordering::Relaxed) { now } else { self.limit_from(now) }
        })
    }

    /// Waits until no thread writes, or until this thread's patience ends.
    fn right_to_write(&self) -> Option<MutexGuard<'_, ()>> {
        if let Some(writing) = lock_at_once(&self.writing) {
            return Some(writing);
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let writing = match self.patience() {
            None => Some(self.writing.lock()),
            Some(deadline) => lock_until(&self.writing, deadline),
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        writing
    }

    /// Counts and reports a line that the sink has not taken in time.
    #[cold]
    fn give_up_line(&self) {
        self.behind.store(true, Ordering::Relaxed);
        self.queue.lock().dropped += 1;
        let why = self.not_taken();
        self.report(&format!("lines dropped: {why}"));
        self.note_loss(Lost { lines: 1, within_sink: 0 }, io::Error::new(io::ErrorKind::TimedOut, why));
    }

    /// Uncounts a line that was given up, and was written or counted otherwise after all.
    #[cold]
    fn came_back(&self) {
        let mut queue = self.queue.lock();
        self.late.store(self.late.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        queue.dropped = queue.dropped.saturating_sub(1);
        drop(queue);
        let mut losses = self.losses.lock();
        let line = Lost { lines: 1, within_sink: 0 };
        losses.unreported.subtract(line);
        losses.lost.subtract(line);
        if losses.lost.lines == 0 {
            losses.why = None;
        }
    }

    /// Uncounts the lines of a queue's thread that was given up, once they have come back from the
    /// sink: they count as written, or as lost again.
    #[cold]
    fn batch_came_back(&self, lines: u64) {
        let mut losses = self.losses.lock();
        losses.unreported.came_back(lines);
        losses.lost.came_back(lines);
        if losses.lost.lines == 0 {
            losses.why = None;
        }
    }

    /// Writes lines. Returns whether all of them were written. Requires: the right to write.
    fn write(&self, lines: &Lines<'_>) -> bool {
        self.write_of(lines, || false)
    }

    /// The same for a queue's thread, which may be given up during the write.
    fn write_of(&self, lines: &Lines<'_>, given_up: impl FnOnce() -> bool) -> bool {
        let count = |lines: &Lines<'_>| {
            add(&self.written.lines, lines.len() as u64);
            add(&self.written.bytes, lines.bytes().len() as u64);
        };
        let (mut rest, mut all) = (*lines, true);
        let written = loop {
            match self.write_to_sink(&rest) {
                Err(WriteError { written, error })
                    if error.kind() == io::ErrorKind::InvalidData && written < rest.len() =>
                {
                    let (there, others) = rest.split(written);
                    count(&there);
                    self.lose(1, error);
                    (rest, all) = (others.split(1).1, false);
                    if rest.is_empty() {
                        break Ok(());
                    }
                }
                written => break written,
            }
        };
        if given_up() {
            self.batch_came_back(lines.len() as u64);
        }
        if let Ok(Some(trouble)) = catch_unwind(AssertUnwindSafe(|| self.sink.trouble())) {
            self.report(&trouble.to_string());
        }
        let all = match written {
            Ok(()) => {
                count(&rest);
                if self.behind.load(Ordering::Relaxed) {
                    self.behind.store(false, Ordering::Relaxed);
                }
                if self.late.load(Ordering::Relaxed) > 0 {
                    self.came_back();
                }
                // If nothing was written, the log may not take the report either.
                if all || !rest.is_empty() {
                    self.report_in_the_log();
                }
                all
            }
            Err(WriteError { written, error }) => {
                let (there, lost) = rest.split(written);
                count(&there);
                if error.kind() == io::ErrorKind::TimedOut && self.gives_up() {
                    lost.iter().for_each(|_| self.give_up_line());
                } else {
                    self.lose(lost.len() as u64, error);
                }
                if self.late.load(Ordering::Relaxed) > 0 {
                    // The late lines are counted now.
                    self.came_back();
                }
                false
            }
        };
        if self.reopens.load(Ordering::Relaxed) && self.reopens.swap(false, Ordering::SeqCst) {
            let _doing = While::doing(Doing::Writing);
            if let Err(e) = guarded(|| self.sink.reopen()) {
                self.report(&e.to_string());
            }
        }
        all
    }

    /// Reports lost lines in the log, once it can be written to again. Requires: the right to
    /// write.
    fn report_in_the_log(&self) {
        let (unreported, what) = {
            let losses = self.losses.lock();
            let unreported = losses.unreported;
            if unreported.lines == 0 {
                return;
            }
            (
                unreported,
                format!("{unreported} lost since {}: {}", seconds(losses.since), losses.unreported_why),
            )
        };
        let line = self.own_line(&what, Flags::default());
        let ends = [(line.len(), now_micros())];
        if self.write_to_sink(&Lines { bytes: &line, ends: &ends, start: 0 }).is_ok() {
            add(&self.written.lines, 1);
            add(&self.written.bytes, line.len() as u64);
            // More lines may have been lost by now.
            self.losses.lock().unreported.subtract(unreported);
        }
    }

    fn write_to_sink(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        // A panic of a sink is a failure: the queue and the threads that log continue.
        let limited = self.patience().map(Patience::until);
        let written = catch_unwind(AssertUnwindSafe(|| {
            let _writing = While::doing(Doing::Writing);
            self.sink.write(lines)
        }));
        drop(limited);
        written.unwrap_or_else(|_| Err(io::Error::other("the sink panicked").into()))
    }

    /// Whether lines that the sink does not take in time are dropped. With a queue, they wait there
    /// instead.
    fn gives_up(&self) -> bool {
        self.when_full == WhenFull::Drop && !self.asynchronous.load(Ordering::Relaxed)
    }

    /// Counts and reports lost lines, and makes the next flush fail.
    fn lose(&self, lines: u64, why: io::Error) {
        let failed = self.written.failed.fetch_add(lines, Ordering::Relaxed) + lines;
        self.report(&format!("{} lost: {why}", counted(failed)));
        self.note_loss(Lost { lines, within_sink: 0 }, why);
    }

    /// Notes lost lines that are already counted: the next flush fails, and the log gets a report
    /// when it can be written to.
    fn note_loss(&self, lost: Lost, why: io::Error) {
        if lost.lines == 0 {
            return;
        }
        let mut losses = self.losses.lock();
        losses.lost.add(lost);
        if losses.unreported.lines == 0 {
            losses.since = now_micros();
        }
        losses.unreported.add(lost);
        losses.unreported_why = why.to_string();
        losses.why.get_or_insert(why);
    }

    pub(crate) fn report_on_stderr(&self, what: &str) {
        // There is nowhere else to report this.
        let mut line = format!("log stream {}: {what}\n", self.stream).into_bytes();
        if journald::is_on_stderr() {
            journald::prefix_lines(Level::Warn.severity(), &mut line);
        }
        patience::report(&line);
    }

    /// Reports trouble on standard error, where no report can come back to this sink.
    fn report(&self, what: &str) {
        let now = now_micros();
        let reported = self.reported.load(Ordering::Relaxed);
        let due = reported == 0 || now.saturating_sub(reported) >= TELL_EVERY_MICROS;
        if due && self.reported.compare_exchange(reported, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.report_on_stderr(what);
        }
    }

    /// Runs the queue's thread.
    fn write_queue(&self, writer: u64) {
        let _writing = While::doing(Doing::Writing);
        let _ended = Ended(self, writer);
        let mut mine = Batch::default();
        let mut ticked = Instant::now();
        // For the schedule checker, only one tick per pause: a thread that ticks endlessly would
        // keep the others from continuing.
        let mut idle = false;
        let mut queue = self.queue.lock();
        loop {
            while queue.batch.ends.is_empty()
                && queue.unreported == 0
                && !queue.stop
                && queue.writer == writer
            {
                queue.asleep = true;
                if self.needs_ticks && !(idle && cfg!(feature = "shuttle")) {
                    queue = wait_a_while(&self.work, queue, TICK.saturating_sub(ticked.elapsed()));
                } else {
                    queue = wait(&self.work, queue);
                }
                queue.asleep = false;
                queue = self.tick_if_due(queue, &mut ticked, writer);
                idle = true;
            }
            idle = false;
            if queue.writer != writer || (queue.batch.ends.is_empty() && queue.unreported == 0) {
                return;
            }
            std::mem::swap(&mut mine, &mut queue.batch);
            queue.busy = true;
            queue.taken += mine.ends.len() as u64;
            let (unreported, since) = (std::mem::take(&mut queue.unreported), queue.since);
            queue.reporting = unreported;
            drop(queue);
            self.room.notify_all();
            let begun = self.latency.begin();
            let writing = self.writing.lock();
            if !mine.ends.is_empty() {
                let lines = Lines { bytes: &mine.bytes, ends: &mine.ends, start: 0 };
                self.write_of(&lines, || self.queue.lock().writer != writer);
            }
            // If this thread was given up, that has been reported already.
            if unreported > 0 && self.queue.lock().writer == writer {
                let line = self.own_line(
                    &format!("{} dropped since {}", counted(unreported), seconds(since)),
                    Flags::default(),
                );
                let ends = [(line.len(), now_micros())];
                self.write(&Lines { bytes: &line, ends: &ends, start: 0 });
            }
            drop(writing);
            self.latency.end(begun);
            let written = mine.ends.len() as u64;
            mine.clear(self.queue_bytes);
            queue = self.queue.lock();
            if queue.writer != writer {
                queue.came_back(written);
                self.room.notify_all();
                return;
            }
            queue.reporting = 0;
            if queue.batch.ends.is_empty() {
                drop(queue);
                if let Err(e) = guarded(|| self.sink.idle()) {
                    self.report(&e.to_string());
                }
                queue = self.queue.lock();
                if queue.writer != writer {
                    queue.came_back(written);
                    self.room.notify_all();
                    return;
                }
            }
            queue.done += written;
            queue.busy = false;
            self.room.notify_all();
            queue = self.tick_if_due(queue, &mut ticked, writer);
            if queue.batch.size() < self.enough_bytes() && queue.draining == 0 && !queue.stop {
                queue = wait_a_while(&self.work, queue, GATHER);
            }
        }
    }

    /// Does periodic work, if it is time. Called by the queue's thread.
    fn tick_if_due<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        ticked: &mut Instant,
        writer: u64,
    ) -> MutexGuard<'a, Queue> {
        // For the schedule checker, no time passes.
        if !self.needs_ticks || (ticked.elapsed() < TICK && !cfg!(feature = "shuttle")) {
            return queue;
        }
        if queue.writer == writer {
            queue.ticking = true;
        }
        drop(queue);
        self.report_an_old_repetition();
        {
            let _writing = self.writing.lock();
            let outcomes = [
                guarded(|| self.sink.tick()),
                guarded(|| self.sink.idle()),
                guarded(|| self.sink.trouble().map_or(Ok(()), Err)),
            ];
            for e in outcomes.into_iter().filter_map(Result::err) {
                self.report(&e.to_string());
            }
        }
        *ticked = Instant::now();
        let mut queue = self.queue.lock();
        if queue.writer == writer {
            queue.ticking = false;
        } else {
            queue.came_back(0);
            self.room.notify_all();
        }
        queue
    }

    /// Queues the report of a repetition whose time is over, before the next line.
    fn report_an_old_repetition(&self) {
        let mut repetition = self.repetition.lock();
        let over = |last: &Repeated| {
            last.came.elapsed() >= Duration::from_micros(self.dedup_micros) || cfg!(feature = "shuttle")
        };
        if repetition.last.as_ref().is_some_and(over)
            && let Some(line) = self.ended_repetition(&mut repetition)
        {
            // Even if the queue is full: this line is short, and the thread would wait for itself.
            self.queue.lock().push(&line, now_micros());
        }
    }

    /// A line by the log about itself.
    fn own_line(&self, what: &str, flags: Flags) -> Vec<u8> {
        let mut line = Vec::new();
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "log stream {}: {what}", self.stream);
        let record = Record::new(now_micros(), &self.stream, &text);
        let format = self.format();
        self.render(format, flags, &record, &mut line);
        if self.wraps {
            self.sink.wrap(&record, format, &mut line);
        }
        line
    }

    /// Whether this line repeats the previous one, soon enough to be left out.
    fn repeats(&self, record: &Record<'_>, flags: Flags) -> bool {
        // Compare the message and its keys, and not the time.
        let mut text = Vec::new();
        event_body(record, &mut text);
        let mut repetition = self.repetition.lock();
        let again = repetition.last.as_mut().is_some_and(|last| {
            let again = last.message == text
                && last.facility == record.facility
                && record.micros().saturating_sub(last.first) < self.dedup_micros;
            last.times += u64::from(again);
            again
        });
        if again {
            repetition.repeated += 1;
            return true;
        }
        let ended = self.ended_repetition(&mut repetition);
        repetition.last = Some(Repeated {
            message: text,
            facility: record.facility.to_owned(),
            first: record.micros(),
            came: Instant::now(),
            times: 0,
            flags,
        });
        drop(repetition);
        if let Some(line) = ended {
            self.give(&line, record.micros());
        }
        false
    }

    fn ended_repetition(&self, repetition: &mut Repetition) -> Option<Vec<u8>> {
        let last = repetition.last.take()?;
        (last.times > 0).then(|| {
            let times = if last.times == 1 { "time" } else { "times" };
            self.own_line(&format!("last line repeated {} {times}", last.times), last.flags)
        })
    }
}

/// Ends a queue's thread: wakes waiting threads, even if a sink made the thread panic.
struct Ended<'a>(&'a Slot, u64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        if queue.writer != self.1 {
            // This thread was given up: its lines are counted already, and another thread may be at
            // work.
            return;
        }
        self.0.asynchronous.store(false, Ordering::Release);
        (queue.stop, queue.ended) = (true, true);
        queue.busy = false;
        let left = queue.batch.ends.len() as u64;
        queue.dropped += left;
        queue.batch.clear(0);
        queue.taken += left;
        queue.done = queue.taken;
        self.0.room.notify_all();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let _busy = While::busy();
        let ended = self.ended_repetition(&mut self.repetition.lock());
        // There is no caller left for an error.
        let _ = guarded(|| {
            if let Some(line) = ended {
                let ends = [(line.len(), now_micros())];
                let _ = self.sink.write(&Lines { bytes: &line, ends: &ends, start: 0 });
            }
            self.sink.idle()
        });
    }
}

/// Turns a panic of a sink into an error.
fn guarded(work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(io::Error::other("the sink panicked")))
}

/// Microseconds since 1970, as a time.
fn seconds(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|t| jiff::Timestamp::from_microsecond(t).ok());
    format!("{:.6}", time.unwrap_or_default())
}
