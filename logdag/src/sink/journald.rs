//! Entries for the journal, in its native protocol.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;

use super::peer::{Address, Peer, timeout};
use super::spec::SinkSpec;
use super::syslog::identifier;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::format::Format;
use crate::record::Record;

const SOCKET: &str = "/run/systemd/journal/socket";
/// The fields of every entry. No key may use these names.
const FIELDS: [&str; 10] = [
    "MESSAGE",
    "MESSAGE_ID",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "CODE_FILE",
    "CODE_LINE",
    "TID",
    "LOGDAG_STREAM",
    "LOGDAG_TARGET",
    "LOGDAG_TIME",
];
/// The longest name of a field.
const LONGEST: usize = 64;

/// Sends lines to the journal.
#[derive(Debug)]
pub(crate) struct Journald {
    peer: Peer,
    identifier: String,
}

/// Checks path and `<config>`.
pub(super) fn check(spec: &SinkSpec) -> Result<(), String> {
    Journald::new(spec).map(|_| ())
}

impl Journald {
    pub(crate) fn open(spec: &SinkSpec) -> io::Result<Self> {
        Self::new(spec).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    fn new(spec: &SinkSpec) -> Result<Self, String> {
        let address = Address::parse(&spec.path, SOCKET)?;
        if !matches!(address, Address::Unix(_)) {
            return Err(format!("the path {:?}: expected an absolute path of a socket", spec.path));
        }
        Ok(Self { peer: Peer::new(address, timeout(spec)?).takes_files(), identifier: identifier(spec) })
    }
}

/// Appends a field. A value that contains newlines is preceded by its length.
fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if memchr::memchr(b'\n', value).is_some() {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The field name for a key: capitals, digits and `_`, beginning with a capital.
fn field_name(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let mut name: String = key.chars().map(allowed).collect();
    if FIELDS.contains(&&*name) || !name.starts_with(|c: char| c.is_ascii_uppercase()) {
        name.insert_str(0, "KEY_");
    }
    name.truncate(LONGEST);
    name
}

impl Sink for Journald {
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

    fn wrap(&self, record: &Record<'_>, _: Format, line: &mut Vec<u8>) {
        let text = std::mem::take(line);
        field("MESSAGE", text.strip_suffix(b"\n").unwrap_or(&text), line);
        field("PRIORITY", record.level.severity().to_string().as_bytes(), line);
        field("SYSLOG_IDENTIFIER", self.identifier.as_bytes(), line);
        field("LOGDAG_STREAM", record.facility.as_bytes(), line);
        let time =
            i64::try_from(record.micros()).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
        field("LOGDAG_TIME", format!("{:.6}", time.unwrap_or(Timestamp::MAX)).as_bytes(), line);
        if !record.details.target.is_empty() {
            field("LOGDAG_TARGET", record.details.target.as_bytes(), line);
        }
        if !record.location.file.is_empty() {
            field("CODE_FILE", record.location.file.as_bytes(), line);
            field("CODE_LINE", record.location.line.to_string().as_bytes(), line);
        }
        if record.thread_id() != 0 {
            field("TID", record.thread_id().to_string().as_bytes(), line);
        }
        for (key, value) in record.keys {
            field(&field_name(key), value.to_string().as_bytes(), line);
        }
    }
}

/// Whether standard error leads to the journal, which takes the priority of a line from its
/// beginning.
pub(crate) fn is_on_stderr() -> bool {
    is_on(io::stderr())
}

/// Whether an output of the process leads to the journal. If systemd connects both outputs to it,
/// they are the same socket.
pub(super) fn is_on(output: impl AsFd) -> bool {
    let Some(journal) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(output) = output.as_fd().try_clone_to_owned() else { return false };
    let facts = std::fs::File::from(output).metadata();
    facts.is_ok_and(|facts| journal.to_str() == Some(&*format!("{}:{}", facts.dev(), facts.ino())))
}

/// Adds a priority to the beginning of each line.
pub(crate) fn prefix_lines(severity: u8, lines: &mut Vec<u8>) {
    let text = std::mem::take(lines);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        // Writing to a Vec cannot fail.
        let _ = write!(lines, "<{severity}>");
        lines.extend_from_slice(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_fields_that_the_journal_takes() {
        for (key, expected) in [
            ("status", "STATUS"),
            ("user.id", "USER_ID"),
            ("_PID", "KEY__PID"),
            ("7up", "KEY_7UP"),
            ("", "KEY_"),
            ("message", "KEY_MESSAGE"),
            ("größe", "GR__E"),
            ("a\nPRIORITY=0", "A_PRIORITY_0"),
        ] {
            assert_eq!(field_name(key), expected);
        }
        assert_eq!(field_name(&"x".repeat(100)).len(), 64);
    }
}
