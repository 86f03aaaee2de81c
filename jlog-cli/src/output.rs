//! Output to stdout and stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anstyle::{AnsiColor, Style};
use base64::Engine;
use indicatif::{ProgressBar, ProgressStyle};
use jlog_core::{Event, JlogOptions, LogId, Message};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::args::MessageFormat;
use crate::error::{Failure, USAGE};
use crate::stop::Stop;
use crate::values::to_jiff;

/// Style of good results.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of warnings.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Style of errors.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Style of headings.
pub const HEADING: Style = Style::new().bold();

/// Prints to stdout, without colours if it is not a terminal or `NO_COLOR` is set.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Prints a line to stdout.
pub fn line(text: &str) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}

/// Prints an error to stderr, in one line.
pub fn complain(text: &str) {
    // If stderr fails, there is nowhere to report it.
    above_bar(|| drop(writeln!(anstream::stderr().lock(), "{BAD}jlog:{BAD:#} {}", plain(text))));
}

/// Prints a note to stderr, in one line.
pub fn note(text: &str) {
    above_bar(|| drop(writeln!(anstream::stderr().lock(), "{WARN}jlog:{WARN:#} {}", plain(text))));
}

/// A table whose rows are printed as they arrive. The first rows determine the column widths.
#[derive(Debug)]
pub struct Rows {
    right: Vec<usize>,
    /// Empty until they are determined.
    widths: Vec<usize>,
    /// Rows that wait for the widths, the heading first.
    held: Vec<Vec<String>>,
    text: String,
}

impl Rows {
    /// How many rows determine the column widths.
    const DECIDING: usize = 1000;
    /// How many bytes are printed at once.
    const PIECE: usize = 1 << 16;

    /// A table with this heading; the columns whose numbers are in `right` are right-aligned.
    pub fn new(heading: &[&str], right: &[usize]) -> Self {
        let heading = heading.iter().map(|&name| name.to_owned()).collect();
        Self { right: right.to_vec(), widths: Vec::new(), held: vec![heading], text: String::new() }
    }

    /// Adds a row, which has as many cells as the heading.
    pub fn push(&mut self, row: Vec<String>) -> Result<(), Failure> {
        if !self.widths.is_empty() {
            self.format(&row);
        } else {
            self.held.push(row);
            if self.held.len() > Self::DECIDING {
                self.decide();
            }
        }
        if self.text.len() >= Self::PIECE { self.print() } else { Ok(()) }
    }

    /// Prints the remaining rows.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.decide();
        self.print()
    }

    fn print(&mut self) -> Result<(), Failure> {
        let outcome = print(self.text.as_bytes());
        self.text.clear();
        outcome
    }

    fn decide(&mut self) {
        if !self.widths.is_empty() {
            return;
        }
        let columns = self.held.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.held.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        self.widths = (0..columns).map(width).collect();
        for row in std::mem::take(&mut self.held) {
            self.format(&row);
        }
    }

    fn format(&mut self, row: &[String]) {
        let begin = self.text.len();
        for (column, (cell, &width)) in row.iter().zip(&self.widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if self.right.contains(&column) {
                fmt::Write::write_fmt(&mut self.text, format_args!("{cell:>width$}  "))
            } else {
                fmt::Write::write_fmt(&mut self.text, format_args!("{cell:width$}  "))
            };
        }
        self.text.truncate(begin + self.text[begin..].trim_end().len());
        self.text.push('\n');
    }
}

