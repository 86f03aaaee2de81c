//! Writers and readers of async programs, on several runtimes: back-pressure, dropped futures,
//! errors that reach the right future, panics, forks, and closing.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use jlog_core::asynchronous::{
    AsyncReader, AsyncReaderOptions, AsyncWriter, AsyncWriterOptions, NotAccepted,
};
use jlog_core::storage::Storage;
use jlog_core::{
    Appended, Error, Jlog, Limits, LogId, OnDamage, OwnedBatch, ReaderOptions, Start, SyncPolicy, Wait,
    WriterOptions,
};

use testkit::faulty::{Fate, Faulty, Op};
use testkit::feeds::{bodies, new_path, read_all};

/// If a wait takes this long, nothing has ended it.
const PATIENCE: Duration = Duration::from_secs(50);

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Waits for a future on this thread, up to a limit.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it hangs") })
}

/// Does some work on each runtime.
fn on_each_runtime(work: impl Fn() -> Boxed<()>) {
    block_on(work());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
    runtime.block_on(async {
        let task = tokio::spawn(work());
        tokio::time::timeout(PATIENCE, task).await.expect("it hangs").unwrap();
    });
    let timeout = async {
        smol::Timer::after(PATIENCE).await;
        panic!("it hangs");
    };
    smol::block_on(smol::future::or(work(), timeout));
}

/// Polls a future once, with a waker that does nothing.
fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A storage in which writes to segments wait until the gate is opened.
struct Gate {
    open: Sender<()>,
    /// Receives a message for every write that waits at the gate.
    stands: Receiver<()>,
}

impl Gate {
    fn storage() -> (Self, Arc<dyn Storage>) {
        let ((open, opened), (stand, stands)) = (channel::<()>(), channel());
        let opened = Mutex::new(opened);
        let storage = Faulty::storage(move |op| {
            if matches!(op, Op::Write { .. }) && op.is_segment() {
                // The receiver may be gone.
                let _ = stand.send(());
                // Once the sender is gone, the gate stays open.
                let _ = opened.lock().unwrap().recv();
            }
            Fate::Proceed
        });
        (Self { open, stands }, storage)
    }

    fn wait_for_write(&self) {
        self.stands.recv_timeout(PATIENCE).unwrap();
    }

    fn open_for_good(self) {
        drop(self.open);
    }
}

fn small_bounds(messages: usize) -> AsyncWriterOptions {
    AsyncWriterOptions::default().max_messages(messages)
}

fn texts(batch: &OwnedBatch) -> Vec<String> {
    batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()).collect()
}

