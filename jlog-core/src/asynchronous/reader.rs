//! Reading as a stream.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_core::Stream;

use super::hand_over::{IDLE, OPENING, Process, Reply, slot, start, wake};
use crate::sync::{Condvar, Mutex};
use crate::{Error, Jlog, Lag, LogId, OwnedBatch, Reader, ReaderOptions, Result, Wait};

const THREAD: &str = "jlog-read";

/// How an [`AsyncReader`] reads, and how far ahead.
#[derive(Clone, Copy, Debug)]
pub struct AsyncReaderOptions {
    reader: ReaderOptions,
    look_ahead: usize,
    follow: bool,
}

impl Default for AsyncReaderOptions {
    fn default() -> Self {
        Self { reader: ReaderOptions::default(), look_ahead: 1 << 20, follow: true }
    }
}

impl AsyncReaderOptions {
    /// The options of the underlying reader. Its [`batch_bytes`](ReaderOptions::batch_bytes) set
    /// the size of batches.
    #[must_use]
    pub fn reader(mut self, options: ReaderOptions) -> Self {
        self.reader = options;
        self
    }

    /// Batches are read ahead while the waiting ones have fewer bytes than this (1 MiB by default),
    /// so at most this many bytes and one more batch wait. With 0, one batch is read ahead.
    #[must_use]
    pub fn look_ahead(mut self, bytes: usize) -> Self {
        self.look_ahead = bytes;
        self
    }

    /// Whether the stream waits for messages at the end of the feed, as it does by default.
    /// Otherwise it ends there; polled again, it continues with new messages.
    #[must_use]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }
}

/// A reader that is being opened.
pub type Opening<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Reads a feed as a stream of batches, which own their messages and are cheap to clone.
///
/// A thread reads ahead, within [bounds](AsyncReaderOptions::look_ahead), and ends when nobody has
/// waited for a batch for about a second. It also stores the checkpoints: everything that futures
/// of this reader and its [committers](AsyncReader::committer) ask for is done in the order in
/// which it was asked for.
///
/// The stream yields errors as items. After an error, the next poll tries again and may fail again:
/// damage fails until [`skip_damage`](AsyncReader::skip_damage) is called, as with a [`Reader`].
///
/// [`close`](AsyncReader::close) ends the reader, and is ready once that is done. A dropped reader
/// stops reading. Checkpoints whose futures were polled are stored nevertheless. The claim on the
/// subscriber ends shortly afterwards, with the thread: until then, another reader may be refused
/// with [`Error::ReaderBusy`].
///
/// Dropped futures: see the [module](super#dropped-futures).
///
/// # Errors
/// If the thread panics (in a hook for events, for example), this call and all further ones fail
/// with [`Error::Io`]: open another reader, which begins at the stored checkpoint. Calls of a
/// committer fail with [`Error::Closed`] once the reader is being closed.
#[derive(Debug)]
pub struct AsyncReader {
    committer: Committer,
}

/// Stores the checkpoint of an [`AsyncReader`], from any task.
#[derive(Clone, Debug)]
pub struct Committer {
    handle: Arc<Handle>,
}

/// When it is dropped, neither the reader, nor a committer, nor a future is left.
#[derive(Debug)]
struct Handle(Arc<Inner>);

struct Inner {
    log: Jlog,
    process: Process,
    follow: bool,
    look_ahead: usize,
    /// Ends the reader's wait for messages.
    waker: crate::Waker,
    /// `None` after a panic. Locked by the thread, while it works.
    reader: Mutex<Option<Reader>>,
    state: Mutex<State>,
    changed: Condvar,
}

/// A request to the thread that has the reader.
type Call = Box<dyn FnOnce(&mut Reader) + Send>;

#[derive(Default)]
struct State {
    batches: VecDeque<Result<OwnedBatch>>,
    /// What they have in bytes.
    bytes: usize,
    calls: Vec<Call>,
    /// The task that waits for a batch.
    waiting: Option<Waker>,
    /// The end of the feed was reached, or an error: the next poll continues to read.
    paused: bool,
    /// The end of the feed must be reported.
    at_end: bool,
    /// A thread works, or is being started.
    running: bool,
    /// The thread waits for messages, or is about to.
    watching: bool,
    /// The stream is dropped, or being closed.
    unread: bool,
    /// The reader is being closed, or is closed: there are no further calls.
    closing: bool,
    /// The future that waits for that.
    closer: Option<Reply<Result<()>>>,
    /// Nobody is left who could make a call.
    abandoned: bool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("path", &self.log.path()).finish_non_exhaustive()
    }
}

