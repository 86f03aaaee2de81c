//! The fuzz targets. Each builds a small jlog, replaces one of its files with the input's bytes,
//! and then does every possible operation on it. Nothing may panic, run forever, or take more
//! memory than the data needs; untouched messages must stay readable.
//!
//! Two are different: the bytes determine in [`operations()`] what is done with a jlog and when it
//! crashes, and in [`assembled()`] how two jlogs are created and which of their files a third one
//! consists of. Four are about logdag, and use no disk: [`filter()`] takes expressions,
//! [`config()`] documents, [`formats()`] lines, [`syslog()`] connections.
//!
//! The same functions run in the integration tests, over the committed corpora and over mutations
//! of them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jlog_core::compat::ReaderCompat;
use jlog_core::format::{COMPRESSED_MAGIC, OLD_METASTORE_LEN, RecordFormat, RecordHeader};
use jlog_core::internals::scan::{Step, step};
use jlog_core::names::{self, Kind};
use jlog_core::storage::sim::{Dice, Moment, SimStorage};
use jlog_core::storage::{File, Open, Posix, Storage};
use jlog_core::{
    CleanOptions, Compression, Error, Jlog, JlogOptions, LogId, Meta, OnDamage, ReadMethod, Reader,
    ReaderOptions, Settings, Start, SubscriberName, Timestamp, Wait,
};
use tempfile::TempDir;

mod assembled;
mod config;
mod filter;
mod formats;
mod model;
mod operations;
mod requests;
mod syslog;

pub use assembled::assembled;
pub use config::config;
pub use filter::filter;
pub use formats::formats;
pub use operations::operations;
pub use requests::requests;
pub use syslog::syslog;

/// A target's name and function.
pub type Target = (&'static str, fn(Disk, &[u8]));

/// All targets.
pub const TARGETS: [Target; 17] = [
    ("scanner", scanner),
    ("metastore", metastore),
    ("checkpoint", checkpoint),
    ("index", index),
    ("checksums", checksums),
    ("pre_commit", pre_commit),
    ("lz4_records", lz4_records),
    ("settings", settings),
    ("names", names),
    ("dropped", dropped),
    ("operations", operations),
    ("assembled", assembled),
    ("filter", filter),
    ("config", config),
    ("formats", formats),
    ("syslog", syslog),
    ("requests", requests),
];

/// Where the jlogs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// In simulated storage: fast.
    Simulated,
    /// In a temporary directory: with real maps, locks and names.
    Real,
}

impl Disk {
    /// The real one if the environment variable `JLOG_FUZZ_DISK` is `real`.
    pub fn chosen() -> Self {
        static CHOSEN: OnceLock<Disk> = OnceLock::new();
        *CHOSEN.get_or_init(|| match std::env::var_os("JLOG_FUZZ_DISK") {
            Some(disk) if disk == "real" => Disk::Real,
            _ => Disk::Simulated,
        })
    }
}

/// The input, which determines everything. After its end come zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`, which is 1 or more.
    fn below(&mut self, n: usize) -> usize {
        let low = usize::from(self.byte());
        let high = if n > 256 { usize::from(self.byte()) } else { 0 };
        (low + 256 * high) % n
    }
}

/// The kind of jlog that the bytes are put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Template {
    Plain,
    Lz4,
    Buffered,
}

/// How many messages a jlog has before anything happens to it.
const MESSAGES: usize = 12;
/// Size of the pre-commit buffer of [`Template::Buffered`].
const BUFFER: u32 = 256;

/// A message: empty, short, long, or looking like a record.
fn message(n: usize) -> Vec<u8> {
    match n {
        2 | 9 => Vec::new(),
        5 => record(RecordFormat::new(Compression::None), b"a record within a record"),
        7 => format!("message {n} ").repeat(10).into_bytes(),
        _ => format!("message {n}").into_bytes(),
    }
}

fn messages() -> Vec<Vec<u8>> {
    (0..MESSAGES).map(message).collect()
}

/// A whole record, whose body is stored as it is.
fn record(format: RecordFormat, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    head(format, len, len).into_iter().chain(body.iter().copied()).collect()
}

fn head(format: RecordFormat, len: u32, stored: u32) -> Vec<u8> {
    let mut head = vec![0; format.header_len()];
    let time = Timestamp { seconds: 1_700_000_000, micros: 1 };
    format.encode(&RecordHeader { time, len, stored }, &mut head);
    head
}

/// A jlog of three segments or so, with the subscribers `s` at the beginning and `t` in the middle.
struct Feed {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    _directory: Option<TempDir>,
}

