//! Connections to peers that take messages over a socket.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::spec::SinkSpec;
use super::traits::{Lines, WriteError};
use crate::sync::plain::Mutex;

/// The default limit for the time that one message takes.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The minimum pause after a failure that took time. Lines fail at once during the pause.
const PAUSE: Duration = Duration::from_secs(1);

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A datagram socket in the file system.
    Unix(PathBuf),
    /// Host and port.
    Udp(String),
    /// Host and port.
    Tcp(String),
}

impl Address {
    /// `/PATH`, `unix:/PATH`, `udp:HOST:PORT` or `tcp:HOST:PORT`; `otherwise` if it is empty.
    pub(super) fn parse(text: &str, otherwise: &str) -> Result<Self, String> {
        let wrong = |expected: &str| Err(format!("the path {text:?}: expected {expected}"));
        let text = if text.is_empty() { otherwise } else { text };
        let host_and_port = |rest: &str| {
            let port = rest.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            port.and_then(|port| port.parse::<u16>().ok()).filter(|&port| port > 0).map(|_| rest.to_owned())
        };
        if let Some(rest) = text.strip_prefix("udp:") {
            return host_and_port(rest).map_or_else(|| wrong("udp:HOST:PORT"), |at| Ok(Address::Udp(at)));
        }
        if let Some(rest) = text.strip_prefix("tcp:") {
            return host_and_port(rest).map_or_else(|| wrong("tcp:HOST:PORT"), |at| Ok(Address::Tcp(at)));
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if !Path::new(path).is_absolute() {
            return wrong("an absolute path of a socket, udp:HOST:PORT or tcp:HOST:PORT");
        }
        Ok(Address::Unix(path.into()))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Udp(at) => write!(f, "udp:{at}"),
            Address::Tcp(at) => write!(f, "tcp:{at}"),
        }
    }
}

/// The `timeout` in a sink's `<config>`, in seconds.
pub(super) fn timeout(spec: &SinkSpec) -> Result<Duration, String> {
    let Some(text) = spec.config.get("timeout") else { return Ok(TIMEOUT) };
    let seconds = text.trim().parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    let seconds = seconds.ok_or_else(|| format!("timeout is {text:?}: expected 1 to 3600 seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// A peer that takes messages. The connection is opened when there is something to send, and again
/// after a failure.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: Address,
    timeout: Duration,
    takes_files: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    /// When the current pause ends, and the failure that caused it.
    pause: Option<(Instant, ErrorKind, String)>,
    trouble: Option<io::Error>,
}

#[derive(Debug)]
enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Peer {
    pub(super) fn new(address: Address, timeout: Duration) -> Self {
        Self { address, timeout, takes_files: false, state: Mutex::default() }
    }

    /// Sends messages that are too long for a datagram as files.
    pub(super) fn takes_files(mut self) -> Self {
        self.takes_files = true;
        self
    }

    /// Sends lines, each as one message.
    ///
    /// # Errors
    /// How many lines were sent before the one that could not be sent. The kind `InvalidData` means
    /// that this line is too long.
    pub(super) fn send(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let mut state = self.state.lock();
        if let Some((until, kind, why)) = &state.pause {
            if Instant::now() < *until {
                return Err(io::Error::new(*kind, why.clone()).into());
            }
            state.pause = None;
        }
        let begun = Instant::now();
        let mut sent = 0;
        loop {
            let (_, rest) = lines.split(sent);
            let is_old = state.connection.is_some();
            let Err(WriteError { written, error }) = self.send_once(&mut state, &rest) else { return Ok(()) };
            sent += written;
            if error.kind() == ErrorKind::InvalidData {
                return Err(WriteError { written: sent, error });
            }
            state.connection = None;
            let timed_out = error.kind() == ErrorKind::TimedOut;
            // A restarted peer gets the remaining messages over a new connection.
            if is_old && !timed_out {
                continue;
            }
            let error = io::Error::new(error.kind(), format!("{}: {error}", self.address));
            if timed_out || !matches!(self.address, Address::Unix(_)) {
                // Threads that log must not spend all their time here.
                let until = Instant::now() + begun.elapsed().max(PAUSE);
                state.pause = Some((until, error.kind(), error.to_string()));
            }
            return Err(WriteError { written: sent, error });
        }
    }

    fn send_once(&self, state: &mut State, lines: &Lines<'_>) -> Result<(), WriteError> {
        let State { connection, trouble, .. } = state;
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect()?),
        };
        match connection {
            Connection::Unix(socket) => each(lines, |line| match socket.send(line) {
                Err(e) if self.takes_files && is_too_long(&e) => send_as_file(socket, line),
                done => done,
            }),
            Connection::Udp(socket) => each(lines, |line| match socket.send(line) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    // The error is about an earlier datagram.
                    let why = format!("{}: it refused messages, which are lost: {e}", self.address);
                    *trouble = Some(io::Error::new(e.kind(), why));
                    socket.send(line)
                }
                done => done,
            }),
            Connection::Tcp(stream) => {
                if let Err(e) = check_open(stream) {
                    let why = format!("{}: {e}; what it had not read by then is lost", self.address);
                    *trouble = Some(io::Error::new(e.kind(), why));
                    return Err(e.into());
                }
                write_stream(stream, lines, Instant::now() + self.timeout)
            }
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        match &self.address {
            Address::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Connection::Unix(socket))
            }
            Address::Udp(at) => first_of(at, |to| {
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_write_timeout(Some(self.timeout))?;
                Ok(Connection::Udp(socket))
            }),
            Address::Tcp(at) => first_of(at, |to| {
                let stream = TcpStream::connect_timeout(&to, self.timeout)?;
                stream.set_nodelay(true)?;
                Ok(Connection::Tcp(stream))
            }),
        }
    }

    pub(super) fn trouble(&self) -> Option<io::Error> {
        self.state.lock().trouble.take()
    }

    /// Closes the connection: the next message opens a new one.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        (state.connection, state.pause) = (None, None);
    }
}

