//! `jlog serve` as a service of systemd.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use nix::sys::signal::Signal;
use testkit::programs::skip;

use crate::support::{DEADLINE, Place, Running, bare, jlog};

#[test]
fn systemd_is_notified_of_what_it_does() {
    let place = Place::new(&[]);
    let socket = UnixDatagram::bind(place.path("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    };
    let mut command = jlog(["serve"]);
    command.arg(&place.feed).args(["--http", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "50000");
    let (mut server, lines) = Running::with_lines(command);
    let address = lines.next().unwrap();
    let address = address.trim_end().strip_prefix("listening on ").unwrap();
    assert_eq!(next(), format!("READY=1\nSTATUS=Listening on {address}\n"));
    assert_eq!(next(), "WATCHDOG=1\n");
    assert_eq!(next(), "WATCHDOG=1\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(), Some(0));
    let mut last = next();
    while last == "WATCHDOG=1\n" {
        last = next();
    }
    assert_eq!(last, "STOPPING=1\n");
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    let verify = || {
        let mut command = bare("systemd-analyze");
        command.stdout(Stdio::null());
        command
    };
    if verify().arg("--version").status().is_err() {
        skip("SYSTEMD", "systemd-analyze is missing (Debian's package systemd)");
        return;
    }
    let place = Place::empty();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/systemd");
    let verified = |name: &str| {
        let unit = std::fs::read_to_string(root.join(name)).unwrap();
        // systemd checks that the command exists.
        let unit = unit.replace("/usr/bin/jlog", env!("CARGO_BIN_EXE_jlog"));
        let path = place.file(name, &unit);
        let mut command = verify();
        command.args(["verify", "--man=no"]).arg(&path);
        let done = crate::support::run(command, "");
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{name}");
        unit
    };
    verified("jlog-ship.service");
    let unit = verified("jlog-serve.service");
    // The command line in the unit is valid.
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let line = line.replace("${FEEDS}", place.path("").to_str().unwrap()).replace("${HTTP}", "127.0.0.1:0");
    let mut command = bare(line.split(' ').next().unwrap());
    command.args(line.split(' ').skip(1));
    let (mut server, lines) = Running::with_lines(command);
    assert!(lines.next().unwrap().starts_with("listening on http://127.0.0.1:"));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.end(), Some(0));
}
