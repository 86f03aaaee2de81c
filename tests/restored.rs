//! A backup restored over a newer feed: leftovers of the newer one are never mixed with the
//! messages that follow.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jlog_core::{Event, Jlog, Start};

use testkit::feeds::{bodies, names_with, new_path, read_all, snapshot};

/// How a backup's files replace those of a feed.
#[derive(Clone, Copy, Debug)]
enum How {
    /// Their contents are overwritten, as `cp` does.
    Into,
    /// The files themselves are replaced, as `rsync` and `tar` do.
    InPlaceOf,
}

fn restore(backup: &BTreeMap<OsString, Vec<u8>>, to: &Path, how: How) {
    let changed = |path: &Path| {
        let facts = std::fs::metadata(path).unwrap();
        (facts.ctime(), facts.ctime_nsec())
    };
    let newest = std::fs::read_dir(to).unwrap().map(|entry| changed(&entry.unwrap().path())).max().unwrap();
    for (name, bytes) in backup {
        let path = to.join(name);
        // Wait for the next tick of the file system's clock.
        loop {
            match how {
                How::Into => std::fs::write(&path, bytes).unwrap(),
                How::InPlaceOf => {
                    let temporary = to.join("restored");
                    std::fs::write(&temporary, bytes).unwrap();
                    std::fs::rename(temporary, &path).unwrap();
                }
            }
            if changed(&path) > newest {
                break;
            }
        }
    }
}

fn message(prefix: &str, n: u32) -> String {
    format!("{prefix} {n:04} {}", "x".repeat(40))
}

fn append(log: &Jlog, prefix: &str, from: u32, to: u32) {
    let writer = log.writer().unwrap();
    for n in from..to {
        writer.append(message(prefix, n)).unwrap();
    }
    writer.close().unwrap();
}

fn expected(restored: u32, then: u32) -> Vec<String> {
    let kept = (0..restored).map(|n| message("old", n));
    kept.chain((restored..then).map(|n| message("again", n))).collect()
}

fn check(log: &Jlog, expected: &[String]) {
    let got = read_all(log);
    let expected: Vec<&[u8]> = expected.iter().map(String::as_bytes).collect();
    assert_eq!(bodies(&got), expected);
    let verification = log.verify().unwrap();
    assert!(!verification.is_damaged(), "{:?}", verification.findings);
}

#[test]
fn what_is_left_of_a_newer_feed_is_set_aside() {
    for how in [How::Into, How::InPlaceOf] {
        for (by_repair, open_meanwhile) in [(false, false), (true, false), (false, true)] {
            let (_dir, path) = new_path();
            let log = Jlog::options().segment_size(1000).create(&path).unwrap();
            log.subscribe("one", Start::Beginning).unwrap();
            append(&log, "old", 0, 40);
            let backup = snapshot(&path);
            append(&log, "old", 40, 100);
            let open = open_meanwhile.then(|| log.writer().unwrap());
            restore(&backup, &path, how);
            if by_repair {
                let done = Jlog::repair(&path).unwrap();
                assert!(done.iter().all(|event| matches!(event, Event::StaleSegment { .. })), "{done:?}");
                assert!(!done.is_empty());
                check(&log, &expected(40, 40));
            }
            match open {
                // The metastore may still be the one that the writer has open.
                Some(writer) => {
                    for n in 40..200 {
                        if writer.append(message("again", n)).is_err() {
                            assert!(matches!(how, How::InPlaceOf), "{how:?}");
                            drop(writer);
                            append(&log, "again", n, 200);
                            break;
                        }
                    }
                }
                None => append(&log, "again", 40, 200),
            }
            check(&log, &expected(40, 200));
            assert!(names_with(&path, ".stale-").len() >= 3, "{how:?}: {:?}", names_with(&path, ""));
        }
    }
}

#[test]
fn what_is_left_behind_a_gap_is_set_aside() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(1000).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    append(&log, "old", 0, 40);
    let backup = snapshot(&path);
    append(&log, "old", 40, 200);
    // Most segments that came after the backup have been read and removed.
    let mut reader = log.reader("one").unwrap();
    let mut last = None;
    while let Some(batch) = reader.next_batch(jlog_core::Wait::No).unwrap() {
        last = Some(batch.last_id());
    }
    reader.commit(last.unwrap()).unwrap();
    append(&log, "old", 200, 220);
    restore(&backup, &path, How::Into);
    append(&log, "again", 40, 400);
    check(&log, &expected(40, 400));
    assert!(!names_with(&path, ".stale-").is_empty());
}

#[test]
fn segments_that_follow_a_full_one_are_adopted() {
    let (_dir, path) = new_path();
    let log = Jlog::options().segment_size(1000).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    append(&log, "old", 0, 100);
    // A power failure can leave this state: the metastore is older than the segments.
    let mut metastore = std::fs::read(path.join("metastore")).unwrap();
    metastore[0] = 1;
    std::fs::write(path.join("metastore"), metastore).unwrap();
    append(&log, "again", 100, 110);
    check(&log, &expected(100, 110));
    assert!(names_with(&path, ".stale-").is_empty());
}