impl Feed {
    fn new(disk: Disk, template: Template) -> Self {
        match disk {
            Disk::Simulated => {
                static MOMENTS: [OnceLock<Moment>; 3] = [const { OnceLock::new() }; 3];
                let moment = MOMENTS[template as usize].get_or_init(|| {
                    let storage = SimStorage::new();
                    storage.create_dir(Path::new("/"), 0o750).unwrap();
                    Self::fill(Arc::new(storage.clone()), Path::new("/feed"), template);
                    storage.moments().pop().unwrap()
                });
                // No operation was in progress: this is a copy.
                let storage = Arc::new(moment.after_kill(&mut Dice::new(1)));
                Self { storage, path: "/feed".into(), _directory: None }
            }
            Disk::Real => {
                let memory = Path::new("/dev/shm");
                let directory =
                    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
                let path = directory.path().join("feed");
                Self::fill(Arc::new(Posix), &path, template);
                Self { storage: Arc::new(Posix), path, _directory: Some(directory) }
            }
        }
    }

    fn fill(storage: Arc<dyn Storage>, path: &Path, template: Template) {
        let log = JlogOptions::default()
            .storage(storage)
            .segment_size(160)
            .pre_commit(if template == Template::Buffered { BUFFER } else { 0 })
            .compression(if template == Template::Lz4 { Compression::Lz4 } else { Compression::None })
            .create(path)
            .unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        for n in 0..MESSAGES {
            let time = Timestamp { seconds: 1_700_000_000 + u32::try_from(n).unwrap(), micros: 0 };
            writer.append_at(time, message(n)).unwrap();
        }
        writer.close().unwrap();
        log.subscribe("t", Start::After(LogId::new(1, 1))).unwrap();
    }

    fn options(&self) -> JlogOptions {
        JlogOptions::default().storage(Arc::clone(&self.storage))
    }

    fn open(&self) -> Result<Jlog, Error> {
        self.options().open(&self.path)
    }

    fn file(&self, name: &str, how: Open) -> Option<Arc<dyn File>> {
        self.storage.open(&self.path.join(name), how).ok()
    }

    /// The bytes of a file.
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.file(name, Open::Read)?;
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        let mut done = 0;
        while done < bytes.len() {
            let n = file.read_at(&mut bytes[done..], done as u64).unwrap();
            assert!(n > 0);
            done += n;
        }
        Some(bytes)
    }

    /// Replaces the bytes of a file, which stays the same file.
    fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.file(name, Open::Create(0o640)).unwrap();
        file.set_len(0).unwrap();
        let mut done = 0;
        while done < bytes.len() {
            done += file.write_at(&[IoSlice::new(&bytes[done..])], done as u64).unwrap();
        }
    }

    fn remove(&self, name: &str) {
        // It need not exist.
        let _ = self.storage.remove(&self.path.join(name));
    }

    fn segments(&self) -> Vec<u32> {
        let names = self.storage.list(&self.path).unwrap();
        let number = |name: &std::ffi::OsString| match Kind::of(name) {
            Kind::Segment(number) => Some(number),
            _ => None,
        };
        let mut segments: Vec<u32> = names.iter().filter_map(number).collect();
        segments.sort_unstable();
        segments
    }

    /// The first segment, or the last, which is being written.
    fn segment(&self, last: bool) -> u32 {
        let segments = self.segments();
        if last { segments[segments.len() - 1] } else { segments[0] }
    }

    /// Offset, length and message of every record of a segment of an intact jlog.
    fn records(&self, segment: u32) -> Vec<(usize, usize, Vec<u8>)> {
        let log = self.open().unwrap();
        let mut out = Vec::new();
        log.inspect(segment, |info| {
            let header = log.meta().unwrap().format.header_len();
            out.push((usize::try_from(info.offset).unwrap(), header + info.stored as usize, Vec::new()));
        })
        .unwrap();
        let mut before = 0;
        for earlier in self.segments().into_iter().filter(|&n| n < segment) {
            before += usize::try_from(log.inspect(earlier, |_| {}).unwrap().records).unwrap();
        }
        for (n, (.., body)) in out.iter_mut().enumerate() {
            *body = message(before + n);
        }
        out
    }

    /// The messages of the segments before and after this one.
    fn elsewhere(&self, segment: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let segments = self.segments();
        let bodies = |of: &mut dyn Iterator<Item = u32>| -> Vec<Vec<u8>> {
            of.flat_map(|n| self.records(n)).map(|(.., body)| body).collect()
        };
        let before = bodies(&mut segments.iter().copied().filter(|&n| n < segment));
        let after = bodies(&mut segments.iter().copied().filter(|&n| n > segment));
        (before, after)
    }
}

/// Nothing here has more batches than this.
const ENDLESS: usize = 10_000;

