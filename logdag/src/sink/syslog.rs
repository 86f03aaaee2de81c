//! Messages for syslog, in the format of RFC 5424.

use std::io::{self, Write as _};

use jiff::Timestamp;

use super::peer::{Address, Peer, timeout};
use super::spec::SinkSpec;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::format::Format;
use crate::record::Record;
use crate::value::Value;

const SOCKET: &str = "/dev/log";
/// The structured-data element that holds a line's keys. Its number is the one reserved for
/// examples, because logdag has none of its own.
const KEYS: &str = "keys@32473";
/// Facilities, from 0 on.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// Sends lines to syslog: over a local socket, UDP, or TCP with octet counting.
#[derive(Debug)]
pub(crate) struct Syslog {
    peer: Peer,
    facility: u8,
    hostname: String,
    identifier: String,
    pid: u32,
}

/// Checks the path and the `<config>`.
pub(super) fn check(spec: &SinkSpec) -> Result<(), String> {
    Syslog::new(spec).map(|_| ())
}

impl Syslog {
    pub(crate) fn open(spec: &SinkSpec) -> io::Result<Self> {
        Self::new(spec).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    fn new(spec: &SinkSpec) -> Result<Self, String> {
        let facility = spec.config.get("facility").map_or("user", |name| name.trim());
        let number =
            FACILITIES.iter().zip(0..).find_map(|(&name, number)| (name == facility).then_some(number));
        let facility = number
            .ok_or_else(|| format!("facility is {facility:?}: expected one of {}", FACILITIES.join(", ")))?;
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Ok(Self {
            peer: Peer::new(Address::parse(&spec.path, SOCKET)?, timeout(spec)?),
            facility,
            hostname: name(hostname.trim(), 255),
            identifier: name(&identifier(spec), 48),
            pid: std::process::id(),
        })
    }
}

/// The name that the program sends: `identifier` in the `<config>`, or the name that it was started
/// with.
pub(super) fn identifier(spec: &SinkSpec) -> String {
    if let Some(given) = spec.config.get("identifier").filter(|given| !given.is_empty()) {
        return given.clone();
    }
    let started = std::env::args_os().next().unwrap_or_default();
    let file = std::path::Path::new(&started).file_name().unwrap_or_default();
    file.to_string_lossy().into_owned()
}

/// A field of the header: printable ASCII; `-` if it is empty.
fn name(text: &str, longest: usize) -> String {
    let printable = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let name: String = text.chars().take(longest).map(printable).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// The keys as structured data.
fn structured_data(keys: &[(&str, Value<'_>)], out: &mut Vec<u8>) {
    if keys.is_empty() {
        out.push(b'-');
        return;
    }
    // Writing to a Vec cannot fail.
    let _ = write!(out, "[{KEYS}");
    for (key, value) in keys {
        let key = name(key, 32).replace(['=', ']', '"'], "_");
        let _ = write!(out, " {key}=\"");
        for c in value.to_string().chars() {
            if matches!(c, '"' | '\\' | ']') {
                out.push(b'\\');
            }
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.push(b'"');
    }
    out.push(b']');
}

impl Sink for Syslog {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        self.peer.send(lines)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).needs_times(false).may_be_asynchronous(true).wraps(true)
    }

    fn trouble(&self) -> Option<io::Error> {
        self.peer.trouble()
    }

    fn reopen(&self) -> io::Result<()> {
        self.peer.reset();
        Ok(())
    }

    fn wrap(&self, record: &Record<'_>, format: Format, line: &mut Vec<u8>) {
        let mut message = Vec::with_capacity(line.len() + 128);
        let micros = i64::try_from(record.micros()).ok();
        let time =
            micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or(Timestamp::MAX);
        let priority = self.facility * 8 + record.level.severity();
        let Self { hostname, identifier, pid, .. } = self;
        let id = name(record.facility, 32);
        // Writing to a Vec cannot fail.
        let _ = write!(message, "<{priority}>1 {time:.6} {hostname} {identifier} {pid} {id} ");
        // The other formats have the keys in their text.
        structured_data(if format == Format::Plain { record.keys } else { &[] }, &mut message);
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if !text.is_empty() {
            message.push(b' ');
            message.extend_from_slice(text);
        }
        line.clear();
        if matches!(self.peer.address, Address::Tcp(_)) {
            let _ = write!(line, "{} ", message.len());
        }
        line.append(&mut message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_config_are_checked() {
        let with = |path: &str, key: &str, value: &str| {
            let config = [(key.to_owned(), value.to_owned())].into();
            check(&SinkSpec { path: path.to_owned(), config, ..SinkSpec::default() })
        };
        for path in ["", "/run/log", "unix:/run/log", "udp:[::1]:514", "tcp:logs.example.com:601"] {
            assert_eq!(with(path, "facility", "local7"), Ok(()), "{path}");
        }
        for path in ["log", "unix:log", "udp:localhost", "udp::514", "tcp:a:0", "tcp:a:70000", "tls:a:1"] {
            assert!(with(path, "facility", "user").unwrap_err().contains("expected"), "{path}");
        }
        assert!(with("", "facility", "local8").unwrap_err().contains("\"local8\""));
        assert!(with("", "timeout", "0").unwrap_err().contains("1 to 3600"));
    }
}
