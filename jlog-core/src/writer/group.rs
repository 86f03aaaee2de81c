//! Threads that append durably at the same time, and their messages.

use std::sync::Arc;

use super::appended::Appended;
use crate::sync::{Condvar, Mutex};
use crate::{Result, Timestamp};

/// The messages that wait for the leader, the thread that writes for all.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// A leader is writing, or is about to.
    pub(super) led: bool,
    pub(super) waiting: Vec<Waiting>,
}

/// A message, and the slot of the thread that waits for it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) time: Timestamp,
    pub(super) body: Vec<u8>,
    pub(super) slot: Arc<Slot>,
}

/// Where a thread learns what happened to its message.
#[derive(Debug, Default)]
pub(super) struct Slot {
    news: Mutex<Option<News>>,
    arrived: Condvar,
}

#[derive(Debug)]
pub(super) enum News {
    Done(Result<Appended>),
    /// The leader has stopped: this thread is the next.
    Lead,
}

impl Slot {
    pub(super) fn notify(&self, news: News) {
        *self.news.lock() = Some(news);
        self.arrived.notify_one();
    }

    pub(super) fn wait(&self) -> News {
        let mut news = self.news.lock();
        loop {
            match news.take() {
                Some(news) => return news,
                None => self.arrived.wait(&mut news),
            }
        }
    }
}