impl AsyncReader {
    /// Opens a reader for a subscriber, with the default options.
    ///
    /// # Errors
    /// As [`Jlog::reader`].
    pub fn open(log: &Jlog, subscriber: &(impl AsRef<[u8]> + ?Sized)) -> Opening<Self> {
        Self::open_with(log, subscriber, AsyncReaderOptions::default())
    }

    /// Opens a reader for a subscriber.
    ///
    /// # Errors
    /// As [`Jlog::reader_with`]; [`Error::Io`] if no thread can be started, or the storage cannot
    /// wait.
    pub fn open_with(
        log: &Jlog,
        subscriber: &(impl AsRef<[u8]> + ?Sized),
        options: AsyncReaderOptions,
    ) -> Opening<Self> {
        Box::pin(Self::open_inner(log.clone(), subscriber.as_ref().to_vec(), options))
    }

    async fn open_inner(log: Jlog, subscriber: Vec<u8>, options: AsyncReaderOptions) -> Result<Self> {
        let path = log.path().to_owned();
        let (reply, hearer) = slot();
        let open = move || {
            let reader = log.reader_with(subscriber, options.reader);
            reply.send(reader.and_then(|reader| Self::new(&log, reader, options)));
        };
        start(OPENING, &path, open)?;
        poll_fn(|cx| hearer.poll(cx)).await.unwrap_or_else(|| Err(panicked("open", path)))
    }

    /// Wraps an open reader, for example one without a subscriber. It continues at the reader's
    /// position.
    ///
    /// # Errors
    /// [`Error::Io`] if there are no file descriptors left, or the storage cannot wait.
    pub fn new(log: &Jlog, mut reader: Reader, options: AsyncReaderOptions) -> Result<Self> {
        let inner = Inner {
            log: log.clone(),
            process: Process::this(),
            follow: options.follow,
            look_ahead: options.look_ahead,
            waker: reader.waker()?,
            reader: Mutex::new(Some(reader)),
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        };
        Ok(Self { committer: Committer { handle: Arc::new(Handle(Arc::new(inner))) } })
    }

    /// The next batch; `None` at the end of the feed if the stream does not
    /// [follow](AsyncReaderOptions::follow) it. The same as the stream's next item.
    ///
    /// # Errors
    /// As [`Reader::next_batch`], and [those of all futures](AsyncReader#errors).
    pub fn next_batch(&mut self) -> impl Future<Output = Option<Result<OwnedBatch>>> + Send + use<'_> {
        NextBatch(self)
    }

    /// A handle that stores this reader's checkpoint, for other tasks.
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// Stores the checkpoint: everything up to and including `id` is done. See [`Reader::commit`].
    ///
    /// # Errors
    /// As [`Reader::commit`], and [those of all futures](AsyncReader#errors).
    pub fn commit(&self, id: LogId) -> impl Future<Output = Result<()>> + Send + use<> {
        self.committer.commit(id)
    }

    /// Skips the damage that the stream has outcome, as [`Reader::skip_damage`] does.
    ///
    /// # Errors
    /// [Those of all futures](AsyncReader#errors).
    pub fn skip_damage(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.committer.call(|reader| {
            reader.skip_damage();
            Ok(())
        })
    }

    /// How far the subscriber is behind. See
    /// [`Jlog::lag`].
    ///
    /// # Errors
    /// As [`Jlog::lag`], and [`Error::NoSubscriber`]; and [those of all
    /// futures](AsyncReader#errors).
    pub fn lag(&self) -> impl Future<Output = Result<Lag>> + Send + use<> {
        let log = self.committer.handle.0.log.clone();
        self.committer.call(move |reader| {
            let none = || Error::NoSubscriber { path: log.path().to_owned() };
            let name = reader.subscriber().ok_or_else(none)?;
            log.lag(name)
        })
    }

    /// Ends the reader: it stops reading ahead and drops waiting batches. Calls of its committers
    /// that were polled before are done; the checkpoint stays where the last of them stored it.
    /// When the future is ready, the reader's files are closed, its thread has ended, and another
    /// reader of the subscriber may be opened.
    ///
    /// # Errors
    /// [Those of all futures](AsyncReader#errors); [`Error::Io`] if no thread can be started. The
    /// reader then ends when its last committer is dropped.
    pub async fn close(self) -> Result<()> {
        let inner = &self.committer.handle.0;
        inner.process.check("close the reader of", inner.log.path())?;
        let (reply, hearer) = slot();
        inner.close(reply)?;
        let outcome = poll_fn(|cx| match inner.process.check("close the reader of", inner.log.path()) {
            Ok(()) => hearer.poll(cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        });
        outcome.await.unwrap_or_else(|| Err(panicked("close the reader of", inner.log.path().to_owned())))
    }

    fn poll_batch(&mut self, cx: &Context<'_>) -> Poll<Option<Result<OwnedBatch>>> {
        let inner = &self.committer.handle.0;
        if let Err(error) = inner.process.check("read", inner.log.path()) {
            return Poll::Ready(Some(Err(error)));
        }
        // A waker's clone and drop are foreign code: no lock is held meanwhile.
        let waker = cx.waker().clone();
        let mut state = inner.state.lock();
        if let Some(item) = state.batches.pop_front() {
            if let Ok(batch) = &item {
                state.bytes -= batch.bytes();
            }
            let started = inner.go_on(state);
            // Without a thread, the next poll for which nothing is left reports it.
            drop(started);
            return Poll::Ready(Some(item));
        }
        if std::mem::take(&mut state.at_end) {
            return Poll::Ready(None);
        }
        state.paused = false;
        let before = state.waiting.replace(waker);
        let started = inner.go_on(state);
        drop(before);
        match started {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl Stream for AsyncReader {
    type Item = Result<OwnedBatch>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_batch(cx)
    }
}

/// The wait for the next batch, which dropping ends.
struct NextBatch<'a>(&'a mut AsyncReader);

impl Future for NextBatch<'_> {
    type Output = Option<Result<OwnedBatch>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_batch(cx)
    }
}

