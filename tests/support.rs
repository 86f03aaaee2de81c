//! Shared by several tests.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, OnceLock};

use jlog_core::storage::Storage;
use jlog_core::{Claim, Jlog, LogId, Reader, ReaderOptions, SubscriberName, Timestamp, Wait};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::faulty::{Fate, Faulty, Op};

/// Set if the golden directories and the checker must be present: then nothing is skipped.
const REQUIRE: &str = "JLOG_REQUIRE_GOLDEN";

fn required() -> bool {
    std::env::var_os(REQUIRE).is_some_and(|value| !value.is_empty())
}

/// Reports that something is skipped, or fails if nothing may be skipped.
fn skip(what: &str) {
    assert!(!required(), "{what}, and {REQUIRE} is set");
    eprintln!("skipped: {what}");
}

/// The directories that the C library wrote: `JLOG_GOLDEN`, or `../shared/golden` next to the
/// repository. `None`, with a message, if they are missing.
pub(crate) fn golden_dir() -> Option<PathBuf> {
    let dir = std::env::var_os("JLOG_GOLDEN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/golden")),
        PathBuf::from,
    );
    if dir.is_dir() {
        return Some(dir);
    }
    skip(&format!("no golden directories at {} (set JLOG_GOLDEN)", dir.display()));
    None
}

/// The independent reader of the format: `JLOG_CHECK`, or `../shared/tools/jlog_check.py` next to
/// the repository. `None`, with a message, if it or python3 is missing.
fn checker_script() -> Option<PathBuf> {
    static SCRIPT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let script = SCRIPT.get_or_init(find_checker).clone();
    assert!(script.is_some() || !required(), "no checker, and {REQUIRE} is set");
    script
}

fn find_checker() -> Option<PathBuf> {
    let script = std::env::var_os("JLOG_CHECK").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/tools/jlog_check.py")),
        PathBuf::from,
    );
    if !script.is_file() {
        eprintln!("skipped: no checker at {} (set JLOG_CHECK)", script.display());
        return None;
    }
    let python =
        Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 to run the checker with");
        return None;
    }
    Some(script)
}

/// Runs the checker as its documentation says. Returns whether it found nothing wrong, and its
/// output. `None` if there is no checker.
pub(crate) fn check_strictly(dir: &Path) -> Option<(bool, serde_json::Value)> {
    let script = checker_script()?;
    let output =
        Command::new("python3").arg(script).arg(dir).args(["--strict", "--messages"]).output().unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap();
    Some((output.status.success(), report))
}

/// The checker, loaded once by a python3 that checks one directory after the other.
pub(crate) struct Checker {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// Answers each path on stdin with the checker's report in one line.
const SERVER: &str = "
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location('jlog_check', sys.argv[1])
checker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(checker)
for line in sys.stdin.buffer:
    print(json.dumps(checker.check(os.fsdecode(line[:-1]), True)), flush=True)
";

impl Checker {
    /// Starts it. `None` if there is no checker, or no python3.
    pub(crate) fn start() -> Option<Self> {
        let script = checker_script()?;
        let mut child = Command::new("python3")
            .args(["-B", "-c", SERVER])
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, stdin, stdout })
    }

    /// The checker's report on a directory.
    pub(crate) fn report(&mut self, dir: &Path) -> serde_json::Value {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(dir.as_os_str().as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.flush().unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Fails unless the checker finds nothing wrong; returns the messages in the segments, in
    /// order.
    pub(crate) fn messages(&mut self, dir: &Path, what: &str) -> Vec<Row> {
        let report = self.report(dir);
        assert_eq!(report["problems"], serde_json::json!([]), "{what}");
        rows(&report["messages"])
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // The checker ends when its input ends.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

/// Asks the checker, if there is one, whether directories conform.
pub(crate) struct Conforming(Option<Checker>);

impl Conforming {
    pub(crate) fn new() -> Self {
        Self(Checker::start())
    }

    /// Fails if the checker finds something wrong.
    pub(crate) fn check(&mut self, dir: &Path) {
        if let Some(checker) = &mut self.0 {
            assert_eq!(checker.report(dir)["problems"], serde_json::json!([]));
        }
    }
}

/// A message as the golden expectations and the checker list it, with a hash instead of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: LogId,
    pub(crate) time: Timestamp,
    pub(crate) len: u64,
    pub(crate) hash: String,
}

impl Row {
    pub(crate) fn new(id: LogId, time: Timestamp, body: &[u8]) -> Self {
        Self { id, time, len: body.len() as u64, hash: hash(body) }
    }

    /// Everything except the id.
    pub(crate) fn content(&self) -> (Timestamp, u64, &str) {
        (self.time, self.len, &self.hash)
    }
}

/// Reads rows of [id, seconds, microseconds, length, hash].
pub(crate) fn rows(value: &serde_json::Value) -> Vec<Row> {
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
pub(crate) fn hash(body: &[u8]) -> String {
    Sha256::digest(body)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A temporary directory, and the path of a jlog in it that does not exist yet.
pub(crate) fn new_path() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("feed");
    (dir, path)
}

/// The real file system, except that syncs return at once: the contents of a directory do not
/// depend on them, and tests with many syncs are quick even on a slow disk.
pub(crate) fn unsynced() -> Arc<dyn Storage> {
    Faulty::storage(|op| match op {
        Op::Sync(_) | Op::SyncDir(_) => Fate::Pretend,
        _ => Fate::Proceed,
    })
}

/// Copies the files of a directory (which may be write-protected) into a new one that is writable.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// Every file of a directory with its bytes.
pub(crate) fn snapshot(dir: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

/// The names of a directory's files that begin with this.
pub(crate) fn names_with(dir: &Path, prefix: &str) -> Vec<String> {
    let names = snapshot(dir).into_keys().map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with(prefix)).collect()
}

/// A message that was read, with its own copy of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) id: LogId,
    pub(crate) time: Timestamp,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn row(&self) -> Row {
        Row::new(self.id, self.time, &self.body)
    }
}

/// The options of one of several readers of a subscriber.
pub(crate) fn shared() -> ReaderOptions {
    ReaderOptions::default().claim(Claim::Shared)
}

/// Reads everything that is available, without moving the checkpoint.
pub(crate) fn read_on(reader: &mut Reader) -> Vec<Got> {
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
pub(crate) fn consume(log: &Jlog, subscriber: impl AsRef<[u8]>) -> Vec<Got> {
    let mut reader = log.reader(subscriber).unwrap();
    let got = read_on(&mut reader);
    if let Some(last) = got.last() {
        reader.commit(last.id).unwrap();
    }
    got
}

/// Reads everything with a temporary subscriber.
pub(crate) fn read_all(log: &Jlog) -> Vec<Got> {
    let name = SubscriberName::new("~read_all").unwrap();
    log.subscribe(&name, jlog_core::Start::Beginning).unwrap();
    let got = read_on(&mut log.reader(&name).unwrap());
    assert!(log.unsubscribe(&name).unwrap());
    got
}

/// Only the bodies.
pub(crate) fn bodies(got: &[Got]) -> Vec<&[u8]> {
    got.iter().map(|message| &message.body[..]).collect()
}

/// The CRC-32 of IEEE 802.3, computed bit by bit, independently of the code under test.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A body of this length that compresses about as well as text does, different for every seed.
pub(crate) fn body(seed: u64, len: usize) -> Vec<u8> {
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
pub(crate) fn time(n: u32) -> Timestamp {
    Timestamp { seconds: 1_700_000_000 + n, micros: n * 997 % 1_000_000 }
}
