//! The parts that the benches share.

use jlog_core::{Jlog, JlogOptions, LogId, Start};
use tempfile::TempDir;

/// Length of the messages, in bytes.
pub const MESSAGE: usize = 100;

/// A jlog that is removed after the bench.
#[derive(Debug)]
pub struct Feed {
    /// The jlog.
    pub log: Jlog,
    _dir: TempDir,
}

/// Creates a jlog in the system's directory for temporary files (set `TMPDIR` for another file
/// system).
///
/// # Panics
/// If that is not possible, because a bench cannot continue then.
#[allow(clippy::expect_used)]
pub fn feed(options: &JlogOptions) -> Feed {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = options.create(dir.path().join("feed")).expect("a jlog");
    log.subscribe("bench", Start::Beginning).expect("a subscriber");
    Feed { log, _dir: dir }
}

impl Feed {
    /// Releases everything but the segment being written, so that a long bench does not fill the
    /// disk.
    ///
    /// # Panics
    /// If the checkpoint cannot be set.
    #[allow(clippy::expect_used)]
    pub fn forget(&self) {
        let last = self.log.meta().expect("a metastore").storage_log;
        self.log.set_checkpoint("bench", LogId::new(last, 0)).expect("a checkpoint");
    }
}
