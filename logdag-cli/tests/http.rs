//! `logdag run` and `exec`, queried over HTTP while they run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jlog_core::{Jlog, Start};
use nix::poll::{PollFd, PollFlags, poll};

const DEADLINE: Duration = Duration::from_secs(20);

/// A command that listens, killed when a test fails.
struct Running {
    child: Child,
    address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_logdag"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("logdag: listening on http://");
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, address, stderr }
    }

    fn ask(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let host = &self.address;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn until(&self, path: &str, has: &str) {
        let begun = Instant::now();
        while !self.ask(path).1.contains(has) {
            assert!(begun.elapsed() < DEADLINE, "{has} never came: {}", self.ask(path).1);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a successful test, it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(dir: &Path, extra: &str) -> String {
    let path = dir.join("app.xml");
    let feed = dir.join("feed");
    let text = format!(
        "<app>{extra}<logs><log name=\"ring\" type=\"memory\" stats=\"on\"/>\
         <log name=\"feed\" type=\"jlog\" path=\"{}(billing)\"/>\
         <log name=\"web\"><outlet name=\"ring\"/><outlet name=\"feed\"/></log></logs></app>",
        feed.display()
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn run_shows_streams_rings_and_the_feeds_that_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let mut running = Running::start(&["run", &config, "--in", "web=stdin", "--http", "127.0.0.1:0"]);
    writeln!(running.child.stdin.as_ref().unwrap(), "hello\nthere").unwrap();
    running.until("/metrics", "logdag_stream_written_lines_total{stream=\"ring\"} 2\n");
    let lag = format!(
        "jlog_subscriber_lag_messages{{feed=\"{}\",subscriber=\"billing\"}} 2\n",
        dir.path().join("feed").display()
    );
    running.until("/metrics", &lag);
    assert!(running.ask("/eventer/logs/ring.json?last=1").1.contains("\"line\":\"there\\n\""));
    assert!(running.ask("/mtev/stats.json?format=simple").1.contains("\"ring\":2"));
    assert_eq!(running.ask("/health/ready").0, 200);
    drop(running.child.stdin.take());
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    running.stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert!(TcpStream::connect(&running.address).is_err());
    // Reading the feed leaves nothing behind in it.
    let log = Jlog::open(dir.path().join("feed")).unwrap();
    assert_eq!(log.subscribers().unwrap().len(), 1);
    assert!(log.subscribe("new", Start::Beginning).is_ok());
}

#[test]
fn exec_listens_where_the_configuration_says() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "<http address=\"127.0.0.1:0\"/>");
    let gate = dir.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let script = format!("echo from the command; read line < '{}'; exit 7", gate.display());
    let mut running = Running::start(&["exec", &config, "--stdout", "web", "--", "sh", "-c", &script]);
    running.until("/eventer/logs/ring.json", "from the command\\n");
    std::fs::write(&gate, "go\n").unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(7));
}

#[test]
fn what_cannot_be_listened_at_is_an_error_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let check = |extra: &str, arguments: &[&str]| {
        let config = config(dir.path(), extra);
        let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
        command.args(["exec", &config]).args(arguments).args(["--", "echo", "it ran"]);
        let done = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), "");
        assert_ne!(done.status.code(), Some(0));
        String::from_utf8(done.stderr).unwrap()
    };
    let said = check("<http address=\"somewhere\"/>", &[]);
    assert!(said.contains("app.xml:1:21: \"somewhere\" is not an address"), "{said}");
    let said = check("", &["--http", "0.0.0.0:0"]);
    assert!(said.contains("it needs a token"), "{said}");
    let said = check("", &["--http-token-file", "none"]);
    assert!(said.contains("give --http, too"), "{said}");
    let said = check("", &["--http", "127.0.0.1:0", "--control"]);
    assert!(said.contains("changes need a token"), "{said}");
    let said = check("<http address=\"127.0.0.1:0\" token_file=\"/no/such/token\"/>", &[]);
    assert!(said.contains("/no/such/token"), "{said}");
    let tls = "<http address=\"127.0.0.1:0\" tls_cert=\"/no/such/cert\" tls_key=\"/no/such/key\"/>";
    let said = check(tls, &[]);
    assert!(said.contains("/no/such/cert: No such file"), "{said}");
    let said = check("", &["--tls-cert", "c", "--tls-key", "k"]);
    assert!(said.contains("give --http, too"), "{said}");
    // `check` finds a wrong address, too.
    let config = config(dir.path(), "<http address=\"somewhere\"/>");
    let checked = Command::new(env!("CARGO_BIN_EXE_logdag")).args(["check", &config]).output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("is not an address"));
}