/// Reads all pending messages of a reader.
fn read_on(reader: &mut Reader) -> Result<Vec<(LogId, Vec<u8>)>, Error> {
    let mut out = Vec::new();
    for n in 0.. {
        assert!(n < ENDLESS, "reading does not end");
        let Some(batch) = reader.next_batch(Wait::No)? else { break };
        assert!(!batch.is_empty());
        let ids: Vec<LogId> = batch.iter().map(|message| message.id()).collect();
        assert_eq!((ids.len(), ids[0]), (batch.len(), batch.first_id()));
        assert_eq!(*ids.last().unwrap(), batch.last_id());
        out.extend(batch.iter().map(|message| (message.id(), message.body().to_vec())));
    }
    assert!(out.is_sorted_by(|(a, _), (b, _)| a < b), "ids must grow");
    Ok(out)
}

fn skipping() -> ReaderOptions {
    ReaderOptions::default().on_damage(OnDamage::Skip)
}

const EVERYTHING: &str = "~everything";

/// Reads everything from the beginning, whatever is damaged, in several ways that must agree.
fn read_all(log: &Jlog) -> Result<Vec<(LogId, Vec<u8>)>, Error> {
    log.unsubscribe(EVERYTHING)?;
    log.subscribe(EVERYTHING, Start::Beginning)?;
    let all = read_on(&mut log.reader_with(EVERYTHING, skipping())?)?;
    let small = skipping().batch_bytes(4096).read_method(ReadMethod::Mmap);
    let mapped = read_on(&mut log.reader_with(EVERYTHING, small)?)?;
    assert!(mapped == all, "maps and reads must give the same");
    // Readers that stop at damage get the same messages up to there.
    let mut strict = log.reader(EVERYTHING)?;
    let mut before = Vec::new();
    for n in 0.. {
        assert!(n < ENDLESS, "reading does not end");
        match strict.next_batch(Wait::No) {
            Ok(Some(batch)) => before.extend(batch.iter().map(|m| (m.id(), m.body().to_vec()))),
            Ok(None) => {
                assert!(before == all, "without damage nothing is skipped");
                break;
            }
            Err(e) if e.is_damage() => break,
            Err(e) => return Err(e),
        }
    }
    assert!(all.starts_with(&before), "damage hides nothing before it");
    drop(strict);
    // One by one.
    let mut reader = log.reader(EVERYTHING)?;
    for (id, body) in &all {
        assert_eq!(reader.read(*id)?.body(), body, "{id}");
    }
    log.unsubscribe(EVERYTHING)?;
    Ok(all)
}

fn bodies(read: &[(LogId, Vec<u8>)]) -> Vec<&[u8]> {
    read.iter().map(|(_, body)| &body[..]).collect()
}

/// Uses every query on a jlog; errors are fine, panics are not.
fn look(log: &Jlog) -> Result<(), Error> {
    let verified = log.verify()?;
    assert!(verified.verified <= verified.records);
    let status = log.status()?;
    assert_eq!(status.bytes, verified.bytes);
    for segment in log.segments()? {
        let mut records = 0;
        let found = log.inspect(segment, |_| records += 1)?;
        assert_eq!(found.records, records);
        assert!(found.whole_until <= found.bytes);
    }
    for name in log.subscribers()? {
        // An unreadable checkpoint is an error, nothing worse.
        let Ok(mut reader) = log.reader_with(&name, skipping()) else { continue };
        read_on(&mut reader)?;
        reader.seek_time(Timestamp { seconds: 1_700_000_006, micros: 0 })?;
        read_on(&mut reader)?;
        // The interval, if it is known, lies in one segment.
        if let Ok(interval) = reader.interval() {
            assert_eq!(interval.first.segment, interval.last.segment);
        }
    }
    log.end()?;
    log.raw_size()?;
    log.pre_commit()?;
    Ok(())
}

/// The message that we write last, and expect after all others.
const LAST: &[u8] = b"written afterwards";

