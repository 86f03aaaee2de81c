//! With every option and after every kind of run, our writer's files conform to the format,
//! according to an independent reader (`jlog_check.py --strict`), and the messages that it lists
//! are those that were appended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jlog_core::compat::ReaderCompat;
use jlog_core::compat::WriterCompat;
use jlog_core::format::{RecordFormat, RecordHeader};
use jlog_core::{
    AlterOptions, CleanOptions, Compression, Event, Jlog, Locking, LogId, Safety, Start, SyncPolicy,
    Timestamp, Writer, WriterOptions,
};
use tempfile::TempDir;

use testkit::checker::{Checker, check_strictly};
use testkit::feeds::{Row, body, names_with, new_path, read_all, time, unsynced};

/// One combination of options.
#[derive(Clone, Copy, Debug)]
struct Options {
    segment_size: u32,
    pre_commit: u32,
    compression: Compression,
    safety: Safety,
    checksums: bool,
    locking: Locking,
    sync: SyncPolicy,
}

impl Options {
    /// Every combination with this compression and pre-commit size.
    fn all(compression: Compression, pre_commit: u32) -> Vec<Self> {
        let mut all = Vec::new();
        for segment_size in [600, 1 << 20] {
            for safety in [Safety::Unsafe, Safety::AlmostSafe, Safety::Safe] {
                for checksums in [false, true] {
                    for locking in [Locking::MultiProcess, Locking::SingleProcess] {
                        for sync in [
                            SyncPolicy::Never,
                            SyncPolicy::OnRoll,
                            SyncPolicy::AfterRoll,
                            SyncPolicy::Interval(Duration::from_millis(1)),
                            SyncPolicy::EachAppend,
                        ] {
                            all.push(Self {
                                segment_size,
                                pre_commit,
                                compression,
                                safety,
                                checksums,
                                locking,
                                sync,
                            });
                        }
                    }
                }
            }
        }
        all
    }
}

/// A jlog and what was appended to it.
struct Run<'a> {
    checker: &'a mut Checker,
    options: Options,
    _dir: TempDir,
    path: PathBuf,
    log: Jlog,
    expected: Vec<(Timestamp, Vec<u8>)>,
}

impl<'a> Run<'a> {
    fn new(checker: &'a mut Checker, options: Options) -> Self {
        let (dir, path) = new_path();
        let log = Jlog::options()
            .storage(unsynced())
            .segment_size(options.segment_size)
            .pre_commit(options.pre_commit)
            .compression(options.compression)
            .safety(options.safety)
            .checksums(options.checksums)
            .create(&path)
            .unwrap();
        Self { checker, options, _dir: dir, path, log, expected: Vec::new() }
    }

    fn writer(&self) -> Writer {
        let options = WriterOptions::default().locking(self.options.locking).sync(self.options.sync);
        self.log.writer_with(options).unwrap()
    }

    /// Appends single messages and a batch, of various sizes.
    fn append(&mut self, writer: &Writer) {
        for len in [0, 30, 700, 170, 5] {
            let n = u32::try_from(self.expected.len()).unwrap();
            let message = body(n.into(), len);
            writer.append_at(time(n), &message).unwrap();
            self.expected.push((time(n), message));
        }
        let n = u32::try_from(self.expected.len()).unwrap();
        let batch: Vec<Vec<u8>> =
            [100, 0, 90, 310].iter().map(|&len| body((n + len).into(), len as usize)).collect();
        writer.append_batch_at(time(n), &batch).unwrap();
        self.expected.extend(batch.into_iter().map(|message| (time(n), message)));
    }

    /// Checks that the directory conforms, and that its messages are the last of those that were
    /// appended (older ones are removed when they have been read).
    fn check(&mut self, after: &str) -> Vec<Row> {
        let what = format!("after {after}: {:?}", self.options);
        let messages = self.checker.messages(&self.path, &what);
        let first = self.expected.len().checked_sub(messages.len()).expect(&what);
        for (row, (time, body)) in messages.iter().zip(&self.expected[first..]) {
            assert_eq!(*row, Row::new(row.id, *time, body), "{what}");
        }
        messages
    }

