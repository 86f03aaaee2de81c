//! Every bit of every file flipped, every file cut at every length: nothing panics or hangs,
//! nothing wrong is delivered, and untouched messages are delivered.
//!
//! `JLOG_DAMAGE_BITS` sets how many bits of each byte are flipped (1 by default, another one for
//! each byte; 8: all of them).

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use jlog_core::compat::ReaderCompat;
use jlog_core::storage::sim::{Dice, Moment, SimStorage};
use jlog_core::storage::{Open, Storage};
use jlog_core::{
    Compression, Event, Jlog, LogId, OnDamage, ReadMethod, Reader, ReaderOptions, Start, Timestamp, Wait,
};

use testkit::feeds::{new_path, unsynced};

/// More calls than any reader here needs.
const CALLS: usize = 200;

/// A message that was written, and where its record is.
struct Written {
    body: Vec<u8>,
    file: String,
    from: usize,
    to: usize,
    id: Option<LogId>,
}

/// A small jlog that a killed writer left: its files, and its messages in order. The last messages
/// are in the pre-commit buffer.
struct Feed {
    moment: Moment,
    files: BTreeMap<String, Vec<u8>>,
    written: Vec<Written>,
}

const FEED: &str = "/feed";

fn open(disk: &Arc<dyn Storage>) -> jlog_core::Result<Jlog> {
    Jlog::options().storage(Arc::clone(disk)).open(FEED)
}

/// A time shortly after the second 0: the simulated disk has no clock, and all files are from then.
fn time(n: u32) -> Timestamp {
    Timestamp { seconds: 1, micros: n }
}

fn message(n: u32) -> Vec<u8> {
    // The buffered messages have records of 32 bytes, the others records of various lengths.
    let len = if n >= 10 { 16 } else { 15 + n as usize % 5 };
    let mut body = format!("message {n:02} ").into_bytes();
    body.resize(len, b'a' + u8::try_from(n).unwrap());
    body
}

const NEW: u32 = 99;

impl Feed {
    fn new(compression: Compression) -> Self {
        let disk = SimStorage::new();
        disk.create_dir(Path::new("/"), 0o755).unwrap();
        let options = Jlog::options().storage(Arc::new(disk.clone())).segment_size(100).pre_commit(300);
        let log = options.compression(compression).create(FEED).unwrap();
        log.subscribe("keeper", Start::Beginning).unwrap();
        log.subscribe("all", Start::Beginning).unwrap();
        log.subscribe("part", Start::Beginning).unwrap();
        let writer = log.writer().unwrap();
        for n in 0..13 {
            writer.append_at(time(n), message(n)).unwrap();
            if matches!(n, 3 | 7 | 9) {
                writer.flush().unwrap();
            }
        }
        assert_eq!(log.segments().unwrap(), [0, 1, 2]);
        for checkpoint in [LogId::new(0, 0), LogId::new(1, 0), LogId::new(2, 1)] {
            log.set_checkpoint("part", checkpoint).unwrap();
            log.reader("part").unwrap().interval().unwrap();
        }
        let mut written = Vec::new();
        let header = if compression == Compression::Lz4 { 20 } else { 16 };
        for segment in 0..3 {
            let more = |record: jlog_core::RecordInfo| {
                let n = u32::try_from(written.len()).unwrap();
                let from = usize::try_from(record.offset).unwrap();
                let to = from + header + record.stored as usize;
                let file = jlog_core::names::segment(segment);
                written.push(Written { body: message(n), file, from, to, id: Some(record.id) });
            };
            log.inspect(segment, more).unwrap();
        }
        assert_eq!(written.len(), 10);
        // The writer is still open: its buffer is in the state as if it had been killed.
        let moment = disk.moments().pop().unwrap();
        let files = files(&disk);
        let buffer = &files["pre_commit"];
        let number = |at: usize| u32::from_le_bytes(*buffer[at..].first_chunk().unwrap()) as usize;
        let mut from = 4;
        for n in 10..13 {
            let to = from + header + number(from + header - 4);
            let file = "pre_commit".to_owned();
            written.push(Written { body: message(n), file, from, to, id: None });
            from = to;
        }
        assert_eq!(from, 4 + number(0), "the buffer holds the last three");
        drop(writer);
        Self { moment, files, written }
    }
}

/// Every file of the jlog with its bytes.
fn files(disk: &dyn Storage) -> BTreeMap<String, Vec<u8>> {
    let bytes = |name: &str| {
        let file = disk.open(&Path::new(FEED).join(name), Open::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        bytes
    };
    let names = disk.list(Path::new(FEED)).unwrap().into_iter().map(|name| name.into_string().unwrap());
    names.map(|name| (name.clone(), bytes(&name))).collect()
}

/// The change to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { to: usize },
    Remove,
}

