//! Appending from futures.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::hand_over::{HandOver, Handed, Hearer, Next, OPENING, Process, Reply, Size, slot, start};
use crate::sync::Mutex;
use crate::{Appended, AppendedBatch, Error, Jlog, LogId, Result, Timestamp, Writer, WriterOptions};

const THREAD: &str = "jlog-append";

/// How an [`AsyncWriter`] appends, and how much it accepts before it has appended it.
#[derive(Clone, Copy, Debug)]
pub struct AsyncWriterOptions {
    writer: WriterOptions,
    bounds: Size,
}

impl Default for AsyncWriterOptions {
    fn default() -> Self {
        Self { writer: WriterOptions::default(), bounds: Size { messages: 64 << 10, bytes: 16 << 20 } }
    }
}

impl AsyncWriterOptions {
    /// The options of the underlying writer.
    #[must_use]
    pub fn writer(mut self, options: WriterOptions) -> Self {
        self.writer = options;
        self
    }

    /// How many messages may be accepted and not appended yet (at least 1; 65,536 by default).
    #[must_use]
    pub fn max_messages(mut self, messages: usize) -> Self {
        self.bounds.messages = messages;
        self
    }

    /// How many bytes the accepted and not yet appended messages may have (16 MiB by default). A
    /// larger message or batch is accepted when there is no other.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.bounds.bytes = bytes;
        self
    }
}

/// A message that [`AsyncWriter::try_append`] did not accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotAccepted {
    /// The bounds are reached. The message is returned.
    #[error(
        "the writer holds as many messages as it may: wait for some of them, or append with back-pressure"
    )]
    Full(Bytes),
    /// The writer accepts no messages, or could not start its thread.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Appends messages from any number of tasks. Clones are handles of one writer.
///
/// A thread takes the accepted messages, writes them in one piece and syncs once for all futures
/// that wait for that, while the next messages gather. Messages are appended in the order in which
/// they were accepted. Each future gets its own outcome: an error of one message does not affect
/// the others.
///
/// [Bounds](AsyncWriterOptions) limit the messages and bytes that are accepted and not appended.
/// Further futures wait, in the order in which they were first polled;
/// [`try_append`](AsyncWriter::try_append) refuses instead.
///
/// [`close`](AsyncWriter::close) ends the writer and reports errors. When the last handle and the
/// last future are dropped, the thread appends and flushes the accepted messages in the background;
/// until it is done, which takes a moment, this writer is open. A pre-commit buffer is also flushed
/// when the writer has had nothing to do for a second.
///
/// Dropped futures: see the [module](super#dropped-futures).
///
/// # Errors
/// All futures fail with [`Error::Closed`] once the writer is closed. If the thread panics (in a
/// hook for events, for example), the futures whose messages it had taken fail with [`Error::Io`],
/// and their messages may be present or not; the writer continues with the others.
#[derive(Clone, Debug)]
pub struct AsyncWriter {
    handle: Arc<Handle>,
}

/// When it is dropped, no handle and no future is left.
#[derive(Debug)]
struct Handle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    process: Process,
    /// `None` once it is closed. Locked by the thread, while it works.
    writer: Mutex<Option<Writer>>,
    /// Whether every append is durable when it returns.
    always_durable: bool,
    queue: HandOver<Work>,
}

#[derive(Debug)]
enum Work {
    Message(Message),
    Batch { time: Timestamp, messages: Vec<Bytes>, durable: bool, reply: Reply<Result<AppendedBatch>> },
    Flush(Reply<Result<()>>),
    Sync(Reply<Result<()>>),
    Close(Reply<Result<()>>),
}

#[derive(Debug)]
struct Message {
    time: Timestamp,
    body: Bytes,
    durable: bool,
    reply: MessageReply,
}

/// The outcome for the future of a message.
#[derive(Debug)]
enum MessageReply {
    Place(Reply<Result<Appended>>),
    /// The outcome for a durable message.
    Id(Reply<Result<LogId>>),
}

