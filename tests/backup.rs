//! Copies of feeds that are in use: their contents, and the leftovers of a failed one.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jlog_core::{CleanOptions, Compression, Error, Jlog, LogId, Start, Wait, WriterOptions};

use testkit::feeds::{bodies, consume, copy_dir, golden_dir, new_path, read_all};

fn message(n: usize) -> String {
    format!("message {n:06}")
}

/// The leftovers of unfinished backups in a directory.
fn unfinished(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).filter(|name| name.starts_with('.')).collect()
}

/// While two writers and a reader work on many segments, each copy is sound, is a prefix of the
/// feed without a gap, and has at least what was readable when it began. Its subscribers read what
/// they had not read.
#[test]
fn a_feed_in_use_is_copied_whole() {
    for compression in [Compression::None, Compression::Lz4] {
        let (dir, path) = new_path();
        let log = Jlog::options().segment_size(32 << 10).compression(compression).create(&path).unwrap();
        log.subscribe("fast", Start::Beginning).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A failed assertion ends the other threads as well.
            let _ends = SetOnDrop(&stop);
            for which in ["a", "b"] {
                let (log, stop) = (&log, &stop);
                scope.spawn(move || {
                    let writer = log.writer().unwrap();
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        writer.append(format!("{which} {}", message(n))).unwrap();
                        n += 1;
                        // Copies take longer than messages: the feed must not grow without bounds.
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    writer.close().unwrap();
                });
            }
            scope.spawn(|| {
                let mut reader = log.reader("fast").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    if let Some(batch) = reader.next_batch(Wait::No).unwrap() {
                        let last = batch.last_id();
                        reader.commit(last).unwrap();
                    }
                }
            });
            for round in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                let readable = log.end().unwrap();
                let to = dir.path().join(format!("copy {round}"));
                let copied = log.backup(&to).unwrap();
                assert!(copied.end >= readable, "{:?} {readable}", copied.end);
                let copy = Jlog::open(&to).unwrap();
                assert_eq!(copy.end().unwrap(), copied.end);
                assert!(!copy.verify().unwrap().is_damaged());
                assert_eq!(copy.subscribers().unwrap().len(), 1);
                let checkpoint = copy.checkpoint("fast").unwrap();
                let got = consume(&copy, "fast");
                // Up to the end, there is no gap in each writer's messages, and none in the ids.
                let mut next = [None, None];
                let mut last = checkpoint;
                for one in &got {
                    assert!(follows(one.id, last), "{last} {}", one.id);
                    last = one.id;
                    let text = String::from_utf8(one.body.clone()).unwrap();
                    let (which, rest) = text.split_once(' ').unwrap();
                    let n: usize = rest.strip_prefix("message ").unwrap().parse().unwrap();
                    let next = &mut next[usize::from(which == "b")];
                    assert!(next.is_none_or(|next| n == next), "{text}");
                    *next = Some(n + 1);
                }
                // A segment that was just begun has no message yet.
                let end = copied.end.max(checkpoint);
                let at_end = last == end || (end.marker == 0 && follows(LogId { marker: 1, ..end }, last));
                assert!(at_end, "{last} {end}");
            }
        });
        assert_eq!(log.subscribers().unwrap().len(), 1, "the backup's own subscriber is gone");
        assert_eq!(unfinished(dir.path()), Vec::<String>::new());
    }
}

/// Tells the threads to end, however the scope is left.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether an id is the one after another, in a feed without gaps.
fn follows(id: LogId, last: LogId) -> bool {
    (id.segment == last.segment && id.marker == last.marker + 1)
        || (id.segment > last.segment && id.marker == 1)
}

/// The copy has the messages that a killed writer left in the buffer. Appending to the copy does
/// not change the feed, and the two are different feeds.
#[test]
fn a_copy_is_a_feed_of_its_own() {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    let writer = log.writer_with(WriterOptions::default().pre_commit(1 << 16)).unwrap();
    writer.append("one").unwrap();
    writer.flush().unwrap();
    writer.append("two").unwrap();
    // The state that a killed process leaves: the buffer keeps its messages.
    let killed = dir.path().join("killed");
    copy_dir(&path, &killed);
    let to = dir.path().join("copy");
    Jlog::open(&killed).unwrap().backup(&to).unwrap();
    let copy = Jlog::open(&to).unwrap();
    assert_eq!(bodies(&consume(&copy, "a")), [&b"one"[..], b"two"]);
    copy.writer().unwrap().append("three").unwrap();
    assert_eq!(bodies(&read_all(&Jlog::open(&killed).unwrap())), [&b"one"[..], b"two"]);
    let identity = |path: &Path| std::fs::read(path.join("identity")).unwrap();
    assert_ne!(identity(&to), identity(&killed));
}