struct Case<'a> {
    feed: &'a Feed,
    name: &'a str,
    damage: Damage,
}

impl fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name, self.damage)
    }
}

impl Case<'_> {
    fn touches(&self, record: &Written) -> bool {
        if record.file != self.name {
            return false;
        }
        match self.damage {
            // The counter at the beginning of the buffer is about all of its records.
            Damage::Flip { at, .. } if record.file == "pre_commit" && at < 4 => true,
            Damage::Flip { at, .. } => (record.from..record.to).contains(&at),
            Damage::Cut { to } => record.to > to,
            Damage::Remove => true,
        }
    }

    fn untouched(&self) -> Vec<u32> {
        let records = self.feed.written.iter().enumerate();
        let untouched = records.filter(|(_, record)| !self.touches(record));
        untouched.map(|(n, _)| u32::try_from(n).unwrap()).collect()
    }

    /// The disk as it was, except for the damage.
    fn disk(&self) -> Arc<dyn Storage> {
        let disk = self.feed.moment.after_kill(&mut Dice::new(0));
        let path = Path::new(FEED).join(self.name);
        match self.damage {
            Damage::Flip { at, bit } => {
                let file = disk.open(&path, Open::Write).unwrap();
                let byte = self.feed.files[self.name][at] ^ (1 << bit);
                assert_eq!(file.write_at(&[IoSlice::new(&[byte])], at as u64).unwrap(), 1);
            }
            Damage::Cut { to } => disk.open(&path, Open::Write).unwrap().set_len(to as u64).unwrap(),
            Damage::Remove => disk.remove(&path).unwrap(),
        }
        Arc::new(disk)
    }

    /// The numbers of the messages that a reader delivers. Skips damage, if there may be any.
    fn read(&self, reader: &mut Reader, may_be_damaged: bool) -> Vec<u32> {
        let mut got = Vec::new();
        let mut last = None;
        for _ in 0..CALLS {
            match reader.next_batch(Wait::No) {
                Ok(None) => return got,
                Ok(Some(batch)) => {
                    for message in &batch {
                        assert!(last.is_none_or(|last| last < message.id()), "{self}: ids grow");
                        last = Some(message.id());
                        got.extend(self.number(message.body()));
                    }
                }
                Err(e) if e.is_damage() && may_be_damaged => reader.skip_damage(),
                Err(e) => panic!("{self}: {e}"),
            }
        }
        panic!("{self}: a reader does not come to an end");
    }

    /// The number of this message. `None` for one that was changed where no checksum covers it.
    fn number(&self, body: &[u8]) -> Option<u32> {
        if body == message(NEW) {
            return Some(NEW);
        }
        let found = self.feed.written.iter().position(|record| record.body == body);
        let covered = self.name != "pre_commit";
        assert!(found.is_some() || !covered, "{self}: {body:?} was not written");
        found.map(|n| u32::try_from(n).unwrap())
    }

    fn check_all(&self, got: &[u32], expected: impl IntoIterator<Item = u32>, when: &str) {
        assert!(got.is_sorted_by(|a, b| a < b), "{self}: {when}: each once and in order: {got:?}");
        for n in expected {
            assert!(got.contains(&n), "{self}: {when}: message {n} is missing: {got:?}");
        }
    }

    /// What a new subscriber reads from the beginning.
    fn fresh(&self, log: &Jlog, on_damage: OnDamage) -> Vec<u32> {
        log.subscribe("~fresh", Start::Beginning).unwrap();
        let options = ReaderOptions::default().on_damage(on_damage);
        let got = self.read(&mut log.reader_with("~fresh", options).unwrap(), on_damage == OnDamage::Skip);
        assert!(log.unsubscribe("~fresh").unwrap());
        got
    }

    /// Lets readers and a writer meet the damage.
    fn without_repair(&self) {
        let disk = self.disk();
        let about_all = matches!(self.name, "metastore" | "settings");
        let log = match open(&disk) {
            Ok(log) => log,
            Err(e) => {
                assert!(about_all, "{self}: {e}");
                return;
            }
        };
        let untouched = self.untouched();
        let in_segments = || untouched.iter().copied().filter(|&n| n < 10);
        for (on_damage, method) in [(OnDamage::Fail, ReadMethod::Mmap), (OnDamage::Skip, ReadMethod::Pread)] {
            let options = ReaderOptions::default().on_damage(on_damage).read_method(method);
            match log.reader_with("all", options) {
                Ok(mut reader) => {
                    let got = self.read(&mut reader, true);
                    if !about_all && !self.name.starts_with("cp.") {
                        self.check_all(&got, in_segments(), "a reader");
                    }
                }
                Err(e) => assert!(self.name.starts_with("cp."), "{self}: {e}"),
            }
        }
        let found = log.verify().unwrap();
        let touched = self.feed.written.iter().find(|record| self.touches(record));
        // If a record claims to be younger than its checksum, it is unknown whether the checksum is
        // for it: on this disk, every checksum is from the second 0.
        if let (Damage::Flip { at, .. }, Some(record)) = (self.damage, touched)
            && let Some(id) = record.id
            && !(record.from + 4..record.from + 8).contains(&at)
        {
            let named = found.findings.iter().any(|finding| finding.damage && finding.id == Some(id));
            assert!(named, "{self}: verify does not name record {id}: {found:?}");
        }
        match log.writer() {
            Ok(writer) => {
                writer.append_at(time(NEW), message(NEW)).unwrap();
                writer.close().unwrap();
            }
            Err(e) => {
                assert!(about_all, "{self}: {e}");
                return;
            }
        }
        let got = self.fresh(&log, OnDamage::Skip);
        self.check_all(&got, untouched.iter().copied().chain([NEW]), "after a writer");
    }

    /// Repairs the damage first.
    fn with_repair(&self) {
        let disk = self.disk();
        let done = Jlog::options().storage(Arc::clone(&disk)).repair(FEED).unwrap();
        let log = open(&disk).unwrap_or_else(|e| panic!("{self}: after repair {done:?}: {e}"));
        let found = log.verify().unwrap();
        let damaged = found.findings.iter().any(|finding| {
            // The writer recovers the buffer.
            finding.damage && !finding.path.ends_with("pre_commit")
        });
        assert!(!damaged, "{self}: after repair {done:?}: {found:?}");
        let untouched = self.untouched();
        let in_segments = untouched.iter().copied().filter(|&n| n < 10);
        let got = self.fresh(&log, OnDamage::Fail);
        self.check_all(&got, in_segments, "after repair");
        let writer = log.writer().unwrap();
        writer.append_at(time(NEW), message(NEW)).unwrap();
        writer.close().unwrap();
        let got = self.fresh(&log, OnDamage::Fail);
        self.check_all(&got, untouched.iter().copied().chain([NEW]), "after repair and a writer");
        assert!(!log.verify().unwrap().is_damaged(), "{self}: in the end");
        // Every subscriber that had a checkpoint still has one.
        for name in ["all", "part", "keeper"] {
            let gone = matches!(self.damage, Damage::Remove) && self.name.starts_with("cp.");
            assert!(gone || log.reader(name).is_ok(), "{self}: {name}");
        }
    }
}

