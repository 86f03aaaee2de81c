//! What goes to stdout and stderr.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use base64::Engine;
use indicatif::{ProgressBar, ProgressStyle};
use jlog_core::{Event, JlogOptions, LogId, Message};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::args::MessageFormat;
use crate::error::Failure;
use crate::stop::Stop;
use crate::values::to_jiff;

/// Style of what is fine.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Style of what needs attention.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Style of what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Style of headings.
pub const HEADING: Style = Style::new().bold();

/// Prints to stdout, without colours where it is no terminal or `NO_COLOR` is set.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| Failure::stdout(&e))
}

/// Prints a line to stdout.
pub fn line(text: &str) -> Result<(), Failure> {
    print(format!("{text}\n").as_bytes())
}

/// Prints a complaint to stderr, in one line.
pub fn complain(text: &str) {
    // There is nobody left to tell if stderr fails.
    let _ = writeln!(anstream::stderr().lock(), "{BAD}jlog:{BAD:#} {}", plain(text));
}

/// Prints a note to stderr, in one line.
pub fn note(text: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{WARN}jlog:{WARN:#} {}", plain(text));
}

/// Text without control characters: names and paths may hold any.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Options that tell of events on stderr.
pub fn options() -> JlogOptions {
    JlogOptions::default().on_event(|event: &Event| note(&event.to_string()))
}

/// Puts a message into `out` as the format has it.
pub fn render(message: &Message<'_>, format: MessageFormat, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    match format {
        MessageFormat::Cat => {
            out.extend_from_slice(message.body());
            out.push(b'\n');
        }
        MessageFormat::Null => {
            out.extend_from_slice(message.body());
            out.push(0);
        }
        MessageFormat::Short => {
            let _ = write!(out, "{:.6} {} ", to_jiff(message.time()), message.id());
            out.extend_from_slice(message.body());
            out.push(b'\n');
        }
        MessageFormat::Json => {
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
            let _ = serde_json::to_writer(&mut *out, &object);
            out.push(b'\n');
        }
        MessageFormat::Logline => match logline::LogLine::parse(message.body()) {
            Ok(line) => {
                line.write_json(out);
                out.push(b'\n');
            }
            Err(_) => render(message, MessageFormat::Json, out),
        },
        MessageFormat::Hex => {
            let _ = writeln!(out, "{:.6} {}", to_jiff(message.time()), message.id());
            for (i, row) in message.body().chunks(16).enumerate() {
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
    }
}

/// Stdout for messages: knows which of them have gone out whole, also when it breaks.
#[derive(Debug)]
pub struct MessageOutput {
    pending: Vec<u8>,
    /// Where each pending message ends in `pending`, with its id.
    ends: Vec<(usize, LogId)>,
    /// A regular file never blocks, and takes everything at once.
    never_blocks: bool,
}

/// A pipe that can be written to takes so much without blocking.
const PIPE_PIECE: usize = 4096;

impl MessageOutput {
    /// Stdout.
    pub fn new() -> Self {
        let stdout = io::stdout();
        let regular = stdout
            .as_fd()
            .try_clone_to_owned()
            .map(std::fs::File::from)
            .and_then(|file| file.metadata())
            .is_ok_and(|meta| meta.is_file());
        Self { pending: Vec::new(), ends: Vec::new(), never_blocks: regular }
    }

    /// Adds a message.
    pub fn push(&mut self, message: &Message<'_>, format: MessageFormat) {
        render(message, format, &mut self.pending);
        self.ends.push((self.pending.len(), message.id()));
    }

    /// Counts a message as gone out that is not shown.
    pub fn pass_over(&mut self, id: LogId) {
        self.ends.push((self.pending.len(), id));
    }

    /// Writes everything, or, when told to stop meanwhile, to the end of the message that has begun. Returns
    /// the id of the last message that is out whole, if any is, and how it ended.
    pub fn flush(&mut self, stop: &Stop) -> (Option<LogId>, Result<(), Failure>) {
        let mut written = 0;
        let outcome = loop {
            let stopping = stop.is_set();
            let target = if stopping {
                let end = self.ends.iter().map(|(end, _)| *end).find(|end| *end >= written);
                end.unwrap_or(self.pending.len())
            } else {
                self.pending.len()
            };
            if written >= target {
                break Ok(());
            }
            match self.write_piece(&self.pending[written..target], stop) {
                // Nobody takes the rest of the message.
                Ok(0) if stopping => break Ok(()),
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(Failure::stdout(&e)),
            }
        };
        let done = self.ends.partition_point(|(end, _)| *end <= written);
        let whole = done.checked_sub(1).map(|last| self.ends[last].1);
        self.pending.clear();
        self.pending.shrink_to(1 << 20);
        self.ends.clear();
        (whole, outcome)
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

/// So many bytes of work get a progress bar.
const LONG: u64 = 16 << 20;

/// A progress bar for so many bytes, where they are many and stderr is a terminal.
pub fn progress_bar(total: u64) -> Option<ProgressBar> {
    if total < LONG || !io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(total);
    let style =
        ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    // At once, however soon it is over.
    bar.tick();
    Some(bar)
}