/// Writes a message. `false` if no segment number is left for it.
fn write(log: &Jlog) -> Result<bool, Error> {
    let written = log.writer().and_then(|writer| {
        writer.append(LAST)?;
        writer.close()
    });
    match written {
        Ok(()) => Ok(true),
        Err(Error::OutOfSegments { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_subsequence(wanted: &[Vec<u8>], of: &[&[u8]]) -> bool {
    let mut of = of.iter();
    wanted.iter().all(|body| of.any(|other| other == body))
}

/// Does every operation on a jlog that the bytes were put in: looks at it, writes to it and repairs
/// it, in one order or the other. `wanted` are the messages that must be readable afterwards, in
/// this order.
fn try_everything(feed: &Feed, write_first: bool, wanted: &[Vec<u8>]) {
    if let Ok(log) = feed.open() {
        // Errors are what a damaged jlog gives.
        let _ = look(&log);
        let _ = read_all(&log);
        if write_first {
            if write(&log).is_ok_and(|written| written)
                && let Ok(all) = read_all(&log)
            {
                assert_eq!(all.last().map(|(_, body)| &body[..]), Some(LAST), "what was accepted is read");
            }
            let _ = look(&log);
        }
    }
    if feed.options().repair(&feed.path).is_err() {
        return;
    }
    let log = feed.open().expect("a repaired jlog opens");
    let verified = log.verify().unwrap();
    assert!(!verified.is_damaged(), "a repaired jlog is sound: {:?}", verified.findings);
    look(&log).expect("a repaired jlog can be looked at");
    let all = read_all(&log).expect("a repaired jlog can be read");
    assert!(is_subsequence(wanted, &bodies(&all)), "intact messages are gone:\n{all:?}\nwanted:\n{wanted:?}");
    let again = feed.options().repair(&feed.path).unwrap();
    assert!(again.is_empty(), "repaired once, a jlog needs no repair: {again:?}");
    if write(&log).expect("a repaired jlog can be written to") {
        let more = read_all(&log).unwrap();
        assert_eq!(more.last().map(|(_, body)| &body[..]), Some(LAST), "what was accepted is read");
        assert!(is_subsequence(wanted, &bodies(&more)), "writing has lost messages");
    }
    log.clean(CleanOptions::default().roll(true)).expect("a repaired jlog can be cleaned");
    let verified = log.verify().unwrap();
    assert!(!verified.is_damaged(), "and stays sound: {:?}", verified.findings);
}

/// Splits the first byte off, as switches.
fn switches(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// Headers and stored bodies of the whole records at the beginning of some bytes.
fn leading(format: RecordFormat, bytes: &[u8]) -> Vec<(RecordHeader, Vec<u8>)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Step::Record(header, total) = step(format, &bytes[at..], (bytes.len() - at) as u64) {
        let end = at + usize::try_from(total).unwrap();
        out.push((header, bytes[at + format.header_len()..end].to_vec()));
        at = end;
    }
    out
}

/// Changes some bytes: every three bytes of input are a position and its new byte.
fn edit(bytes: &mut Vec<u8>, edits: &[u8]) {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]]));
        if at < bytes.len() {
            bytes[at] = edit[2];
        } else {
            bytes.truncate(at % (bytes.len() + 1));
        }
    }
}

