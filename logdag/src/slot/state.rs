//! A sink with its settings, its queue and its counters, and how it takes a line.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::guarded::guarded;
use super::latency::Latency;
use super::losses::{Losses, Lost};
use super::queue::{Queue, QueueStats};
use crate::format::{Flags, Format, Layout, render, render_for_people};
use crate::options::{StreamOptions, WhenFull};
use crate::record::{Doing, Record, While, now_micros};
use crate::sink::{FileSink, Lines, MemorySink, Sink, SinkSpec};
use crate::sync::{CachePadded, Condvar, Flag, Mutex, MutexGuard, Thread, lock_until, wait};

/// Called with each line as text before a sink gets it. A hook that returns `false` stops the line.
pub(crate) type TextHook = Arc<dyn Fn(&Record<'_>, &[u8]) -> bool + Send + Sync>;

/// The writing thread does not wait for more lines when this many bytes, or half of a smaller
/// queue, are waiting.
const ENOUGH_BYTES: usize = 1 << 20;
const JSON: u8 = Format::Json as u8;
const EVENT: u8 = Format::Event as u8;
#[cfg(feature = "flatbuffers")]
const FLAT_BUFFER: u8 = Format::FlatBuffer as u8;
/// Memory of up to this many bytes is kept from one line to the next.
const KEEP_LINE: usize = 64 << 10;

/// How many bytes beyond a full queue may be taken by reports of lines that limits have left out.
/// Further reports are dropped.
const REPORT_BYTES: usize = 64 << 10;

/// Stands for the size of a sink that has none.
const NO_SIZE: u64 = u64::MAX;

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

/// The locks are taken in this order: `thread`, `writing`, the sink's own, `repetition`, `queue`,
/// `losses`. Nobody waits for the sink while holding one of the last three. ARCHITECTURE has the
/// order together with the graph's locks.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) stream: String,
    /// The specification that the sink was created from.
    pub(crate) spec: SinkSpec,
    pub(crate) sink: Arc<dyn Sink>,
    /// The number of its format.
    pub(super) format: AtomicU8,
    /// Whether people read the sink's output.
    pub(super) for_people: bool,
    /// Whether the sink is a ring, which has its own lock and counters, so that several threads may
    /// write to it at once.
    pub(super) is_ring: bool,
    pub(super) layout: Layout,
    pub(super) wraps: bool,
    pub(super) needs_times: bool,
    pub(super) buffers: bool,
    pub(super) needs_ticks: bool,
    pub(super) when_full: WhenFull,
    pub(super) dedup_micros: u64,
    pub(super) max_line: usize,
    pub(super) queue_bytes: usize,
    pub(super) drain_limit: Duration,
    pub(super) asynchronous: Flag,
    /// On a cache line of its own, because taking the lock takes the cache line from other threads.
    pub(super) queue: CachePadded<Mutex<Queue>>,
    /// Signals that there is something to write, or that the writer must end.
    pub(super) work: Condvar,
    /// Signals that there is room, or that everything is written.
    pub(super) room: Condvar,
    pub(super) written: Written,
    pub(super) latency: Latency,
    /// Held while a thread writes to the sink, for as long as the sink takes. Descriptions and
    /// counters do not need it, and so do not wait.
    pub(super) writing: Mutex<()>,
    /// How many threads wait for `writing` in order to write their lines.
    pub(super) waiting: AtomicU64,
    /// How many lines of such threads were given up. They count as dropped until the threads come
    /// back.
    pub(super) late: AtomicU64,
    /// Whether the sink has not taken a line in time. Until it takes one, threads that may drop
    /// their lines do not wait.
    pub(super) behind: AtomicBool,
    pub(super) losses: Mutex<Losses>,
    /// Whether to reopen the sink after the current write.
    pub(super) reopens: Flag,
    pub(super) size: AtomicU64,
    pub(super) repetition: Mutex<Repetition>,
    pub(super) thread: Mutex<Option<Thread>>,
    pub(super) reported: AtomicU64,
}

/// The state of `dedup_seconds`.
#[derive(Debug, Default)]
pub(super) struct Repetition {
    pub(super) repeated: u64,
    pub(super) last: Option<Repeated>,
}

#[derive(Debug)]
pub(super) struct Repeated {
    pub(super) message: Vec<u8>,
    pub(super) facility: String,
    pub(super) first: u64,
    /// When the line arrived, which may differ from the line's time.
    pub(super) came: Instant,
    pub(super) times: u64,
    pub(super) flags: Flags,
}

/// Counts what went through the sink. Reading the counts does not wait for a write.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) lines: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) failed: AtomicU64,
}

thread_local! {
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
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
            buffers: can.buffers,
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
    pub(super) fn give(&self, line: &[u8], micros: u64) -> bool {
        if !self.asynchronous.load(Ordering::Acquire) {
            return self.write_one(line, micros);
        }
        let mut queue = self.queue.lock();
        if queue.stop || !queue.batch.has_room(line.len(), self.queue_bytes) {
            queue = match self.wait_for_room(queue, line, micros) {
                Ok(queue) => queue,
                Err(accepted) => return accepted,
            };
        }
        let enough = self.enough_bytes();
        let was_enough = queue.batch.size() >= enough;
        queue.push(line, micros);
        let wake = std::mem::take(&mut queue.asleep) || (!was_enough && queue.batch.size() >= enough);
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
            let reports = Doing::now() == Doing::Reporting;
            let beyond = if reports { REPORT_BYTES } else { 0 };
            if queue.batch.has_room(line.len(), self.queue_bytes.saturating_add(beyond)) {
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

    pub(super) fn enough_bytes(&self) -> usize {
        ENOUGH_BYTES.min(self.queue_bytes / 2)
    }

    /// A line by the log about itself.
    pub(super) fn own_line(&self, what: &str, flags: Flags) -> Vec<u8> {
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
