//! Repairs that fail, are killed, or lose power.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jlog_core::storage::Storage;
use jlog_core::storage::sim::{Dice, SimStorage};
use jlog_core::{Error, Event, Jlog, LogId, OnDamage, ReaderOptions, Start, Wait};
use testkit::faulty::{Fate, Faulty, Op};

use super::{
    EIO, check_messages, check_repaired, check_repaired_but, consume, copy, each_fault, expected, left_over,
    make, message, names, options, posix, read_some, scratch, skipping, template,
};

#[test]
fn a_repair_happens_or_does_not_whichever_call_fails() {
    let (_dir, path) = template();
    let before = names(&posix(), &path);
    let done = std::sync::Mutex::new((0, 0, 0));
    let runs = each_fault(
        &path,
        |storage, path| options(storage).repair(path).map_err(|e| e.to_string()),
        |path, outcome, what| {
            let storage = posix();
            let now = names(&storage, path);
            let happened = now.iter().any(|name| name == "repair.journal");
            let mut counts = done.lock().unwrap();
            match &outcome {
                Ok(_) => counts.0 += 1,
                Err(_) if happened => counts.1 += 1,
                Err(_) => {
                    counts.2 += 1;
                    assert_eq!(now, before, "{what}: {outcome:?} and nothing has changed");
                }
            }
            if outcome.is_ok() {
                assert_eq!(left_over(&now), Vec::<&String>::new(), "{what}");
            }
            // A copy has different inodes, and must be repairable, too.
            let copied = path.with_extension("copy");
            copy(path, &copied);
            check_messages(&storage, path, what);
            let after = names(&storage, path);
            assert_eq!(left_over(&after), Vec::<&String>::new(), "{what}: whoever opens it finishes it");
            check_repaired(&storage, path, what);
            check_repaired(&storage, &copied, &format!("{what}, copied"));
        },
    );
    let (succeeded, finished_later, nothing) = *done.lock().unwrap();
    assert!(runs > 400, "{runs} faults");
    assert!(
        succeeded > 0 && finished_later > 20 && nothing > 100,
        "{succeeded} {finished_later} {nothing} of {runs}"
    );
}

/// Tries the state of the disk after a kill or a power failure at each call that changes it.
#[test]
fn a_repair_happens_or_does_not_whenever_it_is_stopped() {
    let disk = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let path = Path::new("/feed");
    make(&storage, path);
    disk.record();
    options(&storage).repair(path).unwrap();
    let moments = disk.moments();
    assert!(moments.len() > 50, "{} moments", moments.len());
    for (n, moment) in moments.iter().enumerate() {
        for seed in 0..6 {
            let mut dice = Dice::new(1000 * n as u64 + seed);
            let (after, cause) = match seed {
                0 => (moment.after_kill(&mut dice), "killed"),
                _ => (moment.after_power_loss(&mut dice), "power lost"),
            };
            let storage: Arc<dyn Storage> = Arc::new(after);
            let what = format!("{cause} at call {n}, seed {seed}");
            // The next process is a subscriber, a writer, or another repair.
            match (n as u64 + seed) % 3 {
                0 => check_messages(&storage, path, &what),
                1 => drop(options(&storage).open(path).unwrap().writer().unwrap()),
                _ => {}
            }
            // A part of an interrupted write may be left, but only under its temporary name.
            check_repaired(&storage, path, &what);
        }
    }
}

/// A second stop, while a process finishes what the first one has left.
#[test]
fn what_finishes_a_repair_can_be_stopped_too() {
    let disk = SimStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let path = Path::new("/feed");
    make(&storage, path);
    disk.record();
    options(&storage).repair(path).unwrap();
    let mut stopped = 0;
    for (n, moment) in disk.moments().iter().enumerate() {
        let again = moment.after_power_loss(&mut Dice::new(n as u64));
        let storage: Arc<dyn Storage> = Arc::new(again.clone());
        if !names(&storage, path).contains(&"repair.journal".to_owned()) {
            continue;
        }
        again.record();
        options(&storage).open(path).unwrap();
        for (m, moment) in again.moments().iter().enumerate() {
            stopped += 1;
            for seed in 0..2 {
                let mut dice = Dice::new(seed + 7 * m as u64);
                let disk =
                    if seed == 0 { moment.after_kill(&mut dice) } else { moment.after_power_loss(&mut dice) };
                let storage: Arc<dyn Storage> = Arc::new(disk);
                check_repaired(&storage, path, &format!("stopped at {n}, then at {m}, seed {seed}"));
            }
        }
    }
    assert!(stopped > 100, "{stopped}");
}

