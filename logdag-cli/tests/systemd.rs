//! `logdag run` and `exec` as systemd services.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testkit::programs;

const DEADLINE: Duration = Duration::from_secs(20);

/// A stand-in for systemd, and a configuration.
struct Service {
    dir: tempfile::TempDir,
    socket: UnixDatagram,
    config: PathBuf,
}

impl Service {
    fn new(logs: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let config = dir.path().join("app.xml");
        fs::write(&config, format!("<app><logs>{logs}</logs></app>")).unwrap();
        Self { dir, socket, config }
    }

    fn start(&self, arguments: &[&str], watchdog: Option<&str>) -> Child {
        programs::heed_signals();
        let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
        command.arg(arguments[0]).arg(&self.config).args(&arguments[1..]);
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        if let Some(micros) = watchdog {
            command.env("WATCHDOG_USEC", micros);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The next notification, without the clock's value.
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let n = self.socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
        text.lines()
            .map(|line| if line.starts_with("MONOTONIC_USEC=") { "MONOTONIC_USEC" } else { line })
            .fold(String::new(), |mut all, line| {
                all.push_str(line);
                all.push('\n');
                all
            })
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn systemd_is_notified_of_reloads_and_the_end() {
    let service = Service::new("<log name=\"out\"/>");
    let mut child = service.start(&["run", "--in", "out=stdin"], None);
    assert_eq!(service.next(), "READY=1\nSTATUS=Logging lines from 1 input\n");
    signal(&child, Signal::SIGHUP);
    assert_eq!(service.next(), "RELOADING=1\nMONOTONIC_USEC\n");
    assert_eq!(service.next(), "READY=1\nSTATUS=The configuration was reloaded\n");
    fs::write(&service.config, "<app><logs><log/></logs></app>").unwrap();
    signal(&child, Signal::SIGHUP);
    assert_eq!(service.next(), "RELOADING=1\nMONOTONIC_USEC\n");
    let refused = service.next();
    assert!(
        refused.starts_with(
            "READY=1\nSTATUS=The configuration was refused, and the previous one stays in use: "
        ),
        "{refused}"
    );
    signal(&child, Signal::SIGTERM);
    assert_eq!(service.next(), "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_watchdog_is_pinged_while_lines_move() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut out = fs::File::options().read(true).write(true).open(&path).unwrap();
    let service = Service::new(&format!("<log name=\"out\" type=\"file\" path=\"{}\"/>", path.display()));
    let mut child = service.start(&["run", "--in", "out=stdin"], Some("300000"));
    // The ping may be first.
    let first = [service.next(), service.next()];
    assert!(first.contains(&"READY=1\nSTATUS=Logging lines from 1 input\n".to_owned()), "{first:?}");
    assert!(first.contains(&"WATCHDOG=1\n".to_owned()), "{first:?}");
    assert_eq!(service.next(), "WATCHDOG=1\n");
    // More than the pipe and a batch hold: the sink is stuck, and lines wait.
    let mut input = child.stdin.take().unwrap();
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    let writer = std::thread::spawn(move || {
        for _ in 0..8000 {
            input.write_all(&line).unwrap();
        }
        input
    });
    // The pings stop: none comes within six intervals.
    service.socket.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let begun = Instant::now();
    while service.socket.recv(&mut [0; 64]).is_ok() {
        assert!(begun.elapsed() < DEADLINE, "the pings never stop");
    }
    service.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 8_000_000];
        out.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(service.next(), "WATCHDOG=1\n");
    drop(writer.join().unwrap());
    // The end of the input is the end of the command.
    let mut last = service.next();
    while last == "WATCHDOG=1\n" {
        last = service.next();
    }
    assert_eq!(last, "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
    assert_eq!(reader.join().unwrap().iter().filter(|byte| **byte == b'\n').count(), 8000);
}

#[test]
fn a_command_that_runs_is_ready() {
    let service = Service::new("<log name=\"out\"/>");
    let mut child = service.start(&["exec", "--stdout", "out", "--", "sleep", "60"], None);
    assert_eq!(service.next(), "READY=1\nSTATUS=Runs sleep\n");
    signal(&child, Signal::SIGTERM);
    assert_eq!(service.next(), "STOPPING=1\n");
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let verify = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).output();
    if !programs::is_there(verify(&["--version"]).is_ok(), "systemd-analyze", "SYSTEMD", "systemd") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd");
    let unit = fs::read_to_string(root.join("logdag@.service")).unwrap();
    // The unit's command is found by its path.
    let unit = unit.replace("/usr/bin/logdag", env!("CARGO_BIN_EXE_logdag"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logdag@app.service");
    fs::write(&path, &unit).unwrap();
    let done = verify(&["verify", "--man=no", path.to_str().unwrap()]).unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    assert!(done.status.success());
    // The unit runs a valid command line of ours.
    fs::write(dir.path().join("app.toml"), "[logs.lines]\ntype = \"memory\"\n").unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let here = dir.path().to_str().unwrap();
    let line = line.replace("/etc/logdag", here).replace("/run/logdag/%i", here).replace("%i", "app");
    let mut child = Command::new(line.split(' ').next().unwrap())
        .args(line.split(' ').skip(1))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !dir.path().join("http.sock").exists() || !dir.path().join("lines.sock").exists() {
        assert!(begun.elapsed() < DEADLINE && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::SIGTERM);
    assert!(child.wait().unwrap().success());
}
