//! The command, with real pipes, sockets and signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jlog_core::{Jlog, Start, Wait};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::heed_signals;

fn logdag(arguments: &[&str]) -> Command {
    heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = logdag(&["completions", shell]).output().unwrap();
        let (script, errors) = texts(&done);
        assert!(done.status.success(), "{shell}: {errors}");
        for command in ["check", "graph", "run", "exec", "decode", "ctl", "completions", "man", "strict"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
        // Installed shells check the completions.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = std::env::split_paths(&path).any(|directory| directory.join(shell).is_file());
        if matches!(shell, "bash" | "fish" | "zsh") && there {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("script");
            fs::write(&file, &script).unwrap();
            let check = Command::new(shell).arg("-n").arg(file).output().unwrap();
            assert!(check.status.success(), "{shell}: {}", texts(&check).1);
        }
    }
    let done = logdag(&["completions", "csh"]).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
    assert!(texts(&done).1.contains("csh"));
}

/// The messages of a feed.
fn read_feed(dir: &Path) -> Vec<String> {
    let feed = Jlog::open(dir).unwrap();
    feed.subscribe("of-the-test", Start::Beginning).unwrap();
    let mut reader = feed.reader("of-the-test").unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|m| String::from_utf8(m.body().to_vec()).unwrap()));
        let last = batch.last_id();
        reader.commit(last).unwrap();
    }
    all
}

