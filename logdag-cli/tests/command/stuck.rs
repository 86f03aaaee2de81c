//! Sinks that do not go on, and files that may not grow.

use super::*;

#[test]
fn a_file_that_may_not_grow_stops_no_other_sink() {
    let setup = Setup::new(
        r#"<log name="small" type="file" path="DIR/small.log"/>
           <log name="out" type="stdout"><outlet name="small"/></log>"#,
    );
    let script = format!(
        "ulimit -f 8; seq 10000 | {} run {} --in out=stdin",
        env!("CARGO_BIN_EXE_logdag"),
        setup.config
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let (out, err) = texts(&output);
    let expected: String = (1..=10_000).map(|n| format!("{n}\n")).collect();
    assert!(out == expected, "{} bytes of {}", out.len(), expected.len());
    assert!(err.contains("small.log: File too large"), "{err}");
    assert_eq!(output.status.code(), Some(1));
    assert!(expected.starts_with(&setup.read("small.log")));
}

#[test]
fn a_second_signal_ends_it_though_a_sink_does_not_go_on() {
    let setup = Setup::new(r#"<log name="out" type="file" path="DIR/pipe"/>"#);
    let pipe = setup.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    // Nothing reads from the pipe.
    let open = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let mut child = setup.run(&["--in", "out=stdin"]);
    child.stdin.take().unwrap().write_all(&b"a line\n".repeat(20_000)).unwrap();
    let mut written = [PollFd::new(open.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut written, 10_000u16).unwrap(), 1, "nothing was written");
    signal(&child, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None, "it has ended, and not written everything");
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(128 + 15));
}

#[test]
fn a_standard_error_that_nobody_reads_keeps_neither_other_streams_nor_the_end() {
    for when_full in ["drop", "block"] {
        let setup = Setup::new(&format!(
            r#"<log name="out" type="file" path="DIR/out.log"/>
               <log name="loud" type="stderr" when_full="{when_full}" drain_seconds="1"/>
               <log name="both"><outlet name="loud"/><outlet name="out"/></log>
               <log name="another" type="file" path="DIR/another.log"/>"#
        ));
        let socket = setup.path("socket");
        let mut child =
            setup.run(&["--in", "both=stdin", "--in", &format!("another=unix:{}", socket.display())]);
        let lines: String = (0..10_000).map(|n| format!("{n} {:.>50}\n", n)).collect();
        let (mut stdin, text) = (child.stdin.take().unwrap(), lines.clone());
        // With `block`, it waits for the reader of standard error.
        let writing = std::thread::spawn(move || {
            let _ = stdin.write_all(text.as_bytes());
            stdin
        });
        let mut other = loop {
            match UnixStream::connect(&socket) {
                Ok(other) => break other,
                Err(_) => {
                    assert_eq!(child.try_wait().unwrap(), None, "it has ended");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        };
        if when_full == "drop" {
            setup.wait_for("out.log", &lines);
        } else {
            // Standard error takes no more when this does not grow.
            let mut before = 0;
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let now = fs::metadata(setup.path("out.log")).map_or(0, |facts| facts.len());
                if now > 0 && now == std::mem::replace(&mut before, now) {
                    break;
                }
            }
        }
        other.write_all(b"one\n").unwrap();
        setup.wait_for("another.log", "one\n");
        // An invalid configuration and its report do not block either.
        fs::write(&setup.config, "<wrong").unwrap();
        signal(&child, Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(300));
        signal(&child, Signal::SIGTERM);
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{when_full}: one signal does not end it");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(1), "{when_full}: lines were not written");
        drop(writing.join().unwrap());
    }
}

#[test]
fn a_sink_that_a_reload_waits_for_delays_no_signal_for_the_command() {
    let setup = Setup::new(r#"<log name="out" type="file" path="DIR/pipe" drain_seconds="60"/>"#);
    let path = setup.path("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nothing reads from it.
    let pipe = fs::File::options().read(true).write(true).open(&path).unwrap();
    let reported = setup.path("reported");
    let script = format!(
        "trap 'echo hup >>{0}' HUP; trap 'echo term >>{0}; exit 0' TERM; seq 20000; echo ready >{0}; \
         while :; do sleep 0.01; done",
        reported.display()
    );
    let mut child =
        logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", &script]).spawn().unwrap();
    setup.wait_for("reported", "ready\n");
    let begun = Instant::now();
    while poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], 0u8).unwrap() == 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is never full");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGHUP);
    setup.wait_for("reported", "hup\n");
    signal(&child, Signal::SIGTERM);
    // Within 10 seconds.
    setup.wait_for("reported", "term\n");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Lines that a full queue has dropped are reported at the end even if its thread is stuck in the
/// sink and cannot log them.
#[test]
fn what_a_full_queue_dropped_is_reported_though_its_sink_stays_stuck() {
    let setup = Setup::new(
        r#"<log name="out" type="file" path="DIR/pipe" when_full="drop" queue_bytes="1000" drain_seconds="1"/>"#,
    );
    let path = setup.path("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut pipe = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut command = logdag(&["run", &setup.config, "--in", "out=stdin"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    const LINES: u64 = 20_000;
    let mut stdin = child.stdin.take().unwrap();
    for n in 0..LINES {
        writeln!(stdin, "{n:032}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let number = |before: &str, behind: &str| -> u64 {
        let (left, _) = said.split_once(behind).unwrap_or_else(|| panic!("{said}"));
        let number = left.rsplit_once(before).map_or(left, |(_, number)| number);
        number.trim_start_matches("up to ").parse().unwrap_or_else(|_| panic!("{number:?} in {said}"))
    };
    let left = number("stream out: ", " lines not written");
    let dropped = number("; ", " lines dropped before");
    assert!(left > 0 && dropped > 0, "{said}");
    assert_eq!(said.matches("not written").count(), 1, "each line is reported once: {said}");
    // All others were written, or were reported in the log while it still worked.
    let mut there = vec![0; 1 << 20];
    let n = pipe.read(&mut there).unwrap();
    let there = String::from_utf8_lossy(&there[..n]);
    let (reports, lines): (Vec<_>, Vec<_>) =
        there.split_inclusive('\n').partition(|line| line.contains(" dropped since "));
    let reported: u64 = reports
        .iter()
        .filter_map(|line| line.rsplit(" line").last()?.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    let whole = lines.iter().filter(|line| line.len() == 33 && line.ends_with('\n')).count() as u64;
    let others = LINES - left - dropped - reported;
    assert!(others <= whole && whole <= others + left, "{others} of {whole}, {reported} reported: {said}");
}