impl Drop for NextBatch<'_> {
    fn drop(&mut self) {
        let inner = &self.0.committer.handle.0;
        if inner.process.is_this() {
            let waiting = inner.state.lock().waiting.take();
            drop(waiting);
        }
    }
}

impl Drop for AsyncReader {
    fn drop(&mut self) {
        let inner = &self.committer.handle.0;
        if inner.process.is_this() {
            let mut state = inner.state.lock();
            state.unread = true;
            state.bytes = 0;
            let batches = std::mem::take(&mut state.batches);
            let waiting = state.waiting.take();
            drop(state);
            drop((batches, waiting));
        }
    }
}

impl Committer {
    /// Stores the checkpoint: everything up to and including `id` is done. See [`Reader::commit`].
    ///
    /// # Errors
    /// As [`Reader::commit`], and [those of all futures](AsyncReader#errors).
    pub fn commit(&self, id: LogId) -> impl Future<Output = Result<()>> + Send + use<> {
        self.call(move |reader| reader.commit(id))
    }

    /// Makes the checkpoint durable.
    ///
    /// # Errors
    /// As [`Reader::sync_checkpoint`], and [those of all futures](AsyncReader#errors).
    pub fn sync(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        self.call(|reader| reader.sync_checkpoint())
    }

    fn call<T, F>(&self, work: F) -> impl Future<Output = Result<T>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut Reader) -> Result<T> + Send + 'static,
    {
        let handle = Arc::clone(&self.handle);
        async move {
            let inner = &handle.0;
            inner.process.check("use", inner.log.path())?;
            let (reply, hearer) = slot();
            inner.ask(Box::new(move |reader| reply.send(work(reader))))?;
            let outcome = poll_fn(|cx| match inner.process.check("use", inner.log.path()) {
                Ok(()) => hearer.poll(cx),
                Err(error) => Poll::Ready(Some(Err(error))),
            });
            outcome.await.unwrap_or_else(|| Err(panicked("use", inner.log.path().to_owned())))
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inner = &self.0;
        if !inner.process.is_this() {
            // The locks may be held forever here.
            std::mem::forget(Arc::clone(inner));
            return;
        }
        let mut state = inner.state.lock();
        state.abandoned = true;
        // Without a thread, the reader ends here, which closes files.
        if state.running {
            inner.notify(state);
        }
    }
}

fn panicked(action: &'static str, path: PathBuf) -> Error {
    let why = "the thread that reads panicked: open another reader, which begins at the checkpoint";
    Error::io(action, path, std::io::Error::other(why))
}

/// What the thread does next.
enum Next {
    Calls(Vec<Call>),
    Read,
    /// Close the reader, and end.
    Close(Reply<Result<()>>),
    End,
}

impl Inner {
    fn ask(self: &Arc<Self>, call: Call) -> Result<()> {
        let mut state = self.state.lock();
        if state.closing {
            return Err(Error::Closed { path: self.log.path().to_owned() });
        }
        state.calls.push(call);
        self.go_on(state)
    }

    fn close(self: &Arc<Self>, closer: Reply<Result<()>>) -> Result<()> {
        let mut state = self.state.lock();
        (state.unread, state.closing, state.closer) = (true, true, Some(closer));
        self.go_on(state)
    }