/// Whether a terminal would interpret the character instead of showing it: controls and
/// bidirectional marks.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with such characters escaped: names and paths may contain anything.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Bytes as text in one line, with control characters escaped.
#[cfg(feature = "top")]
pub fn plain_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => out.push(' '),
                c if is_hidden(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = fmt::Write::write_fmt(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

/// Options that report events on stderr.
pub fn options() -> JlogOptions {
    JlogOptions::default().on_event(|event: &Event| {
        if event.is_damage() {
            DAMAGE_REPORTED.store(true, Ordering::Relaxed);
        }
        note(&event.to_string());
    })
}

static DAMAGE_REPORTED: AtomicBool = AtomicBool::new(false);

/// Whether an event reported damage; the command then ends with the exit code for damage.
pub fn damage_reported() -> bool {
    DAMAGE_REPORTED.load(Ordering::Relaxed)
}

/// Appends bytes for a terminal. Bytes that could move its cursor, change its colours or title, or
/// make it answer are escaped. Line ends and tabs stay.
fn push_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Writing to a Vec cannot fail.
            let _ = match c {
                '\n' | '\t' => write!(out, "{c}"),
                '\r' => write!(out, "\\r"),
                c if c.is_ascii_control() => write!(out, "\\x{:02x}", u32::from(c)),
                c if is_hidden(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
                c => write!(out, "{c}"),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

/// Stdout for messages. It knows which of them were written whole, even after an error.
#[derive(Clone, Debug)]
pub struct MessageOutput {
    format: MessageFormat,
    pending: Vec<u8>,
    /// Where each pending message ends in `pending`, with its id.
    ends: Vec<(usize, LogId)>,
    /// A regular file never blocks, and takes everything at once.
    never_blocks: bool,
    terminal: bool,
}

/// How much a writable pipe takes without blocking.
const PIPE_PIECE: usize = 4096;

/// A body of at least this size is written directly, without a copy.
const LARGE: usize = 1 << 20;

impl MessageOutput {
    /// Stdout.
    ///
    /// # Errors
    /// On a terminal, for a format that people cannot read there: its messages may contain
    /// anything.
    pub fn new(format: MessageFormat) -> Result<Self, Failure> {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        if terminal && matches!(format, MessageFormat::Null | MessageFormat::LengthPrefixed) {
            return Err(Failure::new(
                "-o null and -o length-prefixed are for programs, and this is a terminal: send them to a file or a pipe, or use \
                 -o short",
            )
            .with_code(USAGE));
        }
        let regular = stdout
            .as_fd()
            .try_clone_to_owned()
            .map(std::fs::File::from)
            .and_then(|file| file.metadata())
            .is_ok_and(|meta| meta.is_file());
        Ok(Self { format, pending: Vec::new(), ends: Vec::new(), never_blocks: regular, terminal })
    }

    /// Adds a message.
    ///
    /// # Errors
    /// The message cannot be shown in this format; it is not added.
    pub fn push(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        self.push_before(message)?;
        self.push_body(message);
        self.push_after();
        self.ends.push((self.pending.len(), message.id()));
        Ok(())
    }

    /// Whether a message should go to [`flush_with`](Self::flush_with) instead of
    /// [`push`](Self::push).
    pub fn is_large(&self, message: &Message<'_>) -> bool {
        let as_it_is = match self.format {
            MessageFormat::Cat | MessageFormat::Short => !self.terminal,
            MessageFormat::Null | MessageFormat::LengthPrefixed => true,
            MessageFormat::Json | MessageFormat::Logline | MessageFormat::Hex => false,
        };
        as_it_is && message.body().len() >= LARGE
    }

    /// The bytes before the body.
    fn push_before(&mut self, message: &Message<'_>) -> Result<(), Failure> {
        let (id, time, out) = (message.id(), to_jiff(message.time()), &mut self.pending);
        // Writing to a Vec cannot fail.
        let _ = match self.format {
            MessageFormat::Cat | MessageFormat::Json | MessageFormat::Logline => Ok(()),
            MessageFormat::Null if memchr::memchr(0, message.body()).is_some() => {
                return Err(Failure::new(format!(
                    "message {id} contains a NUL byte, which would end it: use -o length-prefixed, or json"
                )));
            }
            MessageFormat::Null => Ok(()),
            MessageFormat::LengthPrefixed => {
                let len = u32::try_from(message.body().len()).map_err(|_| {
                    Failure::new(format!(
                        "message {id} is longer than 4 GiB, the limit of -o length-prefixed"
                    ))
                })?;
                out.write_all(&len.to_le_bytes())
            }
            MessageFormat::Short => write!(out, "{time:.6} {id} "),
            MessageFormat::Hex => writeln!(out, "{time:.6} {id}"),
        };
        Ok(())
    }

    fn push_body(&mut self, message: &Message<'_>) {
        let (body, out) = (message.body(), &mut self.pending);
        match self.format {
            MessageFormat::Cat | MessageFormat::Short if self.terminal => push_escaped(body, out),
            MessageFormat::Json => push_json(message, self.terminal, out),
            MessageFormat::Logline => match logline::LogLine::parse(body) {
                Ok(line) => line.write_json(out),
                Err(_) => push_json(message, self.terminal, out),
            },
            MessageFormat::Hex => push_hex(body, out),
            _ => out.extend_from_slice(body),
        }
    }

    /// The bytes after the body.
    fn push_after(&mut self) {
        match self.format {
            MessageFormat::Cat | MessageFormat::Short | MessageFormat::Json | MessageFormat::Logline => {
                self.pending.push(b'\n');
            }
            MessageFormat::Null => self.pending.push(0),
            MessageFormat::Hex | MessageFormat::LengthPrefixed => {}
        }
    }

    /// Counts a message as written although it is not shown.
    pub fn pass_over(&mut self, id: LogId) {
        self.ends.push((self.pending.len(), id));
    }

    /// Writes everything or, if a signal came, up to the end of the current message. Returns the id
    /// of the last message that was written whole, if any, and the outcome.
    pub fn flush(&mut self, stop: &Stop) -> (Option<LogId>, Result<(), Failure>) {
        let pending = std::mem::take(&mut self.pending);
        let done = self.write_out(&[&pending], stop);
        self.pending = pending;
        self.forget();
        done
    }

    /// Writes everything, and then this large message, in the same way.
    pub fn flush_with(&mut self, message: &Message<'_>, stop: &Stop) -> (Option<LogId>, Result<(), Failure>) {
        if let Err(refused) = self.push_before(message) {
            let (done, outcome) = self.flush(stop);
            return (done, outcome.and(Err(refused)));
        }
        let before = std::mem::take(&mut self.pending);
        self.push_after();
        let after = std::mem::take(&mut self.pending);
        let body = message.body();
        self.ends.push((before.len() + body.len() + after.len(), message.id()));
        let done = self.write_out(&[&before, body, &after], stop);
        self.pending = before;
        self.forget();
        done
    }

    /// The same without the pending bytes.
    pub fn emptied(mut self) -> Self {
        self.forget();
        self
    }

    fn forget(&mut self) {
        self.pending.clear();
        self.pending.shrink_to(LARGE);
        self.ends.clear();
    }

    fn write_out(&self, parts: &[&[u8]], stop: &Stop) -> (Option<LogId>, Result<(), Failure>) {
        let total = parts.iter().map(|part| part.len()).sum();
        let mut written = 0;
        let outcome = loop {
            let stopping = stop.is_set();
            let target = if stopping {
                let end = self.ends.iter().map(|(end, _)| *end).find(|end| *end >= written);
                end.unwrap_or(total)
            } else {
                total
            };
            if written >= target {
                break Ok(());
            }
            match self.write_piece(piece(parts, written, target), stop) {
                // Nobody will read the rest of the message.
                Ok(0) if stopping => break Ok(()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(Failure::stdout(&e)),
            }
        };
        let done = self.ends.partition_point(|(end, _)| *end <= written);
        (done.checked_sub(1).map(|last| self.ends[last].1), outcome)
    }

    fn write_piece(&self, rest: &[u8], stop: &Stop) -> io::Result<usize> {
        let stdout = io::stdout();
        if self.never_blocks {
            return Ok(nix::unistd::write(stdout.as_fd(), rest)?);
        }
        let mut fds = vec![PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        let timeout = if stop.is_set() {
            PollTimeout::from(100u16)
        } else {
            fds.push(PollFd::new(stop.as_fd(), PollFlags::POLLIN));
            PollTimeout::NONE
        };
        poll(&mut fds, timeout)?;
        if fds[0].any().unwrap_or(false) {
            return Ok(nix::unistd::write(stdout.as_fd(), &rest[..rest.len().min(PIPE_PIECE)])?);
        }
        Ok(0)
    }
}

/// The bytes between `from` and `to` of these consecutive parts, up to the end of one part.
fn piece<'a>(parts: &[&'a [u8]], mut from: usize, mut to: usize) -> &'a [u8] {
    for part in parts {
        if from < part.len() {
            return &part[from..to.min(part.len())];
        }
        from -= part.len();
        to -= part.len();
    }
    &[]
}

fn push_json(message: &Message<'_>, terminal: bool, out: &mut Vec<u8>) {
    let mut object = serde_json::Map::new();
    object.insert("id".into(), message.id().to_string().into());
    object.insert("time".into(), format!("{:.6}", to_jiff(message.time())).into());
    object.insert("size".into(), message.body().len().into());
    match std::str::from_utf8(message.body()) {
        Ok(text) => object.insert("body".into(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(message.body());
            object.insert("body_base64".into(), encoded.into())
        }
    };
    // Writing to a Vec cannot fail.
    if !terminal {
        let _ = serde_json::to_writer(out, &object);
        return;
    }
    // JSON escapes the control characters below 0x20; a terminal may also interpret those from
    // 0x80.
    for c in serde_json::Value::Object(object).to_string().chars() {
        let _ = if is_hidden(c) { write!(out, "\\u{:04x}", u32::from(c)) } else { write!(out, "{c}") };
    }
}

fn push_hex(body: &[u8], out: &mut Vec<u8>) {
    for (i, row) in body.chunks(16).enumerate() {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "  {:08x} ", i * 16);
        for n in 0..16 {
            match row.get(n) {
                Some(byte) => {
                    let _ = write!(out, " {byte:02x}");
                }
                None => out.extend_from_slice(b"   "),
            }
        }
        out.extend_from_slice(b"  |");
        out.extend(row.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b } else { b'.' }));
        out.extend_from_slice(b"|\n");
    }
}

/// The bar that lines on stderr are printed above.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn above_bar(print: impl FnOnce()) {
    match &*BAR.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// Whether a bar can be seen.
#[cfg(feature = "ship")]
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Shows a bar for this many messages, below all lines, until it is dropped.
#[cfg(feature = "ship")]
#[derive(Debug)]
pub struct MessageBar(ProgressBar);

#[cfg(feature = "ship")]
impl MessageBar {
    /// A bar at its beginning.
    pub fn new(total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template(
            "{bar:40} {human_pos} of {human_len} messages, {per_sec}, {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.tick();
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self(bar)
    }

    /// Sets how many are done.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }
}

#[cfg(feature = "ship")]
impl Drop for MessageBar {
    fn drop(&mut self) {
        let mut bar = BAR.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.finish_and_clear();
        *bar = None;
    }
}

/// Whether stdout is a terminal.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Work of at least this many bytes gets a progress bar.
const LONG: u64 = 16 << 20;

/// A progress bar for work of this many bytes, if there are enough of them and stderr is a
/// terminal.
pub fn progress_bar(total: u64) -> Option<ProgressBar> {
    if total < LONG || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(total);
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // Draw it at once, however short the work is.
    bar.tick();
    Some(bar)
}
