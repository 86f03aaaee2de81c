//! A full disk: a tmpfs of 2 MiB that the test mounts (skipped, with a message, without root), and
//! a simulated one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use jlog_core::storage::sim::SimStorage;
use jlog_core::storage::{Posix, Storage};
use jlog_core::{Error, Jlog, JlogOptions, LogId, Reader, Start, Wait, Writer, WriterOptions};
use tempfile::TempDir;

use testkit::feeds::{body, names_with, read_all};

/// A small file system for one test.
struct Mounted {
    dir: TempDir,
}

impl Mounted {
    /// `None`, with a message, if mounting is not permitted.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(dir.path()).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no tmpfs can be mounted (that needs root)");
            return None;
        }
        Some(Self { dir })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("feed")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, because a failed test may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// A disk of 2 MiB, real or simulated.
enum Disk {
    Real(Mounted),
    Simulated(SimStorage),
}

const SIZE: u64 = 2 << 20;

impl Disk {
    fn simulated() -> Self {
        let disk = SimStorage::new();
        disk.create_dir(Path::new("/"), 0o755).unwrap();
        disk.set_space(Some(SIZE));
        Disk::Simulated(disk)
    }

    fn storage(&self) -> Arc<dyn Storage> {
        match self {
            Disk::Real(_) => Arc::new(Posix),
            Disk::Simulated(disk) => Arc::new(disk.clone()),
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Disk::Real(mounted) => mounted.path(),
            Disk::Simulated(_) => PathBuf::from("/feed"),
        }
    }

    fn options(&self) -> JlogOptions {
        Jlog::options().storage(self.storage())
    }

    /// Makes the room of removed files available again, which the simulated disk does not do
    /// itself.
    fn freed(&self, log: &Jlog) {
        if let Disk::Simulated(disk) = self {
            disk.set_space(Some(SIZE.saturating_sub(log.raw_size().unwrap())));
        }
    }

    /// Leaves this many bytes.
    fn fill(&self, left: u64) {
        match self {
            Disk::Simulated(disk) => disk.set_space(Some(left)),
            Disk::Real(mounted) => {
                use std::io::Write;
                let path = mounted.dir.path().join("filler");
                let mut file = std::fs::File::create(&path).unwrap();
                while file.write(&[0; 4096]).is_ok_and(|n| n > 0) {}
                let full = file.metadata().unwrap().len();
                file.set_len(full.saturating_sub(left)).unwrap();
            }
        }
    }

    fn empty(&self) {
        match self {
            Disk::Simulated(disk) => disk.set_space(Some(SIZE)),
            Disk::Real(mounted) => std::fs::remove_file(mounted.dir.path().join("filler")).unwrap(),
        }
    }
}

/// A reader, with its messages in order and the last id.
struct Consumer {
    reader: Reader,
    got: Vec<Vec<u8>>,
    last: LogId,
}

impl Consumer {
    /// Reads on to the end, and fails if a message is not the one that was accepted.
    fn read_on(&mut self, accepted: &[Vec<u8>]) {
        while let Some(batch) = self.reader.next_batch(Wait::No).unwrap() {
            for message in &batch {
                let n = self.got.len();
                assert!(n < accepted.len(), "message {n} was not accepted: {:?}", message.id());
                assert!(message.body() == accepted[n], "message {n} is not the one that was accepted");
                self.got.push(message.body().to_vec());
            }
            self.last = batch.last_id();
        }
    }
}

/// Appends until the disk is full, and adds the accepted messages to `accepted`.
fn fill_up(writer: &Writer, accepted: &mut Vec<Vec<u8>>, batches: bool) {
    for _ in 0..10_000 {
        let n = accepted.len() as u64;
        let count = if batches { 3 } else { 1 };
        let bodies: Vec<Vec<u8>> =
            (n..n + count).map(|n| body(n, 300 + usize::try_from(n * 37 % 1500).unwrap())).collect();
        let outcome = match &bodies[..] {
            [one] => writer.append(one),
            all => writer.append_batch(all).map(|placed| placed.last()),
        };
        match outcome {
            Ok(_) => accepted.extend(bodies),
            Err(Error::DiskFull { .. }) => return,
            Err(e) => panic!("{e}"),
        }
    }
    panic!("the disk does not get full");
}

