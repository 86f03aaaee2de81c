//! Directories that consist of files of two feeds, as after a restore, a copy or a manual repair
//! that was interrupted or used wrong files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::compat::ReaderCompat;
use jlog_core::storage::sim::SimStorage;
use jlog_core::storage::{Posix, Storage};
use jlog_core::{
    AtLimit, CleanOptions, Compression, Error, Jlog, JlogOptions, Limits, LogId, Start, Timestamp, Wait,
};
use tempfile::TempDir;

use super::everything::{LAST, read_all, try_everything};
use super::feed::Feed;
use super::{Disk, Input};

/// The bytes of every file of a directory.
type Files = BTreeMap<OsString, Vec<u8>>;

/// Where feeds are created.
struct Place {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    directory: Option<TempDir>,
}

impl Place {
    fn new(disk: Disk) -> Self {
        match disk {
            Disk::Simulated => {
                let storage = SimStorage::new();
                storage.create_dir(Path::new("/"), 0o750).unwrap();
                Self { storage: Arc::new(storage), path: "/".into(), directory: None }
            }
            Disk::Real => {
                let memory = Path::new("/dev/shm");
                let directory =
                    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
                Self {
                    storage: Arc::new(Posix),
                    path: directory.path().to_owned(),
                    directory: Some(directory),
                }
            }
        }
    }

    fn feed(&self, name: &str) -> Feed {
        Feed { storage: Arc::clone(&self.storage), path: self.path.join(name), _directory: None }
    }
}

fn files(feed: &Feed) -> Files {
    let names = feed.storage.list(&feed.path).unwrap();
    names
        .into_iter()
        .filter_map(|name| {
            let bytes = feed.get(name.to_str()?)?;
            Some((name, bytes))
        })
        .collect()
}

/// Creates a feed according to the input.
fn create(feed: &Feed, input: &mut Input<'_>) -> Jlog {
    let switches = input.byte();
    let size = 100 + u32::try_from(input.below(200)).unwrap();
    let mut options = JlogOptions::default()
        .storage(Arc::clone(&feed.storage))
        .segment_size(size)
        .compression(if switches & 1 != 0 { Compression::Lz4 } else { Compression::None })
        .pre_commit(if switches & 2 != 0 { 256 } else { 0 })
        .checksums(switches & 4 == 0);
    if switches & 24 == 24 {
        let at_limit = if switches & 32 == 0 { AtLimit::Fail } else { AtLimit::DropOldest };
        options = options.limits(Limits { max_bytes: Some(16 << 10), at_limit, ..Limits::default() });
    }
    options.create(&feed.path).unwrap()
}

/// The messages of a feed: some are equal, within one feed or in both.
fn body(tag: char, n: usize) -> Vec<u8> {
    match n % 6 {
        0 => b"the same".to_vec(),
        1 => Vec::new(),
        2 => format!("{tag} {n} ").repeat(9).into_bytes(),
        _ => format!("{tag} {n}").into_bytes(),
    }
}

/// Uses a feed according to the input; `n` counts its messages. Returns its files, perhaps from
/// while a writer was at work.
fn work(feed: &Feed, log: &Jlog, tag: char, n: &mut usize, input: &mut Input<'_>) -> Files {
    let writer = log.writer().unwrap();
    for _ in 0..input.below(24) {
        match input.byte() {
            // Refused at a limit.
            0..160 => {
                let seconds = 1_700_000_000 + u32::try_from(*n).unwrap();
                let _ = writer.append_at(Timestamp { seconds, micros: 0 }, body(tag, *n));
                *n += 1;
            }
            160..180 => {
                writer.flush().unwrap();
            }
            180..190 => {
                let _ = writer.roll();
            }
            190..200 => _ = log.ensure_subscriber(format!("{tag}{}", input.below(3)), Start::End).unwrap(),
            200..230 => {
                // One reader reads and acknowledges some.
                let names = log.subscribers().unwrap();
                let name = &names[input.below(names.len())];
                let mut reader = log.reader(name).unwrap();
                if let Some(last) = reader.next_batch(Wait::No).unwrap().map(|batch| batch.last_id()) {
                    reader.commit(last).unwrap();
                    // The reader moves into the next segment, so that this one is removed.
                    reader.next_batch(Wait::No).unwrap();
                }
            }
            230..240 => {
                let segments = log.segments().unwrap();
                let segment = segments.get(input.below(segments.len().max(1))).copied().unwrap_or(0);
                // This builds its index.
                if let Ok(mut reader) =
                    log.reader_from(&Start::After(LogId::new(segment, 0)), Default::default())
                {
                    let _ = reader.interval();
                }
            }
            240..248 => log.set_checksums(input.byte() & 1 == 0).unwrap(),
            _ => {
                log.clean(CleanOptions::default()).unwrap();
            }
        }
    }
    if input.byte() & 1 == 0 {
        return files(feed);
    }
    writer.close().unwrap();
    files(feed)
}

