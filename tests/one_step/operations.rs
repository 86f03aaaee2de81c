//! Every other operation, while each of its calls fails once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jlog_core::{
    AlterOptions, CleanOptions, GroupOptions, Jlog, LogId, Reader, ReaderOptions, Safety, Start, Wait,
    WriterOptions,
};

use super::{consume, each_fault, left_over, message, names, options, posix, scratch};

/// A sound jlog, its messages, and what its subscriber has left to read.
fn sound() -> (tempfile::TempDir, PathBuf) {
    let dir = scratch();
    let path = dir.path().join("feed");
    let log = Jlog::options().segment_size(120).safety(Safety::Safe).create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    for n in 0..8 {
        writer.append(message(n)).unwrap();
    }
    writer.close().unwrap();
    (dir, path)
}

fn check_sound(path: &Path, what: &str) -> Jlog {
    let log = Jlog::open(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = log.verify().unwrap();
    assert!(!found.is_damaged(), "{what}: {:?}", found.findings);
    let names = names(&posix(), path);
    assert_eq!(left_over(&names), Vec::<&String>::new(), "{what}");
    log
}

#[test]
fn nothing_acknowledged_is_lost_whichever_call_of_a_writer_fails() {
    let (_dir, path) = sound();
    for buffer in [0, 64] {
        let runs = each_fault(
            &path,
            move |storage, path| {
                let mut acknowledged = Vec::new();
                let mut synced = false;
                let append = |acknowledged: &mut Vec<String>, synced: &mut bool| -> jlog_core::Result<()> {
                    let log = options(storage).open(path)?;
                    let writer = log.writer_with(WriterOptions::default().pre_commit(buffer))?;
                    for n in 100..106 {
                        writer.append(message(n))?;
                        acknowledged.push(message(n));
                    }
                    writer.sync()?;
                    *synced = true;
                    writer.close()
                };
                let outcome = append(&mut acknowledged, &mut synced).map_err(|e| e.to_string());
                (outcome, acknowledged)
            },
            |path, (outcome, acknowledged), what| {
                // The next writer moves the buffer's contents to a segment.
                Jlog::open(path).unwrap().writer().unwrap().close().unwrap();
                let log = check_sound(path, what);
                let got = consume(&log, "one");
                let mut wanted: Vec<String> = (0..8).map(message).collect();
                wanted.extend(acknowledged);
                let more = got.len() - wanted.len().min(got.len());
                assert_eq!(got[..wanted.len().min(got.len())], wanted, "{what}: {outcome:?}");
                assert!(more <= 1, "{what}: {outcome:?}: {got:?}");
            },
        );
        assert!(runs > 100, "{runs}");
    }
}

#[test]
fn nothing_is_skipped_whichever_call_of_a_reader_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            let mut done = Vec::new();
            let mut attempted = Vec::new();
            let mut kept = None;
            let read = |done: &mut Vec<String>,
                        attempted: &mut Vec<String>,
                        kept: &mut Option<Reader>|
             -> jlog_core::Result<()> {
                let log = options(storage).open(path)?;
                let reader = kept.insert(log.reader_with("one", ReaderOptions::default().batch_bytes(1))?);
                loop {
                    let Some(batch) = reader.next_batch(Wait::No)? else { return Ok(()) };
                    let got: Vec<String> =
                        batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()).collect();
                    let last = batch.last_id();
                    attempted.extend(got.iter().cloned());
                    reader.commit(last)?;
                    done.extend(got);
                }
            };
            let outcome = read(&mut done, &mut attempted, &mut kept).map_err(|e| e.to_string());
            // The first reader is still open, with any locks that it has.
            let rest = consume(&Jlog::open(path).unwrap(), "one");
            (outcome, done, attempted, rest)
        },
        |path, (outcome, done, attempted, rest), what| {
            let all: Vec<String> = (0..8).map(message).collect();
            let done_all = [done, rest.clone()].concat();
            // A checkpoint may have been stored although storing it failed.
            let attempted_all = [attempted, rest].concat();
            assert!(done_all == all || attempted_all == all, "{what}: {outcome:?} {done_all:?}");
            check_sound(path, what);
        },
    );
    assert!(runs > 100, "{runs}");
}

