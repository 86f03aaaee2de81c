//! The sources of lines: pipes, sockets, datagrams, and the syslog protocol.

use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use logdag::input::{JsonLines, SyslogMessages, for_each_syslog_message};
use logdag::{Graph, Level, Location, Stream};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockRef, TcpKeepalive};

use crate::args::{LineArgs, Source};
use crate::{Failure, report};

/// Takes lines, and logs them.
#[derive(Clone)]
pub(crate) struct Lines {
    stream: Stream,
    json: Option<JsonLines>,
    syslog: SyslogMessages,
    max_line: usize,
}

impl Lines {
    pub(crate) fn new(graph: &Graph, stream: &str, args: &LineArgs) -> Result<Self, Failure> {
        let name = stream;
        let known = graph.describe(name);
        let stream = graph.stream(name)?;
        if !stream.is_enabled() {
            let what = match known {
                Some(known) if !known.enabled => "is disabled",
                Some(_) => "leads to no sink",
                None => "is not in the configuration, and leads to no sink",
            };
            report(format_args!("logdag: the stream {name:?} {what}: its lines go nowhere"));
        }
        Ok(Self { stream, json: args.json(), syslog: args.syslog(), max_line: args.max_line.get() })
    }

    /// Logs every line until the input ends. A line that is too long continues in the next one.
    pub(crate) fn take_all(&self, from: impl Read) -> io::Result<()> {
        logdag::for_each_line(from, self.max_line, |line| self.take(line))
    }

    /// The same until it is told to stop. An incomplete line is then logged and marked as cut.
    fn take_until_stopped(&self, from: Until<impl Read + AsFd>) -> io::Result<()> {
        self.take_output(from, || None)
    }

    /// The same for the output of a command. Its last line may have no line end; the function then
    /// returns what cut it, or `None` if it is whole.
    pub(crate) fn take_output(
        &self,
        from: Until<impl Read + AsFd>,
        cut_by: impl Fn() -> Option<String>,
    ) -> io::Result<()> {
        let end = Arc::clone(&from.end);
        logdag::for_each_line(from, self.max_line, |line| {
            // More input is read only after all whole lines are taken.
            let why = match end.get() {
                None => None,
                Some(End::Stopped) => Some("logdag was told to stop".to_owned()),
                Some(End::OfInput) => cut_by(),
            };
            match why {
                None => self.take(line),
                Some(why) => {
                    let text = String::from_utf8_lossy(line);
                    let cut = format_args!("{text} [cut here: {why}]");
                    self.stream.log(Level::Info, &Location::UNKNOWN, &[], &cut);
                }
            }
        })
    }

    fn take(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        match &self.json {
            Some(json) => json.log(&self.stream, &text),
            None => self.stream.log(Level::Info, &Location::UNKNOWN, &[], &text),
        }
    }
}

/// Tells inputs to stop, by closing the other end of a pipe.
#[derive(Clone)]
pub(crate) struct Stop(Arc<io::PipeReader>);

impl Stop {
    pub(crate) fn new() -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self(Arc::new(reader)), writer))
    }

    /// Waits until there is something to read, or until it must stop and there is nothing.
    fn wait_for(&self, input: BorrowedFd<'_>) -> io::Result<bool> {
        let ready = |poll: &PollFd<'_>| poll.any().unwrap_or(true);
        loop {
            let mut polled =
                [PollFd::new(input, PollFlags::POLLIN), PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            if ready(&polled[0]) || ready(&polled[1]) {
                return Ok(ready(&polled[0]));
            }
        }
    }
}

/// Why an input has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    OfInput,
    /// It was told to stop.
    Stopped,
}

/// An input that ends when it is told to stop and there is nothing more to read.
pub(crate) struct Until<R> {
    input: R,
    stop: Stop,
    end: Arc<OnceLock<End>>,
}

impl<R> Until<R> {
    pub(crate) fn new(input: R, stop: Stop) -> Self {
        Self { input, stop, end: Arc::default() }
    }
}