/// The bytes as a segment, or as changes to one.
///
/// Switches: 1, 2 the layout; 4 the segment being written; 8 its checksums stay; 16 it has an
/// index; 32 the bytes are changes; 128 written to before it is repaired.
pub fn scanner(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let formats = [
        RecordFormat::new(Compression::None),
        RecordFormat::new(Compression::Lz4),
        RecordFormat::from_magic(COMPRESSED_MAGIC).unwrap(),
        RecordFormat::old(),
    ];
    let format = formats[usize::from(switches & 3)];
    for at in 0..bytes.len().min(64) {
        let left = bytes.len() - at;
        match step(format, &bytes[at..], left as u64) {
            Step::Record(header, total) => {
                assert_eq!(total, format.header_len() as u64 + u64::from(header.stored));
                assert!(total <= left as u64);
            }
            Step::End => panic!("{left} bytes are left"),
            Step::Torn | Step::Corrupt => {}
        }
    }
    // In the layouts that no jlog of ours has, the other segments have another layout.
    let feed = Feed::new(disk, if format.is_lz4() { Template::Lz4 } else { Template::Plain });
    let segment = feed.segment(switches & 4 != 0);
    let name = names::segment(segment);
    let original = feed.get(&name).unwrap();
    let records = feed.records(segment);
    let (before, after) = feed.elsewhere(segment);
    if switches & 16 != 0 {
        feed.open().unwrap().reader("s").unwrap().interval().unwrap();
    }
    let changed = switches & 32 != 0;
    let segment_bytes = if changed {
        let mut edited = original.clone();
        edit(&mut edited, bytes);
        edited
    } else {
        bytes.to_vec()
    };
    feed.put(&name, &segment_bytes);
    let checked = switches & 8 != 0;
    if !checked {
        feed.remove(&names::checksums(segment));
    }
    let mut wanted = before;
    match switches & 3 {
        0 if checked && changed => {
            // The checksums show which records are intact.
            wanted.extend(
                records
                    .into_iter()
                    .filter(|(at, len, _)| segment_bytes.get(*at..at + len) == original.get(*at..at + len))
                    .map(|(.., body)| body),
            );
            wanted.extend(after);
        }
        0 => {
            wanted.extend(leading(format, &segment_bytes).into_iter().map(|(_, body)| body));
            wanted.extend(after);
        }
        1 => wanted.extend(after),
        2 => {
            let mut meta = feed.get(names::METASTORE).unwrap();
            meta[12..].copy_from_slice(&format.magic().to_le_bytes());
            feed.put(names::METASTORE, &meta);
            wanted.clear();
        }
        _ => {
            let meta = feed.get(names::METASTORE).unwrap();
            feed.put(names::METASTORE, &meta[..OLD_METASTORE_LEN]);
            wanted.clear();
        }
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as a metastore.
///
/// Switches: 1 of a compressed jlog; 2 there is none; 128 written to before it is repaired.
pub fn metastore(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let decoded = Meta::decode(bytes);
    if let Ok(meta) = &decoded
        && bytes.len() != OLD_METASTORE_LEN
    {
        assert_eq!(meta.encode(), bytes);
    }
    let feed = Feed::new(disk, if switches & 1 != 0 { Template::Lz4 } else { Template::Plain });
    let format = feed.open().unwrap().meta().unwrap().format;
    if switches & 2 != 0 {
        feed.remove(names::METASTORE);
    } else {
        feed.put(names::METASTORE, bytes);
    }
    // If the metastore names a known layout, that one is used, whatever the segments look like.
    let named = bytes.get(12..16).and_then(|magic| magic.first_chunk::<4>());
    let named = named.and_then(|magic| RecordFormat::from_magic(u32::from_le_bytes(*magic)));
    let misled = switches & 2 == 0 && named.is_some_and(|named| named != format);
    let wanted = if misled { Vec::new() } else { messages() };
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as the checkpoint of a subscriber.
///
/// Switch: 128 written to before it is repaired.
pub fn checkpoint(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let name = SubscriberName::new("s").unwrap();
    feed.put(&name.checkpoint_file(), bytes);
    let log = feed.open().unwrap();
    // A subscriber that needs everything keeps it.
    log.subscribe("keeper", Start::Beginning).unwrap();
    let all = messages();
    if let Ok(mut reader) = log.reader(&name) {
        let got = read_on(&mut reader).expect("the segments are sound");
        let got = bodies(&got);
        assert!(all.ends_with(&got.iter().map(|body| body.to_vec()).collect::<Vec<_>>()));
        // Messages that were read can be acknowledged, unless they lie past the end of the jlog.
        match reader.commit(reader.position()) {
            Ok(()) | Err(Error::NoSuchRecord { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    try_everything(&feed, switches & 128 != 0, &all);
    log.checkpoint(&name).expect("a repaired checkpoint can be read");
}

/// The bytes as an index with any contents.
///
/// Switches: 1 of the segment being written; 2 the bytes are changes to the right one; 128 written
/// to before it is repaired.
pub fn index(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let segment = feed.segment(switches & 1 != 0);
    let name = names::index(segment);
    let mut entries = bytes.to_vec();
    if switches & 2 != 0 {
        let records = feed.records(segment);
        entries = records.iter().flat_map(|(at, ..)| (*at as u64).to_le_bytes()).collect();
        if switches & 1 == 0 {
            entries.extend([0; 8]);
        }
        edit(&mut entries, bytes);
    }
    feed.put(&name, &entries);
    let log = feed.open().unwrap();
    let all = messages();
    let check = |what: &str| {
        let got = read_all(&log).expect("an index is never needed");
        assert!(bodies(&got).iter().eq(&all), "{what}: {got:?}");
    };
    check("with the index as it is");
    let mut reader = log.reader("s").unwrap();
    let interval = reader.interval().expect("a bad index is rebuilt");
    assert_eq!((interval.first, interval.count), (LogId::new(0, 1), interval.last.marker));
    drop(reader);
    check("after the index was brought up to date");
    assert!(!log.verify().unwrap().is_damaged());
    try_everything(&feed, switches & 128 != 0, &all);
}

/// The CRC-32 of IEEE 802.3.
fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    !crc
}

/// Takes bytes off the front, as a number; 0 for those that are not there.
fn take(data: &mut &[u8], bytes: usize) -> u64 {
    let n = bytes.min(data.len());
    let (front, rest) = data.split_at(n);
    *data = rest;
    front.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A sidecar whose runs are well-formed, with contents from the bytes: right or wrong.
fn runs(mut data: &[u8], inode: u64, segment: &[u8], records: &[(usize, usize, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    while !data.is_empty() {
        let first = usize::try_from(take(&mut data, 1)).unwrap() % (records.len() + 1);
        let count = usize::try_from(take(&mut data, 1)).unwrap() % 16;
        let lies = take(&mut data, 1);
        let covered = &records[first..(first + count).min(records.len())];
        let begin = covered.first().map_or(segment.len(), |record| record.0);
        let end = covered.last().map_or(begin, |record| record.0 + record.1);
        let last = covered.last().map_or(begin, |record| record.0);
        let lie = |truth: u64, bit: u32, data: &mut &[u8]| {
            if lies >> bit & 1 == 1 { take(data, 8) } else { truth }
        };
        let mut crcs: Vec<u8> = Vec::new();
        for n in 0..count {
            let truth = covered.get(n).map_or(0, |(at, len, _)| crc32(&[&segment[*at..at + len]]));
            let crc = if lies >> 6 & 1 == 1 { take(&mut data, 4) } else { truth.into() };
            crcs.extend_from_slice(&crc.to_le_bytes()[..4]);
        }
        let mut header = Vec::new();
        header.extend_from_slice(b"jcr1");
        header.extend_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
        header.extend_from_slice(&lie(begin as u64, 0, &mut data).to_le_bytes());
        header.extend_from_slice(&lie((end - begin) as u64, 1, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(last as u64, 2, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(inode, 3, &mut data).to_le_bytes());
        header.extend_from_slice(&lie(first as u64 + 1, 4, &mut data).to_le_bytes()[..4]);
        header.extend_from_slice(&crc32(&[&crcs]).to_le_bytes());
        let crc = crc32(&[&header]);
        header.extend_from_slice(&crc.to_le_bytes());
        out.extend(header);
        out.extend(crcs);
    }
    out
}

/// The bytes as checksums.
///
/// Switches: 1 of the segment being written; 2 well-formed, with contents from the bytes; 4 of
/// another segment; 128 written to before it is repaired.
pub fn checksums(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let feed = Feed::new(disk, Template::Plain);
    let segment = feed.segment(switches & 1 != 0);
    let name = names::segment(segment);
    let well_formed = switches & 2 != 0;
    let mut sidecar = bytes.to_vec();
    let mut foreign = false;
    if well_formed {
        let mut inode = feed.storage.facts(&feed.path.join(&name)).unwrap().identity.1;
        foreign = switches & 4 != 0;
        inode ^= u64::from(foreign);
        sidecar = runs(bytes, inode, &feed.get(&name).unwrap(), &feed.records(segment));
    }
    feed.put(&names::checksums(segment), &sidecar);
    let log = feed.open().unwrap();
    let all = messages();
    let got = read_all(&log).expect("checksums never make a jlog unreadable");
    assert!(got.iter().all(|(_, body)| all.contains(body)), "a body that was never written: {got:?}");
    let mut wanted = all.clone();
    if well_formed && !foreign {
        // They may accuse any record here, but none in other segments.
        let (before, after) = feed.elsewhere(segment);
        wanted = [before, after].concat();
    } else {
        assert!(bodies(&got).iter().eq(&all), "no good checksums, and yet messages are missing: {got:?}");
        let verified = log.verify().unwrap();
        assert!(!verified.is_damaged(), "{:?}", verified.findings);
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as the pre-commit buffer that a writer has left, with its guard.
///
/// Switches: 1 the first 48 bytes are the guard; 2 the bytes are bodies of whole records; 4 of a
/// compressed jlog; 8 the guard is a C library's (none).
pub fn pre_commit(disk: Disk, data: &[u8]) {
    let (switches, mut bytes) = switches(data);
    let lz4 = switches & 4 != 0;
    let feed = Feed::new(disk, if lz4 { Template::Lz4 } else { Template::Buffered });
    let format = feed.open().unwrap().meta().unwrap().format;
    if switches & 1 != 0 {
        let (guard, rest) = bytes.split_at(bytes.len().min(52));
        feed.put(names::PRE_COMMIT_GUARD, guard);
        bytes = rest;
    } else if switches & 8 != 0 {
        feed.remove(names::PRE_COMMIT_GUARD);
    }
    let mut buffer = bytes.to_vec();
    if switches & 2 != 0 {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let len = usize::try_from(take(&mut bytes, 1)).unwrap().min(bytes.len());
            records.extend(record(format, &bytes[..len]));
            bytes = &bytes[len..];
        }
        buffer = u32::try_from(records.len()).unwrap().to_le_bytes().to_vec();
        buffer.extend(records);
    }
    feed.put(names::PRE_COMMIT, &buffer);
    let log = feed.open().unwrap();
    // Errors are what a damaged buffer gives.
    let _ = look(&log);
    let all = messages();
    let got = read_all(&log).expect("a buffer disturbs no reader");
    assert!(bodies(&got).iter().eq(&all), "the segments are as they were");
    if write(&log).is_ok() {
        let got = read_all(&log).unwrap();
        let got = bodies(&got);
        assert!(is_subsequence(&all, &got), "the segments keep what they have");
        assert_eq!(got.last(), Some(&LAST), "what was accepted is read");
        if switches & 9 == 8 && !lz4 && buffer.len() >= 4 {
            // Without a guard, every whole record in the buffer is new, also an intact one after
            // damage.
            let used = u32::from_le_bytes(*buffer.first_chunk::<4>().unwrap()) as usize;
            let used = used.min(buffer.len() - 4);
            let mut left: Vec<Vec<u8>> =
                leading(format, &buffer[4..4 + used]).into_iter().map(|(_, body)| body).collect();
            let whole: usize = left.iter().map(|body| format.header_len() + body.len()).sum();
            if whole < used {
                // Its length may be what is damaged.
                left.pop();
            }
            let expected: Vec<Vec<u8>> = all.iter().cloned().chain(left).chain([LAST.to_vec()]).collect();
            assert!(is_subsequence(&expected, &got), "recovered: {got:?}\nexpected: {expected:?}");
            assert!(whole < used || got.len() == expected.len(), "nothing else is there: {got:?}");
        }
    }
    try_everything(&feed, false, &all);
}

/// The bytes as compressed records: valid ones, ones with a false length, and arbitrary bytes.
///
/// Switches: 1 in the segment being written; 128 written to before it is repaired.
pub fn lz4_records(disk: Disk, data: &[u8]) {
    let (switches, mut bytes) = switches(data);
    let feed = Feed::new(disk, Template::Lz4);
    let format = RecordFormat::new(Compression::Lz4);
    let segment = feed.segment(switches & 1 != 0);
    let (before, after) = feed.elsewhere(segment);
    let mut placed = Vec::new();
    while !bytes.is_empty() {
        let kind = take(&mut bytes, 1);
        let len = usize::try_from(take(&mut bytes, 1)).unwrap().min(bytes.len());
        let (body, rest) = bytes.split_at(len);
        bytes = rest;
        match kind % 4 {
            // A valid record.
            0 => {
                let body = body.repeat(1 + usize::try_from(kind / 4).unwrap());
                let stored = lz4_flex::block::compress(&body);
                let [len, stored_len] = [body.len(), stored.len()].map(|n| u32::try_from(n).unwrap());
                placed.extend(head(format, len, stored_len));
                placed.extend(stored);
            }
            // One whose length may be false.
            1 => {
                let claimed = u32::try_from(take(&mut bytes, 4)).unwrap();
                placed.extend(head(format, claimed, u32::try_from(body.len()).unwrap()));
                placed.extend_from_slice(body);
            }
            // One whose stored length may be false.
            2 => {
                let claimed = u32::try_from(take(&mut bytes, 4)).unwrap();
                placed.extend(head(format, u32::try_from(body.len()).unwrap(), claimed));
                placed.extend_from_slice(body);
            }
            _ => placed.extend_from_slice(body),
        }
    }
    feed.put(&names::segment(segment), &placed);
    feed.remove(&names::checksums(segment));
    let mut whole = leading(format, &placed);
    let covered: usize = whole.iter().map(|(_, stored)| format.header_len() + stored.len()).sum();
    if covered < placed.len() {
        // What follows the last record is none: the last one's length may be false.
        whole.pop();
    }
    let good = whole.into_iter().filter_map(|(header, stored)| {
        // A block decompresses to at most 255 times its own length.
        let len = usize::try_from(header.len).unwrap();
        let body = (len <= 255 * stored.len()).then(|| lz4_flex::block::decompress(&stored, len).ok())??;
        (body.len() == len).then_some(body)
    });
    let wanted: Vec<Vec<u8>> = before.into_iter().chain(good).chain(after).collect();
    if let Ok(all) = feed.open().and_then(|log| read_all(&log)) {
        assert!(is_subsequence(&wanted, &bodies(&all)), "good records are read: {all:?}\nwanted: {wanted:?}");
    }
    try_everything(&feed, switches & 128 != 0, &wanted);
}

/// The bytes as settings.
///
/// Switch: 128 written to before it is repaired.
pub fn settings(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let text = String::from_utf8_lossy(bytes);
    let parsed = Settings::parse(&text);
    match &parsed {
        Ok(settings) => assert_eq!(Settings::parse(&settings.to_text()), parsed),
        Err((line, why)) => {
            assert!(*line >= 1 && *line <= text.lines().count());
            assert!(!why.is_empty());
        }
    }
    let feed = Feed::new(disk, Template::Plain);
    feed.put(names::SETTINGS, bytes);
    match feed.open() {
        Ok(log) => {
            let got = read_all(&log).unwrap();
            assert!(bodies(&got).iter().eq(&messages()));
            match write(&log) {
                Ok(written) => assert!(written),
                // The messages may be older than the settings allow.
                Err(Error::AtCapacity { .. }) => assert!(log.limits().is_some()),
                Err(e) => panic!("{e}"),
            }
            assert!(!log.verify().unwrap().is_damaged());
        }
        Err(Error::Settings { line, .. }) => assert!(line >= 1),
        Err(e) => panic!("settings are the only thing that is wrong: {e}"),
    }
    // Repair cannot know what unknown settings mean: it leaves them alone.
    let repaired = feed.options().repair(&feed.path);
    if parsed.is_ok() && bytes.len() < 1000 {
        repaired.unwrap();
        // Messages that a limit refuses or drops are not expected.
        if !parsed.is_ok_and(|settings| settings.limits.is_some()) {
            try_everything(&feed, switches & 128 != 0, &messages());
        }
    }
}

/// The bytes as the list of dropped segments, or of lost ones.
///
/// Switches: 1 their checksum is corrected; 2 they are the list of lost segments; 128 written to
/// before it is repaired.
pub fn dropped(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let mut list = if switches & 2 != 0 { b"jpl1".to_vec() } else { Vec::new() };
    list.extend_from_slice(bytes);
    if switches & 1 != 0 {
        list.extend_from_slice(&crc32fast::hash(&list).to_le_bytes());
    }
    let feed = Feed::new(disk, Template::Plain);
    if switches & 2 != 0 {
        let read = jlog_core::internals::Noted::parse(&list);
        assert_eq!(jlog_core::internals::Noted::parse(&read.encode()), read);
        feed.put(names::LOST, &list);
        try_everything(&feed, switches & 128 != 0, &messages());
        return;
    }
    let read = jlog_core::internals::dropped::parse(&list);
    assert_eq!(jlog_core::internals::dropped::parse(&jlog_core::internals::dropped::encode(&read)), read);
    assert!(read.len() <= list.len() / 8);
    feed.put(names::DROPPED, &list);
    try_everything(&feed, switches & 128 != 0, &messages());
}

/// The bytes as names: of files, of subscribers, of records.
///
/// Switch: 128 written to before it is repaired.
pub fn names(disk: Disk, data: &[u8]) {
    let (switches, bytes) = switches(data);
    let kind = Kind::of(OsStr::from_bytes(bytes));
    let text = std::str::from_utf8(bytes).ok();
    let same = match &kind {
        Kind::Segment(n) => text == Some(&names::segment(*n)),
        Kind::Index(n) => text == Some(&names::index(*n)),
        Kind::Checksums(n) => text == Some(&names::checksums(*n)),
        Kind::Checkpoint(name) => text == Some(&name.checkpoint_file()),
        _ => true,
    };
    assert!(same, "{kind:?} is not called {}", bytes.escape_ascii());
    if let Some(id) = text.and_then(|text| text.parse::<LogId>().ok()) {
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    let feed = Feed::new(disk, Template::Plain);
    let log = feed.open().unwrap();
    let wrong = bytes.is_empty() || bytes.len() > SubscriberName::MAX_LEN || bytes.contains(&0);
    match SubscriberName::new(bytes) {
        Ok(name) => {
            assert!(!wrong);
            assert_eq!(Kind::of(OsStr::new(&name.checkpoint_file())), Kind::Checkpoint(name.clone()));
            if bytes != b"s" && bytes != b"t" {
                log.subscribe(&name, Start::Beginning).unwrap();
                assert!(log.has_subscriber(&name).unwrap());
                assert_eq!(log.lag(&name).unwrap().messages, MESSAGES as u64);
                assert!(log.unsubscribe(&name).unwrap());
            }
        }
        Err(_) => assert!(wrong),
    }

    // A file with this name among those of the jlog.
    let mut file = bytes.to_vec();
    file.iter_mut().filter(|byte| matches!(**byte, b'/' | 0)).for_each(|byte| *byte = b'_');
    file.truncate(255);
    let file = OsStr::from_bytes(&file);
    let path = feed.path.join(file);
    if file.is_empty() || file == "." || file == ".." || feed.storage.facts(&path).is_ok() {
        return;
    }
    let content = b"somebody's";
    let handle = feed.storage.open(&path, Open::CreateNew(0o640)).unwrap();
    handle.write_at(&[IoSlice::new(content)], 0).unwrap();
    drop(handle);
    try_everything(&feed, switches & 128 != 0, &messages());
    if matches!(Kind::of(file), Kind::Other | Kind::Broken | Kind::Stale) {
        let mut there = [0; 100];
        let n = feed.storage.open(&path, Open::Read).unwrap().read_at(&mut there, 0).unwrap();
        assert_eq!(&there[..n], content, "files of others are left alone");
    }
}