/// Fills the disk, reads, removes segments and appends again, several times: exactly the accepted
/// messages are read.
fn full_and_freed(disk: &Disk, pre_commit: u32, batches: bool) {
    // Segments are so large that most batches are within one.
    let options = disk.options().segment_size(100_000).pre_commit(pre_commit);
    let log = options.create(disk.path()).unwrap();
    log.subscribe("slow", Start::Beginning).unwrap();
    let mut slow = Consumer { reader: log.reader("slow").unwrap(), got: Vec::new(), last: LogId::default() };
    let mut accepted = Vec::new();
    let mut writer = log.writer().unwrap();
    for round in 0..4 {
        fill_up(&writer, &mut accepted, batches);
        // The disk stays full, and further appends do no harm.
        for _ in 0..5 {
            let full = writer.append(vec![0; 100_000]).unwrap_err();
            assert!(matches!(full, Error::DiskFull { .. }), "{full}");
        }
        let found = log.verify().unwrap();
        assert_eq!(found.findings, [], "round {round}: nothing half-written remains");
        if batches && pre_commit == 0 {
            // If a batch crossed into a new segment, its messages in the filled one are stored.
            let there = read_all_quietly(&log, &slow);
            assert!(there >= accepted.len() && there <= accepted.len() + 2, "{there} {}", accepted.len());
            for n in accepted.len()..there {
                let n = n as u64;
                accepted.push(body(n, 300 + usize::try_from(n * 37 % 1500).unwrap()));
            }
        }
        if round == 1 {
            // Another writer is opened on the full disk.
            drop(writer);
            writer = log.writer().unwrap();
        }
        let before = slow.got.len();
        slow.read_on(&accepted);
        assert!(slow.got.len() > before);
        if pre_commit == 0 {
            assert_eq!(slow.got.len(), accepted.len(), "round {round}: all of it can be read");
        }
        let segments = log.segments().unwrap().len();
        slow.reader.commit(slow.last).unwrap();
        assert!(log.segments().unwrap().len() < segments, "segments are freed");
        disk.freed(&log);
        writer.append(body(accepted.len() as u64, 700)).unwrap();
        accepted.push(body(accepted.len() as u64, 700));
        writer.flush().unwrap();
        slow.read_on(&accepted);
        assert_eq!(slow.got.len(), accepted.len(), "round {round}: accepted is read");
    }
    writer.close().unwrap();
    slow.read_on(&accepted);
    assert_eq!(slow.got.len(), accepted.len());
    assert_eq!(log.verify().unwrap().findings, []);
    assert_eq!(names_on(disk, ".tmp-"), [""; 0], "nothing is left over");
}

/// How many messages there are, including those that `slow` has read.
fn read_all_quietly(log: &Jlog, slow: &Consumer) -> usize {
    let options = jlog_core::ReaderOptions::default().peek(true);
    let mut reader = log.reader_with("slow", options).unwrap();
    reader.seek(slow.reader.position()).unwrap();
    let mut n = slow.got.len();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        n += batch.len();
    }
    n
}

fn names_on(disk: &Disk, prefix: &str) -> Vec<String> {
    let names = disk.storage().list(&disk.path()).unwrap();
    names.into_iter().filter_map(|name| name.into_string().ok()).filter(|n| n.starts_with(prefix)).collect()
}

/// Tests on the real disk and on the simulated one.
macro_rules! on_both {
    ($($real:ident $simulated:ident: $test:expr;)*) => {$(
        #[test]
        fn $real() {
            if let Some(mounted) = Mounted::new() {
                let test: fn(&Disk) = $test;
                test(&Disk::Real(mounted));
            }
        }

        #[test]
        fn $simulated() {
            let test: fn(&Disk) = $test;
            test(&Disk::simulated());
        }
    )*};
}

on_both! {
    singly singly_simulated: |disk| full_and_freed(disk, 0, false);
    in_batches in_batches_simulated: |disk| full_and_freed(disk, 0, true);
    with_a_buffer with_a_buffer_simulated: |disk| full_and_freed(disk, 20_000, false);
    with_a_buffer_in_batches with_a_buffer_in_batches_simulated: |disk| full_and_freed(disk, 20_000, true);
    no_room_for_the_buffer no_room_for_the_buffer_simulated: no_room_for_the_buffer_on;
    what_the_buffer_holds_stays what_the_buffer_holds_stays_simulated: what_the_buffer_holds_stays_on;
    no_room_for_a_subscriber no_room_for_a_subscriber_simulated: no_room_for_a_subscriber_on;
}