impl MessageReply {
    fn send(self, outcome: Result<Appended>) {
        match self {
            MessageReply::Place(reply) => reply.send(outcome),
            // Durable messages bypass the buffer and have an id; without one, the future gets no
            // value, which is an error.
            MessageReply::Id(reply) => match outcome.map(Appended::id) {
                Ok(Some(id)) => reply.send(Ok(id)),
                Ok(None) => {}
                Err(error) => reply.send(Err(error)),
            },
        }
    }
}

impl Work {
    fn size(&self) -> Size {
        match self {
            Work::Message(message) => Size { messages: 1, bytes: message.body.len() },
            Work::Batch { messages, .. } => {
                Size { messages: messages.len(), bytes: messages.iter().map(Bytes::len).sum() }
            }
            Work::Flush(_) | Work::Sync(_) | Work::Close(_) => Size::default(),
        }
    }

    fn fail(self, error: Error) {
        match self {
            Work::Message(message) => message.reply.send(Err(error)),
            Work::Batch { reply, .. } => reply.send(Err(error)),
            Work::Flush(reply) | Work::Sync(reply) | Work::Close(reply) => reply.send(Err(error)),
        }
    }
}

impl AsyncWriter {
    /// Opens a writer with the default options.
    ///
    /// # Errors
    /// As [`Jlog::writer`].
    pub fn open(log: &Jlog) -> impl Future<Output = Result<Self>> + Send + use<> {
        Self::open_with(log, AsyncWriterOptions::default())
    }

    /// Opens a writer. A thread does the work of opening, such as recovery.
    ///
    /// # Errors
    /// As [`Jlog::writer_with`]; [`Error::Io`] if no thread can be started.
    pub fn open_with(
        log: &Jlog,
        options: AsyncWriterOptions,
    ) -> impl Future<Output = Result<Self>> + Send + use<> {
        let log = log.clone();
        async move {
            let path = log.path().to_owned();
            let (reply, hearer) = slot();
            let open = move || reply.send(log.writer_with(options.writer));
            start(OPENING, &path, open)?;
            let writer = poll_fn(|cx| hearer.poll(cx)).await;
            Ok(Self::around(path.clone(), writer.unwrap_or_else(|| Err(panicked("open", path)))?, options))
        }
    }

    /// Wraps an open writer.
    pub fn new(log: &Jlog, writer: Writer, options: AsyncWriterOptions) -> Self {
        Self::around(log.path().to_owned(), writer, options)
    }

    fn around(path: PathBuf, writer: Writer, options: AsyncWriterOptions) -> Self {
        let inner = Inner {
            path,
            process: Process::this(),
            always_durable: writer.syncs_each_append(),
            writer: Mutex::new(Some(writer)),
            queue: HandOver::new(options.bounds),
        };
        Self { handle: Arc::new(Handle(Arc::new(inner))) }
    }

    /// Appends a message with the time of the first poll. When the future is ready, the message is
    /// as safe as when [`Writer::append`] returns.
    ///
    /// # Errors
    /// As [`Writer::append`], and [those of all futures](AsyncWriter#errors).
    pub fn append(&self, message: impl Into<Bytes>) -> Outcome<Appended> {
        let (reply, hearer) = slot();
        Outcome::new(self, self.message(message.into(), false, MessageReply::Place(reply)), hearer)
    }

    /// Appends a message and makes it durable: it survives a power failure when the future is
    /// ready. All messages that wait for that at the same time share one sync. They bypass the
    /// pre-commit buffer, so that a message with an error does not appear later, unless the sync
    /// failed.
    ///
    /// # Errors
    /// As [`append`](AsyncWriter::append), and [`Error::SyncFailed`]: the writer never again
    /// reports anything as durable.
    pub fn append_durable(&self, message: impl Into<Bytes>) -> Outcome<LogId> {
        let (reply, hearer) = slot();
        Outcome::new(self, self.message(message.into(), true, MessageReply::Id(reply)), hearer)
    }

