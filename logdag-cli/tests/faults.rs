//! Faults that the command has had, each with the test that found it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(5);

fn logs(inside: &str) -> String {
    format!("<app><logs>\n{inside}\n</logs></app>")
}

/// The exit status of `logdag check`; `None` if a signal killed it, or it does not end.
fn check(text: &str) -> Option<i32> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.xml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.arg("check").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    for _ in 0..LONG.as_millis() / 20 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[test]
fn deep_elements_use_up_no_stack() {
    for depth in [10_000, 200_000] {
        let inside = format!("{}<log name=\"a\"/>{}", "<g>".repeat(depth), "</g>".repeat(depth));
        assert!(check(&logs(&inside)).is_some(), "{depth} levels: it works, or is an error");
    }
}

#[test]
fn ways_that_double_are_an_error_or_quick() {
    let mut inside = String::new();
    for n in 0..30 {
        let next = n + 1;
        inside += &format!(r#"<log name="n{n}"><outlet name="n{next}"/><outlet name="n{next}"/></log>"#);
    }
    assert!(check(&logs(&inside)).is_some());
}

#[test]
fn a_name_of_many_parts_is_an_error_or_quick() {
    let name = vec!["a"; 5000].join("/");
    assert!(check(&logs(&format!(r#"<log name="{name}"/>"#))).is_some());
}

#[test]
fn a_chain_of_streams_that_begins_at_its_end_is_quick() {
    let log = |n| format!(r#"<log name="n{n}"><outlet name="n{}"/></log>"#, n + 1);
    assert_eq!(check(&logs(&(0..990).rev().map(log).collect::<String>())), Some(0));
}

#[test]
fn many_streams_are_quick() {
    let log = |n| format!("<log name=\"n{n}\" type=\"memory\"><outlet name=\"error\"/></log>\n");
    assert_eq!(check(&logs(&(0..20_000).map(log).collect::<String>())), Some(0));
}

/// The output of the command for a configuration with these streams.
fn command(dir: &Path, logs: &str) -> Command {
    let config = dir.join("app.xml");
    fs::write(&config, format!("<app><logs>\n{}\n</logs></app>", logs.replace("DIR", dir.to_str().unwrap())))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn check_finds_what_run_would_refuse() {
    for wrong in [
        r#"<log name="a" type="memory" path="many"/>"#,
        r#"<log name="a" type="jlog" path="DIR/feed(a"/>"#,
        r#"<log name="a" type="jlog" path="DIR/feed"><config><precommit>much</precommit></config></log>"#,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("app.xml");
        for what in ["run", "check"] {
            let mut command = command(dir.path(), wrong);
            command.arg(what).arg(&config);
            if what == "run" {
                command.args(["--in", "a=stdin"]);
            }
            assert_eq!(command.output().unwrap().status.code(), Some(1), "{what}: {wrong}");
        }
    }
}

#[test]
fn an_unknown_attribute_of_an_outlet_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), r#"<log name="a"><outlet name="b" fliter="x = 1"/></log>"#);
    let output = command.arg("check").arg(dir.path().join("app.xml")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "every line would pass");
}

#[test]
fn a_file_where_a_socket_is_to_be_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "data").unwrap();
    let mut command = command(dir.path(), r#"<log name="a" type="memory"/>"#);
    let source = format!("a=unix:{}", precious.display());
    let mut child =
        command.arg("run").arg(dir.path().join("app.xml")).args(["--in", &source]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(fs::read_to_string(&precious).ok().as_deref(), Some("data"));
}

#[test]
fn no_part_of_a_long_line_is_longer_than_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), r#"<log name="a" type="file" path="DIR/a.log"/>"#);
    let config = dir.path().join("app.xml");
    let script = "echo abcdefghijkl; echo 123456789";
    command.arg("exec").arg(config).args(["--stdout", "a", "--max-line", "4", "--", "sh", "-c", script]);
    command.output().unwrap();
    let text = fs::read_to_string(dir.path().join("a.log")).unwrap();
    assert_eq!(text, "abcd\nefgh\nijkl\n1234\n5678\n9\n");
}

#[test]
fn quotes_and_backslashes_in_filters_are_right_in_dot() {
    let dir = tempfile::tempdir().unwrap();
    let logs = r#"<log name="a"><outlet name="b" filter='x ~ "a\"b"'/></log>"#;
    let mut command = command(dir.path(), logs);
    let output = command.args(["graph", "--dot"]).arg(dir.path().join("app.xml")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r#"[label="x ~ \"a\\\"b\""]"#), "{text}");
}

#[test]
fn a_command_whose_children_live_on_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), r#"<log name="a" type="file" path="DIR/a.log"/>"#);
    let config = dir.path().join("app.xml");
    command.arg("exec").arg(config).args(["--stdout", "a", "--", "sh", "-c", "sleep 4 & exit 0"]);
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "SIGTERM went to a process that was gone");
}

#[test]
fn the_command_takes_what_was_sent_before_it_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("app.xml");
    let (log, socket) = (dir.path().join("log"), dir.path().join("socket"));
    let logs = format!("<app><logs><log name='in' type='file' path='{}'/></logs></app>", log.display());
    fs::write(&config, logs).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_logdag"))
        .arg("run")
        .arg(&config)
        .arg("--in")
        .arg(format!("in=unix:{}", socket.display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut connection = loop {
        match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(connection) => break connection,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    connection.write_all(text.as_bytes()).unwrap();
    // The connection stays.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(fs::read_to_string(&log).unwrap() == text, "lines are missing");
}

#[test]
fn a_command_that_cannot_be_run_is_told_apart_from_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("app.xml");
    fs::write(&config, "<app><logs/></app>").unwrap();
    for (command, code) in [("/no/such/command", 127), ("/etc/passwd", 126)] {
        let mut exec = Command::new(env!("CARGO_BIN_EXE_logdag"));
        let output = exec.arg("exec").arg(&config).args(["--", command]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}
