//! `jlog read -f`, signals, and pipes that nobody reads.

use std::io::{PipeReader, PipeWriter, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use jlog_core::LogId;
use nix::sys::signal::Signal;

use crate::support::{Lines, Place, Running, close, collect, end, run, until, until_full};

/// "Promptly", with room for a machine that is busy with other tests.
const PROMPTLY: Duration = Duration::from_secs(3);

/// Starts `jlog read s` with these further arguments.
fn follow(place: &Place, arguments: &[&str]) -> (Running, Lines) {
    Running::with_lines(place.jlog("read", [&["s"], arguments].concat()))
}

/// Starts it with a pipe that nobody reads, and waits until the pipe is full.
fn blocked(place: &Place, arguments: &[&str]) -> (Running, PipeReader) {
    let (out, pipe) = std::io::pipe().unwrap();
    let ours: PipeWriter = pipe.try_clone().unwrap();
    let mut command = place.jlog("read", [&["s"], arguments].concat());
    let reader = Running::start(command.stdout(pipe));
    drop(command);
    until_full(&ours);
    (reader, out)
}

#[test]
fn a_follower_gets_what_another_process_writes() {
    let place = Place::with(&[], &["before"]);
    let (mut reader, lines) = follow(&place, &["-f"]);
    assert_eq!(lines.next().as_deref(), Some("before\n"));
    for n in 0..5 {
        let began = Instant::now();
        run(place.jlog("write", ["-q"]), format!("message {n}\n")).ok();
        assert_eq!(lines.next(), Some(format!("message {n}\n")));
        assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    }
    until("the checkpoint has followed", || place.checkpoint("s") == LogId::new(0, 6));
    reader.signal(Signal::SIGTERM);
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(place.checkpoint("s"), LogId::new(0, 6));
}

/// How often the threads of a process have waited so far.
fn waits(reader: &Running) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", reader.id())).unwrap();
    let switches = |status: String| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    tasks.map(|task| switches(std::fs::read_to_string(task.unwrap().path().join("status")).unwrap())).sum()
}

#[test]
fn a_follower_that_has_nothing_to_read_sleeps() {
    let place = Place::with(&[], &["before"]);
    let (mut reader, lines) = follow(&place, &["--follow"]);
    assert_eq!(lines.next().as_deref(), Some("before\n"));
    until("the checkpoint has followed", || place.checkpoint("s") == LogId::new(0, 1));
    // A process that polls every 10 ms would wake up 30 times.
    let mut least = u64::MAX;
    let deadline = Instant::now() + PROMPTLY;
    while least > 2 && Instant::now() < deadline {
        let before = waits(&reader);
        std::thread::sleep(Duration::from_millis(300));
        least = least.min(waits(&reader) - before);
    }
    assert!(least <= 2, "woke up {least} times");
    reader.signal(Signal::SIGINT);
    assert_eq!(reader.done().code, Some(0));
}

#[test]
fn a_follower_goes_from_segment_to_segment_as_they_are_written() {
    let place = Place::new(&["--segment-size", "100"]);
    let (mut reader, lines) = follow(&place, &["-f", "-n", "50"]);
    let mut writer = Running::start(place.jlog("write", ["-q"]).stdout(Stdio::null()));
    let mut stdin = writer.stdin.take().unwrap();
    for n in 0..60 {
        writeln!(stdin, "message {n}").unwrap();
        if n < 50 {
            assert_eq!(lines.next(), Some(format!("message {n}\n")));
        }
    }
    // The command ends after 50 messages.
    assert_eq!(lines.next(), None);
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    drop(stdin);
    assert_eq!(writer.done().code, Some(0));
    let rest: Vec<String> = (50..60).map(|n| format!("message {n}")).collect();
    assert!(place.ok("read", &["s"]).lines().eq(rest));
    assert_eq!(place.segments().len(), 1);
}

#[test]
fn a_follower_misses_no_segment() {
    // Without checksums, only the new segment and the writes to it show that there is something
    // new.
    let place = Place::new(&["--segment-size", "100", "--no-checksums"]);
    let (mut reader, lines) = follow(&place, &["-f"]);
    let writer = place.log().writer().unwrap();
    for n in 0..300 {
        // The first message ends a segment; the second one is alone in the next.
        let long = format!("{n:>84}");
        writer.append(&long).unwrap();
        writer.append(n.to_string()).unwrap();
        assert_eq!(lines.next(), Some(format!("{long}\n")));
        assert_eq!(lines.next(), Some(format!("{n}\n")));
    }
    end(writer);
    reader.signal(Signal::SIGTERM);
    assert_eq!(reader.done().code, Some(0));
}

#[test]
fn a_signal_ends_a_follower_that_waits() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        for messages in [&["one"][..], &[]] {
            let place = Place::with(&[], messages);
            let (mut reader, lines) = follow(&place, &["-f"]);
            for message in messages {
                assert_eq!(lines.next(), Some(format!("{message}\n")));
            }
            until("signals are handled", || takes_signals(&reader));
            let began = Instant::now();
            reader.signal(signal);
            let done = reader.done();
            assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{signal}");
            assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
            assert_eq!(lines.rest(), [""; 0]);
            assert_eq!(place.unread("s").len(), 0);
        }
    }
}

/// Whether a process has handlers for SIGINT and SIGTERM.
fn takes_signals(process: &Running) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    [Signal::SIGINT, Signal::SIGTERM].iter().all(|&signal| caught >> (signal as i32 - 1) & 1 == 1)
}