    /// Appends messages in order, with none of this writer's others between them, as
    /// [`Writer::append_batch`] does.
    ///
    /// # Errors
    /// As [`Writer::append_batch`], and [those of all futures](AsyncWriter#errors).
    pub fn append_batch(
        &self,
        messages: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Outcome<AppendedBatch> {
        self.append_several(messages.into_iter().map(Into::into).collect(), false)
    }

    /// Appends messages as [`append_batch`](AsyncWriter::append_batch) does, and makes them durable
    /// as [`append_durable`](AsyncWriter::append_durable) does.
    ///
    /// # Errors
    /// As [`append_batch`](AsyncWriter::append_batch), and [`Error::SyncFailed`].
    pub fn append_batch_durable(
        &self,
        messages: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Outcome<AppendedBatch> {
        self.append_several(messages.into_iter().map(Into::into).collect(), true)
    }

    /// Accepts a message now, or returns it if there is no room. The future resolves to its
    /// outcome.
    ///
    /// # Errors
    /// [`NotAccepted::Full`], [`NotAccepted::Failed`]; those of the future are as for
    /// [`append`](AsyncWriter::append).
    pub fn try_append(&self, message: impl Into<Bytes>) -> Result<Outcome<Appended>, NotAccepted> {
        self.append(message).accepted()
    }

    /// As [`try_append`](AsyncWriter::try_append), for a [durable](AsyncWriter::append_durable)
    /// message.
    ///
    /// # Errors
    /// As [`try_append`](AsyncWriter::try_append); those of the future are as for
    /// [`append_durable`](AsyncWriter::append_durable).
    pub fn try_append_durable(&self, message: impl Into<Bytes>) -> Result<Outcome<LogId>, NotAccepted> {
        self.append_durable(message).accepted()
    }

    /// Makes every message that was accepted before it is first polled readable.
    ///
    /// # Errors
    /// As [`Writer::flush`], and [those of all futures](AsyncWriter#errors).
    pub fn flush(&self) -> Outcome<()> {
        let (reply, hearer) = slot();
        Outcome::new(self, Work::Flush(reply), hearer)
    }

    /// Makes every message that was accepted before it is first polled durable.
    ///
    /// # Errors
    /// As [`Writer::sync`], and [those of all futures](AsyncWriter#errors).
    pub fn sync(&self) -> Outcome<()> {
        let (reply, hearer) = slot();
        Outcome::new(self, Work::Sync(reply), hearer)
    }

    /// Appends everything that was accepted before it is first polled, and closes the writer as
    /// [`Writer::close`] does. All handles are then closed, and another writer may be opened.
    ///
    /// # Errors
    /// As [`Writer::close`], and [those of all futures](AsyncWriter#errors).
    pub fn close(&self) -> Outcome<()> {
        let (reply, hearer) = slot();
        Outcome::new(self, Work::Close(reply), hearer)
    }

    fn message(&self, body: Bytes, durable: bool, reply: MessageReply) -> Work {
        let durable = durable || self.handle.0.always_durable;
        Work::Message(Message { time: Timestamp::default(), body, durable, reply })
    }

    fn append_several(&self, messages: Vec<Bytes>, durable: bool) -> Outcome<AppendedBatch> {
        let durable = durable || self.handle.0.always_durable;
        let (reply, hearer) = slot();
        Outcome::new(self, Work::Batch { time: Timestamp::default(), messages, durable, reply }, hearer)
    }
}

fn panicked(action: &'static str, path: PathBuf) -> Error {
    let why = "the thread that does it panicked; the messages it had taken may or may not be there";
    Error::io(action, path, std::io::Error::other(why))
}

/// The outcome of work that an [`AsyncWriter`] gets when this is first polled. It keeps the writer
/// open until it is ready. Dropped futures: see the [module](super#dropped-futures).
#[must_use = "nothing is done before it is polled"]
#[derive(Debug)]
pub struct Outcome<T> {
    /// Keeps the writer open. `None` once it is ready.
    handle: Option<Arc<Handle>>,
    work: Option<Work>,
    /// Its place among those that wait for room.
    ticket: Option<u64>,
    hearer: Hearer<Result<T>>,
}

// Nothing in it is pinned.
impl<T> Unpin for Outcome<T> {}

impl<T> Outcome<T> {
    fn new(writer: &AsyncWriter, work: Work, hearer: Hearer<Result<T>>) -> Self {
        Self { handle: Some(Arc::clone(&writer.handle)), work: Some(work), ticket: None, hearer }
    }

    /// Hands the work in, if there is room.
    fn accepted(mut self) -> Result<Self, NotAccepted> {
        match self.hand_in(false)? {
            Some(Work::Message(message)) => Err(NotAccepted::Full(message.body)),
            _ => Ok(self),
        }
    }

    /// Hands the work in; returns it if there is no room and it must not wait.
    fn hand_in(&mut self, may_wait: bool) -> Result<Option<Work>> {
        let (Some(handle), Some(mut work)) = (&self.handle, self.work.take()) else { return Ok(None) };
        let inner = &handle.0;
        inner.process.check("append to", &inner.path)?;
        let now = Timestamp::now();
        match &mut work {
            Work::Message(Message { time, .. }) | Work::Batch { time, .. } => *time = now,
            Work::Flush(_) | Work::Sync(_) | Work::Close(_) => {}
        }
        let size = work.size();
        let (handed, start) = inner.queue.hand_in(work, size, may_wait);
        if start {
            inner.start();
        }
        match handed {
            Handed::Accepted => Ok(None),
            Handed::Waiting(ticket) => {
                self.ticket = Some(ticket);
                Ok(None)
            }
            Handed::Refused(work) => Ok(Some(work)),
            Handed::Closed => Err(Error::Closed { path: inner.path.clone() }),
        }
    }
}

impl<T> Future for Outcome<T> {
    type Output = Result<T>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        if this.work.is_some()
            && let Err(error) = this.hand_in(true)
        {
            this.handle = None;
            return Poll::Ready(Err(error));
        }
        let Some(handle) = &this.handle else {
            // Polled again after it was ready; any answer is allowed.
            return Poll::Pending;
        };
        // In a child that was forked meanwhile, nobody would answer, and a lock may be held
        // forever.
        if let Err(error) = handle.0.process.check("append to", &handle.0.path) {
            this.handle = None;
            return Poll::Ready(Err(error));
        }
        let heard = std::task::ready!(this.hearer.poll(cx));
        let outcome = heard.unwrap_or_else(|| Err(panicked("append to", handle.0.path.clone())));
        this.ticket = None;
        this.handle = None;
        Poll::Ready(outcome)
    }
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        if let (Some(handle), Some(ticket)) = (&self.handle, self.ticket)
            && handle.0.process.is_this()
        {
            drop(handle.0.queue.take_back(ticket));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !self.0.process.is_this() {
            // The writer is the parent's, and its locks may be held forever here.
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        if self.0.queue.abandon() {
            let inner = Arc::clone(&self.0);
            // Without a thread, the writer ends here, with the last of its owners.
            let _ = start(THREAD, &self.0.path, move || inner.run());
        }
    }
}

impl Inner {
    fn start(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let Err(error) = start(THREAD, &self.path, move || inner.run()) else { return };
        for work in self.queue.give_up() {
            work.fail(again(&error, &self.path));
        }
    }

    /// What the thread does.
    fn run(&self) {
        let (mut done, mut idle) = (Size::default(), false);
        loop {
            match self.queue.next(std::mem::take(&mut done), idle) {
                Next::Work(works) => {
                    idle = false;
                    done = works.iter().map(Work::size).fold(Size::default(), Size::plus);
                    // The panic has been printed; the futures without an answer learn of it.
                    let _ = catch_unwind(AssertUnwindSafe(|| self.work_off(works)));
                }
                Next::Idle => {
                    idle = true;
                    // Messages that cannot be flushed stay in the buffer, and the next flush
                    // reports the error.
                    let flush = || self.writer.lock().as_ref().map(Writer::flush);
                    let _ = catch_unwind(AssertUnwindSafe(flush));
                }
                Next::End(for_good) => {
                    if for_good {
                        // Flushes what is left.
                        let writer = self.writer.lock().take();
                        let _ = catch_unwind(AssertUnwindSafe(|| drop(writer)));
                    }
                    return;
                }
            }
        }
    }

    fn work_off(&self, works: Vec<Work>) {
        let mut writer = self.writer.lock();
        let mut unsynced = Unsynced::default();
        let mut run = Vec::new();
        for work in works {
            let Some(open) = &*writer else {
                work.fail(Error::Closed { path: self.path.clone() });
                continue;
            };
            if let Work::Message(message) = work {
                run.push(message);
                continue;
            }
            unsynced.place(open, std::mem::take(&mut run));
            match work {
                // Gathered above.
                Work::Message(_) => {}
                Work::Batch { time, messages, durable, reply } => {
                    match open.place_batch(time, &messages, durable) {
                        Ok((placed, written)) if durable => {
                            unsynced.batches.push((placed, reply));
                            unsynced.written = unsynced.written.max(written);
                        }
                        outcome => reply.send(outcome.map(|(placed, _)| placed)),
                    }
                }
                Work::Flush(reply) => reply.send(open.flush()),
                Work::Sync(reply) => unsynced.syncs.push(reply),
                Work::Close(reply) => {
                    std::mem::take(&mut unsynced).sync(open);
                    let waiting = self.queue.close();
                    if let Some(writer) = writer.take() {
                        reply.send(writer.close());
                    }
                    for work in waiting {
                        work.fail(Error::Closed { path: self.path.clone() });
                    }
                }
            }
        }
        if let Some(open) = &*writer {
            unsynced.place(open, run);
            unsynced.sync(open);
        }
    }
}

/// The same error once more.
fn again(error: &Error, path: &std::path::Path) -> Error {
    let source = match error.raw_os_error() {
        Some(number) => std::io::Error::from_raw_os_error(number),
        None => std::io::Error::other(error.to_string()),
    };
    Error::io("start a thread for", path, source)
}

/// Appended messages that must be durable before their futures learn of it.
#[derive(Default)]
struct Unsynced {
    messages: Vec<(Appended, MessageReply)>,
    batches: Vec<(AppendedBatch, Reply<Result<AppendedBatch>>)>,
    syncs: Vec<Reply<Result<()>>>,
    /// The count of appends that includes them.
    written: u64,
}

impl Unsynced {
    /// Appends consecutive messages in as few writes as possible.
    fn place(&mut self, writer: &Writer, run: Vec<Message>) {
        if run.is_empty() {
            return;
        }
        let past_buffer = run.iter().any(|message| message.durable);
        let message = |n: usize| (run[n].time, &run[n].body[..]);
        let (outcomes, written) = writer.place_each(run.len(), message, past_buffer);
        self.written = self.written.max(written);
        for (message, outcome) in run.into_iter().zip(outcomes) {
            match outcome {
                Ok(placed) if message.durable => self.messages.push((placed, message.reply)),
                outcome => message.reply.send(outcome),
            }
        }
    }

    /// Makes everything durable, and answers the futures.
    fn sync(self, writer: &Writer) {
        for reply in self.syncs {
            // The first call does the work.
            reply.send(writer.sync());
        }
        for (placed, reply) in self.messages {
            reply.send(writer.wait_durable(self.written).map(|()| placed));
        }
        for (placed, reply) in self.batches {
            reply.send(writer.wait_durable(self.written).map(|()| placed));
        }
    }
}