#[test]
fn every_call_on_each_runtime() {
    on_each_runtime(|| {
        Box::pin(async {
            let (_dir, path) = new_path();
            let log = Jlog::options().segment_size(200).pre_commit(300).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            let writer = AsyncWriter::open(&log).await.unwrap();
            assert_eq!(writer.append("buffered").await.unwrap(), Appended::Buffered);
            let batch = writer.append_batch(["a", "b"]).await.unwrap();
            assert_eq!((batch.len(), batch.id()), (2, None));
            let id = writer.append_durable("durable").await.unwrap();
            assert_eq!(id, LogId::new(0, 4), "behind what the buffer held");
            writer.append("flushed").await.unwrap();
            writer.flush().await.unwrap();
            writer.append("synced").await.unwrap();
            writer.sync().await.unwrap();
            let batch = writer.append_batch_durable((0..20).map(|n| format!("durable {n}"))).await.unwrap();
            assert_eq!(batch.len(), 20);
            assert!(batch.runs().count() > 1, "the batch goes on in further segments");
            assert!(writer.append_batch(Vec::<Vec<u8>>::new()).await.unwrap().is_empty());
            writer.clone().try_append("at once").unwrap().await.unwrap();
            writer.try_append_durable("at once and durable").unwrap().await.unwrap();

            let mut expected: Vec<String> =
                ["buffered", "a", "b", "durable", "flushed", "synced"].map(str::to_owned).to_vec();
            expected.extend((0..20).map(|n| format!("durable {n}")));
            expected.extend(["at once", "at once and durable"].map(str::to_owned));
            let mut reader = AsyncReader::open(&log, "one").await.unwrap();
            assert_eq!(reader.lag().await.unwrap().messages, expected.len() as u64);
            let mut got = Vec::new();
            while got.len() < expected.len() {
                let batch = reader.next_batch().await.unwrap().unwrap();
                let same = batch.clone();
                got.extend(texts(&same));
                reader.commit(batch.last_id()).await.unwrap();
                assert!(log.checkpoint("one").unwrap() >= batch.last_id());
            }
            assert_eq!(got, expected);
            assert_eq!(reader.lag().await.unwrap().messages, 0);
            reader.committer().sync().await.unwrap();

            // A waiting reader is woken.
            let (batch, placed) = futures_join(reader.next_batch(), async {
                let placed = writer.append("woken").await;
                writer.flush().await.unwrap();
                placed
            })
            .await;
            placed.unwrap();
            assert_eq!(texts(&batch.unwrap().unwrap()), ["woken"]);

            writer.close().await.unwrap();
            for closed in [
                writer.append("late").await.err(),
                writer.append_durable("late").await.err(),
                writer.append_batch(["late"]).await.err(),
                writer.flush().await.err(),
                writer.sync().await.err(),
                writer.close().await.err(),
            ] {
                assert!(matches!(closed, Some(Error::Closed { path: closed }) if closed == path));
            }
            assert!(matches!(writer.try_append("late"), Err(NotAccepted::Failed(Error::Closed { .. }))));
            // The buffer is no longer in use.
            log.writer().unwrap().close().unwrap();
        })
    });
}

/// Waits for both futures.
async fn futures_join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(cx)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(cx)
        {
            second = Some(output);
        }
        match (first.is_some(), second.is_some()) {
            (true, true) => Poll::Ready((first.take().unwrap(), second.take().unwrap())),
            _ => Poll::Pending,
        }
    })
    .await
}