impl<R: Read + AsFd> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, end) = if self.stop.wait_for(self.input.as_fd())? {
            (self.input.read(buffer)?, End::OfInput)
        } else {
            (0, End::Stopped)
        };
        if read == 0 && !buffer.is_empty() {
            self.end.get_or_init(|| end);
        }
        Ok(read)
    }
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, Failure> {
    std::thread::Builder::new().spawn(work).map_err(|e| format!("cannot start a thread: {e}").into())
}

pub(crate) fn start(
    source: Source,
    lines: Lines,
    stop: Stop,
) -> Result<std::thread::JoinHandle<()>, Failure> {
    let named = |path: &Path, e: io::Error| -> Failure { format!("{}: {e}", path.display()).into() };
    Ok(match source {
        Source::Stdin => {
            // Bypass the standard library's buffer: its contents cannot be polled.
            let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            spawn(move || report_end("stdin", lines.take_until_stopped(Until::new(input, stop))))?
        }
        Source::Fifo(path) => {
            if !path.exists() {
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o660))
                    .map_err(|e| named(&path, e.into()))?;
            }
            // Also opened for writing, so that it does not end when a writer closes it.
            let input = File::options().read(true).write(true).open(&path).map_err(|e| named(&path, e))?;
            if !input.metadata().is_ok_and(|facts| facts.file_type().is_fifo()) {
                return Err(format!("{}: it is not a FIFO", path.display()).into());
            }
            let what = path.display().to_string();
            spawn(move || report_end(&what, lines.take_until_stopped(Until::new(input, stop))))?
        }
        Source::Unix(path) => {
            let left_over = UnixStream::connect(&path).err();
            remove_left_over(&path, left_over).map_err(|e| named(&path, e))?;
            let listener = UnixListener::bind(&path).map_err(|e| named(&path, e))?;
            spawn(move || take_connections(&listener, &path.display().to_string(), &lines, &stop))?
        }
        Source::Udp(address) => {
            let socket = UdpSocket::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            spawn(move || {
                let take = |datagram: &[u8]| lines.take_all(datagram);
                take_datagrams(&address, &socket, |buffer| socket.recv(buffer), &stop, take);
            })?
        }
        Source::SyslogUdp(address) => {
            let socket = UdpSocket::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            spawn(move || {
                take_datagrams(
                    &address,
                    &socket,
                    |buffer| socket.recv(buffer),
                    &stop,
                    |datagram| {
                        lines.syslog.log(&lines.stream, datagram);
                        Ok(())
                    },
                );
            })?
        }
        Source::SyslogTcp(address) => {
            let listener = TcpListener::bind(&address).map_err(|e| format!("{address}: {e}"))?;
            // A connection that disappears before it is accepted must not block us.
            listener.set_nonblocking(true)?;
            spawn(move || take_syslog_connections(&listener, &address, &lines, &stop))?
        }
        Source::SyslogUnix(path) => {
            let left_over = UnixDatagram::unbound().and_then(|socket| socket.connect(&path)).err();
            remove_left_over(&path, left_over).map_err(|e| named(&path, e))?;
            let socket = UnixDatagram::bind(&path).map_err(|e| named(&path, e))?;
            spawn(move || {
                let what = path.display().to_string();
                take_datagrams(
                    &what,
                    &socket,
                    |buffer| socket.recv(buffer),
                    &stop,
                    |datagram| {
                        lines.syslog.log(&lines.stream, datagram);
                        Ok(())
                    },
                );
            })?
        }
    })
}

/// Removes a socket that connecting has shown to have no listener.
fn remove_left_over(path: &Path, connected: Option<io::Error>) -> io::Result<()> {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
    let refused = connected.is_some_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if socket && refused { std::fs::remove_file(path) } else { Ok(()) }
}

