//! A server, and a client that sends exactly the given bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use jlog_core::{Jlog, Start, Wait};
use jlog_watch::{Address, Server, Watch};
use tempfile::TempDir;
pub(crate) use testkit::{DEADLINE, until};

pub(crate) fn serve(watch: Watch) -> Server {
    watch.serve(&"127.0.0.1:0".parse().unwrap()).unwrap()
}

pub(crate) fn socket_address(server: &Server) -> SocketAddr {
    match server.address() {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

pub(crate) fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(socket_address(server)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends these bytes and reads the answer until the connection is closed.
pub(crate) fn send(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: BTreeMap<String, String> = lines.map(header).collect();
    if let Some(length) = headers.get("content-length") {
        assert!(body.is_empty() || body.len().to_string() == *length, "{head}");
    }
    Answer { status, headers, body: body.to_owned() }
}

/// Asks with further header lines, each with its line end.
pub(crate) fn ask_with(server: &Server, path: &str, headers: &str) -> Answer {
    let host = socket_address(server);
    send(
        connect(server),
        &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"),
    )
}

pub(crate) fn ask(server: &Server, path: &str) -> Answer {
    ask_with(server, path, "")
}

/// The samples of `/metrics`, by what stands before the value.
pub(crate) fn samples(server: &Server) -> BTreeMap<String, f64> {
    let answer = ask(server, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

/// A directory with feeds.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A feed with a subscriber `s` at its beginning.
    pub(crate) fn feed(&self, name: &str) -> Jlog {
        let log = Jlog::options().segment_size(200).create(self.join(name)).unwrap();
        log.subscribe("s", Start::Beginning).unwrap();
        log
    }

    /// A sample's name with the labels of a feed.
    pub(crate) fn of(&self, metric: &str, feed: &str) -> String {
        format!("{metric}{{feed=\"{}\"}}", self.join(feed).display())
    }

    /// The same with the labels of its subscriber `s`.
    pub(crate) fn of_s(&self, metric: &str, feed: &str) -> String {
        format!("{metric}{{feed=\"{}\",subscriber=\"s\"}}", self.join(feed).display())
    }
}

pub(crate) fn append(log: &Jlog, messages: usize) {
    let writer = log.writer().unwrap();
    for n in 0..messages {
        writer.append(format!("message {n:04}")).unwrap();
    }
    writer.close().unwrap();
}

/// Reads and acknowledges this many messages as `s`.
pub(crate) fn consume(log: &Jlog, mut messages: usize) {
    let mut reader = log.reader("s").unwrap();
    while messages > 0 {
        let batch = reader.next_batch(Wait::No).unwrap().unwrap();
        let ids: Vec<_> = batch.iter().take(messages).map(|message| message.id()).collect();
        messages -= ids.len();
        let last = *ids.last().unwrap();
        reader.commit(last).unwrap();
    }
}