#[test]
fn ten_thousand_tasks_share_syncs() {
    const TASKS: usize = 10_000;
    let syncs = Arc::new(AtomicUsize::new(0));
    let storage = {
        let syncs = Arc::clone(&syncs);
        Faulty::storage(move |op| {
            if matches!(op, Op::Sync(_)) && op.is_segment() {
                syncs.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Proceed
        })
    };
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let ids: BTreeSet<LogId> = runtime.block_on(async {
        // There is room for fewer messages than there are tasks, so many tasks wait.
        let writer = AsyncWriter::open_with(&log, small_bounds(3000)).await.unwrap();
        let tasks: Vec<_> =
            (0..TASKS).map(|n| tokio::spawn(writer.append_durable(format!("message {n}")))).collect();
        let mut ids = BTreeSet::new();
        for task in tasks {
            ids.insert(task.await.unwrap().unwrap());
        }
        writer.close().await.unwrap();
        ids
    });
    assert_eq!(ids.len(), TASKS, "each has an id of its own");
    let got = read_all(&log);
    assert_eq!(got.iter().map(|message| message.id).collect::<BTreeSet<_>>(), ids);
    let there: BTreeSet<&[u8]> = bodies(&got).into_iter().collect();
    let all: Vec<String> = (0..TASKS).map(|n| format!("message {n}")).collect();
    assert_eq!(there, all.iter().map(String::as_bytes).collect());
    let syncs = syncs.load(Ordering::Relaxed);
    assert!(syncs < TASKS / 4, "{syncs} syncs");
}

#[test]
fn a_full_writer_refuses_or_lets_wait_and_dropped_futures_do_no_harm() {
    let (gate, storage) = Gate::storage();
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    block_on(async {
        let writer = AsyncWriter::open_with(&log, small_bounds(3)).await.unwrap();
        let mut first = pin!(writer.append("first"));
        assert!(poll_once(first.as_mut()).is_pending());
        gate.wait_for_write();
        // The thread is writing. There is room for two more messages.
        let second = writer.try_append("second").unwrap();
        let mut dropped_accepted = Box::pin(writer.append("dropped when accepted"));
        assert!(poll_once(dropped_accepted.as_mut()).is_pending());
        match writer.try_append("refused") {
            Err(NotAccepted::Full(message)) => assert_eq!(message, "refused"),
            other => panic!("{other:?}"),
        }
        let never_polled = writer.append("never polled");
        let mut dropped_waiting = Box::pin(writer.append("dropped while it waits"));
        assert!(poll_once(dropped_waiting.as_mut()).is_pending());
        let mut waits = pin!(writer.append("waits"));
        assert!(poll_once(waits.as_mut()).is_pending());
        let mut flush = pin!(writer.flush());
        assert!(poll_once(flush.as_mut()).is_pending());
        drop((never_polled, dropped_waiting, dropped_accepted));
        gate.open_for_good();
        first.await.unwrap();
        second.await.unwrap();
        waits.await.unwrap();
        flush.await.unwrap();
        writer.append("last").await.unwrap();
        writer.close().await.unwrap();
    });
    let expected: [&[u8]; 5] = [b"first", b"second", b"dropped when accepted", b"waits", b"last"];
    assert_eq!(bodies(&read_all(&log)), expected);
}

#[test]
fn bytes_are_bounded_and_what_is_larger_than_the_bound_goes_alone() {
    let (gate, storage) = Gate::storage();
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    block_on(async {
        let options = AsyncWriterOptions::default().max_bytes(100);
        let writer = AsyncWriter::open_with(&log, options).await.unwrap();
        let large = writer.try_append(vec![b'l'; 1000]).unwrap();
        gate.wait_for_write();
        assert!(matches!(writer.try_append("s"), Err(NotAccepted::Full(_))));
        let mut small = pin!(writer.append("small"));
        let mut large_batch = pin!(writer.append_batch([vec![b'x'; 80], vec![b'y'; 80]]));
        assert!(poll_once(small.as_mut()).is_pending());
        assert!(poll_once(large_batch.as_mut()).is_pending());
        gate.open_for_good();
        large.await.unwrap();
        let (small, batch) = futures_join(small, large_batch).await;
        small.unwrap();
        assert_eq!(batch.unwrap().len(), 2);
        writer.close().await.unwrap();
    });
    let lengths: Vec<usize> = read_all(&log).iter().map(|message| message.body.len()).collect();
    assert_eq!(lengths, [1000, 5, 80, 80]);
}

/// If only some messages fit below a limit, each future reports the result for its own message.
#[test]
fn an_error_reaches_the_future_of_its_message() {
    let (_dir, path) = new_path();
    let limits = Limits { max_bytes: Some(20_000), ..Limits::default() };
    let log = Jlog::options().segment_size(1000).limits(limits).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let accepted: Vec<String> = block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        let futures: Vec<_> = (0..40)
            .map(|n| {
                // Large and small messages in turn.
                let message = format!("{n:02}").repeat(if n % 2 == 0 { 700 } else { 10 });
                (message.clone(), writer.try_append(message).unwrap())
            })
            .collect();
        let mut accepted = Vec::new();
        let mut refused = 0;
        for (message, future) in futures {
            match future.await {
                Ok(_) => accepted.push(message),
                Err(Error::AtCapacity { path: of, .. }) => {
                    assert_eq!(of, path);
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0 && accepted.len() > 5, "{refused} refused, {} accepted", accepted.len());
        writer.close().await.unwrap();
        accepted
    });
    let expected: Vec<&[u8]> = accepted.iter().map(String::as_bytes).collect();
    assert_eq!(bodies(&read_all(&log)), expected, "what was accepted, and nothing else");
}

#[test]
fn a_failed_sync_is_reported_to_those_who_want_to_be_durable() {
    let failing = Arc::new(AtomicBool::new(false));
    let storage = {
        let failing = Arc::clone(&failing);
        Faulty::storage(move |op| match op {
            Op::Sync(_) if failing.load(Ordering::Relaxed) && op.is_segment() => Fate::Fail(ErrorKind::Other),
            _ => Fate::Proceed,
        })
    };
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        writer.append_durable("durable").await.unwrap();
        failing.store(true, Ordering::Relaxed);
        let buffered = writer.try_append("not asked to be durable").unwrap();
        let (one, two) =
            (writer.try_append_durable("one").unwrap(), writer.try_append_durable("two").unwrap());
        buffered.await.unwrap();
        assert!(one.await.is_err());
        assert!(two.await.is_err());
        failing.store(false, Ordering::Relaxed);
        for outcome in [
            writer.append("after").await.map(drop),
            writer.append_durable("after").await.map(drop),
            writer.append_batch_durable(["after"]).await.map(drop),
            writer.sync().await,
        ] {
            assert!(matches!(outcome, Err(Error::SyncFailed { .. })), "{outcome:?}");
        }
    });
}