fn bits() -> u8 {
    let bits = std::env::var("JLOG_DAMAGE_BITS").ok().and_then(|value| value.parse().ok());
    bits.unwrap_or(1).clamp(1, 8)
}

/// Applies all damage to the files that `meant` selects, and reports everything that goes wrong.
fn damage_to(meant: impl Fn(&str) -> bool, compression: Compression) {
    let feed = Feed::new(compression);
    let mut wrong = Vec::new();
    let mut cases = 0;
    for (name, bytes) in &feed.files {
        if !meant(name) {
            continue;
        }
        let flips = (0..bytes.len()).flat_map(|at| {
            // If not all bits are flipped, choose other ones for each byte.
            (0..bits())
                .map(move |bit| Damage::Flip { at, bit: (bit * 3 + u8::try_from(at % 8).unwrap()) % 8 })
        });
        let cuts = (0..bytes.len()).map(|to| Damage::Cut { to });
        for damage in flips.chain(cuts).chain([Damage::Remove]) {
            let case = Case { feed: &feed, name, damage };
            cases += 1;
            for repaired in [false, true] {
                let phase = || if repaired { case.with_repair() } else { case.without_repair() };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(phase)) {
                    let why = panic.downcast_ref::<String>().cloned();
                    wrong.push(format!("{case}, repaired: {repaired}: {}", why.unwrap_or_default()));
                }
            }
        }
    }
    assert!(cases > 0, "there are such files");
    let some: Vec<&String> = wrong.iter().take(12).collect();
    assert!(wrong.is_empty(), "{} of {cases} cases: {some:#?}", wrong.len());
}

