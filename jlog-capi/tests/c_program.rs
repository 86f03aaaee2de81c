//! A C program that exercises the whole interface, linked to the shared and to the static library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use jlog_core::{Error, Jlog, Start};

/// Runs the program on fresh directories. It must finish and report that.
fn run(mut command: Command) {
    let work = tempfile::tempdir().unwrap();
    // A jlog with checksums, which no function of the C interface turns on.
    let checked = work.path().join("checked");
    let log = Jlog::options().checksums(true).create(&checked).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    writer.append(b"first").unwrap();
    writer.append(b"second").unwrap();
    drop(writer);
    drop(log);
    let scratch = work.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let out = command.arg(&scratch).arg(&checked).output().unwrap();
    assert!(out.status.success(), "{}: {}", out.status, support::both(&out));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.starts_with("ok ") && said.ends_with(" checks\n"), "{said}");
    println!("{}", said.trim_end());
}

#[test]
fn program_with_the_shared_library() {
    let Some(cc) = support::compiler() else { return };
    let dir = support::library_dir();
    let program = dir.path().join("program");
    let library = dir.path().join("libjlog.so.2");
    support::compile(&cc, &support::source("c_program.c"), &program, &[&library], &["-lpthread"]);
    run(support::run_with(&program, dir.path()));
}

#[test]
fn program_with_the_static_library() {
    let Some(cc) = support::compiler() else { return };
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("program");
    let library = support::built("libjlog.a");
    let flags = ["-lpthread", "-ldl", "-lm"];
    support::compile(&cc, &support::source("c_program.c"), &program, &[&library], &flags);
    run(Command::new(&program));
}

#[test]
fn a_program_asks_the_loader_for_the_name_of_the_c_library() {
    let Some(cc) = support::compiler() else { return };
    // The library name in a program that is linked to it.
    let dir = support::library_dir();
    let program = dir.path().join("program");
    let library = support::built("libjlog.so");
    support::compile(&cc, &support::source("c_program.c"), &program, &[&library], &["-lpthread"]);
    let bytes = std::fs::read(&program).unwrap();
    let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(has(b"\0libjlog.so.2\0"), "the program does not ask for libjlog.so.2");
    assert!(!has(library.to_str().unwrap().as_bytes()), "the program asks for a path");
}

/// The example of the README prints what the README shows, and continues when the jlog exists
/// already.
#[test]
fn the_example() {
    let Some(cc) = support::compiler() else { return };
    let dir = support::library_dir();
    let program = dir.path().join("hello");
    let library = dir.path().join("libjlog.so.2");
    let source = support::source("../examples/hello.c");
    support::compile(&cc, &source, &program, &[&library], &[]);
    for expected in ["hello from C\n", "JLOG_ERR_CREATE_EXISTS\nhello from C\n"] {
        let out = support::run_with(&program, dir.path()).current_dir(dir.path()).output().unwrap();
        assert!(out.status.success());
        assert_eq!(support::both(&out), expected);
    }
}

/// As in the C library, any number of contexts may read for one subscriber. Exclusive readers see
/// ours.
#[test]
fn contexts_are_never_refused_and_are_seen() {
    let Some(cc) = support::compiler() else { return };
    let dir = support::library_dir();
    let program = dir.path().join("readers");
    let library = dir.path().join("libjlog.so.2");
    support::compile(&cc, &support::source("readers.c"), &program, &[&library], &[]);
    let work = tempfile::tempdir().unwrap();
    let feed = work.path().join("feed");
    let log = Jlog::create(&feed).unwrap();
    log.subscribe("s", Start::Beginning).unwrap();
    log.writer().unwrap().append_batch(&["first", "second"]).unwrap();
    for alone in [false, true] {
        let other = alone.then(|| log.reader("s").unwrap());
        let mut command = support::run_with(&program, dir.path());
        command.arg(&feed).arg("s").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "open\n");
        assert!(matches!(log.reader("s"), Err(Error::ReaderBusy { .. })));
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        drop(other);
        log.reader("s").unwrap();
    }
}
