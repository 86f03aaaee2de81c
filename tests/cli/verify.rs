//! `jlog verify` and `jlog repair` of a large feed: a progress bar on terminals, and signals that
//! end the command.

use std::io::Read;
use std::process::Stdio;

use nix::pty::openpty;
use nix::sys::signal::Signal;

use crate::support::{NONE, Place, Running, end, run};

/// A feed of this many segments of 16 MiB, all of which are the same file.
fn large(segments: u32) -> Place {
    let place = Place::new(&["--segment-size", "16MiB"]);
    let writer = place.log().writer().unwrap();
    let batch: Vec<Vec<u8>> = vec![vec![b'x'; 64 << 10]; 32];
    while writer.segment() == 0 {
        writer.append_batch(&batch).unwrap();
    }
    end(writer);
    for n in 1..segments {
        for suffix in ["", ".crc"] {
            let to = place.feed.join(format!("{n:08x}{suffix}"));
            let _ = std::fs::remove_file(&to);
            std::fs::hard_link(place.feed.join(format!("00000000{suffix}")), to).unwrap();
        }
    }
    let mut meta = std::fs::read(place.feed.join("metastore")).unwrap();
    meta[..4].copy_from_slice(&segments.to_le_bytes());
    std::fs::write(place.feed.join("metastore"), meta).unwrap();
    std::fs::write(place.feed.join(format!("{segments:08x}")), "").unwrap();
    place
}

#[test]
fn a_progress_bar_is_shown_on_terminals_only() {
    let place = large(4);
    let done = run(place.jlog("verify", NONE), "");
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(text.starts_with("sound: 5 segments, 64"), "{text}");
    let (bar, code) = with_bar(&place, "verify", None);
    assert_eq!(code, Some(0));
    assert!(bar.contains("iB/s"), "{bar:?}");
}

#[test]
fn signals_end_it() {
    // About 20 GiB, which takes several seconds.
    let place = large(1200);
    for (command, signal) in
        [("verify", Signal::SIGINT), ("verify", Signal::SIGTERM), ("repair", Signal::SIGTERM)]
    {
        let (text, code) = with_bar(&place, command, Some(signal));
        assert_eq!(code, Some(1), "{text:?}");
        assert!(text.contains("jlog:") && text.contains("was cancelled"), "{text:?}");
    }
}

/// Runs a command with stderr on a terminal, and sends the signal once the command has written to
/// it. Returns the final text on the terminal and the exit code.
fn with_bar(place: &Place, command: &str, signal: Option<Signal>) -> (String, Option<i32>) {
    let terminal = openpty(None, None).unwrap();
    let mut command = place.jlog(command, NONE);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(terminal.slave));
    let mut running = Running::spawn(&mut command);
    drop(command);
    let mut master = std::fs::File::from(terminal.master);
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    // A terminal that nobody has open any more ends with an error.
    while let Ok(n @ 1..) = master.read(&mut piece) {
        if let Some(signal) = signal.filter(|_| text.is_empty()) {
            running.signal(signal);
        }
        text.extend_from_slice(&piece[..n]);
    }
    (String::from_utf8(text).unwrap(), running.end())
}