fn is_segment(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A test for each kind of file, plain and compressed.
macro_rules! every_byte {
    ($($plain:ident $lz4:ident: $meant:expr;)*) => {$(
        #[test]
        fn $plain() {
            damage_to($meant, Compression::None);
        }

        #[test]
        fn $lz4() {
            damage_to($meant, Compression::Lz4);
        }
    )*};
}

every_byte! {
    segments segments_lz4: is_segment;
    indexes indexes_lz4: |name| name.ends_with(".idx");
    checksums checksums_lz4: |name| name.ends_with(".crc");
    checkpoints checkpoints_lz4: |name| name.starts_with("cp.");
    metastore metastore_lz4: |name| name == "metastore";
    settings settings_lz4: |name| name == "settings";
    the_buffer the_buffer_lz4: |name| name == "pre_commit";
    the_guard_of_the_buffer the_guard_of_the_buffer_lz4: |name| name == "pre_commit.guard";
}

/// The only record of a segment is covered by a checksum, too.
#[test]
fn the_only_record_of_a_segment() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).segment_size(1).create(&path).unwrap();
    log.subscribe("all", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..3 {
        writer.append(message(n)).unwrap();
    }
    writer.close().unwrap();
    let segment = path.join("00000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();
    assert!(log.verify().unwrap().is_damaged());
    let options = ReaderOptions::default().on_damage(OnDamage::Skip);
    let mut reader = log.reader_with("all", options).unwrap();
    let mut got = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        got.extend(batch.iter().map(|message| message.body().to_vec()));
    }
    assert_eq!(got, [message(0), message(2)]);
}

/// Repair keeps the bytes that it takes out.
#[test]
fn what_is_taken_out_is_kept() {
    let feed = Feed::new(Compression::None);
    let case = Case { feed: &feed, name: "00000001", damage: Damage::Flip { at: 20, bit: 1 } };
    let disk = case.disk();
    let damaged = files(&*disk)["00000001"].clone();
    let done = Jlog::options().storage(Arc::clone(&disk)).repair(FEED).unwrap();
    let repaired = |event: &Event| matches!(event, Event::SegmentRepaired { segment: 1, records: 3, .. });
    assert!(done.iter().any(repaired), "{done:?}");
    assert_eq!(files(&*disk)["00000001.broken-0"], damaged);
}

/// The next writer truncates damage at the end of the segment, and writes there. A reader that has
/// skipped the damage reads the new messages.
#[test]
fn what_is_written_over_a_damaged_end_is_read() {
    type Spoil = fn(&mut Vec<u8>);
    let ends: [(&str, bool, Spoil); 5] = [
        ("bytes that are no record", false, |bytes| bytes.extend([b'Z'; 40])),
        ("zeros behind the records", false, |bytes| bytes.extend([0; 4096])),
        ("zeros that checksums cover", true, |bytes| {
            let from = bytes.len() - 60;
            bytes[from..].fill(0);
        }),
        ("a flipped bit that checksums cover", true, |bytes| {
            let at = bytes.len() - 2;
            bytes[at] ^= 8;
        }),
        ("half a record", true, |bytes| bytes.truncate(bytes.len() - 5)),
    ];
    for compression in [Compression::None, Compression::Lz4] {
        for (what, checksums, spoil) in ends {
            let (_dir, path) = new_path();
            let options = Jlog::options().storage(unsynced()).compression(compression).checksums(checksums);
            let log = options.create(&path).unwrap();
            log.subscribe("all", Start::Beginning).unwrap();
            let append = |bodies: std::ops::Range<u32>| {
                let writer = log.writer().unwrap();
                for n in bodies {
                    writer.append(message(n)).unwrap();
                }
                writer.close().unwrap();
            };
            append(0..5);
            let segment = path.join("00000000");
            let mut bytes = std::fs::read(&segment).unwrap();
            spoil(&mut bytes);
            std::fs::write(&segment, &bytes).unwrap();
            let mut reader =
                log.reader_with("all", ReaderOptions::default().on_damage(OnDamage::Skip)).unwrap();
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut read = |reader: &mut Reader| {
                while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                    got.extend(batch.iter().map(|message| message.body().to_vec()));
                }
                got.len()
            };
            let before = read(&mut reader);
            append(5..8);
            read(&mut reader);
            append(8..10);
            read(&mut reader);
            let behind: Vec<Vec<u8>> = (5..10).map(message).collect();
            assert_eq!(got[before..], behind, "{what}, {compression:?}");
            let others: Vec<Vec<u8>> = (0..5).map(message).collect();
            assert!(others.starts_with(&got[..before]) && before >= 2, "{what}, {compression:?}: {before}");
        }
    }
}