fn texts(output: &Output) -> (String, String) {
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A configuration in its own directory; `DIR` in it stands for that directory.
struct Setup {
    dir: tempfile::TempDir,
    config: String,
}

impl Setup {
    fn new(logs: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs = logs.replace("DIR", dir.path().to_str().unwrap());
        let config = dir.path().join("app.xml");
        fs::write(&config, format!("<app><logs>\n{logs}\n</logs></app>\n")).unwrap();
        Self { config: config.to_str().unwrap().to_owned(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file has a text.
    fn wait_for(&self, name: &str, text: &str) {
        let begun = Instant::now();
        while !self.read(name).contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{text:?} never came: {:?}", self.read(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn run(&self, arguments: &[&str]) -> Child {
        logdag(&[&["run", &self.config], arguments].concat()).stdin(Stdio::piped()).spawn().unwrap()
    }

    fn exec(&self, arguments: &[&str], script: &str) -> Output {
        logdag(&[&["exec", &self.config], arguments, &["--", "sh", "-c", script]].concat()).output().unwrap()
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// The output of a child that must end by itself.
fn ended(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(10) {
            child.kill().unwrap();
            panic!("it does not end: {:?}", texts(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

const PLAIN: &str =
    r#"<log name="out" type="file" path="DIR/out.log"/><log name="err" type="file" path="DIR/err.log"/>"#;

#[test]
fn a_right_configuration_is_checked_and_nothing_opened() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log"/><log name="j" type="jlog" path="DIR/feed(a)"/>"#,
    );
    let output = logdag(&["check", &setup.config]).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{err}");
    assert!(out.contains("2 streams"), "{out}");
    assert!(!setup.path("f.log").exists() && !setup.path("feed").exists());
}

#[test]
fn the_examples_are_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logdag/examples");
    let (mut checked, mut directories) = (0, vec![examples]);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.extension().is_some_and(|extension| extension == "xml" || extension == "toml") {
                let output =
                    logdag(&["check", "--strict"]).arg(&path).env("APP_FEED", "/nowhere").output().unwrap();
                assert!(output.status.success(), "{output:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 8);
}

#[test]
fn the_example_in_toml_is_the_one_in_xml() {
    let shown = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../logdag/examples").join(name);
        texts(&logdag(&["graph", "--json"]).arg(path).output().unwrap()).0
    };
    let (xml, toml) = (shown("web.xml"), shown("web.toml"));
    assert_eq!(xml, toml);
    let line = xml.lines().find(|line| line.contains("\"name\":\"web\"")).unwrap();
    let web: serde_json::Value = serde_json::from_str(line).unwrap();
    let outlets = serde_json::json!([{ "name": "feed" }, { "name": "errors", "filter": "status >= 500" }]);
    assert_eq!(web["outlets"], outlets);
}

#[test]
fn a_wrong_configuration_is_reported_with_place_and_line() {
    for (inside, column, message) in [
        (r#"<log name="a" format="xml"/>"#, 23, "format=\"xml\" on <log>"),
        (r#"<log name="a" colour="red"/>"#, 23, "unknown attribute"),
        (r#"<log type="file" path="/x"/>"#, 1, "without a name"),
        (r#"<log name="a" type="tape"/>"#, 1, "unknown type \"tape\""),
        (r#"<log name="a" type="file"/>"#, 1, "without a path"),
        (r#"<log name="a" type="file" path="/x" rotate_bytes="5"/>"#, 51, "102400"),
        (r#"<log name="a"><outlet name="b" filter="x = "/></log>"#, 44, "a quoted text or a number"),
        (r#"<log name="a"/><log name="a"/>"#, 27, "already"),
        (r#"<log name="a"><outlet name="a"/></log>"#, 1, "cycle"),
        (r#"<log name="a"/></b>"#, 16, "closes nothing"),
        (r#"<include file="none.xml"/>"#, 16, "none.xml"),
        (r#"<include file="app.xml"/>"#, 16, "includes itself"),
        (r#"<log name="a" require_env="!"/>"#, 28, "expected VAR"),
    ] {
        let setup = Setup::new(inside);
        for command in [vec!["check", &setup.config], vec!["run", &setup.config, "--in", "a=stdin"]] {
            let output = logdag(&command).output().unwrap();
            let (out, err) = texts(&output);
            assert_eq!((output.status.code(), &*out), (Some(1), ""), "{inside}: {err}");
            let lines: Vec<&str> = err.lines().collect();
            let place = format!("logdag: {}:2:{column}: ", setup.config);
            assert!(lines[0].starts_with(&place) && lines[0].contains(message), "{inside}: {err}");
            let text = lines[lines.len() - 2];
            assert_eq!(text.strip_prefix("  "), Some(inside));
            assert_eq!(lines[lines.len() - 1], format!("{}^", " ".repeat(column + 1)), "{err}");
        }
    }
    let output = logdag(&["check", "/nowhere/app.xml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("/nowhere/app.xml: No such file"), "{:?}", texts(&output));
}

#[test]
fn a_sink_that_cannot_be_opened_is_reported_with_place_and_path() {
    let setup = Setup::new("<log name=\"a\"/>\n<log name=\"b\" type=\"file\" path=\"DIR/none/b.log\"/>");
    let output = logdag(&["run", &setup.config, "--in", "a=stdin"]).output().unwrap();
    let (_, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.starts_with(&format!("logdag: {}:3:1: ", setup.config)), "{err}");
    assert!(err.contains(&format!("{}: No such file", setup.path("none/b.log").display())), "{err}");
}

#[test]
fn the_graph_is_shown_with_filters_and_reasons() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log"/>
           <log name="a"><outlet name="f" filter="status &gt;= 500"/></log>
           <log name="off" disabled="true"><outlet name="f"/></log>
           <log name="no" disabled="true" type="memory"/><log name="near"><outlet name="no"/></log>
           <log name="left" type="memory" require_env="!PATH"/><log name="right"><outlet name="left"/></log>
           <log name="lost"/>"#,
    );
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    let file = setup.path("f.log");
    for line in [
        "a",
        "  -> f  if status >= 500",
        &format!("f  [file {}]", file.display()),
        "off  (disabled)",
        "lost  (leads to no sink)",
        "near  (what it leads to is disabled)",
        "left  (left out: require_env \"!PATH\" does not hold)",
        "right  (leads to no sink)",
        "debug  (disabled)",
        "stderr  [stderr]",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
    let (dot, _) = texts(&logdag(&["graph", "--dot", &setup.config]).output().unwrap());
    assert!(dot.starts_with("digraph logdag {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("  \"a\" -> \"f\" [label=\"status >= 500\"];\n"), "{dot}");
    assert!(dot.contains("  \"off\" [label=\"off\", style=dashed];\n"), "{dot}");
    assert!(!file.exists());
}

#[test]
fn the_graph_shows_when_files_are_rotated() {
    let setup = Setup::new(
        r#"<log name="f" type="file" path="DIR/f.log" rotate_at="daily" retain_count="7"/><log name="a"/>"#,
    );
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    let (json, _) = texts(&logdag(&["graph", "--json", &setup.config]).output().unwrap());
    let of = |name: &str| {
        let mut streams = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        streams.find(|stream| stream["name"] == name).unwrap()["rotation"].clone()
    };
    let rotation = of("f");
    let rotation = rotation.as_str().unwrap();
    assert!(rotation.starts_with("rotates daily (") && rotation.ends_with("keeps 7 files"), "{rotation}");
    assert!(text.contains(&format!("\n  {rotation}\n")), "{text}");
    assert_eq!(of("a"), serde_json::Value::Null);
}

#[test]
fn the_graph_shows_what_is_redacted() {
    let setup = Setup::new(
        r#"<log name="f" type="memory" redact="user.mail" redact_pattern="Bearer \S+"/>
           <log name="a"><outlet name="f"/></log>"#,
    );
    let config = fs::read_to_string(&setup.config).unwrap();
    fs::write(&setup.config, config.replace("<logs>", "<logs redact=\"password\">")).unwrap();
    let (text, _) = texts(&logdag(&["graph", &setup.config]).output().unwrap());
    for expected in
        ["f  [memory]\n  redacts password, user.mail, /Bearer \\S+/\n", "a\n  redacts password\n  -> f\n"]
    {
        assert!(text.contains(expected), "{expected:?} is not in {text}");
    }
    let (json, _) = texts(&logdag(&["graph", "--json", &setup.config]).output().unwrap());
    let of = |name: &str| {
        let streams = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let stream = streams.into_iter().find(|stream| stream["name"] == name).unwrap();
        (stream["redact"].clone(), stream["redact_pattern"].clone())
    };
    assert_eq!(of("f"), ("password,user.mail".into(), "Bearer \\S+".into()));
    assert_eq!(of("a"), ("password".into(), "".into()));
    // Without redaction, nothing is printed about it.
    let (text, _) = texts(&logdag(&["graph", &Setup::new(PLAIN).config]).output().unwrap());
    assert!(!text.contains("redacts"), "{text}");
}

#[test]
fn lines_of_standard_input_are_logged() {
    let setup = Setup::new(PLAIN);
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    let mut text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    input.write_all(text.as_bytes()).unwrap();
    input.write_all(b"windows\r\n\nthe last has no end").unwrap();
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    text.push_str("windows\n\nthe last has no end\n");
    assert!(setup.read("out.log") == text, "lines are not those that were given");
}

#[test]
fn messages_of_syslog_are_lines_with_levels_and_keys() {
    let logs = r#"<log name="out" type="file" path="DIR/out.log" format="event"/>
        <log name="net"><outlet name="out" filter="and(level >= 'error', sd.origin.ip = '192.0.2.1')"/></log>"#;
    let setup = Setup::new(logs);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = setup.path("dev-log");
    // A leftover socket does not matter.
    drop(std::os::unix::net::UnixDatagram::bind(&path).unwrap());
    let (udp, unix) =
        (format!("net=syslog-udp:127.0.0.1:{port}"), format!("net=syslog-unix:{}", path.display()));
    let child = setup.run(&["--in", &udp, "--in", &unix, "--received"]);
    let message =
        |of: &str| format!(r#"<34>1 2003-10-11T22:14:15.003Z host su 7 - [origin ip="192.0.2.1"] by {of}"#);
    let begun = Instant::now();
    let by_udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let by_unix = std::os::unix::net::UnixDatagram::unbound().unwrap();
    while ["by udp", "by unix"].iter().any(|text| !setup.read("out.log").contains(text)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", setup.read("out.log"));
        let _ = by_udp.send_to(message("udp").replace("<34>", "<38>").as_bytes(), ("127.0.0.1", port));
        let _ = by_udp.send_to(message("udp").as_bytes(), ("127.0.0.1", port));
        let _ = by_unix.send_to(message("unix").as_bytes(), &path);
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(0));
    for line in setup.read("out.log").lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let gist =
            ["timestamp", "level", "appname", "hostname", "syslog_facility"].map(|key| event[key].clone());
        let expected = ["2003-10-11T22:14:15.003000Z", "error", "su", "host", "auth"];
        assert_eq!(serde_json::json!(gist), serde_json::json!(expected), "{line}");
        assert!(event["received"].as_str().is_some_and(|time| time > "2024"), "{line}");
    }
}

#[test]
fn what_no_line_can_have_is_not_asked_for() {
    let setup = Setup::new(PLAIN);
    let run = logdag(&["run", &setup.config, "--in", "out=stdin", "--received"]).output().unwrap();
    let exec =
        logdag(&["exec", &setup.config, "--stdout", "out", "--received", "--", "true"]).output().unwrap();
    for output in [run, exec] {
        assert_eq!(output.status.code(), Some(2), "{:?}", texts(&output));
        assert!(texts(&output).1.contains("--received has no effect"), "{:?}", texts(&output));
    }
}

const SYSLOG: &str = r#"<log name="out" type="file" path="DIR/out.log" format="event"/>
    <log name="net"><outlet name="out"/></log>"#;

/// A command that takes syslog over TCP, and its address.
fn syslog_over_tcp(setup: &Setup) -> (Child, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (setup.run(&["--in", &format!("net=syslog-tcp:{address}"), "--received"]), address)
}

fn connected(address: SocketAddr) -> TcpStream {
    let begun = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(10), "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn messages_of_syslog_come_over_connections() {
    let setup = Setup::new(SYSLOG);
    let (child, address) = syslog_over_tcp(&setup);
    // A slow connection does not delay others.
    let mut slow = connected(address);
    slow.write_all(b"99 <11>slow").unwrap();
    let counted = "<34>1 2003-10-11T22:14:15.003Z host su 7 - - two\nlines";
    let mut other = connected(address);
    write!(other, "{} {counted}<11>by line\n{} {counted}", counted.len(), counted.len()).unwrap();
    other.write_all(b"<14>in ").unwrap();
    setup.wait_for("out.log", "by line");
    other.write_all(b"pieces\n7 <11>abc99 <11>gone").unwrap();
    drop(other);
    setup.wait_for("out.log", "gone");
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(0));
    drop(slow);
    let text = setup.read("out.log");
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found: Vec<(String, String)> = events
        // Messages with a time of their own also have their time of arrival.
        .inspect(|event| {
            assert_eq!(event.get("received").is_some(), event["event"] == "two\nlines", "{event}")
        })
        .map(|event| ["level", "event"].map(|key| event[key].as_str().unwrap().to_owned()).into())
        .collect();
    let expected = [
        ("error", "two\nlines"),
        ("error", "by line"),
        ("error", "two\nlines"),
        ("info", "in pieces"),
        ("error", "abc"),
        ("error", "gone [cut here: the connection ended]"),
        ("error", "slow [cut here: logdag was told to stop]"),
    ];
    assert_eq!(found, expected.map(|(level, text)| (level.to_owned(), text.to_owned())));
}

#[test]
fn connections_of_syslog_are_limited_and_end_with_the_command() {
    const MOST: usize = 512;
    let setup = Setup::new(SYSLOG);
    let (child, address) = syslog_over_tcp(&setup);
    let mut open: Vec<TcpStream> = (0..MOST).map(|_| connected(address)).collect();
    let mut refused = connected(address);
    refused.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
    // Open connections continue, and a closed one makes room for another.
    open[MOST - 1].write_all(b"<11>last\n").unwrap();
    setup.wait_for("out.log", "last");
    open.truncate(MOST / 2);
    let begun = Instant::now();
    while !setup.read("out.log").contains("again") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        // Refused until the server notices that others are gone.
        let _ = connected(address).write_all(b"<11>again\n");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0));
    let said = format!("logdag: {address}: {MOST} connections are open: further ones are refused\n");
    assert!(texts(&output).1.contains(&said), "{:?}", texts(&output));
}

#[test]
fn lines_of_pipes_and_sockets_are_logged_until_it_is_told_to_end() {
    let setup = Setup::new(PLAIN);
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (fifo, unix) = (setup.path("fifo"), setup.path("socket"));
    let child = setup.run(&[
        "--in",
        &format!("out=fifo:{}", fifo.display()),
        "--in",
        &format!("out=unix:{}", unix.display()),
        "--in",
        &format!("out=udp:127.0.0.1:{port}"),
    ]);
    let begun = Instant::now();
    let mut connection = loop {
        match UnixStream::connect(&unix) {
            Ok(connection) => break connection,
            Err(e) => assert!(begun.elapsed() < Duration::from_secs(10), "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    for round in 0..2 {
        // The end of a writer is not the end of the input.
        fs::OpenOptions::new().write(true).open(&fifo).unwrap().write_all(b"of a fifo\n").unwrap();
        connection.write_all(format!("of a socket {round}\n").as_bytes()).unwrap();
        setup.wait_for("out.log", &format!("of a socket {round}\n"));
    }
    setup.wait_for("out.log", "of a fifo\n");
    // The socket exists by the time its lines do, or soon after.
    let begun = Instant::now();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    while !setup.read("out.log").contains("second of a datagram\n") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        let _ = sender.send_to(b"first of a datagram\nsecond of a datagram", ("127.0.0.1", port));
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    let text = setup.read("out.log");
    for line in ["of a fifo", "of a socket 0", "of a socket 1", "first of a datagram"] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
    }
}

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
fn a_command_is_run_and_its_output_and_status_passed_on() {
    let setup = Setup::new(PLAIN);
    let script = "seq 1 20000; echo trouble >&2; printf 'no end'; exit 7";
    let output = setup.exec(&["--stdout", "out", "--stderr", "err"], script);
    assert_eq!(output.status.code(), Some(7), "{:?}", texts(&output));
    let expected: String = (1..=20_000).map(|n| format!("{n}\n")).chain(["no end\n".to_owned()]).collect();
    assert!(setup.read("out.log") == expected, "lines are not those that were written");
    assert_eq!(setup.read("err.log"), "trouble\n");
    assert_eq!(texts(&output), (String::new(), String::new()));
}

#[test]
fn what_is_on_no_stream_stays_as_it_is() {
    let setup = Setup::new(PLAIN);
    let output = setup.exec(&["--stdout", "out"], "echo a; echo b >&2");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(texts(&output), (String::new(), "b\n".to_owned()));
    assert_eq!(setup.read("out.log"), "a\n");
}

#[test]
fn a_command_that_a_signal_ends_gives_128_and_its_number() {
    let setup = Setup::new(PLAIN);
    assert_eq!(setup.exec(&["--stdout", "out"], "echo a; kill -KILL $$").status.code(), Some(128 + 9));
    assert_eq!(setup.read("out.log"), "a\n");
    let output = logdag(&["exec", &setup.config, "--", "/nowhere/command"]).output().unwrap();
    assert!(!output.status.success());
    assert!(texts(&output).1.contains("/nowhere/command"), "{:?}", texts(&output));
}

#[test]
fn signals_are_passed_on_to_the_command() {
    let setup = Setup::new(PLAIN);
    let script = "trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let child =
        logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]).spawn().unwrap();
    setup.wait_for("out.log", "ready\n");
    signal(&child, Signal::SIGTERM);
    assert_eq!(ended(child).status.code(), Some(3));
    assert_eq!(setup.read("out.log"), "ready\ntold\n");
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let setup = Setup::new(PLAIN);
    let script = format!(
        "trap '' HUP; exec {} exec {} --stdout out -- sh -c 'echo ready; sleep 0.3; echo survived'",
        env!("CARGO_BIN_EXE_logdag"),
        setup.config,
    );
    let child =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    setup.wait_for("out.log", "ready\n");
    signal(&child, Signal::SIGHUP);
    assert_eq!(ended(child).status.code(), Some(0));
    assert_eq!(setup.read("out.log"), "ready\nsurvived\n");
}

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
fn one_signal_ends_exec_though_a_sink_does_not_go_on() {
    let setup = Setup::new(r#"<log name="out" type="stdout" drain_seconds="1"/>"#);
    let script = "seq 100000 & while :; do sleep 1; done";
    let path = setup.path("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nothing reads from it.
    let pipe = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut command = logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]);
    let mut child = command.stdout(pipe.try_clone().unwrap()).spawn().unwrap();
    let begun = Instant::now();
    while poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], 0u8).unwrap() == 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is never full");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("one signal does not end it");
        }
        std::thread::sleep(Duration::from_millis(20));
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
fn a_stream_that_leads_nowhere_is_told_of() {
    let setup =
        Setup::new(&format!(r#"{PLAIN}<log name="off" type="file" path="DIR/off.log" disabled="on"/>"#));
    for (stream, why) in [("uot", "is not in the configuration"), ("off", "is disabled")] {
        let output = setup.exec(&["--stdout", stream], "echo a");
        assert_eq!(output.status.code(), Some(0));
        let err = texts(&output).1;
        assert!(err.contains(&format!("{stream:?} {why}")), "{err}");
    }
    assert_eq!(texts(&setup.exec(&["--stdout", "out"], "echo a")).1, "");
}

#[test]
fn warnings_are_counted_and_refused_where_that_is_wanted() {
    let setup = Setup::new("<lgo name='a'/>\n<log name='b' type='file' path='DIR/none/b.log'/>");
    for (strict, code) in [(&[][..], 0), (&["--strict"][..], 1)] {
        let output = logdag(&[&["check", &setup.config][..], strict].concat()).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert_eq!(out, format!("{}: 1 stream, 2 warnings\n", setup.config));
        let warning = format!("logdag: warning: {}:", setup.config);
        let lines: Vec<&str> = err.lines().filter(|line| line.starts_with(&warning)).collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[0].ends_with(":2:1: <lgo> only groups what is in it: did you mean <log>?"), "{err}");
        assert!(
            lines[1].contains(":3:1: the directory ") && lines[1].contains("/none of the log \"b\""),
            "{err}"
        );
    }
    // The type may belong to the application.
    let own = Setup::new("<log name='b' type='tape' path='x'/>");
    for (more, code) in [(&[][..], 1), (&["--type", "disk"], 1), (&["--type", "disk", "--type", "tape"], 0)] {
        let output = logdag(&[&["check", "--strict", &own.config][..], more].concat()).output().unwrap();
        let (out, err) = texts(&output);
        assert_eq!((output.status.code(), out.contains("all right")), (Some(code), code == 0), "{out}{err}");
        assert_eq!(err.contains("unknown type \"tape\""), code == 1, "{err}");
    }
    let nothing = Setup::new("");
    let output = logdag(&["check", &nothing.config]).output().unwrap();
    assert!(texts(&output).1.contains("it configures nothing"), "{:?}", texts(&output));
}

#[test]
fn a_file_that_cannot_be_rotated_is_reported() {
    let name = "n".repeat(250);
    let setup =
        Setup::new(&format!(r#"<log name="out" type="file" path="DIR/{name}" rotate_bytes="102400"/>"#));
    let output = setup.exec(&["--stdout", "out"], "seq 30000; sleep 0.1; echo last");
    let err = texts(&output).1;
    assert!(err.contains("cannot be rotated") && err.contains(&name), "{err}");
    let expected: String = (1..=30_000).map(|n| format!("{n}\n")).chain(["last\n".to_owned()]).collect();
    assert!(setup.read(&name) == expected);
}

const EVENTS: &str = r#"<log name="bad" type="file" path="DIR/bad.log"/>
    <log name="all" type="jlog" path="DIR/feed"/>
    <log name="events" type="file" path="DIR/events.log" format="json">
      <outlet name="bad" filter="and(status >= 500, path ~ '^/(?!health)')"/><outlet name="all"/></log>"#;

#[test]
fn lines_of_json_are_events_that_filters_see() {
    let setup = Setup::new(EVENTS);
    let lines = [
        r#"{"msg":"one","status":200,"path":"/a"}"#,
        r#"{"msg":"two","status":503,"path":"/b","took":0.25,"ok":false,"more":{"x":[1]}}"#,
        r#"{"msg":"three","status":500,"path":"/health"}"#,
        r#"{"status":502,"path":"/without"}"#,
        "no JSON",
        "[1,2]",
    ];
    let input = setup.path("input");
    fs::write(&input, lines.join("\n")).unwrap();
    let script = format!("cat {}", input.display());
    let output = setup.exec(&["--stdout", "events", "--json-field=msg"], &script);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(setup.read("bad.log"), format!("two\n{}\n", lines[3]));
    let text = setup.read("events.log");
    let parsed: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let messages: Vec<&str> = parsed.iter().map(|event| event["message"].as_str().unwrap()).collect();
    let expected = ["one", "two", "three", lines[3], "no JSON", "[1,2]"];
    assert_eq!(messages, expected);
    assert_eq!((&parsed[1]["status"], &parsed[1]["took"]), (&503.into(), &0.25.into()));
    assert_eq!(
        (&parsed[1]["more"], &parsed[1]["facility"]),
        (&serde_json::json!({ "x": [1] }), &"events".into())
    );
    let feed: Vec<String> = read_feed(&setup.path("feed"));
    assert_eq!(feed, expected);
}

#[test]
fn the_level_of_an_event_is_known_in_any_spelling() {
    let setup = Setup::new(r#"<log name="out" type="file" path="DIR/out.log" format="event"/>"#);
    let levels = [
        (r#""error""#, "error"),
        (r#""CRITICAL""#, "error"),
        ("60", "error"),
        (r#""Warning""#, "warning"),
        ("40", "warning"),
        (r#""notice""#, "info"),
        ("30", "info"),
        (r#""TRACE""#, "trace"),
        ("10", "trace"),
        ("20", "debug"),
        ("50.0", "error"),
        ("3", "error"),
        ("4", "warning"),
        ("6", "info"),
        ("7", "debug"),
        ("-1", "info"),
        (r#""whatever""#, "info"),
        ("[1]", "info"),
    ];
    let lines: Vec<String> =
        levels.iter().map(|(given, _)| format!("{{\"msg\":\"x\",\"level\":{given}}}")).collect();
    let input = setup.path("input");
    fs::write(&input, lines.join("\n")).unwrap();
    setup.exec(&["--stdout", "out", "--json-field=msg"], &format!("cat {}", input.display()));
    let events = setup.read("out.log");
    for (event, (given, level)) in events.lines().zip(levels) {
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["level"], level, "{given}: {event}");
    }
    assert_eq!(events.lines().count(), levels.len());
}

#[test]
fn without_the_option_lines_of_json_are_lines() {
    let setup = Setup::new(EVENTS);
    setup.exec(&["--stdout", "events"], r#"echo '{"status":503,"path":"/b"}'"#);
    assert_eq!(setup.read("bad.log"), "");
    let event: serde_json::Value = serde_json::from_str(&setup.read("events.log")).unwrap();
    assert_eq!(event["message"], r#"{"status":503,"path":"/b"}"#);
}

#[test]
fn a_line_up_to_the_limit_is_one_and_a_longer_one_loses_nothing() {
    let setup = Setup::new(PLAIN);
    setup.exec(&["--stdout", "out", "--max-line", "8"], "echo 12345678; echo 1234567890; echo x");
    assert_eq!(setup.read("out.log"), "12345678\n12345678\n90\nx\n");
}

#[test]
fn everything_comes_through_to_a_feed() {
    let setup = Setup::new(r#"<log name="feed" type="jlog" path="DIR/feed(reader)"/>"#);
    let mut child = setup.run(&["--in", "feed=stdin"]);
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> = (0..20_000).map(|n| format!("message {n}")).collect();
    input.write_all(lines.join("\n").as_bytes()).unwrap();
    drop(input);
    let output = ended(child);
    assert!(output.status.success(), "{:?}", texts(&output));
    let read: Vec<String> = read_feed(&setup.path("feed"));
    assert!(read == lines, "messages are not the lines that were given");
}

#[test]
fn what_makes_no_sense_is_reported() {
    let setup = Setup::new(PLAIN);
    for wrong in [
        "out",
        "out=tape",
        "out=fifo:",
        "out=udp:1",
        "out=syslog-udp:1",
        "out=syslog-tcp:1",
        "out=syslog-unix:",
    ] {
        let output = logdag(&["run", &setup.config, "--in", wrong]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(texts(&output).1.contains("expected STREAM="), "{wrong}: {:?}", texts(&output));
    }
    let output = logdag(&["run", &setup.config, "--in", "out=stdin", "--max-line", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output =
        logdag(&["run", &setup.config, "--in", &format!("out=fifo:{}", setup.config)]).output().unwrap();
    assert!(texts(&output).1.contains("it is not a FIFO"), "{:?}", texts(&output));
    let none = Path::new("/nowhere/fifo");
    let output = logdag(&["run", &setup.config, "--in", &format!("out=fifo:{}", none.display())]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("/nowhere/fifo"), "{:?}", texts(&output));
    let output = logdag(&["run", &setup.config, "--in", "out//x=stdin"]).output().unwrap();
    assert!(texts(&output).1.contains("\"out//x\""), "{:?}", texts(&output));
}

#[test]
fn times_are_those_of_the_place() {
    if !Path::new("/usr/share/zoneinfo/America/New_York").exists() {
        eprintln!("skipped: the system knows no time zones");
        return;
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = |zone: &str, second: u64| {
        let output = Command::new("date")
            .env("TZ", zone)
            .args(["-d", &format!("@{second}"), "+[%Y-%m-%d %H:%M:%S."])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        texts(&output).0.trim_end().to_owned()
    };
    let zones = ["America/New_York", "UTC"];
    assert_ne!(date(zones[0], now()), date(zones[1], now()));
    for zone in zones {
        let setup = Setup::new(r#"<log name="out" type="file" path="DIR/out.log" timestamps="on"/>"#);
        let begun = now();
        let output = logdag(&["exec", &setup.config, "--stdout", "out", "--", "echo", "hello"])
            .env("TZ", zone)
            .output()
            .unwrap();
        let ended = now();
        assert!(output.status.success(), "{output:?}");
        let line = setup.read("out.log");
        let (time, rest) = line.split_at("[YYYY-MM-DD HH:MM:SS.".len());
        let expected: Vec<String> = (begun..=ended).map(|second| date(zone, second)).collect();
        assert!(expected.iter().any(|expected| expected == time), "{zone}: {line:?} at {expected:?}");
        let micros = rest.strip_suffix("] hello\n").unwrap();
        assert!(micros.len() == 6 && micros.bytes().all(|digit| digit.is_ascii_digit()), "{line:?}");
    }
}

/// Waits until a line goes to this file: a configuration is applied some time after the signal.
fn wait_until_written(setup: &Setup, input: &mut impl Write, name: &str, text: &str) {
    let begun = Instant::now();
    while !setup.read(name).contains(text) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", setup.read(name));
        writeln!(input, "{text}").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
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

#[test]
fn streams_are_switched_on_and_off_by_options() {
    let setup = Setup::new(
        r#"<log name="on" type="file" path="DIR/on.log" disabled="true"/>
           <log name="off" type="file" path="DIR/off.log"/>
           <log name="in"><outlet name="on"/><outlet name="off"/><outlet name="debug"/></log>"#,
    );
    let script = "echo a line";
    setup.exec(&["--stdout", "in"], script);
    assert_eq!((&*setup.read("on.log"), &*setup.read("off.log")), ("", "a line\n"));
    let output = setup.exec(&["--stdout", "in", "-l", "on", "-L", "off", "-l", "debug"], script);
    assert_eq!((&*setup.read("on.log"), &*setup.read("off.log")), ("a line\n", "a line\n"));
    assert!(texts(&output).1.ends_with("] a line\n"), "debug leads to stderr: {:?}", texts(&output));
    let output = setup.exec(&["--stdout", "in", "-l", "no//name"], script);
    assert!(texts(&output).1.contains("\"no//name\""), "{:?}", texts(&output));
    let output = setup.exec(&["--stdout", "in/put", "-l", "in", "-L", "of", "-l", "in/put"], script);
    let warning =
        "logdag: warning: -L of: the configuration has no such stream (`logdag graph` lists those it has)\n";
    assert_eq!(texts(&output).1, warning);
}

#[test]
fn lines_go_to_any_file_descriptor_that_the_process_has() {
    let setup = Setup::new(
        r#"<log name="out" type="fd" path="3" timestamps="off"><outlet name="pipe"/></log><log name="pipe" type="fd" path="4"/>"#,
    );
    let script = format!(
        "(exec {} exec {} --stdout out -- seq 3 3>>{} 4>&1) | sed 's/^/piped /'",
        env!("CARGO_BIN_EXE_logdag"),
        setup.config,
        setup.path("three").display()
    );
    fs::write(setup.path("three"), "before\n").unwrap();
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(texts(&output), ("piped 1\npiped 2\npiped 3\n".to_owned(), String::new()));
    assert_eq!(setup.read("three"), "before\n1\n2\n3\n");
    let output = setup.exec(&["--stdout", "out"], "echo");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("file descriptor 3: the process was not started with it"),
        "{:?}",
        texts(&output)
    );
    // Lines there would come back as input.
    let input = Setup::new(r#"<log name="out" type="fd" path="0"/>"#);
    let mut child = input.run(&["--in", "out=stdin"]);
    let _ = child.stdin.take().unwrap().write_all(b"hello\n");
    let output = ended(child);
    assert_eq!(output.status.code(), Some(1));
    let (_, err) = texts(&output);
    assert!(err.contains("file descriptor 0: it is open for reading only"), "{err}");
    let wrong = Setup::new(r#"<log name="out" type="fd" path="three"/>"#);
    let output = logdag(&["check", &wrong.config]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        texts(&output).1.contains("\"three\": expected the number of a file descriptor"),
        "{:?}",
        texts(&output)
    );
}

#[test]
fn a_line_that_has_come_in_part_is_logged_as_cut() {
    let setup = Setup::new(PLAIN);
    let mut child = setup.run(&["--in", "out=stdin"]);
    let mut input = child.stdin.take().unwrap();
    write!(input, "whole\nbalance is 12").unwrap();
    setup.wait_for("out.log", "whole\n");
    signal(&child, Signal::SIGTERM);
    assert!(ended(child).status.success());
    assert_eq!(setup.read("out.log"), "whole\nbalance is 12 [cut here: logdag was told to stop]\n");
    drop(input);
    // If the input itself ends, its last line is whole without a line end.
    let mut child = setup.run(&["--in", "out=stdin"]);
    write!(child.stdin.take().unwrap(), "the last one").unwrap();
    assert!(ended(child).status.success());
    assert!(setup.read("out.log").ends_with("\nthe last one\n"));
}

/// A last line without a line end is whole if the command ended by itself.
#[test]
fn the_last_line_of_a_killed_command_is_logged_as_cut() {
    let logged = |script: &str, of: &str| {
        let setup = Setup::new(PLAIN);
        setup.exec(&[of, "out"], script);
        setup.read("out.log")
    };
    let killed = "balance is 12 [cut here: the command was killed by SIGKILL]\n";
    assert_eq!(logged("printf 'a\nbalance is 12'; kill -KILL $$", "--stdout"), format!("a\n{killed}"));
    assert_eq!(logged("printf 'balance is 12' >&2; kill -KILL $$", "--stderr"), killed);
    // Shells report like this that a command was killed.
    assert_eq!(
        logged("sh -c 'printf \"balance is 12\"; kill -TERM $$'; exit $?", "--stdout"),
        format!("balance is 12 [cut here: the command ended with status {}]\n", 128 + 15)
    );
    assert_eq!(logged("printf 'a\nb\n'; kill -KILL $$", "--stdout"), "a\nb\n");
    for status in [0, 1, 127] {
        let script = format!("printf 'a\nthe last one'; exit {status}");
        assert_eq!(logged(&script, "--stdout"), "a\nthe last one\n", "status {status}");
    }
    // The command closes its output long before it ends.
    assert_eq!(logged("printf 'the last one'; exec >&-; sleep 0.3; exit 0", "--stdout"), "the last one\n");
}

/// The rest of a line of a process that the command has left behind is not lost.
#[test]
fn a_line_of_which_a_part_has_come_when_exec_is_told_to_stop_is_logged_as_cut() {
    let setup = Setup::new(PLAIN);
    // What it leaves behind ends when its input does.
    let script = r"exec 3<&0; (printf '%s\nbalance is 12' $$; exec cat <&3 2>/dev/null) & exit 0";
    let mut command = logdag(&["exec", &setup.config, "--stdout", "out", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let input = child.stdin.take();
    setup.wait_for("out.log", "\n");
    let pid = setup.read("out.log").trim().to_owned();
    let (command, begun) = (format!("/proc/{pid}"), Instant::now());
    while std::path::Path::new(&command).exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it has not ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    let output = ended(child);
    drop(input);
    assert_eq!(output.status.code(), Some(0), "{:?}", texts(&output));
    assert_eq!(setup.read("out.log"), format!("{pid}\nbalance is 12 [cut here: logdag was told to stop]\n"));
}