    /// As `check`; also checks that our own reader gives the messages the same ids and finds
    /// nothing wrong.
    fn check_by_ours(&mut self, after: &str) -> Vec<Row> {
        let what = format!("after {after}: {:?}", self.options);
        let messages = self.check(after);
        let ours: Vec<Row> = read_all(&self.log).iter().map(|message| message.row()).collect();
        assert_eq!(ours, messages, "{what}");
        let verification = self.log.verify().unwrap();
        assert_eq!(verification.findings, [], "{what}");
        assert_eq!(verification.records, messages.len() as u64, "{what}");
        if self.options.checksums {
            assert_eq!(verification.verified, verification.records, "{what}");
        }
        messages
    }

    /// As `check_by_ours`; also checks that every appended message still exists.
    fn check_all(&mut self, after: &str) -> Vec<Row> {
        let messages = self.check_by_ours(after);
        assert_eq!(messages.len(), self.expected.len(), "after {after}: {:?}", self.options);
        messages
    }
}

fn segment_path(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{number:08x}"))
}

/// Adds bytes to the end of a file.
fn add_bytes(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Takes a jlog through every kind of run.
fn every_kind_of_run(checker: &mut Checker, options: Options) {
    let mut run = Run::new(checker, options);
    run.log.subscribe("early", Start::Beginning).unwrap();

    let writer = run.writer();
    run.append(&writer);
    writer.close().unwrap();
    run.check_all("closing the writer");

    let writer = run.writer();
    run.append(&writer);
    drop(writer);
    run.check_all("dropping the writer");

    let writer = run.writer();
    run.append(&writer);
    writer.flush().unwrap();
    run.check_all("a flush");
    // This makes indexes of complete segments and of the one being written.
    let mut reader = run.log.reader("early").unwrap();
    let middle = run.log.end().unwrap().segment / 2;
    while reader.position().segment < middle {
        let interval = reader.interval().unwrap();
        reader.commit(interval.last).unwrap();
    }
    reader.interval().unwrap();
    drop(reader);
    run.log.set_checkpoint("early", LogId::new(middle, 0)).unwrap();
    run.append(&writer);
    writer.sync().unwrap();
    run.check("making indexes, and a sync");

    let segment = writer.segment();
    writer.roll().unwrap();
    writer.roll().unwrap();
    assert_eq!(writer.segment(), segment + u32::from(run.log.inspect(segment, |_| {}).unwrap().bytes > 0));
    run.check("a roll, and one of an empty segment");
    run.append(&writer);
    writer.set_segment_size(300).unwrap();
    run.append(&writer);
    writer.close().unwrap();
    run.check("a smaller segment size");

    for (segment_size, pre_commit) in [(5000, 0), (700, 3000), (options.segment_size, options.pre_commit)] {
        run.log
            .alter(
                AlterOptions::default()
                    .segment_size(segment_size)
                    .pre_commit(pre_commit)
                    .safety(options.safety),
            )
            .unwrap();
        let writer = run.writer();
        assert_eq!(writer.pre_commit_size(), usize::try_from(pre_commit).unwrap());
        run.append(&writer);
        // The buffer is resized while it is in use: its contents go to the segment.
        drop(writer);
        run.check("a writer after an alter");
    }

    run.log.take_events();
    let last = run.log.end().unwrap().segment;
    let whole = std::fs::read(segment_path(&run.path, last)).unwrap();
    // A header for a body of 100 bytes, followed by one of them.
    let mut torn = [0; 21];
    let header = RecordHeader { time: time(0), len: 100, stored: 100 };
    RecordFormat::new(options.compression).encode(&header, &mut torn);
    add_bytes(&segment_path(&run.path, last), &torn);
    let writer = run.writer();
    let cut = run.log.take_events();
    assert!(
        matches!(&cut[..], [Event::TailTruncated { segment, offset, .. }] if *segment == last && *offset == whole.len() as u64),
        "{cut:?}"
    );
    run.append(&writer);
    writer.close().unwrap();
    let messages = run.check_by_ours("appending behind a cut tail");
    assert_eq!(names_with(&run.path, &format!("{last:08x}.broken-")).len(), 1);

    // One header is damaged; all other messages stay.
    let damaged = messages[1].id;
    let mut offset = 0;
    run.log
        .inspect(damaged.segment, |record| {
            if record.id == damaged {
                offset = usize::try_from(record.offset).unwrap();
            }
        })
        .unwrap();
    let file = segment_path(&run.path, damaged.segment);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[offset..offset + 16].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let done = Jlog::repair(&run.path).unwrap();
    assert!(done.iter().any(|event| matches!(event, Event::SegmentRepaired { .. })), "{done:?}");
    let first = run.expected.len() - messages.len();
    run.expected.remove(first + 1);
    let left = run.check_by_ours("a repair");
    assert_eq!(left.len(), messages.len() - 1);
    assert_eq!(Jlog::repair(&run.path).unwrap(), []);
    let writer = run.writer();
    run.append(&writer);
    writer.close().unwrap();
    run.check("appending after a repair");

    run.log.subscribe("late", Start::End).unwrap();
    let end = run.log.end().unwrap();
    run.log.set_checkpoint("early", end).unwrap();
    run.log.clean(CleanOptions::default()).unwrap();
    assert_eq!(run.log.segments().unwrap(), [end.segment]);
    let removed = run.log.clean(CleanOptions::default().roll(true)).unwrap();
    let next = end.segment + u32::from(end.marker > 0);
    assert_eq!(removed, (end.segment..next).collect::<Vec<_>>());
    assert_eq!(run.log.segments().unwrap(), [next]);
    assert_eq!(run.check("a clean with a roll"), []);
    let writer = run.writer();
    run.append(&writer);
    writer.close().unwrap();
    assert_eq!(run.check_by_ours("appending after a clean").len(), 9);
    assert_eq!(run.log.lag("early").unwrap().messages, 9);
}

fn under_all_options(compression: Compression, pre_commit: u32) {
    let Some(mut checker) = Checker::start() else { return };
    for options in Options::all(compression, pre_commit) {
        every_kind_of_run(&mut checker, options);
    }
}

#[test]
fn plain_without_pre_commit() {
    under_all_options(Compression::None, 0);
}

#[test]
fn plain_with_pre_commit() {
    under_all_options(Compression::None, 800);
}

#[test]
fn lz4_without_pre_commit() {
    under_all_options(Compression::Lz4, 0);
}

#[test]
fn lz4_with_pre_commit() {
    under_all_options(Compression::Lz4, 800);
}

/// Runs the checker with its command line, as people do.
#[test]
fn the_checkers_command_line_agrees() {
    for pre_commit in [0, 4096] {
        let (_dir, path) = new_path();
        let log = Jlog::options().segment_size(1000).pre_commit(pre_commit).create(&path).unwrap();
        log.subscribe("one", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        for n in 0..50 {
            writer.append_at(time(n), body(n.into(), n as usize * 7)).unwrap();
        }
        // A writer is open, with messages in its buffer.
        let Some((good, report)) = check_strictly(&path) else { return };
        assert!(good, "{}", report["problems"]);
        writer.flush().unwrap();
        let (good, report) = check_strictly(&path).unwrap();
        assert!(good, "{}", report["problems"]);
        let ours: Vec<Row> = read_all(&log).iter().map(|message| message.row()).collect();
        assert_eq!(testkit::feeds::rows(&report["messages"]), ours);
        assert_eq!(ours.len(), 50);
        // The checker does find real faults.
        let first = segment_path(&path, 0);
        let len = std::fs::metadata(&first).unwrap().len();
        std::fs::OpenOptions::new().write(true).open(&first).unwrap().set_len(len - 1).unwrap();
        let (good, report) = check_strictly(&path).unwrap();
        assert!(!good, "{report}");
    }
}
