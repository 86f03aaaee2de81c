//! The thread that reads the feed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use jlog_core::{Error, OwnedBatch, Reader, Result, Wait, Waker};
use tokio::sync::mpsc;

/// A reader in its own thread. Its batches wait in a channel that holds one.
#[derive(Debug)]
pub(crate) struct Source {
    pub batches: mpsc::Receiver<Result<OwnedBatch>>,
    ended: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Reads until it is dropped, or (with `once`) to the current end.
    pub fn start(mut reader: Reader, once: bool) -> Result<Self> {
        let waker = reader.waker()?;
        let (sender, batches) = mpsc::channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        let wait = if once { Wait::No } else { Wait::Forever };
        let read = move || {
            while !has_ended.load(Ordering::Acquire) {
                let next = match reader.next_batch(wait) {
                    Ok(Some(batch)) => Ok(batch.into_owned()),
                    Ok(None) if once => return,
                    Ok(None) => continue,
                    Err(e) => Err(e),
                };
                let failed = next.is_err();
                if sender.blocking_send(next).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("ship-read".to_owned()).spawn(read);
        let thread = thread.map_err(|source| Error::Io {
            action: "start a thread for",
            path: "reading".into(),
            source,
        })?;
        Ok(Self { batches, ended, waker, thread: Some(thread) })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.batches.close();
        while self.batches.try_recv().is_ok() {}
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // Ignore the result: a panic of the thread was printed.
            let _ = thread.join();
        }
    }
}
