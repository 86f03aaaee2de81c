//! Work done with jlog-core.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use jlog_core::compat::ReaderCompat;
use jlog_core::{
    Compression, Jlog, Locking, LogId, Reader, ReaderOptions, Start, SyncPolicy, Wait, Writer, WriterOptions,
};

use crate::c;
use crate::work::{Load, Tally};

/// How a jlog is created and written.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Who else may write.
    pub locking: Locking,
    /// When messages become durable.
    pub sync: SyncPolicy,
    /// Size of the pre-commit buffer; 0 for none.
    pub pre_commit: u32,
    /// How bodies are stored.
    pub compression: Compression,
    /// Segment size.
    pub segment: u32,
    /// Whether checksums are stored.
    pub checksums: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            locking: Locking::MultiProcess,
            sync: SyncPolicy::OnRoll,
            pre_commit: 0,
            compression: Compression::None,
            segment: 4 << 20,
            checksums: true,
        }
    }
}

impl Setup {
    /// The same, for the C library. (It always syncs at a roll and on closing.)
    pub fn in_c(&self) -> c::Setup {
        c::Setup {
            multi: self.locking == Locking::MultiProcess,
            pre_commit: self.pre_commit as usize,
            lz4: self.compression == Compression::Lz4,
            segment: self.segment as usize,
        }
    }

    /// Creates a jlog; its subscriber `keep` stays at the beginning, so that no segment is removed.
    pub fn create(&self, path: &Path) -> Result<Jlog> {
        let log = Jlog::options()
            .segment_size(self.segment)
            .pre_commit(self.pre_commit)
            .compression(self.compression)
            .checksums(self.checksums)
            .create(path)?;
        log.subscribe("keep", Start::Beginning)?;
        Ok(log)
    }

    /// Opens a writer.
    pub fn writer(&self, log: &Jlog) -> Result<Writer> {
        Ok(log.writer_with(WriterOptions::default().locking(self.locking).sync(self.sync))?)
    }
}

/// Appends the load to an open writer, in batches if it has any.
pub fn write(writer: &Writer, load: &Load) -> Result<()> {
    if load.batch > 1 {
        load.each_batch(|batch| Ok(writer.append_batch(batch).map(|_| ())?))
    } else {
        load.each(|body| Ok(writer.append(body).map(|_| ())?))
    }
}

/// Appends the load to a new jlog, and closes; million messages a second.
pub fn append(path: &Path, setup: &Setup, load: &Load) -> Result<f64> {
    let log = setup.create(path)?;
    let writer = setup.writer(&log)?;
    let rate = load.timed(|| {
        write(&writer, load)?;
        Ok(writer.close()?)
    })?;
    check(&log, load)?;
    Ok(rate)
}

/// Checks that a jlog holds exactly the load, whichever library wrote it.
pub fn check(log: &Jlog, load: &Load) -> Result<()> {
    if !log.has_subscriber("keep")? {
        // The C library made it.
        log.subscribe("keep", Start::Beginning)?;
    }
    let peek = ReaderOptions::default().peek(true);
    look_through(log, "keep", peek)?.check(&load.tally(), "the check")
}

/// Reads everything that is pending for a subscriber, without checkpoints.
pub fn look_through(log: &Jlog, subscriber: &str, options: ReaderOptions) -> Result<Tally> {
    let mut reader = log.reader_with(subscriber, options)?;
    let mut tally = Tally::default();
    while read_batch(&mut reader, &mut tally)?.is_some() {}
    Ok(tally)
}

/// Writes a jlog for reading, in batches.
pub fn fill(path: &Path, setup: &Setup, load: &Load) -> Result<Jlog> {
    let log = setup.create(path)?;
    let writer = setup.writer(&log)?;
    write(&writer, load)?;
    writer.close()?;
    check(&log, load)?;
    Ok(log)
}

/// Removes every index.
pub fn forget_indexes(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads everything that is pending for a subscriber, with a checkpoint after each segment.
pub fn read(log: &Jlog, subscriber: &str, options: ReaderOptions) -> Result<Tally> {
    let mut reader = log.reader_with(subscriber, options)?;
    let mut tally = Tally::default();
    let mut last: Option<LogId> = None;
    while let Some((end, done)) = read_batch(&mut reader, &mut tally)? {
        if let Some(last) = last.filter(|last| last.segment != end.segment) {
            reader.commit(last)?;
        }
        ensure!(done > 0, "an empty batch");
        last = Some(end);
    }
    if let Some(last) = last {
        reader.commit(last)?;
    }
    Ok(tally)
}

#[inline]
fn read_batch(reader: &mut Reader, tally: &mut Tally) -> Result<Option<(LogId, usize)>> {
    let Some(batch) = reader.next_batch(Wait::No)? else { return Ok(None) };
    for message in &batch {
        tally.add(message.body());
    }
    Ok(Some((batch.last_id(), batch.len())))
}

/// Reads every message by its id, segment by segment.
pub fn read_by_id(log: &Jlog, subscriber: &str, options: ReaderOptions) -> Result<Tally> {
    let mut reader = log.reader_with(subscriber, options)?;
    let mut tally = Tally::default();
    loop {
        let interval = reader.interval()?;
        if interval.count == 0 {
            return Ok(tally);
        }
        for marker in interval.first.marker..=interval.last.marker {
            tally.add(reader.read(LogId::new(interval.first.segment, marker))?.body());
        }
        reader.commit(interval.last)?;
    }
}

/// How many seconds something takes.
pub fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let made = work()?;
    Ok((made, start.elapsed().as_secs_f64()))
}
