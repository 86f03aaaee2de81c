//! Feeds for tests: the directories that the C library wrote, what was read from a feed, and ways
//! to compare the two.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::storage::Storage;
use jlog_core::{Claim, Jlog, LogId, Reader, ReaderOptions, SubscriberName, Timestamp, Wait};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::faulty::{Fate, Faulty, Op};
use crate::programs::skip;

/// The directories that the C library wrote: `JLOG_GOLDEN`, or `../shared/golden` next to the
/// repository. `None`, with a message, if they are missing.
pub fn golden_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("JLOG_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden")),
        PathBuf::from,
    );
    if dir.is_dir() {
        return Some(dir);
    }
    skip("GOLDEN", &format!("no golden directories at {} (set JLOG_GOLDEN)", dir.display()));
    None
}

/// A message as the golden expectations and the checker list it, with a hash instead of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where it is.
    pub id: LogId,
    /// When it was written.
    pub time: Timestamp,
    /// The length of its body in bytes.
    pub len: u64,
    /// The [`hash`] of its body.
    pub hash: String,
}

impl Row {
    /// The row of a message.
    pub fn new(id: LogId, time: Timestamp, body: &[u8]) -> Self {
        Self { id, time, len: body.len() as u64, hash: hash(body) }
    }

    /// Everything except the id.
    pub fn content(&self) -> (Timestamp, u64, &str) {
        (self.time, self.len, &self.hash)
    }
}

/// Reads rows of [id, seconds, microseconds, length, hash].
pub fn rows(value: &serde_json::Value) -> Vec<Row> {
    let number = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
    let row = |row: &serde_json::Value| Row {
        id: row[0].as_str().unwrap().parse().unwrap(),
        time: Timestamp { seconds: number(&row[1]), micros: number(&row[2]) },
        len: row[3].as_u64().unwrap(),
        hash: row[4].as_str().unwrap().to_owned(),
    };
    value.as_array().unwrap().iter().map(row).collect()
}

/// The first 16 hex digits of the SHA-256 of a body.
pub fn hash(body: &[u8]) -> String {
    Sha256::digest(body)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A temporary directory, and the path of a jlog in it that does not exist yet.
pub fn new_path() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    (dir, path)
}

/// The real file system, except that syncs return at once: the contents of a directory do not
/// depend on them, and tests with many syncs are quick even on a slow disk.
pub fn unsynced() -> Arc<dyn Storage> {
    Faulty::storage(|op| match op {
        Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
        _ => Fate::Proceed,
    })
}

/// Copies the files of a directory (which may be write-protected) into a new one that is writable.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// Every file of a directory with its bytes.
pub fn snapshot(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

/// The names of a directory's files that begin with this.
pub fn names_with(dir: &Path, prefix: &str) -> Vec<String> {
    let names = snapshot(dir).into_keys().map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// A message that was read, with its own copy of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Where it is.
    pub id: LogId,
    /// When it was written.
    pub time: Timestamp,
    /// Its body.
    pub body: Vec<u8>,
}

impl Got {
    /// Its row.
    pub fn row(&self) -> Row {
        Row::new(self.id, self.time, &self.body)
    }
}

/// The options of one of several readers of a subscriber.
pub fn shared() -> ReaderOptions {
    ReaderOptions::default().claim(Claim::Shared)
}

/// Reads everything that is available, without moving the checkpoint.
pub fn read_on(reader: &mut Reader) -> Vec<Got> {
    let mut got = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        assert!(!batch.is_empty());
        let before = got.len();
        for message in &batch {
            got.push(Got { id: message.id(), time: message.time(), body: message.body().to_vec() });
        }
        assert_eq!(got.len() - before, batch.len());
        assert_eq!(got[before].id, batch.first_id());
        assert_eq!(got[got.len() - 1].id, batch.last_id());
    }
    got
}

/// Reads everything for a subscriber, and moves its checkpoint past it.
pub fn consume(log: &Jlog, subscriber: impl AsRef<[u8]>) -> Vec<Got> {
    let mut reader = log.reader(subscriber).unwrap();
    let got = read_on(&mut reader);
    if let Some(last) = got.last() {
        reader.commit(last.id).unwrap();
    }
    got
}

/// Reads everything with a temporary subscriber.
pub fn read_all(log: &Jlog) -> Vec<Got> {
    let name = SubscriberName::new("~read_all").unwrap();
    log.subscribe(&name, jlog_core::Start::Beginning).unwrap();
    let got = read_on(&mut log.reader(&name).unwrap());
    assert!(log.unsubscribe(&name).unwrap());
    got
}

/// Only the bodies.
pub fn bodies(got: &[Got]) -> Vec<&[u8]> {
    got.iter().map(|message| &message.body[..]).collect()
}

/// A body of this length that compresses about as well as text does, different for every seed.
pub fn body(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["segment ", "record ", "marker ", "feed ", "GET ", "200 ", "- ", "reader "];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        match state % 9 {
            8 => out.extend_from_slice(&state.to_be_bytes()),
            n => out.extend_from_slice(WORDS[usize::try_from(n).unwrap()].as_bytes()),
        }
    }
    out.truncate(len);
    out
}

/// A time that differs for every number.
pub fn time(n: u32) -> Timestamp {
    Timestamp { seconds: 1_700_000_000 + n, micros: n * 997 % 1_000_000 }
}