/// Takes datagrams until it must stop and there are no more.
fn take_datagrams(
    what: &str,
    socket: &impl AsFd,
    receive: impl Fn(&mut [u8]) -> io::Result<usize>,
    stop: &Stop,
    take: impl Fn(&[u8]) -> io::Result<()>,
) {
    let mut datagram = vec![0; 64 << 10];
    while stop.wait_for(socket.as_fd()).unwrap_or(false) {
        let taken = receive(&mut datagram).and_then(|n| take(&datagram[..n]));
        if taken.is_err() {
            report_end(what, taken);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn report_end(what: &str, outcome: io::Result<()>) {
    if let Err(e) = outcome {
        report(format_args!("logdag: {what}: {e}"));
    }
}

fn take_connections(listener: &UnixListener, what: &str, lines: &Lines, stop: &Stop) {
    let mut connections: Vec<std::thread::JoinHandle<()>> = Vec::new();
    while stop.wait_for(listener.as_fd()).unwrap_or(false) {
        connections.retain(|connection| !connection.is_finished());
        let taken = listener.accept().and_then(|(input, _)| {
            let (lines, stop, what) = (lines.clone(), stop.clone(), what.to_owned());
            let take = move || report_end(&what, lines.take_until_stopped(Until::new(input, stop)));
            std::thread::Builder::new().spawn(take)
        });
        match taken {
            Ok(connection) => connections.push(connection),
            Err(e) => {
                report_end(what, Err(e));
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
    for connection in connections {
        // The thread has reported its error.
        let _ = connection.join();
    }
}

/// How many syslog connections to one address may be open at a time.
const SYSLOG_CONNECTIONS: usize = 512;

/// The maximum size of a message in bytes: that many may wait per connection.
const SYSLOG_MESSAGE: usize = 256 << 10;

/// After this much silence, TCP checks whether the peer is still there.
const SYSLOG_KEEPALIVE: Duration = Duration::from_secs(60);

/// Takes syslog messages from all connections. While there are too many, further ones are refused.
fn take_syslog_connections(listener: &TcpListener, what: &str, lines: &Lines, stop: &Stop) {
    let mut connections: Vec<std::thread::JoinHandle<()>> = Vec::new();
    let mut refuses = false;
    while stop.wait_for(listener.as_fd()).unwrap_or(false) {
        connections.retain(|connection| !connection.is_finished());
        let accepted = listener.accept().and_then(|(input, peer)| {
            if connections.len() >= SYSLOG_CONNECTIONS {
                if !std::mem::replace(&mut refuses, true) {
                    let why = format!("{SYSLOG_CONNECTIONS} connections are open: further ones are refused");
                    report_end(what, Err(io::Error::other(why)));
                }
                return Ok(());
            }
            refuses = false;
            // Peers that disappear silently must not keep a place forever.
            SockRef::from(&input).set_tcp_keepalive(&TcpKeepalive::new().with_time(SYSLOG_KEEPALIVE))?;
            let (lines, stop) = (lines.clone(), stop.clone());
            let take = move || report_end(&peer.to_string(), take_syslog_messages(input, &lines, stop));
            connections.push(std::thread::Builder::new().spawn(take)?);
            Ok(())
        });
        match accepted {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(e) => {
                report_end(what, Err(e));
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(()) => {}
        }
    }
    for connection in connections {
        // It has reported its error.
        let _ = connection.join();
    }
}

/// Takes messages until the connection ends, or until it is told to stop. An incomplete message is
/// marked as cut.
fn take_syslog_messages(input: TcpStream, lines: &Lines, stop: Stop) -> io::Result<()> {
    let from = Until::new(input, stop);
    let end = Arc::clone(&from.end);
    for_each_syslog_message(from, lines.max_line.min(SYSLOG_MESSAGE), |message, whole| {
        let why = match (end.get() == Some(&End::Stopped), whole) {
            (true, _) => "logdag was told to stop",
            (false, false) => "the connection ended",
            (false, true) => return lines.syslog.log(&lines.stream, message),
        };
        lines.syslog.log(&lines.stream, &[message, format!(" [cut here: {why}]").as_bytes()].concat());
    })
}