#[test]
fn each_append_of_a_policy_is_durable() {
    let syncs = Arc::new(AtomicUsize::new(0));
    let storage = {
        let syncs = Arc::clone(&syncs);
        Faulty::storage(move |op| {
            if matches!(op, Op::Sync(_)) && op.is_segment() {
                syncs.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Proceed
        })
    };
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).pre_commit(4096).create(&path).unwrap();
    block_on(async {
        let options =
            AsyncWriterOptions::default().writer(WriterOptions::default().sync(SyncPolicy::EachAppend));
        let writer = AsyncWriter::open_with(&log, options).await.unwrap();
        for n in 1..=3 {
            let before = syncs.load(Ordering::Relaxed);
            assert_eq!(writer.append("one").await.unwrap(), Appended::InSegment(LogId::new(0, n)));
            assert!(syncs.load(Ordering::Relaxed) > before, "synced before it is ready");
        }
        let before = syncs.load(Ordering::Relaxed);
        writer.append_batch(["two"]).await.unwrap();
        assert!(syncs.load(Ordering::Relaxed) > before);
    });
}

#[test]
fn a_feed_that_is_removed_is_an_error_of_every_call() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    block_on(async {
        let options =
            AsyncWriterOptions::default().writer(WriterOptions::default().hold_lock(Duration::ZERO));
        let writer = AsyncWriter::open_with(&log, options).await.unwrap();
        let mut reader = AsyncReader::open(&log, "one").await.unwrap();
        writer.append("there").await.unwrap();
        assert_eq!(texts(&reader.next_batch().await.unwrap().unwrap()), ["there"]);
        std::fs::remove_dir_all(&path).unwrap();
        for outcome in [
            writer.append("gone").await.map(drop),
            writer.append_durable("gone").await.map(drop),
            writer.append_batch(["gone"]).await.map(drop),
        ] {
            assert!(matches!(outcome, Err(Error::Replaced { .. })), "{outcome:?}");
        }
        let read = reader.next_batch().await.unwrap();
        assert!(matches!(read, Err(Error::Replaced { .. })), "{read:?}");
        assert!(reader.commit(LogId::new(0, 1)).await.is_err());
        assert!(writer.close().await.is_err());
    });
}

/// A storage that panics once, at the first call that matches `when`.
fn panics_once(when: impl Fn(Op<'_>) -> bool + Send + Sync + 'static) -> (Arc<AtomicBool>, Arc<dyn Storage>) {
    let armed = Arc::new(AtomicBool::new(false));
    let storage = {
        let armed = Arc::clone(&armed);
        Faulty::storage(move |op| {
            if when(op) && armed.swap(false, Ordering::SeqCst) {
                panic!("as the test wants it");
            }
            Fate::Proceed
        })
    };
    (armed, storage)
}

#[test]
fn a_thread_that_panics_is_an_error_not_a_hang() {
    let (armed, storage) = panics_once(|op| matches!(op, Op::Write { .. }) && op.is_segment());
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        writer.append("before").await.unwrap();
        armed.store(true, Ordering::SeqCst);
        let error = writer.append_durable("in the panic").await.unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        writer.append("after").await.unwrap();
        writer.close().await.unwrap();
    });
    let got = read_all(&log);
    assert_eq!(bodies(&got), [&b"before"[..], b"after"]);
}

