//! A feed that is removed, moved away or replaced while it is open: its readers and writers get an
//! error, and the new feed is left alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jlog_core::compat::WriterCompat;
use jlog_core::{Error, Jlog, Locking, LogId, Start, SyncPolicy, Wait, Writer, WriterOptions};

use testkit::feeds::{bodies, copy_dir, new_path, read_all, shared, snapshot};

/// The possible fates of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Removed, and a backup put in its place.
    Restored,
    /// Removed, and another feed created in its place.
    CreatedAgain,
    /// Moved away, and replaced by a backup.
    MovedAndRestored,
    /// Moved away.
    Moved,
    Removed,
}

const FATES: [Fate; 5] =
    [Fate::Restored, Fate::CreatedAgain, Fate::MovedAndRestored, Fate::Moved, Fate::Removed];

struct Feed {
    _dir: tempfile::TempDir,
    path: PathBuf,
    log: Jlog,
}

impl Feed {
    /// A feed with some messages, and a backup of its beginning.
    fn new(pre_commit: u32) -> Self {
        let (dir, path) = new_path();
        let log = Jlog::options().segment_size(200).pre_commit(pre_commit).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        writer.append("backed up").unwrap();
        writer.close().unwrap();
        copy_dir(&path, &path.with_extension("backup"));
        let writer = log.writer().unwrap();
        writer.append_batch(&[[b'x'; 100]; 9]).unwrap();
        writer.close().unwrap();
        Self { _dir: dir, path, log }
    }

    fn befalls(&self, fate: Fate) {
        match fate {
            Fate::Moved | Fate::MovedAndRestored => {
                std::fs::rename(&self.path, self.path.with_extension("moved")).unwrap();
            }
            _ => std::fs::remove_dir_all(&self.path).unwrap(),
        }
        match fate {
            Fate::Restored | Fate::MovedAndRestored => {
                std::fs::rename(self.path.with_extension("backup"), &self.path).unwrap();
            }
            Fate::CreatedAgain => {
                let log = Jlog::create(&self.path).unwrap();
                log.subscribe("one", Start::Beginning).unwrap();
            }
            Fate::Moved | Fate::Removed => {}
        }
    }

    fn files(&self) -> Option<std::collections::BTreeMap<std::ffi::OsString, Vec<u8>>> {
        self.path.exists().then(|| snapshot(&self.path))
    }
}