/// The first address of a name that can be connected to.
fn first_of<T>(at: &str, connect: impl Fn(std::net::SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for to in at.to_socket_addrs()? {
        match connect(to) {
            Ok(connected) => return Ok(connected),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Sends each line as a datagram.
fn each(lines: &Lines<'_>, mut send: impl FnMut(&[u8]) -> io::Result<usize>) -> Result<(), WriteError> {
    for (written, (line, _)) in lines.iter().enumerate() {
        let done = loop {
            match send(line) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                done => break done,
            }
        };
        if let Err(error) = done {
            return Err(WriteError { written, error: of_datagram(error, line.len()) });
        }
    }
    Ok(())
}

fn of_datagram(error: io::Error, bytes: usize) -> io::Error {
    if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
        let why = format!("a message of {bytes} bytes is longer than its socket takes");
        return io::Error::new(ErrorKind::InvalidData, why);
    }
    timed_out(error)
}

/// Whether a datagram was refused for its length, or because the socket lacks memory for it.
fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| code == Errno::EMSGSIZE as i32 || code == Errno::ENOBUFS as i32)
}

/// Sends a message as a sealed file in memory: an empty datagram carries its descriptor, as
/// systemd's native protocol requires.
fn send_as_file(socket: &UnixDatagram, message: &[u8]) -> io::Result<usize> {
    // The connection is still good, and the next message may get through.
    let cannot = |e: io::Error| {
        let bytes = message.len();
        let why = format!(
            "a message of {bytes} bytes is too long for a datagram, and cannot be sent as a file: {e}"
        );
        io::Error::new(ErrorKind::InvalidData, why)
    };
    let file = sealed(message).map_err(cannot)?;
    let rights = [file.as_raw_fd()];
    match sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&[])],
        &[ControlMessage::ScmRights(&rights)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    ) {
        Ok(_) => Ok(message.len()),
        // The peer has not taken the earlier ones yet.
        Err(e @ Errno::ETOOMANYREFS) => Err(cannot(e.into())),
        Err(e) => Err(e.into()),
    }
}

fn sealed(content: &[u8]) -> io::Result<File> {
    let memory = memfd_create("log-message", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(memory);
    file.write_all(content)?;
    let all =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(all))?;
    Ok(file)
}

/// Sockets report a timeout as `WouldBlock`: make it `TimedOut`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            io::Error::new(ErrorKind::TimedOut, "it no longer takes messages")
        }
        _ => error,
    }
}

/// Checks that the peer has not closed a connection: a write would seem to succeed nevertheless.
/// The peer should not send anything; if it does, that is discarded.
fn check_open(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let open = loop {
        match stream.read(&mut [0; 512]) {
            Ok(0) => {
                break Err(io::Error::new(ErrorKind::ConnectionAborted, "it has closed the connection"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    stream.set_nonblocking(false)?;
    open
}

/// Writes lines to a stream, with as few writes as possible. A line that was sent in part does not
/// count: its rest must not follow over another connection.
fn write_stream(stream: &mut TcpStream, lines: &Lines<'_>, deadline: Instant) -> Result<(), WriteError> {
    let bytes = lines.bytes();
    let mut done = 0;
    let result = loop {
        if done == bytes.len() {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break timed_out(ErrorKind::TimedOut.into());
        }
        match stream.set_write_timeout(Some(left)).and_then(|()| stream.write(&bytes[done..])) {
            Ok(0) => break ErrorKind::WriteZero.into(),
            Ok(n) => done += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => break timed_out(e),
        }
    };
    let whole = lines.ends.iter().take_while(|(end, _)| end - lines.start <= done).count();
    Err(WriteError { written: whole, error: result })
}