#[test]
fn after_a_signal_amid_data_the_rest_comes_next() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new(&["--segment-size", "64KiB"]);
        let mut writer = Running::start(place.jlog("write", ["-q"]).stdout(Stdio::null()));
        let mut stdin = writer.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            for n in 1..=40_000 {
                writeln!(stdin, "message {n}").unwrap();
            }
        });
        let (mut reader, lines) = follow(&place, &["-f"]);
        let mut seen = Vec::new();
        while seen.len() < 2000 {
            seen.push(lines.next().unwrap());
        }
        reader.signal(signal);
        seen.extend(lines.rest());
        let done = reader.done();
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{signal}");
        feeder.join().unwrap();
        assert_eq!(writer.done().code, Some(0));
        seen.extend(place.ok("read", &["s"]).split_inclusive('\n').map(str::to_owned));
        let expected = (1..=40_000).map(|n| format!("message {n}\n"));
        assert!(expected.eq(seen), "{signal}: a message is missing, cut, or there twice");
    }
}

#[test]
fn a_signal_ends_a_reader_that_nobody_listens_to() {
    let lines: Vec<String> = (1..=30_000).map(|n| format!("message {n} of many")).collect();
    for (signal, arguments) in [
        (Signal::SIGINT, &["-f"][..]),
        (Signal::SIGTERM, &["-f"]),
        (Signal::SIGTERM, &[]),
        (Signal::SIGINT, &["-f", "-o", "null", "--peek"]),
    ] {
        let place = Place::with(&["--segment-size", "256KiB"], &lines);
        let (mut reader, out) = blocked(&place, arguments);
        let began = Instant::now();
        reader.signal(signal);
        let done = reader.done();
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{signal} {arguments:?}");
        assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
        // The messages in the pipe are exactly those that are done, perhaps followed by a part of
        // the next one.
        let out = String::from_utf8(collect(out).join().unwrap()).unwrap().replace('\0', "\n");
        let whole: Vec<&str> = out.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        assert!(whole.len() > 100 && whole.len() < lines.len());
        assert!(whole.iter().zip(&lines).all(|(whole, line)| whole.trim_end() == line));
        let rest = place.ok("read", &["s"]);
        let first = if arguments.contains(&"--peek") { 0 } else { whole.len() };
        assert!(rest.lines().eq(&lines[first..]), "{signal} {arguments:?}: {first} messages were out");
    }
}

#[test]
fn a_message_that_is_out_in_part_is_not_done() {
    let place = Place::with(&[], &["first", &"long ".repeat(100_000), "last"]);
    let (mut reader, out) = blocked(&place, &["-f"]);
    reader.signal(Signal::SIGTERM);
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(collect(out).join().unwrap().starts_with(b"first\nlong long "));
    assert_eq!(place.checkpoint("s"), LogId::new(0, 1));
    let rest = place.ok("read", &["s"]);
    assert_eq!(rest.lines().map(str::len).collect::<Vec<_>>(), [500_000, 4]);
}

#[test]
fn a_reader_that_is_killed_reads_again_what_was_not_done() {
    let lines: Vec<String> = (1..=30_000).map(|n| format!("message {n} of many")).collect();
    let place = Place::with(&[], &lines);
    let (mut reader, out) = blocked(&place, &["-f"]);
    reader.signal(Signal::SIGKILL);
    assert_eq!(reader.end(), None);
    close(out);
    let rest = place.ok("read", &["s"]);
    let first = lines.len() - rest.lines().count();
    assert!(rest.lines().eq(&lines[first..]));
}

#[test]
fn a_follower_ends_when_its_pipe_breaks() {
    let place = Place::with(&[], &["one", "two"]);
    let (mut out, pipe) = std::io::pipe().unwrap();
    let mut command = place.jlog("read", ["s", "-f"]);
    let mut reader = Running::start(command.stdout(pipe));
    drop(command);
    std::io::Read::read_exact(&mut out, &mut [0; 8]).unwrap();
    close(out);
    run(place.jlog("write", ["-q"]), "three\nfour\n").ok();
    let done = reader.done();
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert_eq!(place.ok("read", &["s"]), "three\nfour\n");
}

#[test]
fn a_follower_reads_what_a_writer_flushes_from_its_buffer() {
    let place = Place::new(&["--pre-commit", "64KiB"]);
    let (mut reader, lines) = follow(&place, &["-f"]);
    let writer = place.log().writer().unwrap();
    writer.append("one").unwrap();
    writer.append("two").unwrap();
    writer.flush().unwrap();
    assert_eq!(lines.next().as_deref(), Some("one\n"));
    assert_eq!(lines.next().as_deref(), Some("two\n"));
    reader.signal(Signal::SIGINT);
    assert_eq!(reader.done().code, Some(0));
}

#[test]
fn a_follower_keeps_to_its_times() {
    let place = Place::with(&[], &["old"]);
    let (mut reader, lines) = follow(&place, &["-f", "--until", "2106-01-01T00:00:00Z"]);
    assert_eq!(lines.next().as_deref(), Some("old\n"));
    let writer = place.log().writer().unwrap();
    let late = jlog_core::Timestamp { seconds: u32::MAX, micros: 0 };
    writer.append("new").unwrap();
    writer.append_at(late, "too late").unwrap();
    assert_eq!(lines.rest(), ["new\n"]);
    assert_eq!(reader.done().code, Some(0));
    assert_eq!(place.unread("s"), [b"too late"]);
}
