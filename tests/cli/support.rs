//! Shared by several tests of the command.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, PipeWriter, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use jlog_core::{Jlog, LogId, Start, Timestamp, Wait, Writer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
pub(crate) use testkit::feeds::{copy_dir, snapshot};
use testkit::programs::heed_signals;
pub(crate) use testkit::{DEADLINE, until};

/// No further arguments.
pub(crate) const NONE: [&str; 0] = [];

/// The command without environment variables that change its output.
pub(crate) fn bare(program: impl AsRef<OsStr>) -> Command {
    heed_signals();
    let mut command = Command::new(program);
    for name in ["CI", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS"] {
        command.env_remove(name);
    }
    command.env("TZ", "UTC").env("TERM", "xterm").env("LC_ALL", "C");
    command
}

/// The command with these arguments.
pub(crate) fn jlog<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = bare(env!("CARGO_BIN_EXE_jlog"));
    command.args(arguments);
    command
}

/// The messages of a feed, as text; none if there is no feed.
pub(crate) fn contents(path: &Path) -> Vec<String> {
    let Ok(log) = Jlog::open(path) else { return Vec::new() };
    let mut reader = log.reader_from(&Start::Beginning, Default::default()).unwrap();
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
        all.extend(batch.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()));
    }
    all
}

/// A temporary directory with the path of a feed in it.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) feed: PathBuf,
}

impl Place {
    /// A place whose feed does not exist yet.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let feed = dir.path().join("feed");
        Self { dir, feed }
    }

    /// A place whose feed was made by `jlog create` with these options, and has a subscriber `s`.
    pub(crate) fn new(options: &[&str]) -> Self {
        let place = Self::empty();
        run(place.jlog("create", options), "").ok();
        place.log().subscribe("s", Start::Beginning).unwrap();
        place
    }

    /// The same with these messages, each with a different time.
    pub(crate) fn with<M: AsRef<[u8]>>(options: &[&str], messages: &[M]) -> Self {
        let place = Self::new(options);
        place.append(messages);
        place
    }

    /// A path in the temporary directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file in the temporary directory with these bytes.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// `jlog <command> <feed> <arguments>`
    pub(crate) fn jlog<A: AsRef<OsStr>>(
        &self,
        command: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut out = jlog([command]);
        out.arg(&self.feed).args(arguments);
        out
    }

    /// Runs `jlog <command> <feed> <arguments>` without input, and returns its output. It must
    /// succeed and print nothing to stderr.
    pub(crate) fn ok(&self, command: &str, arguments: &[&str]) -> String {
        run(self.jlog(command, arguments), "").text()
    }

    /// The feed through the library.
    pub(crate) fn log(&self) -> Jlog {
        Jlog::open(&self.feed).unwrap()
    }

    /// Appends messages through the library.
    pub(crate) fn append<M: AsRef<[u8]>>(&self, messages: &[M]) {
        let writer = self.log().writer().unwrap();
        for message in messages {
            writer.append(message).unwrap();
        }
        end(writer);
    }

    /// Every pending message of a subscriber, through the library; its checkpoint does not move.
    pub(crate) fn unread(&self, subscriber: &str) -> Vec<Vec<u8>> {
        let log = self.log();
        let mut reader = log.reader(subscriber).unwrap();
        let mut out = Vec::new();
        while let Some(batch) = reader.next_batch(Wait::No).unwrap() {
            out.extend(batch.iter().map(|message| message.body().to_vec()));
        }
        out
    }

    /// A subscriber's checkpoint.
    pub(crate) fn checkpoint(&self, subscriber: &str) -> LogId {
        self.log().checkpoint(subscriber).unwrap()
    }

    /// The names of the subscribers.
    pub(crate) fn subscribers(&self) -> Vec<String> {
        self.log().subscribers().unwrap().iter().map(ToString::to_string).collect()
    }

    /// The names of the segments.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.log().segments().unwrap().iter().map(|n| format!("{n:08x}")).collect()
    }

    /// Every file of the feed, with its bytes.
    pub(crate) fn snapshot(&self) -> BTreeMap<OsString, Vec<u8>> {
        snapshot(&self.feed)
    }
}