fn assert_replaced<T: std::fmt::Debug>(result: Result<T, Error>, path: &Path, what: &str) {
    match result {
        Err(Error::Replaced { path: named }) => assert_eq!(named, path, "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

/// Appends for a while. Returns how many appends were acknowledged.
fn append_for_a_while(writer: &Writer, message: &str) -> (u32, Option<Error>) {
    let begun = Instant::now();
    let mut accepted = 0;
    while begun.elapsed() < Duration::from_millis(200) {
        match writer.append(message) {
            Ok(_) => accepted += 1,
            Err(e) => return (accepted, Some(e)),
        }
    }
    (accepted, None)
}

#[test]
fn a_writer_does_not_outlive_its_directory() {
    let plain = WriterOptions::default();
    let kinds = [
        ("no buffer", 0, plain.hold_lock(Duration::ZERO)),
        ("every append synced", 0, plain.sync(SyncPolicy::EachAppend)),
        ("alone", 0, plain.locking(Locking::SingleProcess)),
        ("a buffer", 4096, plain),
    ];
    for (kind, pre_commit, options) in kinds {
        for fate in FATES {
            let what = format!("{kind}, {fate:?}");
            let feed = Feed::new(pre_commit);
            let writer = feed.log.writer_with(options).unwrap();
            writer.append("before").unwrap();
            writer.flush().unwrap();
            feed.befalls(fate);
            let files = feed.files();
            // If it takes no lock, the writer checks the path once per millisecond.
            std::thread::sleep(Duration::from_millis(2));
            assert_replaced(writer.append("after"), &feed.path, &what);
            assert_replaced(writer.append_batch(&["after", "that"]), &feed.path, &what);
            assert_replaced(writer.sync(), &feed.path, &what);
            assert_replaced(writer.set_segment_size(1 << 20), &feed.path, &what);
            drop(writer);
            assert_eq!(feed.files(), files, "{what}: the feed that is there is left alone");
        }
    }
}

#[test]
fn a_writer_that_keeps_its_lock_notices_within_its_time() {
    for fate in FATES {
        let feed = Feed::new(0);
        let writer = feed.log.writer().unwrap();
        assert!(append_for_a_while(&writer, "before").1.is_none());
        feed.befalls(fate);
        let files = feed.files();
        let (_, error) = append_for_a_while(&writer, "after");
        assert_replaced(Err::<(), _>(error.unwrap()), &feed.path, &format!("{fate:?}"));
        drop(writer);
        assert_eq!(feed.files(), files, "{fate:?}");
    }
}

#[test]
fn a_feed_that_was_restored_is_written_after_it_was_opened_again() {
    let feed = Feed::new(0);
    let writer = feed.log.writer().unwrap();
    writer.append("lost with the old feed").unwrap();
    feed.befalls(Fate::Restored);
    assert_replaced(writer.append("refused"), &feed.path, "restored");
    feed.log.writer().unwrap().append("accepted").unwrap();
    assert_eq!(bodies(&read_all(&feed.log)), [&b"backed up"[..], b"accepted"]);
}

#[test]
fn another_feed_that_is_copied_over_the_files_is_noticed_by_its_identity() {
    let (feed, other) = (Feed::new(0), Feed::new(0));
    let writer = feed.log.writer().unwrap();
    for (name, bytes) in snapshot(&other.path) {
        // The files stay, and with them their inodes.
        std::fs::write(feed.path.join(name), bytes).unwrap();
    }
    assert_replaced(writer.sync(), &feed.path, "sync");
    assert_replaced(writer.roll(), &feed.path, "roll");
}

#[test]
fn a_feed_of_the_c_library_gets_its_identity_from_the_first_writer() {
    let feed = Feed::new(0);
    let identity = std::fs::read(feed.path.join("identity")).unwrap();
    assert_eq!(identity.len(), 33);
    std::fs::remove_file(feed.path.join("identity")).unwrap();
    feed.log.writer().unwrap().append("x").unwrap();
    let made = std::fs::read(feed.path.join("identity")).unwrap();
    assert_eq!(made.len(), 33);
    assert_ne!(made, identity);
    feed.log.writer().unwrap().append("x").unwrap();
    assert_eq!(std::fs::read(feed.path.join("identity")).unwrap(), made, "it keeps the one it has");
}

#[test]
fn a_reader_does_not_outlive_its_directory() {
    for fate in FATES {
        let feed = Feed::new(0);
        let mut reader = feed.log.reader_with("one", shared()).unwrap();
        let mut waiting = feed.log.reader_with("one", shared()).unwrap();
        while waiting.next_batch(Wait::No).unwrap().is_some() {}
        let first = reader.next_batch(Wait::No).unwrap().unwrap().last_id();
        let waits =
            std::thread::spawn(move || waiting.next_batch(Wait::Forever).map(|batch| batch.map(|b| b.len())));
        feed.befalls(fate);
        let files = feed.files();
        assert_replaced(waits.join().unwrap(), &feed.path, &format!("waiting, {fate:?}"));
        assert_replaced(reader.commit(first), &feed.path, &format!("checkpoint, {fate:?}"));
        // Open segments may be read to their end, but no message of another feed follows.
        let error = loop {
            match reader.next_batch(Wait::No) {
                Ok(Some(batch)) => assert!(batch.iter().all(|m| m.body() == [b'x'; 100]), "{fate:?}"),
                Ok(None) => panic!("{fate:?}: it goes on as if nothing had happened"),
                Err(e) => break e,
            }
        };
        assert_replaced(Err::<(), _>(error), &feed.path, &format!("reading, {fate:?}"));
        assert_eq!(feed.files(), files, "{fate:?}");
    }
}

#[test]
fn a_feed_above_which_a_directory_is_moved_is_missed_within_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let above = dir.path().join("above");
    std::fs::create_dir(&above).unwrap();
    let log = Jlog::create(above.join("feed")).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let mut reader = log.reader("one").unwrap();
    assert!(reader.next_batch(Wait::No).unwrap().is_none());
    std::fs::rename(&above, dir.path().join("elsewhere")).unwrap();
    let begun = Instant::now();
    let result = reader.next_batch(Wait::Timeout(Duration::from_secs(60)));
    assert!(matches!(result, Err(Error::Replaced { .. })), "{result:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(reader.position(), LogId::new(0, 0));
}