/// The bytes determine two feeds (or one at two times), and which file is taken from which.
pub fn assembled(disk: Disk, data: &[u8]) {
    let mut input = Input(data);
    let switches = input.byte();
    let place = Place::new(disk);
    let (first, second) = (place.feed("first"), place.feed("second"));
    let same = switches & 1 != 0;
    let log = create(&first, &mut input);
    log.subscribe("s", Start::Beginning).unwrap();
    let mut n = 0;
    let old = work(&first, &log, 'a', &mut n, &mut input);
    let mut written: BTreeSet<Vec<u8>> = [LAST.to_vec()].into();
    let (from, new) = if same {
        let new = work(&first, &log, 'a', &mut n, &mut input);
        (first, new)
    } else {
        let log = create(&second, &mut input);
        log.subscribe(if switches & 2 != 0 { "s" } else { "t" }, Start::Beginning).unwrap();
        let mut n = 0;
        let new = work(&second, &log, 'b', &mut n, &mut input);
        written.extend((0..n).map(|n| body('b', n)));
        (second, new)
    };
    written.extend((0..n).map(|n| body('a', n)));
    // Either in the directory of the newer feed, where untouched files keep their inodes, or in
    // another one.
    let in_place = switches & 4 != 0;
    let made = if in_place { from } else { place.feed("made") };
    if !in_place {
        made.storage.create_dir(&made.path, 0o750).unwrap();
    }
    let names: BTreeSet<&OsString> = old.keys().chain(new.keys()).collect();
    for name in names {
        let Some(text) = name.to_str() else { continue };
        let bytes = match input.byte() % 4 {
            // Twice as likely, for files that only one of them has.
            0 | 3 => new.get(name).or(old.get(name)).map(|bytes| (bytes, new.contains_key(name))),
            1 => old.get(name).map(|bytes| (bytes, false)),
            _ => None,
        };
        match bytes {
            Some((_, true)) if in_place => {}
            Some((bytes, _)) => {
                if input.byte() & 1 == 0 {
                    made.remove(text);
                }
                made.put(text, bytes);
            }
            None => made.remove(text),
        }
    }
    let mut wanted = Vec::new();
    if let Ok(log) = made.open()
        && let Ok(verified) = log.verify()
    {
        match read_strictly(&log) {
            Ok(records) if !verified.is_damaged() => {
                assert_eq!(records, verified.records, "verify counts what is read: {:?}", verified.findings);
            }
            Err(e) if e.is_damage() => {
                // A tail that the next writer truncates is a finding, but not damage.
                assert!(!verified.findings.is_empty(), "a reader meets what verify has not found: {e}");
            }
            _ => {}
        }
        // If no subscriber needs them, the first segments may be removed.
        if log.subscribe("keeper", Start::Beginning).is_ok()
            && let Ok(all) = read_all(&log)
        {
            wanted.extend(all.into_iter().map(|(_, body)| body));
        }
    }
    for body in &wanted {
        assert!(written.contains(body), "a body that was never written: {}", body.escape_ascii());
    }
    try_everything(&made, switches & 128 != 0, &wanted);
    if let Ok(log) = made.open()
        && let Ok(all) = read_all(&log)
    {
        for (id, body) in all {
            assert!(written.contains(&body), "a body that was never written: {id} {}", body.escape_ascii());
        }
    }
    drop(place.directory);
}

/// How many records a reader gets that reads everything and stops at damage.
fn read_strictly(log: &Jlog) -> Result<u64, Error> {
    let mut reader = log.reader_from(&Start::Beginning, Default::default())?;
    let mut records = 0;
    while let Some(batch) = reader.next_batch(Wait::No)? {
        records += batch.len() as u64;
    }
    Ok(records)
}
