//! The jlogs whose files the inputs replace.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jlog_core::format::{RecordFormat, RecordHeader};
use jlog_core::names::Kind;
use jlog_core::storage::sim::{Dice, Moment, SimStorage};
use jlog_core::storage::{File, Open, Posix, Storage};
use jlog_core::{Compression, Error, Jlog, JlogOptions, LogId, Start, Timestamp};
use tempfile::TempDir;

use super::Disk;

/// The kind of jlog that the bytes are put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Template {
    Plain,
    Lz4,
    Buffered,
}

/// How many messages a jlog has before anything happens to it.
pub(super) const MESSAGES: usize = 12;
/// Size of the pre-commit buffer of [`Template::Buffered`].
pub(super) const BUFFER: u32 = 256;

/// A message: empty, short, long, or looking like a record.
pub(super) fn message(n: usize) -> Vec<u8> {
    match n {
        2 | 9 => Vec::new(),
        5 => record(RecordFormat::new(Compression::None), b"a record within a record"),
        7 => format!("message {n} ").repeat(10).into_bytes(),
        _ => format!("message {n}").into_bytes(),
    }
}

pub(super) fn messages() -> Vec<Vec<u8>> {
    (0..MESSAGES).map(message).collect()
}

/// A whole record, whose body is stored as it is.
pub(super) fn record(format: RecordFormat, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    head(format, len, len).into_iter().chain(body.iter().copied()).collect()
}

pub(super) fn head(format: RecordFormat, len: u32, stored: u32) -> Vec<u8> {
    let mut head = vec![0; format.header_len()];
    let time = Timestamp { seconds: 1_700_000_000, micros: 1 };
    format.encode(&RecordHeader { time, len, stored }, &mut head);
    head
}

/// A jlog of three segments or so, with the subscribers `s` at the beginning and `t` in the middle.
pub(super) struct Feed {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) path: PathBuf,
    pub(super) _directory: Option<TempDir>,
}

impl Feed {
    pub(super) fn new(disk: Disk, template: Template) -> Self {
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

    pub(super) fn fill(storage: Arc<dyn Storage>, path: &Path, template: Template) {
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

    pub(super) fn options(&self) -> JlogOptions {
        JlogOptions::default().storage(Arc::clone(&self.storage))
    }

    pub(super) fn open(&self) -> Result<Jlog, Error> {
        self.options().open(&self.path)
    }

    pub(super) fn file(&self, name: &str, how: Open) -> Option<Arc<dyn File>> {
        self.storage.open(&self.path.join(name), how).ok()
    }

    /// The bytes of a file.
    pub(super) fn get(&self, name: &str) -> Option<Vec<u8>> {
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
    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let file = self.file(name, Open::Create(0o640)).unwrap();
        file.set_len(0).unwrap();
        let mut done = 0;
        while done < bytes.len() {
            done += file.write_at(&[IoSlice::new(&bytes[done..])], done as u64).unwrap();
        }
    }

    pub(super) fn remove(&self, name: &str) {
        // It need not exist.
        let _ = self.storage.remove(&self.path.join(name));
    }

    pub(super) fn segments(&self) -> Vec<u32> {
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
    pub(super) fn segment(&self, last: bool) -> u32 {
        let segments = self.segments();
        if last { segments[segments.len() - 1] } else { segments[0] }
    }

    /// Offset, length and message of every record of a segment of an intact jlog.
    pub(super) fn records(&self, segment: u32) -> Vec<(usize, usize, Vec<u8>)> {
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
    pub(super) fn elsewhere(&self, segment: u32) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let segments = self.segments();
        let bodies = |of: &mut dyn Iterator<Item = u32>| -> Vec<Vec<u8>> {
            of.flat_map(|n| self.records(n)).map(|(.., body)| body).collect()
        };
        let before = bodies(&mut segments.iter().copied().filter(|&n| n < segment));
        let after = bodies(&mut segments.iter().copied().filter(|&n| n > segment));
        (before, after)
    }
}