/// Feeds of the C library, in every format.
#[test]
fn golden_directories_are_copied() {
    let Some(golden) = golden_dir() else { return };
    let mut tried = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let from = entry.unwrap().path().join("jlog");
        if !from.is_dir() {
            continue;
        }
        let (dir, path) = new_path();
        copy_dir(&from, &path);
        let to = dir.path().join("copy");
        let Ok(log) = Jlog::open(&path) else { continue };
        // A feed that cannot be written is refused with advice, and leaves no files.
        match log.backup(&to) {
            Ok(_) => {
                let copy = Jlog::open(&to).unwrap();
                let (verified, original) = (copy.verify().unwrap(), log.verify().unwrap());
                assert_eq!(verified.records, original.records, "{}", from.display());
                assert_eq!(verified.is_damaged(), original.is_damaged(), "{}", from.display());
                if !original.is_damaged() {
                    assert_eq!(bodies(&read_all(&copy)), bodies(&read_all(&log)), "{}", from.display());
                }
                for name in log.subscribers().unwrap() {
                    if name.is_temporary() {
                        assert!(!copy.has_subscriber(&name).unwrap());
                        continue;
                    }
                    assert_eq!(copy.checkpoint(&name).ok(), log.checkpoint(&name).ok(), "{name:?}");
                }
                tried += 1;
            }
            Err(e) => {
                assert!(!to.exists(), "{e}");
                assert_eq!(unfinished(dir.path()), Vec::<String>::new());
            }
        }
    }
    assert!(tried >= 5, "only {tried} were copied");
}

/// A copy over something that exists, inside the feed, or in a directory that cannot be written is
/// refused, and leaves no files.
#[test]
fn what_cannot_be_copied_leaves_nothing() {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.writer().unwrap().append("one").unwrap();
    let there = dir.path().join("there");
    std::fs::write(&there, "something").unwrap();
    assert!(matches!(log.backup(&there), Err(Error::AlreadyExists { .. })));
    assert_eq!(std::fs::read(&there).unwrap(), b"something");
    assert!(matches!(log.backup(path.join("inside")), Err(Error::AlreadyExists { .. })));
    assert!(matches!(log.backup(&path), Err(Error::AlreadyExists { .. })));
    assert!(matches!(log.backup(dir.path().join("no/such")), Err(Error::Io { .. })));
    // A segment that is a directory cannot be read.
    let broken = dir.path().join("broken");
    copy_dir(&path, &broken);
    let log = Jlog::open(&broken).unwrap();
    std::fs::remove_file(broken.join("00000000")).unwrap();
    std::fs::create_dir(broken.join("00000000")).unwrap();
    log.backup(dir.path().join("copy")).unwrap_err();
    assert_eq!(unfinished(dir.path()), Vec::<String>::new());
    assert!(!dir.path().join("copy").exists());
    assert_eq!(log.subscribers().unwrap(), []);
}

/// The leftovers of a killed backup retain segments only until the next backup or the next clean.
#[test]
fn the_holder_of_a_killed_backup_goes() {
    let (dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("a", Start::Beginning).unwrap();
    for clean in [true, false] {
        log.subscribe("jlog-backup-1-00000000", Start::Beginning).unwrap();
        if clean {
            log.clean(CleanOptions::default()).unwrap();
        } else {
            log.backup(dir.path().join("copy")).unwrap();
        }
        assert_eq!(log.subscribers().unwrap().len(), 1, "{clean}");
    }
    let copy = dir.path().join("copy");
    assert_eq!(Jlog::open(&copy).unwrap().subscribers().unwrap().len(), 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copy.join("metastore")), mode(&path.join("metastore")));
}

/// A file may have been replaced by a link, or by something that never ends.
#[test]
fn links_and_pipes_are_not_copied() {
    for name in ["dropped", "lost", "00000000.crc"] {
        for link in [true, false] {
            let (dir, path) = new_path();
            let log = Jlog::create(&path).unwrap();
            log.writer().unwrap().append("one").unwrap();
            let (at, to) = (path.join(name), dir.path().join("copy"));
            // Only some of them exist already.
            let _ = std::fs::remove_file(&at);
            if link {
                std::fs::write(dir.path().join("secret"), "secret").unwrap();
                std::os::unix::fs::symlink(dir.path().join("secret"), &at).unwrap();
            } else {
                assert!(std::process::Command::new("mkfifo").arg(&at).status().unwrap().success());
            }
            let refused = log.backup(&to).unwrap_err();
            assert!(matches!(&refused, Error::NotAFile { path, .. } if *path == at), "{name}: {refused}");
            assert!(!to.exists() && unfinished(dir.path()).is_empty(), "{name}");
        }
    }
}