#[test]
fn a_reader_whose_thread_panics_is_done() {
    let (armed, storage) = panics_once(|op| matches!(op, Op::Read { .. }) && op.is_segment());
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    log.writer().unwrap().append("there").unwrap();
    block_on(async {
        let mut reader = AsyncReader::open(&log, "one").await.unwrap();
        armed.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            let error = reader.next_batch().await.unwrap().unwrap_err();
            assert!(error.to_string().contains("panicked"), "{error}");
        }
        assert!(reader.commit(LogId::new(0, 1)).await.is_err());
        let mut again = AsyncReader::open(&log, "one").await.unwrap();
        assert_eq!(texts(&again.next_batch().await.unwrap().unwrap()), ["there"]);
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("as the test wants it");
    }
}

#[test]
fn a_waker_that_panics_keeps_no_other_task_waiting() {
    let (gate, storage) = Gate::storage();
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        let panics = Waker::from(Arc::new(Panics));
        let mut reader = AsyncReader::open(&log, "one").await.unwrap();
        assert!(Box::pin(reader.next_batch()).as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
        let mut first = pin!(writer.append_durable("first"));
        assert!(first.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
        gate.wait_for_write();
        let second = writer.try_append_durable("second").unwrap();
        gate.open_for_good();
        second.await.unwrap();
        first.await.unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(texts(&reader.next_batch().await.unwrap().unwrap()));
        }
        assert_eq!(got, ["first", "second"]);
    });
}

#[test]
fn the_last_handle_flushes() {
    let (_dir, path) = new_path();
    let log = Jlog::options().pre_commit(4096).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        let other = writer.clone();
        assert_eq!(writer.append("buffered").await.unwrap(), Appended::Buffered);
        let accepted = other.try_append("accepted").unwrap();
        drop((writer, other, accepted));
        let mut reader = log.reader("one").unwrap();
        let mut got = Vec::new();
        while got.len() < 2 {
            let batch = reader.next_batch(Wait::Timeout(PATIENCE)).unwrap().expect("flushed");
            got.extend(batch.iter().map(|message| message.body().to_vec()));
        }
        assert_eq!(got, [&b"buffered"[..], b"accepted"]);
    });
}

/// A future keeps its writer, so that handles may be dropped before it is awaited.
#[test]
fn a_future_outlives_the_handles() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    let id = block_on(async {
        let future = AsyncWriter::open(&log).await.unwrap().append_durable("there");
        future.await.unwrap()
    });
    let got = read_all(&log);
    assert_eq!((got[0].id, bodies(&got)), (id, vec![&b"there"[..]]));
}

#[test]
fn closing_takes_what_was_accepted_before_it() {
    let (gate, storage) = Gate::storage();
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(storage).create(&path).unwrap();
    block_on(async {
        let writer = AsyncWriter::open_with(&log, small_bounds(2)).await.unwrap();
        let first = writer.try_append("first").unwrap();
        gate.wait_for_write();
        let second = writer.try_append_durable("second").unwrap();
        let mut third = pin!(writer.append("third"));
        assert!(poll_once(third.as_mut()).is_pending(), "it waits for room");
        let mut close = pin!(writer.close());
        assert!(poll_once(close.as_mut()).is_pending());
        let mut late = pin!(writer.append("late"));
        assert!(poll_once(late.as_mut()).is_pending(), "it waits behind the close");
        gate.open_for_good();
        close.await.unwrap();
        first.await.unwrap();
        second.await.unwrap();
        third.await.unwrap();
        assert!(matches!(late.await, Err(Error::Closed { .. })));
    });
    assert_eq!(bodies(&read_all(&log)), [&b"first"[..], b"second", b"third"]);
}

