//! The command, with real pipes, sockets and signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod check;
mod exec;
mod graph;
mod input;
mod output;
mod reload;
mod stuck;

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
use testkit::programs::heed_signals;

fn logdag(arguments: &[&str]) -> Command {
    heed_signals();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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

/// Waits until a line goes to this file: a configuration is applied some time after the signal.
fn wait_until_written(setup: &Setup, input: &mut impl Write, name: &str, text: &str) {
    let begun = Instant::now();
    while !setup.read(name).contains(text) {
        assert!(begun.elapsed() < Duration::from_secs(10), "{name}: {:?}", setup.read(name));
        writeln!(input, "{text}").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
}
