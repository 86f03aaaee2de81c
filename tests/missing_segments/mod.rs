//! Segments that are missing or were cut: losses are reported with the number of messages, and what
//! the rules removed is not.

mod cut;
mod missing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jlog_core::{Compression, Event, Jlog, Lost, OnDamage, Start};
use parking_lot::Mutex;
use tempfile::TempDir;
use testkit::feeds::{new_path, read_on, shared, unsynced};

/// Messages in a full segment.
const FULL: u64 = 5;
const SEGMENT_SIZE: u32 = 5 * (16 + 10);
/// The same with compression, where a message takes one byte more: none of them is compressible.
const LZ4_SEGMENT_SIZE: u32 = 5 * (20 + 11);

/// A jlog of full segments and one that is being written, with one message. The body of each
/// message is its number.
struct Feed {
    _dir: TempDir,
    path: PathBuf,
    log: Jlog,
    heard: Arc<Mutex<Vec<Event>>>,
}

impl Feed {
    fn new(full: u32, checksums: bool) -> Self {
        Self::compressed(full, checksums, false)
    }

    fn compressed(full: u32, checksums: bool, lz4: bool) -> Self {
        let (dir, path) = new_path();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hook = Arc::clone(&heard);
        let compression = if lz4 { Compression::Lz4 } else { Compression::None };
        let size = if lz4 { LZ4_SEGMENT_SIZE } else { SEGMENT_SIZE };
        let options = Jlog::options()
            .storage(unsynced())
            .segment_size(size)
            .checksums(checksums)
            .compression(compression);
        let log = options.on_event(move |event| hook.lock().push(event.clone())).create(&path).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        let feed = Self { _dir: dir, path, log, heard };
        feed.write(0..full * 5 + 1);
        assert_eq!(feed.log.segments().unwrap(), (0..=full).collect::<Vec<_>>());
        feed
    }

    fn write(&self, numbers: std::ops::Range<u32>) {
        let writer = self.log.writer().unwrap();
        for n in numbers {
            writer.append(format!("{n:010}")).unwrap();
        }
        writer.close().unwrap();
    }

    fn remove(&self, segment: u32, with: &[&str]) {
        remove(&self.path, segment, with);
    }

    fn losses(&self) -> Vec<(String, Lost)> {
        std::mem::take(&mut *self.heard.lock())
            .into_iter()
            .filter_map(|event| match event {
                Event::SegmentsLost { subscriber, lost } => Some((subscriber, lost)),
                _ => None,
            })
            .collect()
    }

    /// The loss of `s`, as every read-only operation reports it.
    fn seen(&self) -> Option<Lost> {
        let status = self.log.status().unwrap();
        let lost = status.subscribers.iter().find(|s| s.name.to_string() == "s").unwrap().lost;
        let found = self.log.verify().unwrap();
        let damage: Vec<_> = found.findings.iter().filter(|finding| finding.damage).collect();
        assert_eq!(damage.is_empty(), lost.is_none(), "{damage:?}");
        assert!(
            damage.iter().all(|finding| finding.what.contains("missing") || finding.what.contains("was cut")),
            "{damage:?}"
        );
        assert_eq!(self.losses(), [], "status and verify tell nobody else");
        lost
    }

    /// Reads everything for `s`. Returns the numbers of the messages and the loss that the reader
    /// reports.
    fn read(&self) -> (Vec<u32>, Option<Lost>) {
        let mut reader = self.log.reader_with("s", shared().on_damage(OnDamage::Skip)).unwrap();
        let got = read_on(&mut reader);
        let numbers = got.iter().map(|m| std::str::from_utf8(&m.body).unwrap().parse().unwrap());
        let reported = self.losses().into_iter().map(|(subscriber, lost)| {
            assert_eq!(subscriber, "s");
            lost
        });
        assert_eq!(reported.reduce(Lost::and), reader.lost(), "what is counted is told");
        (numbers.collect(), reader.lost())
    }
}

fn remove(path: &Path, segment: u32, with: &[&str]) {
    for suffix in std::iter::once(&"").chain(with) {
        std::fs::remove_file(path.join(format!("{segment:08x}{suffix}"))).unwrap();
    }
}

fn one(segment: u32, messages: u64, exact: bool) -> Lost {
    Lost { first: segment, last: segment, segments: 1, cut: 0, messages, exact }
}

/// Whether repair removed an index or checksums that list more than there is, or replaced the
/// checksums.
fn is_about_a_sidecar(event: &Event) -> bool {
    matches!(event, Event::SidecarRemoved { .. } | Event::ChecksumsReplaced { .. })
}