    /// Ensures that a thread does the requested work.
    fn go_on(self: &Arc<Self>, mut state: crate::sync::MutexGuard<'_, State>) -> Result<()> {
        if state.running {
            self.notify(state);
            return Ok(());
        }
        if !state.is_asked() && !state.wants_more(self.look_ahead) {
            return Ok(());
        }
        state.running = true;
        drop(state);
        let inner = Arc::clone(self);
        let work = move || {
            let closed = inner.run();
            // A caller that waits for the end may open another reader at once.
            drop(inner);
            if let Some((reply, outcome)) = closed {
                reply.send(outcome);
            }
        };
        start(THREAD, self.log.path(), work).inspect_err(|_| {
            let mut state = self.state.lock();
            state.running = false;
            let calls = std::mem::take(&mut state.calls);
            let closer = state.closer.take();
            let waiting = state.waiting.take();
            drop(state);
            drop((calls, closer));
            // It will ask again, and learn of this.
            waiting.into_iter().for_each(wake);
        })
    }

    /// Makes the thread check for changes.
    fn notify(&self, state: crate::sync::MutexGuard<'_, State>) {
        let watching = state.watching && (state.is_asked() || state.abandoned);
        drop(state);
        self.changed.notify_one();
        if watching {
            self.waker.wake();
        }
    }

    /// What the thread does. If it has closed the reader, it returns the outcome and who waits for
    /// it.
    fn run(&self) -> Option<(Reply<Result<()>>, Result<()>)> {
        let mut slot = self.reader.lock();
        loop {
            match self.next() {
                Next::Calls(calls) => {
                    for call in calls {
                        // Without a reader, the future hears that nothing will come.
                        self.with_reader(&mut slot, call);
                    }
                }
                Next::Read => {
                    let wait = if self.follow { Wait::Timeout(IDLE) } else { Wait::No };
                    let since = Instant::now();
                    let read = self.with_reader(&mut slot, |reader| {
                        reader.next_batch(wait).map(|batch| batch.map(crate::Batch::into_owned))
                    });
                    let read = read.unwrap_or_else(|| Err(panicked("read", self.log.path().to_owned())));
                    let idle = since.elapsed() >= IDLE;
                    if self.hand_out(read, idle) {
                        return None;
                    }
                }
                Next::Close(reply) => {
                    let path = || self.log.path().to_owned();
                    let reader = slot.take().ok_or_else(|| panicked("close the reader of", path()));
                    let closed = reader.and_then(|reader| {
                        catch_unwind(AssertUnwindSafe(|| drop(reader)))
                            .map_err(|_| panicked("close the reader of", path()))
                    });
                    return Some((reply, closed));
                }
                Next::End => return None,
            }
        }
    }

    /// Runs something with the reader. A panic ends the reader.
    fn with_reader<T>(&self, slot: &mut Option<Reader>, work: impl FnOnce(&mut Reader) -> T) -> Option<T> {
        let reader = slot.as_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| work(reader)));
        if done.is_err() {
            // Its position is unknown.
            *slot = None;
        }
        done.ok()
    }

    fn next(&self) -> Next {
        let since = Instant::now();
        let mut state = self.state.lock();
        state.watching = false;
        loop {
            if !state.calls.is_empty() {
                return Next::Calls(std::mem::take(&mut state.calls));
            }
            if let Some(reply) = state.closer.take() {
                state.running = false;
                return Next::Close(reply);
            }
            if !state.abandoned && state.wants_more(self.look_ahead) {
                state.watching = self.follow;
                return Next::Read;
            }
            let left = IDLE.saturating_sub(since.elapsed());
            if state.abandoned || left.is_zero() {
                state.running = false;
                return Next::End;
            }
            self.changed.wait_for(&mut state, left);
        }
    }

    /// Hands out a batch. `true`: the thread ends, because nobody has waited for a while.
    fn hand_out(&self, read: Result<Option<OwnedBatch>>, idle: bool) -> bool {
        let mut state = self.state.lock();
        state.watching = false;
        match read {
            Ok(Some(batch)) => {
                if !state.unread {
                    state.bytes += batch.bytes();
                    state.batches.push_back(Ok(batch));
                }
            }
            Ok(None) if self.follow => {
                let ends = idle && state.waiting.is_none() && !state.is_asked();
                state.running = !ends;
                return ends;
            }
            Ok(None) => (state.paused, state.at_end) = (true, true),
            Err(error) => {
                state.paused = true;
                if !state.unread {
                    state.batches.push_back(Err(error));
                }
            }
        }
        let waiting = state.waiting.take();
        drop(state);
        waiting.into_iter().for_each(wake);
        false
    }
}

impl State {
    /// Whether there are calls to do, or the reader must be closed.
    fn is_asked(&self) -> bool {
        !self.calls.is_empty() || self.closer.is_some()
    }

    fn wants_more(&self, look_ahead: usize) -> bool {
        !self.unread && !self.paused && (self.batches.is_empty() || self.bytes < look_ahead)
    }
}
