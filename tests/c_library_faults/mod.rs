//! One test for each fault that the C library has had, fixed or not: this library must have none of
//! them.

mod fixed;
mod remaining;
mod repairs;
mod similar;

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use jlog_core::compat::ReaderCompat;
use jlog_core::format::{RecordFormat, RecordHeader};
use jlog_core::{Compression, Jlog, LogId, Reader, Safety, Start};
use testkit::feeds::{Got, body, new_path, time};

const COMPRESSIONS: [Compression; 2] = [Compression::None, Compression::Lz4];

fn segment_path(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{number:08x}"))
}

/// The bytes of a record of an uncompressed jlog.
fn plain_record(body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let mut record = vec![0; 16];
    let header = RecordHeader { time: time(0), len, stored: len };
    RecordFormat::new(Compression::None).encode(&header, &mut record);
    record.extend_from_slice(body);
    record
}

/// Appends bytes to a file as another process would: at its end.
fn add_bytes(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// Where each record of a segment begins, and where the last one ends.
fn offsets(log: &Jlog, segment: u32) -> Vec<u64> {
    let mut offsets = Vec::new();
    let inspection = log.inspect(segment, |record| offsets.push(record.offset)).unwrap();
    offsets.push(inspection.whole_until);
    offsets
}

/// The messages that the low-level calls read: interval by interval, every record by its id, with a
/// checkpoint after each.
fn read_by_interval(reader: &mut Reader) -> Vec<Got> {
    let mut got = Vec::new();
    loop {
        let interval = reader.interval().unwrap();
        if interval.count == 0 {
            return got;
        }
        for marker in interval.first.marker..=interval.last.marker {
            let message = reader.read(LogId::new(interval.first.segment, marker)).unwrap();
            got.push(Got { id: message.id(), time: message.time(), body: message.body().to_vec() });
        }
        reader.commit(interval.last).unwrap();
    }
}

/// Runs something that must not hang.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match result.recv_timeout(Duration::from_secs(60)) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(_) => std::panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Seven complete segments and the one being written, each with one message.
fn eight_segments() -> (tempfile::TempDir, PathBuf, Jlog) {
    let (dir, path) = new_path();
    let log = Jlog::options().segment_size(50).create(&path).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..7 {
        writer.append(format!("message {n}, long enough to fill a segment")).unwrap();
    }
    writer.append("message 7").unwrap();
    writer.close().unwrap();
    assert_eq!(log.segments().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    (dir, path, log)
}

/// A jlog with checkpoints and settings of all kinds, none of them wrong.
fn a_healthy_jlog() -> (tempfile::TempDir, PathBuf, Jlog) {
    let (dir, path) = new_path();
    let options = Jlog::options().segment_size(333).safety(Safety::Safe).pre_commit(100);
    let log = options.create(&path).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..40 {
        writer.append_at(time(n), body(n.into(), 40)).unwrap();
    }
    writer.close().unwrap();
    log.subscribe("beginning", Start::Beginning).unwrap();
    log.subscribe("middle", Start::After(LogId::new(2, 3))).unwrap();
    log.subscribe("end", Start::End).unwrap();
    log.subscribe("~temporary", Start::After(LogId::new(1, 1))).unwrap();
    log.reader("beginning").unwrap().interval().unwrap();
    log.reader("end").unwrap().interval().unwrap();
    (dir, path, log)
}
