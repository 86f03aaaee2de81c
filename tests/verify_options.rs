//! Verification by several threads: progress and cancelling.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jlog_core::{Error, Jlog, Progress, Start, VerifyOptions};
use parking_lot::Mutex;
use tempfile::TempDir;

use testkit::feeds::{copy_dir, new_path, snapshot, unsynced};

/// Twenty segments of about 100 KiB and one that is being written.
fn feed() -> (TempDir, PathBuf, Jlog) {
    let (dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).segment_size(100 << 10).create(&path).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    while writer.segment() < 20 {
        writer.append(vec![b'x'; 1000]).unwrap();
    }
    writer.close().unwrap();
    (dir, path, log)
}

fn threads(n: usize) -> VerifyOptions {
    VerifyOptions::default().threads(NonZeroUsize::new(n).unwrap())
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let (_dir, path, log) = feed();
    for segment in [3u32, 4, 9, 17] {
        let file = path.join(format!("{segment:08x}"));
        let mut bytes = std::fs::read(&file).unwrap();
        for at in [0, 50, 99] {
            bytes[1016 * at + 500] ^= 1;
        }
        std::fs::write(&file, bytes).unwrap();
    }
    std::fs::remove_file(path.join("0000000c")).unwrap();
    let before = snapshot(&path);
    let alone = log.verify().unwrap();
    assert_eq!(alone.findings.iter().filter(|finding| finding.damage).count(), 4 * 3 + 1);
    assert_eq!(alone.segments, 20);
    for n in [1, 2, 3, 64] {
        let found = log.verify_with(&threads(n)).unwrap();
        assert_eq!(found.findings, alone.findings, "{n} threads, in the same order");
        assert_eq!(
            (found.segments, found.records, found.verified, found.bytes),
            (alone.segments, alone.records, alone.verified, alone.bytes)
        );
    }
    assert!(snapshot(&path) == before);
}

#[test]
fn progress_grows_to_the_whole() {
    let (_dir, _path, log) = feed();
    for n in [1, 3] {
        let seen: Arc<Mutex<Vec<Progress>>> = Arc::default();
        let hook = Arc::clone(&seen);
        let options = threads(n).on_progress(move |progress| {
            hook.lock().push(progress);
            ControlFlow::Continue(())
        });
        let found = log.verify_with(&options).unwrap();
        let seen = seen.lock();
        for progress in &*seen {
            assert_eq!((progress.total_bytes, progress.total_segments), (found.bytes, found.segments));
            assert!(progress.bytes <= found.bytes && progress.segments <= found.segments);
        }
        if n == 1 {
            assert!(seen.is_sorted_by_key(|progress| (progress.bytes, progress.segments)));
        }
        let most = seen.iter().max_by_key(|progress| (progress.bytes, progress.segments)).unwrap();
        assert_eq!((most.bytes, most.segments), (found.bytes, found.segments));
        assert!(seen.len() >= 21);
    }
}

#[test]
fn it_can_be_cancelled_at_any_moment() {
    let (_dir, path, log) = feed();
    let before = snapshot(&path);
    for n in [1, 3] {
        for after in [0, 1, 7, 20] {
            let calls = Arc::new(AtomicU64::new(0));
            let hook = Arc::clone(&calls);
            let options = threads(n).on_progress(move |_| {
                // Once is enough.
                if hook.fetch_add(1, Ordering::Relaxed) == after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            let outcome = log.verify_with(&options);
            assert!(matches!(&outcome, Err(Error::Cancelled { path: of }) if *of == path), "{outcome:?}");
            assert!(calls.load(Ordering::Relaxed) <= after + 1 + n as u64, "nothing further is begun");
        }
    }
    assert!(snapshot(&path) == before);
    assert!(!log.verify().unwrap().is_damaged());
}

/// A segment full of damage costs no memory: the damaged places are counted, not listed.
#[test]
fn findings_are_bounded() {
    let (_dir, path) = new_path();
    let log = Jlog::options().storage(unsynced()).checksums(false).create(&path).unwrap();
    let writer = log.writer().unwrap();
    writer.append_batch(&vec![[b'x'; 4]; 5000]).unwrap();
    writer.close().unwrap();
    let file = path.join("00000000");
    let mut bytes = std::fs::read(&file).unwrap();
    for record in bytes.chunks_exact_mut(20).skip(1).step_by(3) {
        record[0] ^= 1;
    }
    std::fs::write(&file, bytes).unwrap();
    let found = log.verify().unwrap();
    assert!(found.is_damaged());
    assert_eq!(found.findings.len(), 1001);
    let last = &found.findings[1000].what;
    assert!(last.ends_with(" more damaged places"), "{last}");
    let more: u64 = last.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(more + 1000, 5000 / 3 + 1);
}

/// Repair first checks everything, and can be cancelled until then. It does the same with any
/// number of threads.
#[test]
fn repair_by_any_number_of_threads_does_the_same() {
    let (_dir, path, log) = feed();
    for segment in [3u32, 17] {
        let file = path.join(format!("{segment:08x}"));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[1016 * 50 + 500] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let records = log.verify().unwrap().records;
    let before = snapshot(&path);
    for after in [0, 5, 20] {
        let calls = AtomicU64::new(0);
        let options = threads(2).on_progress(move |_| {
            if calls.fetch_add(1, Ordering::Relaxed) < after {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let outcome = Jlog::options().storage(unsynced()).repair_with(&path, &options);
        assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
        assert!(snapshot(&path) == before, "cancelled after {after} calls");
    }
    let mut done: Vec<(usize, Vec<String>)> = Vec::new();
    for n in [1, 3] {
        let (_copy_dir, copy) = new_path();
        copy_dir(&path, &copy);
        let events = Jlog::options().storage(unsynced()).repair_with(&copy, &threads(n)).unwrap();
        let texts = events.iter().map(|e| e.to_string().replace(copy.to_str().unwrap(), "")).collect();
        done.push((events.len(), texts));
        let repaired = Jlog::open(&copy).unwrap();
        let found = repaired.verify().unwrap();
        assert!(!found.is_damaged(), "{found:?}");
        assert_eq!(found.records, records, "every intact record stays");
    }
    assert_eq!(done[0], done[1]);
    assert_eq!(done[0].0, 2);
}

#[test]
fn segments_inspected_together_are_those_inspected_alone() {
    let (_dir, path, log) = feed();
    let segments = log.segments().unwrap();
    let alone: Vec<_> = segments.iter().map(|&segment| log.inspect(segment, |_| {}).unwrap()).collect();
    assert!(alone.iter().all(|found| found.records > 0 || found.segment == 20));
    for n in [1, 4] {
        assert_eq!(log.inspect_all(&segments, &threads(n)).unwrap(), alone, "{n} threads");
    }
    std::fs::remove_file(path.join("00000007")).unwrap();
    let left: Vec<_> = alone.into_iter().filter(|found| found.segment != 7).collect();
    assert_eq!(log.inspect_all(&segments, &threads(2)).unwrap(), left, "one was removed meanwhile");
}
