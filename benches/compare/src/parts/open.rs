//! Opening after a crash: target 8.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use jlog_core::compat::ReaderCompat;
use jlog_core::{Jlog, LogId, Start, SyncPolicy, Wait, names};

use crate::child::{Child, ready};
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::report::{Line, Report, Target};
use crate::work::{Context, Load, MESSAGE, RECORD, Sample};

/// The child: fills a segment, and waits to be killed, with its writer open.
pub fn fill_and_wait(feed: &Path, count: usize, segment: u32) -> Result<Vec<f64>> {
    // The crash leaves the same state however long the writer takes: nothing is synced.
    let setup = Setup { segment, sync: SyncPolicy::Never, ..Setup::default() };
    let log = setup.create(feed)?;
    let writer = setup.writer(&log)?;
    ours::write(&writer, &Load::new(MESSAGE, count, 1000))?;
    ready()?;
    writer.close()?;
    Ok(Vec::new())
}

/// The state after a crash, which is restored before each opening.
struct Wreck {
    feed: PathBuf,
    segment: PathBuf,
    len: u64,
    others: BTreeMap<OsString, Vec<u8>>,
}

impl Wreck {
    fn new(feed: &Path) -> Result<Self> {
        let segment = feed.join(names::segment(0));
        let len = segment.metadata()?.len();
        Ok(Self { feed: feed.to_owned(), segment, len, others: BTreeMap::new() })
    }

    /// Saves every file except the segment and the files with an extension that is to be missing.
    fn keep(&mut self, without: &[&str]) -> Result<()> {
        self.others.clear();
        for entry in std::fs::read_dir(&self.feed)? {
            let path = entry?.path();
            let missing = path.extension().is_some_and(|e| without.iter().any(|w| e == *w));
            if let Some(name) = path.file_name().filter(|_| path != self.segment && !missing) {
                self.others.insert(name.to_owned(), std::fs::read(&path)?);
            }
        }
        Ok(())
    }

    /// Restores it, with an incomplete record at the end, as a killed writer leaves it.
    fn put_back(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.feed)? {
            let path = entry?.path();
            if path != self.segment {
                std::fs::remove_file(path)?;
            }
        }
        for (name, bytes) in &self.others {
            std::fs::write(self.feed.join(name), bytes)?;
        }
        let segment = OpenOptions::new().read(true).write(true).open(&self.segment)?;
        let mut head = [0; 10];
        segment.read_exact_at(&mut head, 0)?;
        segment.set_len(self.len)?;
        segment.write_all_at(&head, self.len)?;
        Ok(())
    }
}

/// Target 8.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let dir = context.temp()?;
    let feed = dir.path().join("feed");
    let segment: u32 = context.size(1 << 30, 64 << 20);
    // Not quite full, so that it is still the one being written.
    let count = ((segment as usize - (1 << 20)) / RECORD).next_multiple_of(1000) - 1000;
    let arguments = [
        "crash".to_owned(),
        format!("--feed={}", feed.display()),
        format!("--count={count}"),
        format!("--segment={segment}"),
    ];
    let mut child = Child::start(&arguments, &[])?;
    child.wait_ready()?;
    child.kill()?;

    let mut wreck = Wreck::new(&feed)?;
    ensure!(wreck.len == (count * RECORD) as u64, "the segment has {} bytes", wreck.len);
    let middle = u32::try_from(count / 2)?;
    Jlog::open(&feed)?.subscribe("middle", Start::After(LogId::new(0, middle)))?;
    let size = format!("{} MiB", segment >> 20);
    for (state, prepare, limit) in [
        ("checksums there", &["idx"][..], 50.0),
        ("index there", &["crc"], 50.0),
        ("neither there", &["idx", "crc"], 500.0),
    ] {
        if state == "index there" {
            wreck.keep(&["idx"])?;
            wreck.put_back()?;
            let file = OpenOptions::new().write(true).open(&wreck.segment)?;
            file.set_len(wreck.len)?;
            Jlog::open(&feed)?.reader("keep")?.interval()?;
            ensure!(feed.join(names::index(0)).exists(), "no index was made");
        }
        wreck.keep(prepare)?;
        let (mut writing, mut reading) = (Vec::new(), Vec::new());
        for _ in 0..context.rounds {
            wreck.put_back()?;
            let (log, seconds) = ours::seconds(|| {
                let log = Jlog::open(&feed)?;
                let mut reader = log.reader("middle")?;
                let first = reader.next_batch(Wait::No)?.map(|batch| batch.first_id());
                ensure!(first == Some(LogId::new(0, middle + 1)), "the reader began with {first:?}");
                drop(reader);
                Ok(log)
            })?;
            reading.push(seconds * 1e3);
            drop(log);
            wreck.put_back()?;
            let (writer, seconds) = ours::seconds(|| Ok(Jlog::open(&feed)?.writer()?))?;
            writing.push(seconds * 1e3);
            let id = writer.append([b'm'; MESSAGE])?.id();
            ensure!(
                id == Some(LogId::new(0, u32::try_from(count)? + 1)),
                "after the crash, the first append got {id:?}"
            );
        }
        for (what, values) in [("for writing", writing), ("a reader in the middle", reading)] {
            report.line(Line {
                part: 8,
                work: format!("opening {what} after a crash, segment of {size}, {state}"),
                unit: "ms",
                ours: Sample::new("ours", values),
                reference: None,
                target: Target::AtMost(limit),
            })?;
        }
    }
    report.note("Opening after a crash: the writer was killed; the segment was in the page cache.")
}