/// Opening fails with the same error as a blocking writer or reader, which names the same file.
#[test]
fn opening_fails_with_the_reason() {
    let (_dir, path) = new_path();
    let log = Jlog::options().pre_commit(4096).create(&path).unwrap();
    let holds_the_buffer = log.writer().unwrap();
    block_on(async {
        assert!(matches!(AsyncWriter::open(&log).await, Err(Error::PreCommitBusy { .. })));
        assert!(matches!(AsyncReader::open(&log, "nobody").await, Err(Error::UnknownSubscriber { .. })));
    });
    holds_the_buffer.close().unwrap();
}

/// Writes messages so large that a reader with batches of 4 KiB gets them one by one.
fn feed_of_batches(path: &Path, count: u32, storage: Option<Arc<dyn Storage>>) -> Jlog {
    let mut options = Jlog::options();
    if let Some(storage) = storage {
        options = options.storage(storage);
    }
    let log = options.create(path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let messages: Vec<Vec<u8>> = (0..count).map(|n| format!("{n:0>4000}").into_bytes()).collect();
    log.writer().unwrap().append_batch(&messages).unwrap();
    log
}

fn small_batches() -> ReaderOptions {
    ReaderOptions::default().batch_bytes(4096)
}

#[test]
fn look_ahead_is_bounded() {
    let (_dir, path) = new_path();
    let furthest = Arc::new(AtomicUsize::new(0));
    let storage = {
        let furthest = Arc::clone(&furthest);
        Faulty::storage(move |op| {
            if let Op::Read { offset, len, .. } = op
                && op.is_segment()
            {
                furthest.fetch_max(usize::try_from(offset).unwrap() + len, Ordering::SeqCst);
            }
            Fate::Proceed
        })
    };
    let log = feed_of_batches(&path, 200, Some(storage));
    furthest.store(0, Ordering::SeqCst);
    block_on(async {
        let options = AsyncReaderOptions::default().reader(small_batches()).look_ahead(20_000);
        let mut reader = AsyncReader::open_with(&log, "one", options).await.unwrap();
        for n in 0..150 {
            let batch = reader.next_batch().await.unwrap().unwrap();
            assert_eq!(texts(&batch), [format!("{n:0>4000}")]);
            // The delivered batch, the waiting ones, one more batch, and the excess of a read.
            let most = (n + 1) * 4016 + 20_000 + 3 * 4096;
            let furthest = furthest.load(Ordering::SeqCst);
            assert!(furthest <= most, "{furthest} bytes were read, {most} may be");
        }
    });
}

/// The stream ends at the end of the feed, and continues with messages that arrive later;
/// committers store checkpoints from another task.
#[test]
fn without_following_the_stream_ends_and_goes_on() {
    on_each_runtime(|| {
        Box::pin(async {
            let (_dir, path) = new_path();
            let log = feed_of_batches(&path, 20, None);
            let options = AsyncReaderOptions::default().reader(small_batches()).follow(false);
            let mut reader = AsyncReader::open_with(&log, "one", options).await.unwrap();
            let committer = reader.committer();
            for round in 0..2 {
                let mut got = Vec::new();
                let mut last = None;
                while let Some(batch) = reader.next_batch().await {
                    let batch = batch.unwrap();
                    got.extend(texts(&batch));
                    last = Some(batch.last_id());
                }
                if round == 0 {
                    assert_eq!(got, (0..20).map(|n| format!("{n:0>4000}")).collect::<Vec<_>>());
                } else {
                    assert_eq!(got, ["more"]);
                }
                committer.commit(last.unwrap()).await.unwrap();
                assert_eq!(log.checkpoint("one").unwrap(), last.unwrap());
                log.writer().unwrap().append("more").unwrap();
            }
            // Committers continue to work without the stream.
            drop(reader);
            assert!(matches!(committer.commit(LogId::new(0, 99)).await, Err(Error::NoSuchRecord { .. })));
            committer.commit(LogId::new(0, 3)).await.unwrap();
            assert_eq!(log.checkpoint("one").unwrap(), LogId::new(0, 3));
        })
    });
}

#[test]
fn a_dropped_wait_loses_no_batch_and_a_polled_commit_is_stored() {
    let (_dir, path) = new_path();
    let log = feed_of_batches(&path, 30, None);
    block_on(async {
        let options = AsyncReaderOptions::default().reader(small_batches()).look_ahead(0);
        let mut reader = AsyncReader::open_with(&log, "one", options).await.unwrap();
        let mut got = Vec::new();
        while got.len() < 30 {
            // Drop the future after its first poll, again and again.
            if let Poll::Ready(batch) = poll_once(pin!(reader.next_batch())) {
                got.extend(texts(&batch.unwrap().unwrap()));
            } else {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(got, (0..30).map(|n| format!("{n:0>4000}")).collect::<Vec<_>>());
        {
            let mut commit = pin!(reader.commit(LogId::new(0, 7)));
            // In a debug build as in a release build, the thread may have answered already.
            let _ = poll_once(commit.as_mut());
        }
        drop(reader.commit(LogId::new(0, 9)));
        reader.committer().sync().await.unwrap();
        assert_eq!(log.checkpoint("one").unwrap(), LogId::new(0, 7), "polled: stored; never polled: not");
        // None of this prevents the reader's thread from ending.
        let mut commit = Box::pin(reader.commit(LogId::new(0, 8)));
        let _ = poll_once(commit.as_mut());
        drop((commit, reader));
    });
    let since = std::time::Instant::now();
    while log.checkpoint("one").unwrap() != LogId::new(0, 8) {
        assert!(since.elapsed() < PATIENCE, "stored after the reader was dropped");
        std::thread::yield_now();
    }
}

/// Closing commits nothing by itself, completes earlier requests, and has released the subscriber
/// when its future is ready: while the thread waits for messages, while it reads ahead, and when
/// there is no thread.
#[test]
fn closing_a_reader_lets_go_of_its_subscriber_and_commits_nothing() {
    on_each_runtime(|| {
        Box::pin(async {
            let (_dir, path) = new_path();
            let log = feed_of_batches(&path, 30, None);
            let options = AsyncReaderOptions::default().reader(small_batches());
            let mut committed = None;
            for (round, look_ahead) in [0, 8000, 1 << 20].into_iter().cycle().take(12).enumerate() {
                // Opening does not wait: the previous reader is closed.
                let mut reader =
                    AsyncReader::open_with(&log, "one", options.look_ahead(look_ahead)).await.unwrap();
                let committer = reader.committer();
                let next = committed.map_or(0, |id: LogId| id.marker);
                if round > 0 {
                    for n in next..next + 2 {
                        let batch = reader.next_batch().await.unwrap().unwrap();
                        assert_eq!(texts(&batch), [format!("{n:0>4000}")], "{round}");
                    }
                }
                if round % 2 == 1 {
                    let id = LogId::new(0, next + 1);
                    let mut commit = pin!(committer.commit(id));
                    // Requested, but not awaited.
                    assert!(!matches!(poll_once(commit.as_mut()), Poll::Ready(Err(_))));
                    committed = Some(id);
                }
                if round % 5 == 4 {
                    // Read to the end of the feed, where the thread waits for more.
                    for _ in next + 2..30 {
                        reader.next_batch().await.unwrap().unwrap();
                    }
                    assert!(poll_once(pin!(reader.next_batch())).is_pending());
                }
                reader.close().await.unwrap();
                assert_eq!(log.checkpoint("one").unwrap(), committed.unwrap_or(LogId::new(0, 0)), "{round}");
                let closed = committer.commit(LogId::new(0, 29)).await;
                assert!(matches!(closed, Err(Error::Closed { .. })), "{closed:?}");
                let closed = committer.sync().await;
                assert!(matches!(closed, Err(Error::Closed { .. })), "{closed:?}");
            }
            // A close that is polled and dropped is done; if it is never polled, the reader is
            // dropped.
            let reader = AsyncReader::open_with(&log, "one", options).await.unwrap();
            let committer = reader.committer();
            let _ = poll_once(pin!(reader.close()));
            assert!(matches!(committer.sync().await, Err(Error::Closed { .. })));
            let reader = loop {
                match AsyncReader::open_with(&log, "one", options).await {
                    Err(Error::ReaderBusy { .. }) => smol::future::yield_now().await,
                    opened => break opened.unwrap(),
                }
            };
            let committer = reader.committer();
            drop(reader.close());
            committer.sync().await.unwrap();
            assert_eq!(Some(log.checkpoint("one").unwrap()), committed);
        })
    });
}

#[test]
fn damage_is_an_item_until_it_is_skipped() {
    let (_dir, path) = new_path();
    let log = feed_of_batches(&path, 6, None);
    let segment = path.join("00000000");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the body of the third message.
    bytes[2 * 4016 + 100] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let number = |n: u32| format!("{n:0>4000}");
    block_on(async {
        let options = AsyncReaderOptions::default().reader(small_batches()).follow(false);
        let mut reader = AsyncReader::open_with(&log, "one", options).await.unwrap();
        let mut got = Vec::new();
        let mut failures = 0;
        while let Some(item) = reader.next_batch().await {
            match item {
                Ok(batch) => got.extend(texts(&batch)),
                Err(error) => {
                    assert!(error.is_damage(), "{error}");
                    assert_eq!(got, [number(0), number(1)]);
                    failures += 1;
                    if failures == 3 {
                        reader.skip_damage().await.unwrap();
                    }
                }
            }
        }
        assert_eq!((failures, got), (3, [0, 1, 3, 4, 5].map(number).to_vec()));

        log.subscribe("two", Start::Beginning).unwrap();
        let options = options.reader(small_batches().on_damage(OnDamage::Skip));
        let mut reader = AsyncReader::open_with(&log, "two", options).await.unwrap();
        let mut got = Vec::new();
        while let Some(batch) = reader.next_batch().await {
            got.extend(texts(&batch.unwrap()));
        }
        assert_eq!(got, [0, 1, 3, 4, 5].map(number));
    });
}

/// Any reader can be wrapped, even one without a subscriber.
#[test]
fn a_reader_without_a_subscriber() {
    let (_dir, path) = new_path();
    let log = feed_of_batches(&path, 5, None);
    block_on(async {
        let reader = log.reader_from(&Start::Last(2), small_batches()).unwrap();
        let options = AsyncReaderOptions::default().follow(false);
        let mut reader = AsyncReader::new(&log, reader, options).unwrap();
        let mut got = Vec::new();
        while let Some(batch) = reader.next_batch().await {
            got.extend(texts(&batch.unwrap()));
        }
        assert_eq!(got, [3, 4].map(|n| format!("{n:0>4000}")));
        assert!(matches!(reader.commit(LogId::new(0, 1)).await, Err(Error::NoSubscriber { .. })));
        assert!(matches!(reader.lag().await, Err(Error::NoSubscriber { .. })));
    });
}

/// Runs a task of the worker, and returns its output.
fn worker(task: &str, feed: &Path) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_worker")).args([task.as_ref(), feed.as_os_str()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn threads_end_when_there_is_nothing_to_do() {
    let (_dir, path) = new_path();
    let log = Jlog::options().pre_commit(4096).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    assert_eq!(worker("async-threads", &path), "done\n");
}

#[test]
fn a_forked_child_gets_an_error() {
    let (_dir, path) = new_path();
    Jlog::create(&path).unwrap();
    let said = worker("async-fork", &path);
    let expected = "child [true, true, true, true, true]\nparent [\"before\", \"never polled\", \"after\"]\n";
    assert_eq!(said, expected);
}