/// A file system that stops at a call: this call and every later one fail.
fn stopping(when: impl Fn(Op<'_>) -> bool + Send + Sync + 'static) -> Arc<dyn Storage> {
    let stopped = AtomicU64::new(0);
    Faulty::every_call(move |op| {
        if stopped.load(Ordering::Relaxed) == 1 || when(op) {
            stopped.store(1, Ordering::Relaxed);
            return Fate::FailWith(EIO);
        }
        Fate::Proceed
    })
}

/// Stops a repair after it took effect, before it has moved any file.
fn interrupted(path: &Path) {
    let journal = |op: Op<'_>| matches!(op, Op::Rename { .. }) && op.name() == "repair.journal";
    let seen = AtomicU64::new(0);
    let storage = stopping(move |op| {
        seen.load(Ordering::Relaxed) >= 1
            && matches!(op, Op::SyncDir(_))
            && seen.fetch_add(1, Ordering::Relaxed) == 2
            || (journal(op) && {
                seen.store(1, Ordering::Relaxed);
                false
            })
    });
    assert!(options(&storage).repair(path).is_err());
    assert!(path.join("repair.journal").exists());
}

#[test]
fn a_repair_that_was_cut_short_is_finished_by_whoever_opens_the_jlog() {
    let (_dir, template) = template();
    for opener in ["reader", "writer", "verify", "lag", "repair"] {
        let dir = scratch();
        let path = dir.path().join("feed");
        copy(&template, &path);
        // The jlog was opened before.
        let log = Jlog::open(&path).unwrap();
        interrupted(&path);
        match opener {
            "reader" => drop(log.reader("first").unwrap()),
            "writer" => drop(log.writer().unwrap()),
            "verify" => assert!(!Jlog::open(&path).unwrap().verify().unwrap().is_damaged()),
            "lag" => assert_eq!(Jlog::open(&path).unwrap().lag("first").unwrap().messages, 15),
            _ => {
                let done = Jlog::repair(&path).unwrap();
                let segments =
                    done.iter().filter(|event| matches!(event, Event::SegmentRepaired { .. })).count();
                assert_eq!(segments, 2, "it reports what it has finished: {done:?}");
            }
        }
        assert_eq!(left_over(&names(&posix(), &path)), Vec::<&String>::new(), "{opener}");
        check_repaired(&posix(), &path, opener);
    }
}

/// The subscriber stores its checkpoint after the repair took effect and before it is finished.
#[test]
fn a_reader_that_was_open_finishes_a_repair_before_it_stores_anything() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let mut reader = log.reader_with("first", ReaderOptions::default().on_damage(OnDamage::Skip)).unwrap();
    let batch = reader.next_batch(Wait::No).unwrap().unwrap();
    let last = batch.last_id();
    let seen = batch.iter().count();
    interrupted(&path);
    reader.commit(last).unwrap();
    assert_eq!(consume(&log, "first"), expected(0)[seen..]);
    check_repaired_but(&path, "first");
}

#[test]
fn who_may_not_write_hears_that_a_repair_is_not_finished() {
    let (_dir, path) = template();
    interrupted(&path);
    // A read-only file system.
    let storage = Faulty::every_call(|op| if op.changes() { Fate::FailWith(30) } else { Fate::Proceed });
    let error = options(&storage).open(&path).unwrap_err();
    assert!(matches!(error, Error::RepairUnfinished { .. }), "{error}");
    assert!(error.to_string().contains("run `jlog repair`"), "{error}");
    check_repaired(&posix(), &path, "afterwards");
}

#[test]
fn a_damaged_journal_is_kept_aside_and_everything_is_looked_at_again() {
    let (_dir, path) = template();
    interrupted(&path);
    let journal = path.join("repair.journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[30] ^= 4;
    std::fs::write(&journal, &bytes).unwrap();
    let error = Jlog::open(&path).unwrap_err();
    assert!(error.to_string().contains("its journal is damaged"), "{error}");
    check_repaired(&posix(), &path, "with a damaged journal");
    assert_eq!(std::fs::read(path.join("repair.journal.broken-0")).unwrap(), bytes);
}

/// Messages that a C writer appends after the repair took effect and before it is finished are in
/// the old file.
#[test]
fn what_was_appended_since_is_taken_along() {
    let (_dir, path) = template();
    interrupted(&path);
    let segment = path.join("00000002");
    let mut bytes = std::fs::read(&segment).unwrap();
    // An undamaged segment is not replaced, and keeps what is appended. The damaged one before it
    // must not lose it either.
    let damaged = path.join("00000001");
    let mut old = std::fs::read(&damaged).unwrap();
    let record = bytes[..16 + message(12).len()].to_vec();
    old.extend_from_slice(&record);
    bytes.extend_from_slice(&record);
    std::fs::write(&damaged, &old).unwrap();
    std::fs::write(&segment, &bytes).unwrap();
    let log = Jlog::open(&path).unwrap();
    let mut all = expected(0);
    let behind = all.iter().position(|m| *m == message(12)).unwrap();
    all.push(message(12));
    all.insert(behind, message(12));
    assert_eq!(consume(&log, "first"), all);
}

#[test]
fn two_repairs_exclude_each_other_even_without_a_metastore() {
    let (_dir, path) = template();
    std::fs::remove_file(path.join("metastore")).unwrap();
    let (other, outcomes) = (path.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let heard = Arc::clone(&outcomes);
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Rename { .. }) && (op.name() == "repair.journal" || op.name() == "metastore") {
            let outcome = Jlog::repair(&other).map_err(|e| e.to_string());
            heard.lock().unwrap().push(outcome);
        }
        Fate::Proceed
    });
    let done = options(&storage).repair(&path).unwrap();
    assert!(done.iter().any(|event| matches!(event, Event::MetastoreRepaired { .. })), "{done:?}");
    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len(), 2);
    for outcome in outcomes.iter() {
        let error = outcome.as_ref().unwrap_err();
        assert!(error.contains("is being repaired by another process"), "{error}");
    }
    check_repaired(&posix(), &path, "after two");
}