#[test]
fn no_administrative_command_does_harm_whichever_of_its_calls_fails() {
    type Command = fn(&Jlog) -> jlog_core::Result<()>;
    let commands: [(&str, Command); 13] = [
        ("verify", |log| log.verify().map(|_| ())),
        ("clean", |log| log.clean(CleanOptions::default()).map(|_| ())),
        ("clean and roll", |log| log.clean(CleanOptions::default().roll(true)).map(|_| ())),
        ("alter", |log| {
            log.alter(AlterOptions::default().segment_size(4096).pre_commit(512).safety(Safety::AlmostSafe))
        }),
        ("limits", |log| log.set_checksums(false)),
        ("subscribe", |log| log.subscribe("new", Start::Beginning).map(|_| ())),
        ("status", |log| log.status().map(|_| ())),
        ("meta", |log| log.meta().map(|_| ())),
        ("inspect", |log| log.inspect(0, |_| ()).map(|_| ())),
        ("unsubscribe", |log| log.unsubscribe("two").map(|_| ())),
        ("seek", |log| log.set_checkpoint("two", LogId::new(1, 1))),
        ("cat", |log| {
            let mut reader = log.reader_from(&Start::Beginning, ReaderOptions::default())?;
            let mut got = Vec::new();
            while let Some(batch) = reader.next_batch(Wait::No)? {
                got.extend(batch.iter().map(|m| String::from_utf8_lossy(m.body()).into_owned()));
            }
            assert_eq!(got, (0..8).map(message).collect::<Vec<_>>(), "it ends without an error");
            Ok(())
        }),
        ("work", |log| {
            let mut group = log.group("two", GroupOptions::default())?;
            for leased in group.lease(100, Wait::No)? {
                assert!(group.acknowledge(leased.lease())?);
            }
            Ok(())
        }),
    ];
    let (_dir, path) = sound();
    Jlog::open(&path).unwrap().subscribe("two", Start::Beginning).unwrap();
    for (name, command) in commands {
        let runs = each_fault(
            &path,
            move |storage, path| {
                let outcome = options(storage).open(path).and_then(|log| command(&log));
                outcome.map_err(|e| e.to_string())
            },
            |path, outcome, what| {
                let what = format!("{name}: {what}: {outcome:?}");
                let log = check_sound(path, &what);
                let all: Vec<String> = (0..8).map(message).collect();
                assert_eq!(consume(&log, "one"), all, "{what}");
                let two = log.has_subscriber("two").unwrap().then(|| consume(&log, "two"));
                match name {
                    "unsubscribe" => {
                        assert!(two.is_none() || outcome.is_err(), "{what}");
                        assert!(two.is_none_or(|two| two == all), "{what}");
                    }
                    "seek" => {
                        let two = two.unwrap();
                        assert!(two == all[5..] || outcome.is_err() && two == all, "{what}: {two:?}");
                    }
                    // What was not acknowledged is delivered again.
                    "work" => {
                        let two = two.unwrap();
                        assert!(
                            all.ends_with(&two) && (outcome.is_err() || two.is_empty()),
                            "{what}: {two:?}"
                        );
                    }
                    _ => assert_eq!(two, Some(all), "{what}"),
                }
                if name == "subscribe" {
                    let ids: BTreeMap<String, Option<LogId>> =
                        log.checkpoints().unwrap().into_iter().map(|(n, id)| (n.to_string(), id)).collect();
                    assert!(ids.get("new").is_none_or(|id| *id == Some(LogId::new(0, 0))), "{what}");
                    assert!(outcome.is_err() || ids.contains_key("new"), "{what}");
                }
                log.writer().unwrap().append("more").unwrap();
                assert_eq!(consume(&log, "one").last().map(String::as_str), Some("more"), "{what}");
            },
        );
        assert!(runs > 8, "{name}: {runs}");
    }
}

/// A jlog that is created exists and is sound, or nothing is left of it that keeps another attempt
/// from creating it.
#[test]
fn a_jlog_is_created_or_can_be_created_again_whichever_call_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            options(storage).create(path.with_file_name("new")).map(drop).map_err(|e| e.to_string())
        },
        |path, outcome, what| {
            let new = path.with_file_name("new");
            let log = match outcome {
                Ok(()) => Jlog::open(&new).unwrap_or_else(|e| panic!("{what}: {e}")),
                Err(_) => Jlog::create_or_open(&new).unwrap_or_else(|e| panic!("{what}: {e}")),
            };
            log.subscribe("s", Start::Beginning).unwrap();
            log.writer().unwrap().append("first").unwrap();
            assert_eq!(consume(&log, "s"), ["first"], "{what}");
            check_sound(&new, what);
        },
    );
    assert!(runs > 8, "{runs}");
}

/// A copy is whole, or does not exist; and the jlog that is copied stays as it is.
#[test]
fn a_copy_is_whole_or_does_not_exist_whichever_call_fails() {
    let (_dir, path) = sound();
    let runs = each_fault(
        &path,
        |storage, path| {
            let log = options(storage).open(path).map_err(|e| e.to_string())?;
            log.backup(path.with_file_name("copy")).map(drop).map_err(|e| e.to_string())
        },
        |path, outcome, what| {
            let all: Vec<String> = (0..8).map(message).collect();
            let copy = path.with_file_name("copy");
            assert!(outcome.is_err() || copy.exists(), "{what}");
            if copy.exists() {
                assert_eq!(consume(&check_sound(&copy, what), "one"), all, "{what}: {outcome:?}");
            }
            let log = check_sound(path, what);
            assert_eq!(consume(&log, "one"), all, "{what}");
            // A copy that succeeds leaves the next one nothing to tidy up.
            let _ = std::fs::remove_dir_all(&copy);
            log.backup(&copy).unwrap_or_else(|e| panic!("{what}: {e}"));
            let dir: Vec<_> =
                std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(dir.len(), 2, "{what}: {dir:?}");
        },
    );
    assert!(runs > 50, "{runs}");
}
