//! The thread of the process that compresses rotated files, one after the other.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::names::Names;
use crate::fork;
use crate::sync::plain::Mutex;

/// An order to compress the rotated files of one log.
pub(super) struct Job {
    pub(super) keeper: Arc<Keeper>,
    pub(super) names: Arc<Names>,
    /// When it was ordered, and whether the clock can be believed.
    pub(super) now: u64,
    pub(super) believed: bool,
}

struct Queue {
    /// Shows that the process was forked: a child has the parent's queue, and no thread.
    forks: u32,
    running: bool,
    jobs: VecDeque<Job>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { forks: 0, running: false, jobs: VecDeque::new() });

impl Queue {
    fn of_this_process(&mut self) {
        if self.forks != fork::forks() {
            // The parent does what it ordered. Its files must not be closed here.
            std::mem::forget(std::mem::take(&mut self.jobs));
            (self.forks, self.running) = (fork::forks(), false);
        }
    }
}

/// Orders the compression of a log's rotated files.
pub(super) fn order(job: Job) -> io::Result<()> {
    let _inside = fork::enter();
    let mut queue = QUEUE.lock();
    queue.of_this_process();
    if !queue.jobs.iter().any(|waiting| Arc::ptr_eq(&waiting.keeper, &job.keeper)) {
        queue.jobs.push_back(job);
    }
    if !queue.running {
        let spawned = std::thread::Builder::new().name("log-compress".to_owned()).spawn(work);
        if let Err(error) = spawned {
            queue.jobs.clear();
            return Err(error);
        }
        queue.running = true;
    }
    Ok(())
}

fn work() {
    loop {
        let job = {
            let _inside = fork::enter();
            let mut queue = QUEUE.lock();
            let job = queue.jobs.pop_front();
            queue.running = job.is_some();
            job
        };
        match job {
            // A panic in one job must not stop the others.
            Some(job) => drop(catch_unwind(AssertUnwindSafe(|| {
                job.keeper.compress(&job.names, job.now, job.believed)
            }))),
            None => return,
        }
    }
}

/// Waits until everything that was ordered is done, or until the deadline.
pub(crate) fn wait(deadline: Instant) {
    let busy = || {
        let _inside = fork::enter();
        let mut queue = QUEUE.lock();
        queue.of_this_process();
        queue.running
    };
    while busy() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}