/// The result of a command.
#[derive(Debug)]
pub(crate) struct Done {
    /// `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Done {
    /// Checks that it succeeded and printed nothing to stderr. Returns its output.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""));
        self.stdout
    }

    /// The same, as text.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    /// Checks that it failed with this code, printed nothing to stdout, and gave the reason in one
    /// line. Returns that line without `jlog: `.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.stdout.escape_ascii().to_string()), (Some(code), String::new()));
        self.complaint()
    }

    /// Checks that it failed with this code, and that its errors, which may have several lines
    /// about its arguments, contain this text.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &str) {
        assert!(self.code == Some(code) && self.stderr.contains(says), "{:?}: {}", self.code, self.stderr);
        assert_eq!(self.stdout.escape_ascii().to_string(), "");
    }

    /// The one line on stderr, without `jlog: `.
    #[track_caller]
    pub(crate) fn complaint(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let [line] = lines[..] else { panic!("not one line: {:?}", self.stderr) };
        line.strip_prefix("jlog: ").unwrap_or_else(|| panic!("{line:?}")).to_owned()
    }
}

/// Runs a command to its end with this input.
pub(crate) fn run(mut command: Command, input: impl Into<Vec<u8>>) -> Done {
    let mut running = Running::start(command.stdout(Stdio::piped()));
    let (mut stdin, input) = (running.stdin.take().unwrap(), input.into());
    let feeder = std::thread::spawn(move || {
        // The command may end without reading everything.
        let _ = stdin.write_all(&input);
    });
    let stdout = collect(running.stdout.take().unwrap());
    let stderr = collect(running.stderr.take().unwrap());
    let code = running.end();
    feeder.join().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    Done { code, stdout, stderr: String::from_utf8(stderr).unwrap() }
}

/// Runs a command with this stdout.
pub(crate) fn run_to(mut command: Command, stdout: impl Into<Stdio>) -> Done {
    let mut running = Running::start(command.stdout(stdout));
    // The command holds copies of descriptors that the parent must not keep open.
    drop(command);
    running.done()
}

/// Reads to the end in a separate thread.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Held while a process is being started: until its program runs, it has all our files open.
static STARTING: Mutex<()> = Mutex::new(());

/// Closes something for good: waits until no process that another test is starting keeps it open.
pub(crate) fn close<T>(it: T) {
    let _none_is_starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    drop(it);
}

/// Ends a writer for good.
#[track_caller]
pub(crate) fn end(writer: Writer) {
    let _none_is_starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    writer.close().unwrap();
}

/// A command that runs in parallel to the test, and is killed with it.
pub(crate) struct Running(Child);

impl Deref for Running {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Running {
    /// Starts a command.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        Self(command.spawn().unwrap())
    }

    /// Starts a command with pipes for stdin and stderr.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::spawn(command.stdin(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts a command, and returns its stdout line by line.
    pub(crate) fn with_lines(mut command: Command) -> (Self, Lines) {
        let mut running = Self::start(command.stdout(Stdio::piped()));
        let lines = Lines::of(running.stdout.take().unwrap());
        (running, lines)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until it ends. Returns its exit code, or `None` if a signal ended it.
    #[track_caller]
    pub(crate) fn end(&mut self) -> Option<i32> {
        let mut status = None;
        until("the command ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Waits until it ends, if its stdout is not a pipe to this test.
    #[track_caller]
    pub(crate) fn done(&mut self) -> Done {
        let stderr = collect(self.stderr.take().unwrap());
        let code = self.end();
        let stderr = String::from_utf8(stderr.join().unwrap()).unwrap();
        Done { code, stdout: Vec::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In a successful test, it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lines as they arrive, with their ends.
pub(crate) struct Lines(Receiver<Vec<u8>>);

impl Lines {
    /// The lines of this output, which a separate thread reads.
    pub(crate) fn of(from: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                // A terminal whose other side is closed ends with an error.
                let n = from.read_until(b'\n', &mut line).unwrap_or(0);
                if n == 0 || sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line, or `None` at the end.
    #[track_caller]
    pub(crate) fn next(&self) -> Option<String> {
        self.next_bytes().map(|line| String::from_utf8(line).unwrap())
    }

    /// The next line as it is.
    #[track_caller]
    pub(crate) fn next_bytes(&self) -> Option<Vec<u8>> {
        match self.0.recv_timeout(DEADLINE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came"),
        }
    }

    /// Everything up to the end.
    #[track_caller]
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// Waits until a pipe takes nothing more.
#[track_caller]
pub(crate) fn until_full(pipe: &PipeWriter) {
    until("the pipe is full", || {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 0
    });
}

/// A time that differs for every number, and its text as the command prints it.
pub(crate) fn time(n: u32) -> (Timestamp, String) {
    assert!(n < 60);
    // 2026-03-01T12:00:00Z
    let time = Timestamp { seconds: 1_772_366_400 + n, micros: 1000 * n + 7 };
    (time, format!("2026-03-01T12:00:{n:02}.{n:03}007Z"))
}

/// Lines of text, without their ends.
pub(crate) fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}