#[test]
fn ctl_says_whose_sink_a_reload_waits_for() {
    let dir = tempfile::tempdir().unwrap();
    let (config, pipe) = (dir.path().join("app.toml"), dir.path().join("pipe"));
    let text =
        "[[log]]\nname = 'stuck'\ntype = 'file'\npath = 'pipe'\ndrain_seconds = 60\nqueue_bytes = '10MB'\n";
    std::fs::write(&config, text).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nobody reads from the pipe.
    let full = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let socket = dir.path().join("ctl.sock");
    let at = format!("unix:{}", socket.display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_logdag"))
        .args(["run", "app.toml", "--in", "stuck=stdin", "--http", &at, "--control"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    (0..5000).for_each(|n| writeln!(input, "{n:099}").unwrap());
    let begun = Instant::now();
    while poll(&mut [PollFd::new(full.as_fd(), PollFlags::POLLOUT)], 0u8).unwrap() == 1 {
        assert!(begun.elapsed() < DEADLINE, "it is never full");
        std::thread::sleep(Duration::from_millis(5));
    }
    let ctl = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
        let begun = Instant::now();
        let done = command.args(["ctl", "--http", &at]).args(words).output().unwrap();
        assert!(begun.elapsed() < DEADLINE, "{words:?}: {:?}", begun.elapsed());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    };
    let list = ctl(&["list"]).1;
    assert!(list.contains("[file ") && list.contains(" waiting"), "{list}");
    let (code, _, said) = ctl(&["reload"]);
    let expected = "logdag: the reload is still under way: the sink of stuck is still busy with earlier lines; its errors \
                    go to the log\n";
    assert_eq!((code, &*said), (0, expected));
    // A refusal is reported at once.
    std::fs::write(&config, "wrong = 1").unwrap();
    let (code, _, said) = ctl(&["reload"]);
    assert!(code == 1 && said.contains("unknown attribute \"wrong\""), "{said}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_token_is_no_file_without_end() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let config = config(dir.path(), "");
    for (path, what) in [(&*fifo, "a FIFO"), (Path::new("/dev/zero"), "a device")] {
        let path = path.to_str().unwrap();
        let ctl = ["ctl", "--token-file", path, "list"];
        let run = ["run", &*config, "--in", "web=stdin", "--http", "127.0.0.1:0", "--http-token-file", path];
        for arguments in [&ctl[..], &run[..]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
            let done = command.args(arguments).stdin(Stdio::null()).output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            let expected = format!("the token file {path}: it is {what}: expected a regular file");
            assert!(done.status.code() == Some(1) && said.contains(&expected), "{said}");
        }
    }
    let mut command = Command::new("bash");
    let script = "exec \"$0\" ctl --http unix:/nowhere/at.all --token-file <(sleep 0.1; echo secret) list";
    let done = command.args(["-c", script, env!("CARGO_BIN_EXE_logdag")]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("unix:/nowhere/at.all: No such file"), "it has a token: {said}");
}

#[test]
fn ctl_shows_and_changes_streams() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let socket = dir.path().join("ctl.sock");
    let at = format!("unix:{}", socket.display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_logdag"))
        .args(["run", &config, "--in", "web=stdin", "--http", &at, "--control"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), format!("logdag: listening on {at}"));
    let ctl = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
        let done = command.args(["ctl", "--http", &at]).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    };
    let done = (0, String::new(), String::new());
    assert_eq!(ctl(&["log", "to", "web", "one", "\u{1b}[31mtwo"]), done);
    // Queued lines arrive soon.
    let begun = Instant::now();
    let mut shown = String::new();
    while shown.is_empty() && begun.elapsed() < DEADLINE {
        shown = ctl(&["show", "log", "ring", "5"]).1;
    }
    assert_eq!(shown, "one \\u{1b}[31mtwo\n");
    assert_eq!(ctl(&["log", "disconnect", "web", "feed"]), done);
    assert_eq!(ctl(&["log", "connect", "web", "feed", "level", ">=", "'warn'"]), done);
    let list = ctl(&["list"]).1;
    assert!(list.contains("web\n  -> ring\n  -> feed  if level >= 'warn'\n"), "{list}");
    assert!(list.contains("debug  (it is disabled)\n") && list.contains("ring  [memory] 1 line"), "{list}");
    assert!(!list.contains("1 lines"), "{list}");
    let printed = ctl(&["config"]).1;
    assert!(printed.contains(r#"{ name = "feed", filter = "level >= 'warn'" }"#), "{printed}");
    assert_eq!(ctl(&["log", "enable", "debug"]), done);
    assert!(!ctl(&["list"]).1.contains("debug  (it is disabled)"));
    let details = ctl(&["log", "details", "ring"]).1;
    assert!(details.contains("\"type\": \"memory\""), "{details}");
    let (code, _, said) = ctl(&["log", "enable", "none"]);
    assert!(code == 1 && said.contains("there is no log stream \"none\""), "{said}");

    // Listening starts with the next line that is logged, and lasts until the listener ends.
    let mut listener = Command::new(env!("CARGO_BIN_EXE_logdag"))
        .args(["ctl", "--http", &at, "log", "connect", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while !ctl(&["list"]).1.contains("-> live-tail-1\n") && begun.elapsed() < DEADLINE {}
    assert_eq!(ctl(&["log", "to", "web", "heard", "\u{1b}[31mhere"]), done);
    let mut line = String::new();
    BufReader::new(listener.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "heard \\u{1b}[31mhere\n");
    listener.kill().unwrap();
    listener.wait().unwrap();
    let begun = Instant::now();
    while ctl(&["list"]).1.contains("live-tail") {
        assert!(begun.elapsed() < DEADLINE, "it is still listened to");
    }
    let (code, _, said) = ctl(&["log", "connect", "web", "-", "status", ">="]);
    assert!(code == 1 && said.contains("column"), "{said}");

    let (code, _, said) = ctl(&["nonsense"]);
    assert!(code == 1 && said.contains("show log NAME [LINES]"), "{said}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (code, _, said) = ctl(&["list"]);
    assert!(code == 1 && said.contains("ctl.sock"), "{said}");

    // A server that allows no changes says what it needs.
    let running = Running::start(&["run", &config, "--in", "web=stdin", "--http", "127.0.0.1:0"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.args(["ctl", "--http", &running.address, "no", "log", "enable", "web"]);
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it needs --control"));
}
