//! Feeds and shippers for the tests with real destinations.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jlog_core::{Jlog, Start};
use jlog_ship::{Destination, Progress, Report, Shipper, Stopper, Totals};

/// How long a test waits for a server or a shipper.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A feed with small segments, and a subscriber `s` at its beginning.
pub fn feed(messages: usize) -> (tempfile::TempDir, Jlog) {
    let dir = tempfile::tempdir().unwrap();
    let log = Jlog::options().segment_size(20_000).create(dir.path().join("feed")).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    append(&log, 0..messages);
    (dir, log)
}

pub fn append(log: &Jlog, range: std::ops::Range<usize>) {
    log.writer().unwrap().append_batch(&texts(range)).unwrap();
}

pub fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("message {n}")).collect()
}

pub fn shipper(log: &Jlog) -> Shipper {
    let shipper = Shipper::new(log.path(), "s").unwrap();
    shipper.backoff(Duration::from_millis(1), Duration::from_millis(20))
}

pub fn ship_once(log: &Jlog, destination: Box<dyn Destination>) -> Totals {
    let totals = shipper(log).once(true).run(destination).unwrap();
    assert!(totals.is_balanced(), "{totals}");
    totals
}

/// Waits until the condition holds.
#[track_caller]
pub fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "nothing comes of it");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A shipper in a thread, with its reports.
pub struct Running {
    pub progress: Progress,
    stopper: Stopper,
    pub reports: Arc<Mutex<Vec<String>>>,
    /// The reports that are about losses.
    pub losses: Arc<Mutex<Vec<String>>>,
    thread: std::thread::JoinHandle<Totals>,
}

impl Running {
    pub fn start(shipper: Shipper, destination: Box<dyn Destination>) -> Self {
        let (progress, stopper) = (shipper.progress(), shipper.stopper());
        let [reports, losses] = [(); 2].map(|()| Arc::new(Mutex::new(Vec::new())));
        let (reported, lost) = (Arc::clone(&reports), Arc::clone(&losses));
        let shipper = shipper.on_report(move |report: &Report| {
            reported.lock().unwrap().push(report.to_string());
            if report.is_loss() {
                lost.lock().unwrap().push(report.to_string());
            }
        });
        let thread = std::thread::spawn(move || shipper.run(destination).unwrap());
        Self { progress, stopper, reports, losses, thread }
    }

    pub fn acknowledged(&self) -> u64 {
        self.progress.totals().acknowledged
    }

    pub fn reported(&self, text: &str) -> bool {
        self.reports.lock().unwrap().iter().any(|report| report.contains(text))
    }

    #[track_caller]
    pub fn until_acknowledged(&self, messages: u64) {
        let begun = Instant::now();
        while self.acknowledged() < messages {
            assert!(
                begun.elapsed() < PATIENCE,
                "{}; {:?}",
                self.progress.totals(),
                self.reports.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    pub fn until_reported(&self, text: &str) {
        let begun = Instant::now();
        while !self.reported(text) {
            assert!(begun.elapsed() < PATIENCE, "not {text:?}: {:?}", self.reports.lock().unwrap());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn end(self) -> Totals {
        self.stopper.stop();
        let totals = self.thread.join().unwrap();
        assert!(totals.is_balanced(), "{totals}");
        totals
    }
}