/// The leftovers of a lost segment can only be read with a metastore. They do not keep repair from
/// rebuilding a lost one.
#[test]
fn what_is_left_of_a_lost_segment_stops_no_repair_of_the_metastore() {
    let (_dir, path) = template();
    for name in ["metastore", "00000001"] {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    let done = Jlog::repair(&path).unwrap();
    assert!(done.iter().any(|event| matches!(event, Event::MetastoreRepaired { .. })), "{done:?}");
    assert!(done.iter().any(|event| matches!(event, Event::SegmentsLost { .. })), "{done:?}");
    assert!(!path.join("00000001.crc").exists());
    let left: Vec<String> = expected(0).into_iter().filter(|m| !(6..12).any(|n| *m == message(n))).collect();
    assert_eq!(consume(&Jlog::open(&path).unwrap(), "first"), left);
}

/// The next writer removes what a repair left that was killed before it took effect.
#[test]
fn what_a_killed_repair_has_prepared_is_swept() {
    let (_dir, path) = template();
    for name in [".tmp-repair-1-1", "repair.lock"] {
        std::fs::write(path.join(name), "left").unwrap();
    }
    drop(Jlog::open(&path).unwrap().writer().unwrap());
    assert_eq!(left_over(&names(&posix(), &path)), Vec::<&String>::new());
}

/// Only C processes open segments for writing to read them, and nobody could translate the
/// checkpoints that they store after the repair.
#[test]
fn a_repair_is_refused_while_a_c_process_has_a_damaged_segment_open() {
    let (_dir, path) = template();
    let before = names(&posix(), &path);
    let log = Jlog::open(&path).unwrap();
    let mut ours = log.reader_with("first", skipping()).unwrap();
    let (first, _) = read_some(&mut ours, 1);
    for (number, damaged) in [(0, true), (1, true), (2, false)] {
        let segment = path.join(format!("{number:08x}"));
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
        let copied = path.with_extension(format!("copy {number}"));
        if damaged {
            let error = Jlog::repair(&path).unwrap_err();
            assert!(matches!(&error, Error::InUse { path } if *path == segment), "{error}");
            assert_eq!(names(&posix(), &path), before);
            drop(open);
        } else {
            copy(&path, &copied);
            let _open = std::fs::OpenOptions::new().write(true).open(copied.join("00000002")).unwrap();
            check_repaired(&posix(), &copied, "with a sound segment open");
        }
    }
    let _open = std::fs::OpenOptions::new().write(true).open(path.join("00000001")).unwrap();
    Jlog::options().repair_in_use(true).repair(&path).unwrap();
    check_repaired(&posix(), &path, "all the same");
    assert_eq!(read_some(&mut ours, 99).0, expected(0)[first.len()..]);
}

/// A subscriber that is added during a repair begins at the requested record.
#[test]
fn a_subscriber_that_comes_during_a_repair_begins_at_its_record() {
    let (_dir, path) = template();
    let log = Jlog::open(&path).unwrap();
    let (at, other) = (path.clone(), Arc::new(std::sync::Mutex::new(())));
    // The repair runs after the subscriber's place was found, and before it is added.
    let storage = Faulty::storage(move |op| {
        if matches!(op, Op::Link { .. })
            && op.name().starts_with("cp.")
            && let Ok(_once) = other.try_lock()
        {
            Jlog::repair(&at).unwrap();
        }
        Fate::Proceed
    });
    let after = LogId::new(1, 5);
    options(&storage).open(&path).unwrap().subscribe("new", Start::After(after)).unwrap();
    assert_eq!(consume(&log, "new"), expected(11));
    check_repaired(&posix(), &path, "afterwards");
}