/// If there is no room for a buffer, opening fails without doing harm.
fn no_room_for_the_buffer_on(disk: &Disk) {
    let log = disk.options().create(disk.path()).unwrap();
    log.writer().unwrap().append(b"one").unwrap();
    disk.fill(64 << 10);
    for _ in 0..3 {
        let full = log.writer_with(WriterOptions::default().pre_commit(1 << 20)).unwrap_err();
        assert!(matches!(full, Error::DiskFull { .. }), "{full}");
        assert_eq!(names_on(disk, ".tmp-"), [""; 0], "nothing is left over");
    }
    let writer = log.writer().unwrap();
    writer.append(b"two").unwrap();
    writer.close().unwrap();
    disk.empty();
    let writer = log.writer_with(WriterOptions::default().pre_commit(1 << 20)).unwrap();
    writer.append(b"three").unwrap();
    writer.close().unwrap();
    let bodies: Vec<Vec<u8>> = read_all(&log).into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, [&b"one"[..], b"two", b"three"]);
}

/// If there is no room for a new size of the buffer, the contents of the old one are not lost.
fn what_the_buffer_holds_stays_on(disk: &Disk) {
    let log = disk.options().pre_commit(4000).create(disk.path()).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..20 {
        writer.append(body(n, 100)).unwrap();
    }
    disk.fill(0);
    // Messages for which the segment has no room stay in the buffer.
    assert!(matches!(writer.flush().unwrap_err(), Error::DiskFull { .. }));
    drop(writer);
    let full = log.writer_with(WriterOptions::default().pre_commit(1 << 20)).unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    let writer = log.writer().unwrap();
    assert!(matches!(writer.flush().unwrap_err(), Error::DiskFull { .. }));
    disk.empty();
    writer.append(body(20, 100)).unwrap();
    writer.close().unwrap();
    let bodies: Vec<Vec<u8>> = read_all(&log).into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, (0..21).map(|n| body(n, 100)).collect::<Vec<_>>());
}

/// A subscriber for which there is no room is not half created.
fn no_room_for_a_subscriber_on(disk: &Disk) {
    let log = disk.options().create(disk.path()).unwrap();
    log.subscribe("there", Start::Beginning).unwrap();
    log.writer().unwrap().append(b"one").unwrap();
    disk.fill(0);
    let full = log.subscribe("late", Start::Beginning).unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    assert_eq!(log.subscribers().unwrap().len(), 1);
    assert_eq!(names_on(disk, ".tmp-"), [""; 0], "nothing is left over");
    let mut reader = log.reader("there").unwrap();
    assert_eq!(reader.next_batch(Wait::No).unwrap().unwrap().len(), 1);
    reader.commit(LogId::new(0, 1)).unwrap();
    assert_eq!(log.checkpoint("there").unwrap(), LogId::new(0, 1));
    disk.empty();
    log.subscribe("late", Start::Beginning).unwrap();
}

/// A buffer that the C library made is sparse: on a full disk, using it is an error, not a signal.
#[test]
fn a_buffer_of_holes() {
    let Some(mounted) = Mounted::new() else { return };
    let path = mounted.path();
    let disk = Disk::Real(mounted);
    let log = disk.options().create(&path).unwrap();
    let buffer = std::fs::File::create(path.join("pre_commit")).unwrap();
    buffer.set_len(4 + (1 << 20)).unwrap();
    disk.fill(100 << 10);
    let full = log.writer().unwrap_err();
    assert!(matches!(full, Error::DiskFull { .. }), "{full}");
    let direct = log.writer_with(WriterOptions::default().bypass_pre_commit(true)).unwrap();
    direct.append(b"one").unwrap();
    direct.close().unwrap();
    disk.empty();
    let writer = log.writer().unwrap();
    writer.append(b"two").unwrap();
    writer.close().unwrap();
    let bodies: Vec<Vec<u8>> = read_all(&log).into_iter().map(|got| got.body).collect();
    assert_eq!(bodies, [&b"one"[..], b"two"]);
    assert_eq!(names_with(&path, ".tmp-"), [""; 0]);
}
