//! Pre-commit buffers.

use std::os::unix::fs::FileExt;

use jlog_core::storage::{Posix, Storage};
use jlog_core::{Event, Jlog, Timestamp};

use super::{Guard, Made, Message, TIME, expect, fingerprint, record, records, works_on};

/// Opens a writer for a buffer that has exactly the messages `left` after recovery: opening flushes
/// them, and nothing has to be written first. Before that, segment `to.0` must have `to.1` records.
#[track_caller]
fn buffer_is_flushed(
    made: &Made,
    expected: &[Event],
    there: &[Message<'_>],
    left: &[&str],
    to: (u32, u32),
) -> Jlog {
    let log = made.open();
    let writer = log.writer().unwrap();
    assert_eq!(log.take_events(), expected);
    let mut now = there.to_vec();
    now.extend((to.1 + 1..).zip(left).map(|(marker, body)| (to.0, marker, *body)));
    expect(&log, &now);
    assert_eq!(made.read("pre_commit")[..4], [0; 4]);
    writer.flush().unwrap();
    assert_eq!(log.take_events(), []);
    expect(&log, &now);
    writer.close().unwrap();
    let marker = to.1 + u32::try_from(left.len()).unwrap() + 1;
    works_on(&log, &now, (to.0, marker));
    log
}

fn recovered(bodies: &[&str]) -> Event {
    let bytes = records(bodies).len() as u64;
    Event::BufferRecovered { records: u32::try_from(bodies.len()).unwrap(), bytes }
}

/// "they are flushed at once"
#[test]
fn buffer_with_whole_records() {
    let left = ["b", "", "c"];
    let fits = Guard { fingerprint: fingerprint(&left), ..Guard::default() };
    for guard in [None, Some(fits)] {
        let mut made = Made::new(0).segment(0, record("a")).buffer(&records(&left));
        if let Some(guard) = guard {
            made = made.guard(guard);
        }
        let bytes = made.read("00000000");
        let log = made.open();
        drop(log);
        assert_eq!(made.read("00000000"), bytes, "opening to read flushes nothing");
        buffer_is_flushed(&made, &[recovered(&left)], &[(0, 1, "a")], &left, (0, 1));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// "it is kept, then truncated"
#[test]
fn buffer_with_an_unfinished_record() {
    let torn = record("never finished");
    for cut in [1, 15, 16, torn.len() - 1] {
        for left in [&["b", "c"][..], &[]] {
            let whole = records(left);
            let held = [&whole, &torn[..cut]].concat();
            let made = Made::new(0).segment(0, record("a")).buffer(&held);
            let name = format!("pre_commit.broken-{}", whole.len());
            let kept = made.path.join(&name);
            let mut events = vec![Event::BufferTruncated { len: cut as u64, kept }];
            events.extend((!left.is_empty()).then(|| recovered(left)));
            buffer_is_flushed(&made, &events, &[(0, 1, "a")], left, (0, 1));
            assert_eq!(made.read(&name), torn[..cut]);
            assert_eq!(made.broken(), [name]);
        }
    }
}

/// "the damage is kept, the records around it are flushed"
#[test]
fn buffer_damaged_in_the_middle() {
    let held = ["b", "cc", "ddd", "e"];
    for guarded in [false, true] {
        let mut bytes = records(&held);
        bytes[17..17 + 16].fill(0);
        let damage = bytes[17..17 + 18].to_vec();
        let mut made = Made::new(0).segment(0, record("a")).buffer(&bytes);
        if guarded {
            made = made.guard(Guard { fingerprint: fingerprint(&held), ..Guard::default() });
        }
        let left = ["b", "ddd", "e"];
        let kept = made.path.join("pre_commit.broken-17");
        let events = [Event::BufferTruncated { len: 18, kept }, recovered(&left)];
        buffer_is_flushed(&made, &events, &[(0, 1, "a")], &left, (0, 1));
        assert_eq!(made.read("pre_commit.broken-17"), damage);
        assert_eq!(made.broken(), ["pre_commit.broken-17"]);
    }
}

/// "what reached the segment is not written again", however much that is
#[test]
fn flush_that_was_cut_short() {
    const HELD: [&str; 3] = ["b", "cc", "ddd"];
    let flushed = records(&HELD);
    for reached in 0..=flushed.len() {
        let made = Made::new(0)
            .segment(0, [&record("a"), &flushed[..reached]].concat())
            .buffer(&flushed)
            .guard(Guard::flushing(&HELD, 0, 17, 1));
        let whole = (1..=3).take_while(|&n| records(&HELD[..n]).len() <= reached).count();
        let end = 17 + records(&HELD[..whole]).len();
        let torn = 17 + reached - end;
        let name = format!("00000000.broken-{end}");
        let mut events = Vec::new();
        if torn > 0 {
            let kept = made.path.join(&name);
            events.push(Event::TailTruncated { segment: 0, offset: end as u64, len: torn as u64, kept });
        }
        let records_there = u32::try_from(whole).unwrap();
        events.extend((whole > 0).then_some(Event::BufferAlreadyFlushed { records: records_there }));
        events.extend((whole < 3).then(|| recovered(&HELD[whole..])));
        let mut there = vec![(0, 1, "a")];
        there.extend((2..).zip(HELD).take(whole).map(|(marker, body)| (0, marker, body)));
        buffer_is_flushed(&made, &events, &there, &HELD[whole..], (0, 1 + records_there));
        if torn > 0 {
            assert_eq!(made.read(&name), flushed[reached - torn..reached]);
        }
        assert_eq!(made.broken().len(), usize::from(torn > 0));
    }
}

/// "written again, unless it is known to have been written"
#[test]
fn flush_to_a_segment_that_is_gone() {
    let held = ["b", "c"];
    for (state, left) in [(1, &held[..]), (2, &[])] {
        let made = Made::new(1)
            .segment(1, record("x"))
            .checkpoint(1, 0)
            .buffer(&records(&held))
            .guard(Guard::flushing(&held, 0, 17, state));
        let event = if state == 1 { recovered(&held) } else { Event::BufferAlreadyFlushed { records: 2 } };
        buffer_is_flushed(&made, &[event], &[(1, 1, "x")], left, (1, 1));
        assert_eq!(made.broken(), [""; 0]);
    }
}

/// "as if the machine had gone on"
#[test]
fn buffer_that_survived_the_machine() {
    let held = ["b", "c"];
    let boot = Posix.boot_id() ^ 1;
    // Nothing was being flushed.
    let made = Made::new(0).segment(0, record("a")).buffer(&records(&held)).guard(Guard {
        boot,
        fingerprint: fingerprint(&held),
        ..Guard::default()
    });
    buffer_is_flushed(&made, &[recovered(&held)], &[(0, 1, "a")], &held, (0, 1));
    assert_eq!(made.broken(), [""; 0]);
    // The counter points between two records: the fingerprint shows where they end.
    let made = Made::new(0).segment(0, record("a")).buffer(&records(&held)[..33]).guard(Guard {
        boot,
        fingerprint: fingerprint(&["b"]),
        ..Guard::default()
    });
    buffer_is_flushed(&made, &[recovered(&["b"])], &[(0, 1, "a")], &["b"], (0, 1));
    assert_eq!(made.broken(), [""; 0]);
    // One record of the flush had reached the segment.
    let made = Made::new(0)
        .segment(0, records(&["a", "b"]))
        .buffer(&records(&held))
        .guard(Guard { boot, ..Guard::flushing(&held, 0, 17, 1) });
    let events = [Event::BufferAlreadyFlushed { records: 1 }, recovered(&["c"])];
    buffer_is_flushed(&made, &events, &[(0, 1, "a"), (0, 2, "b")], &["c"], (0, 2));
    assert_eq!(made.broken(), [""; 0]);
}

/// "it is kept in a file: some of its pages may be older than others"
#[test]
fn buffer_that_did_not_survive_the_machine() {
    let held = ["b", "c"];
    let boot = Posix.boot_id() ^ 1;
    let mut torn = records(&held);
    torn.pop();
    let guard = Guard { boot, ..Guard::default() };
    let states = [
        ("other records than were put in it", records(&held), fingerprint(&["b", "d"])),
        ("no fingerprint was kept", records(&held), 0),
        ("one of more records", records(&held), fingerprint(&["b", "c", "d"])),
        ("one of fewer records", records(&held), fingerprint(&["b"])),
        ("the last one is not whole", torn, fingerprint(&held)),
        ("nothing that it was", vec![0; 100], fingerprint(&held)),
    ];
    for (what, bytes, fingerprint) in states {
        let made = Made::new(0).segment(0, record("a")).buffer(&bytes).guard(Guard { fingerprint, ..guard });
        let kept = made.path.join("pre_commit.broken-0");
        let events = [Event::BufferSetAside { len: bytes.len() as u64, kept }];
        buffer_is_flushed(&made, &events, &[(0, 1, "a")], &[], (0, 1));
        assert_eq!(made.read("pre_commit.broken-0"), bytes, "{what}");
        assert_eq!(made.broken(), ["pre_commit.broken-0"], "{what}");
    }
}

/// "its records are taken as that library takes them"
#[test]
fn buffer_used_by_the_c_library() {
    let held = ["x", "y"];
    let bytes = records(&held);
    // Our writer's guard describes records that no longer exist.
    let old = ["b", "c"];
    let states = [
        ("it flushed as many bytes", Guard::flushing(&old, 0, 0, 1)),
        ("and said that they were written", Guard::flushing(&old, 0, 0, 2)),
        (
            "a part of it was in a segment",
            Guard { done: 17, done_fingerprint: fingerprint(&["b"]), ..Guard::default() },
        ),
        (
            "it was closed before the machine stopped",
            Guard { open: 0, boot: Posix.boot_id() ^ 1, ..Guard::default() },
        ),
    ];
    for (what, guard) in states {
        let made = Made::new(0).segment(0, records(&old)).buffer(&bytes).guard(guard);
        buffer_is_flushed(&made, &[recovered(&held)], &[(0, 1, "b"), (0, 2, "c")], &held, (0, 2));
        assert_eq!(made.broken(), [""; 0], "{what}");
    }
    // The buffer was flushed and filled again while our writer had it open.
    let made = Made::new(0).segment(0, record("a")).buffer(&[]);
    let log = made.open();
    let writer = log.writer().unwrap();
    writer.append_at(Timestamp { seconds: TIME, micros: 5 }, "b").unwrap();
    let segment = std::fs::OpenOptions::new().append(true).open(made.path.join("00000000")).unwrap();
    std::io::Write::write_all(&mut &segment, &record("b")).unwrap();
    let buffer = std::fs::OpenOptions::new().write(true).open(made.path.join("pre_commit")).unwrap();
    buffer.write_all_at(&bytes, 4).unwrap();
    buffer.write_all_at(&u32::try_from(bytes.len()).unwrap().to_le_bytes(), 0).unwrap();
    log.take_events();
    writer.append("d").unwrap();
    writer.close().unwrap();
    let there = [(0, 1, "a"), (0, 2, "b"), (0, 3, "x"), (0, 4, "y"), (0, 5, "d")];
    expect(&log, &there);
    assert_eq!(made.broken(), [""; 0]);
    works_on(&log, &there, (0, 6));
}
