//! Signals that reopen files and read the configuration again.

use super::*;

#[test]
fn sighup_reopens_and_sigterm_writes_everything() {
    let setup = Setup::new(PLAIN);
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "one").unwrap();
    setup.wait_for("out.log", "one\n");
    fs::rename(setup.path("out.log"), setup.path("moved")).unwrap();
    signal(&child, Signal::SIGHUP);
    let begun = Instant::now();
    while !setup.path("out.log").exists() {
        assert!(begun.elapsed() < Duration::from_millis(900), "it was not reopened");
        std::thread::sleep(Duration::from_millis(5));
    }
    writeln!(input, "two").unwrap();
    setup.wait_for("out.log", "two\n");
    signal(&child, Signal::SIGTERM);
    assert!(ended(child).status.success());
    drop(input);
    assert_eq!((&*setup.read("moved"), &*setup.read("out.log")), ("one\n", "two\n"));
}

/// Whether a process has a handler for a signal.
fn handles(child: &Child, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal as i32 - 1) & 1 == 1
}

#[test]
fn signals_that_come_before_the_configuration_is_read_end_nothing() {
    let setup = Setup::new(PLAIN);
    let fifo = setup.path("fifo");
    let input = format!("out=fifo:{}", fifo.display());
    let run = &["run", "/dev/stdin", "--in", &input][..];
    let exec = &["exec", "/dev/stdin", "--stdout", "out", "--", "sh", "-c", "echo ran"][..];
    for arguments in [run, exec] {
        let mut child = logdag(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let begun = Instant::now();
        while !handles(&child, Signal::SIGHUP) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it has no handler");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, Signal::SIGHUP);
        // Only now is there a configuration; the pipe has nothing for a reload.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(setup.read("app.xml").as_bytes()).unwrap();
        drop(stdin);
        if arguments == run {
            let begun = Instant::now();
            while !fifo.exists() {
                assert!(begun.elapsed() < Duration::from_secs(10), "it has not begun");
                std::thread::sleep(Duration::from_millis(1));
            }
            writeln!(fs::File::options().write(true).open(&fifo).unwrap(), "taken").unwrap();
            setup.wait_for("out.log", "taken\n");
            signal(&child, Signal::SIGTERM);
        }
        let output = ended(child);
        // A command may end with the signal that is passed on to it.
        let status = output.status.code();
        assert!(status == Some(0) || arguments == exec && status == Some(128 + 1), "{:?}", texts(&output));
    }
}

#[test]
fn a_file_that_is_empty_for_a_moment_takes_no_stream_away() {
    let setup = Setup::new(&format!(r#"{PLAIN}<log name="error" type="file" path="DIR/error.log"/>"#));
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "one").unwrap();
    setup.wait_for("out.log", "one\n");
    fs::write(&setup.config, "").unwrap();
    signal(&child, Signal::SIGHUP);
    setup.wait_for("error.log", "the configuration stays as it was: ");
    writeln!(input, "two").unwrap();
    drop(input);
    assert!(ended(child).status.success());
    assert_eq!(setup.read("out.log"), "one\ntwo\n");
}

#[test]
fn sighup_takes_the_configuration_as_it_is_now() {
    let first = r#"<log name="one" type="file" path="DIR/one.log"/>
        <log name="error" type="file" path="DIR/error.log"/>
        <log name="in"><outlet name="one"/></log>"#;
    let setup = Setup::new(first);
    let configure = |logs: &str| {
        let logs = logs.replace("DIR", setup.dir.path().to_str().unwrap());
        fs::write(&setup.config, format!("<app><logs>\n{logs}\n</logs></app>\n")).unwrap();
    };
    let mut child = setup.run(&["--in", "in=stdin"]);
    let mut input = child.stdin.take().unwrap();
    wait_until_written(&setup, &mut input, "one.log", "before");
    configure(&first.replace("name=\"one\"", "name=\"two\"").replace("one", "two"));
    signal(&child, Signal::SIGHUP);
    wait_until_written(&setup, &mut input, "two.log", "with another one");
    // An invalid one changes nothing.
    configure(&format!("{first}<log name=\"bad\" format=\"none\"/>"));
    signal(&child, Signal::SIGHUP);
    setup.wait_for("error.log", "the configuration stays as it was: ");
    setup.wait_for("error.log", "format=\"none\" on <log>: expected one of plain");
    wait_until_written(&setup, &mut input, "two.log", "still there");
    // Neither does one whose file cannot be opened, or whose type is unknown.
    configure(&first.replace("DIR/one.log", "DIR/none/one.log"));
    signal(&child, Signal::SIGHUP);
    setup.wait_for("error.log", "none/one.log: No such file");
    configure(&first.replace("type=\"file\" path=\"DIR/one.log\"", "type=\"tape\""));
    signal(&child, Signal::SIGHUP);
    setup.wait_for("error.log", "unknown type \"tape\"");
    configure(first);
    signal(&child, Signal::SIGHUP);
    wait_until_written(&setup, &mut input, "one.log", "the first one again");
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    assert!(!setup.read("one.log").contains("still there"));
}

#[test]
fn no_line_is_lost_or_doubled_while_sighup_changes_the_configuration() {
    let logs = |more: &str| format!(r#"<log name="in" type="file" path="DIR/in.log" {more}/>"#);
    let setup = Setup::new(&logs(""));
    let configs =
        ["max_line='1000'", "queue_bytes='5000'", "", "when_full='block' queue_bytes='100kB'"].map(|more| {
            let logs = logs(more).replace("DIR", setup.dir.path().to_str().unwrap());
            format!("<app><logs>{logs}</logs></app>")
        });
    let mut child = setup.run(&["--in", "in=stdin"]);
    let mut input = child.stdin.take().unwrap();
    let mut expected = "ready\n".to_owned();
    input.write_all(expected.as_bytes()).unwrap();
    setup.wait_for("in.log", "ready\n");
    for n in 0..40 {
        // Replace the old file at once.
        let new = setup.path("new");
        fs::write(&new, &configs[n % 4]).unwrap();
        fs::rename(new, &setup.config).unwrap();
        signal(&child, Signal::SIGHUP);
        let lines: String = (0..2000).map(|line| format!("{n} {line}\n")).collect();
        input.write_all(lines.as_bytes()).unwrap();
        expected.push_str(&lines);
    }
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    assert_eq!(texts(&output).1, "");
    assert!(setup.read("in.log") == expected, "lines are lost, doubled or out of order");
}
