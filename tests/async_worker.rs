//! Tests that need a separate process, because they concern the whole process.

use std::time::{Duration, Instant};

use jlog_core::asynchronous::{AsyncReader, AsyncWriter};
use jlog_core::{Jlog, Start};

use crate::{LONG, say};

/// How many threads of this process have a name with this prefix.
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

fn wait_for_no_thread(prefix: &str) {
    let since = Instant::now();
    while threads_named(prefix) > 0 {
        assert!(since.elapsed() < LONG, "threads {prefix} stay");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Checks that a writer and a reader have at most one thread each, that these threads end when they
/// have nothing to do, and that writer and reader continue to work afterwards.
pub(crate) fn threads(feed: &str) {
    let log = Jlog::open(feed).unwrap();
    runtime().block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        let mut reader = AsyncReader::open(&log, "one").await.unwrap();
        for text in ["first", "second"] {
            for _ in 0..20 {
                writer.append(text).await.unwrap();
                assert!(threads_named("jlog-append") <= 1);
            }
            writer.flush().await.unwrap();
            let mut got = 0;
            while got < 20 {
                let batch = reader.next_batch().await.unwrap().unwrap();
                assert!(batch.iter().all(|message| message.body() == text));
                got += batch.len();
                reader.commit(batch.last_id()).await.unwrap();
                assert!(threads_named("jlog-read") <= 1);
            }
            assert_eq!(got, 20);
            wait_for_no_thread("jlog-append");
            wait_for_no_thread("jlog-read");
        }
        // A thread flushes the buffer and finishes the reader.
        writer.append("last").await.unwrap();
        wait_for_no_thread("jlog-append");
        let batch = reader.next_batch().await.unwrap().unwrap();
        assert_eq!(batch.iter().map(|message| message.into_body()).collect::<Vec<_>>(), ["last"]);
        drop((writer, reader));
        wait_for_no_thread("jlog-");
    });
    say("done");
}

/// Checks that a forked child gets an error, never hangs, and takes nothing from its parent.
pub(crate) fn fork(feed: &str) {
    let log = Jlog::open(feed).unwrap();
    log.ensure_subscriber("one", Start::Beginning).unwrap();
    let (writer, mut reader, waiting) = runtime().block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        writer.append("before").await.unwrap();
        let reader = AsyncReader::open(&log, "one").await.unwrap();
        (writer.clone(), reader, writer.append("never polled"))
    });
    match fork::fork().unwrap() {
        fork::Fork::Child => {
            let reported = runtime().block_on(async {
                let forked = |error: jlog_core::Error| error.to_string().contains("forked");
                [
                    forked(writer.append("from the child").await.unwrap_err()),
                    forked(waiting.await.unwrap_err()),
                    forked(writer.close().await.unwrap_err()),
                    forked(reader.next_batch().await.unwrap().unwrap_err()),
                    forked(reader.commit(log.end().unwrap()).await.unwrap_err()),
                ]
            });
            drop((writer, reader));
            say(format_args!("child {reported:?}"));
            std::process::exit(0);
        }
        fork::Fork::Parent(child) => {
            fork::waitpid(child).unwrap();
            runtime().block_on(async {
                waiting.await.unwrap();
                writer.append_durable("after").await.unwrap();
                let mut got = Vec::new();
                while got.len() < 3 {
                    let batch = reader.next_batch().await.unwrap().unwrap();
                    got.extend(batch.iter().map(|m| String::from_utf8(m.body().to_vec()).unwrap()));
                }
                writer.close().await.unwrap();
                say(format_args!("parent {got:?}"));
            });
        }
    }
}
