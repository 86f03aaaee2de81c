//! `jlog write`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use jlog_core::{Error, Jlog, SyncPolicy, Writer, WriterOptions};

use crate::admin;
use crate::args::{DurabilityArg, WriteArgs};
use crate::error::{Failure, Outcome};
use crate::output;
use crate::values::{counted, grouped, human};

/// How much is read at once.
const PIECE: usize = 256 << 10;
/// A buffer for a long message grows by at most this much.
const MORE: usize = 32 << 20;

/// How long to wait for a feed that is being replaced.
const REPLACING: Duration = Duration::from_secs(60);

/// How messages are delimited in the input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Each ends with this byte.
    Terminated(u8),
    Whole,
    LengthPrefixed,
}

/// `jlog write`
pub fn run(args: &WriteArgs) -> Outcome {
    let log = open(args)?;
    let framing = if args.null {
        Framing::Terminated(0)
    } else if args.whole {
        Framing::Whole
    } else if args.length_prefixed {
        Framing::LengthPrefixed
    } else {
        Framing::Terminated(b'\n')
    };
    let sync = match args.durability {
        DurabilityArg::Durable => SyncPolicy::OnRoll,
        _ => SyncPolicy::Never,
    };
    let mut options = WriterOptions::default().bypass_pre_commit(args.direct).sync(sync);
    if args.create
        && let Some(bytes) = args.new.pre_commit
    {
        options = options.pre_commit(bytes);
    }
    let inputs = Input::open_all(&args.files)?;
    let mut job = Job {
        writer: log.writer_with(options)?,
        reopen: args.reopen.then(|| (args.feed.clone(), options)),
        accepted_before: 0,
        durability: args.durability,
        max_message: args.max_message as usize,
        messages: 0,
        bytes: 0,
        bar: progress_bar(&inputs, args.quiet),
    };
    let began = Instant::now();
    let outcome = job.copy_all(inputs, framing);
    if let Some(bar) = &job.bar {
        bar.finish_and_clear();
    }
    // Messages that were appended before an error are kept and counted.
    let closed = job.end();
    outcome?;
    closed?;
    if !args.quiet {
        let seconds = began.elapsed().as_secs_f64().max(1e-9);
        let summary = format!(
            "{}, {} in {seconds:.3} s ({:.0} messages/s)",
            counted(job.messages, "message"),
            human(job.bytes),
            job.messages as f64 / seconds,
        );
        eprint_line(&summary);
    }
    Ok(ExitCode::SUCCESS)
}

fn eprint_line(text: &str) {
    use std::io::Write;
    // Only a summary is lost when stderr fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn open(args: &WriteArgs) -> Result<Jlog, Failure> {
    match output::options().open(&args.feed) {
        Err(Error::NotAJlog { .. }) if args.create => {
            Ok(admin::options(&args.new).create_or_open(&args.feed)?)
        }
        Err(e @ (Error::NotAJlog { .. } | Error::MetastoreMissing { .. })) if args.reopen => {
            output::note(&format!("{e}; waiting up to {} seconds for it", REPLACING.as_secs()));
            Ok(open_soon(&args.feed)?)
        }
        Err(e @ Error::NotAJlog { .. }) => Err(Failure::new(format!("{e}, or write with --create"))),
        other => Ok(other?),
    }
}

/// Opens a feed that may just have been removed and is about to come back.
fn open_soon(feed: &Path) -> Result<Jlog, Error> {
    let begun = Instant::now();
    loop {
        match output::options().open(feed) {
            Err(Error::NotAJlog { .. } | Error::MetastoreMissing { .. }) if begun.elapsed() < REPLACING => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => return other,
        }
    }
}

struct Input {
    name: String,
    from: Box<dyn Read>,
    len: Option<u64>,
}

impl Input {
    /// Opens every input before anything is written.
    fn open_all(files: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        if files.is_empty() {
            return Ok(vec![Self::stdin()]);
        }
        files.iter().map(|path| Self::open(path)).collect()
    }

    fn stdin() -> Self {
        Self { name: "stdin".to_owned(), from: Box::new(io::stdin()), len: None }
    }

    fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::stdin());
        }
        let fail = |e: io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
        let file = File::open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        if meta.is_dir() {
            return Err(Failure::new(format!("cannot read {}: it is a directory", path.display())));
        }
        let len = meta.is_file().then_some(meta.len());
        Ok(Self { name: path.display().to_string(), from: Box::new(file), len })
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("cannot read {}: {error}", self.name))
    }
}

fn progress_bar(inputs: &[Input], quiet: bool) -> Option<ProgressBar> {
    let total: Option<u64> = inputs.iter().map(|input| input.len).sum();
    total.filter(|_| !quiet).and_then(output::progress_bar)
}

struct Job {
    /// The feed and its writer's options, if the writer must be reopened when the feed is replaced.
    reopen: Option<(PathBuf, WriterOptions)>,
    /// How many messages were accepted before it was reopened.
    accepted_before: u64,
    writer: Writer,
    durability: DurabilityArg,
    /// A longer message is an error.
    max_message: usize,
    messages: u64,
    bytes: u64,
    bar: Option<ProgressBar>,
}

impl Job {
    /// How many messages were accepted, in all feeds together.
    fn accepted(&self) -> u64 {
        self.accepted_before + self.writer.accepted()
    }

    /// Continues in the new feed, if requested.
    fn reopen(&mut self) -> Result<bool, Failure> {
        let Some((feed, options)) = &self.reopen else { return Ok(false) };
        let log = open_soon(feed)?;
        let writer = log.writer_with(*options)?;
        output::note(&format!(
            "{} was replaced: writing continues in the new feed; the {} before went to the old one",
            feed.display(),
            counted(self.accepted(), "message")
        ));
        self.accepted_before = self.accepted();
        self.writer = writer;
        Ok(true)
    }

    fn write_out(&self, messages: &[&[u8]]) -> Result<(), Error> {
        self.writer.append_batch(messages).and_then(|_| match self.durability {
            DurabilityArg::Buffered => Ok(()),
            DurabilityArg::Readable => self.writer.flush(),
            DurabilityArg::Durable => self.writer.sync(),
        })
    }

    fn copy_all(&mut self, inputs: Vec<Input>, framing: Framing) -> Result<(), Failure> {
        for mut input in inputs {
            match framing {
                Framing::Terminated(end) => self.copy_terminated(&mut input, end)?,
                Framing::Whole => self.copy_whole(&mut input)?,
                Framing::LengthPrefixed => self.copy_length_prefixed(&mut input)?,
            }
        }
        Ok(())
    }

    /// Appends messages, up to the first that is too long.
    fn append(&mut self, messages: &[&[u8]], bytes_read: usize) -> Result<(), Failure> {
        let long = messages.iter().position(|message| message.len() > self.max_message);
        self.append_short(&messages[..long.unwrap_or(messages.len())], bytes_read)?;
        long.map_or(Ok(()), |_| Err(self.too_long()))
    }

    fn too_long(&self) -> Failure {
        Failure::new(format!(
            "message {} of the input is longer than {}: --max-message allows more ({} {} written before it)",
            grouped(self.messages + 1),
            human(self.max_message as u64),
            counted(self.messages, "message"),
            if self.messages == 1 { "was" } else { "were" }
        ))
    }

    /// Appends messages and makes them as durable as requested.
    fn append_short(&mut self, messages: &[&[u8]], bytes_read: usize) -> Result<(), Failure> {
        if !messages.is_empty() {
            let mut outcome = self.write_out(messages);
            while matches!(outcome, Err(Error::Replaced { .. })) && self.reopen()? {
                outcome = self.write_out(messages);
            }
            outcome.map_err(|e| self.failure(&e))?;
            self.messages += messages.len() as u64;
            self.bytes += messages.iter().map(|message| message.len() as u64).sum::<u64>();
        }
        if let Some(bar) = &self.bar {
            bar.inc(bytes_read as u64);
        }
        Ok(())
    }

    /// Append what has arrived at once: messages from a slow input must not wait for more.
    fn copy_terminated(&mut self, input: &mut Input, end: u8) -> Result<(), Failure> {
        let mut buf = vec![0; PIECE];
        let mut filled = 0;
        loop {
            // The unfinished message is too long already, whatever follows.
            if filled > self.max_message {
                return Err(self.too_long());
            }
            if filled == buf.len() {
                // Doubling the buffer costs memory, but only for a short time.
                let more = buf.len().min(MORE);
                buf.reserve_exact(more);
                buf.resize(buf.len() + more, 0);
            }
            let n = match input.from.read(&mut buf[filled..]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(input.failure(&e)),
            };
            if n == 0 {
                break;
            }
            let Some(last) = memchr::memrchr(end, &buf[filled..filled + n]) else {
                filled += n;
                self.append(&[], n)?;
                continue;
            };
            let whole = filled + last;
            let messages: Vec<&[u8]> = split(&buf[..whole], end);
            self.append(&messages, n)?;
            buf.copy_within(whole + 1..filled + n, 0);
            filled = filled + n - whole - 1;
            if buf.len() > PIECE && filled < PIECE {
                buf.truncate(PIECE);
                buf.shrink_to_fit();
            }
        }
        // The last message need not be terminated.
        if filled > 0 {
            self.append(&[&buf[..filled]], 0)?;
        }
        Ok(())
    }

    fn copy_whole(&mut self, input: &mut Input) -> Result<(), Failure> {
        let mut message = Vec::new();
        // One byte more than the longest message shows that it is too long.
        let limit = self.max_message as u64 + 1;
        (&mut input.from).take(limit).read_to_end(&mut message).map_err(|e| input.failure(&e))?;
        let len = message.len();
        self.append(&[&message], len)
    }

    fn copy_length_prefixed(&mut self, input: &mut Input) -> Result<(), Failure> {
        let mut from =
            io::BufReader::with_capacity(PIECE, std::mem::replace(&mut input.from, Box::new(io::empty())));
        let mut message = Vec::new();
        loop {
            let mut prefix = [0; 4];
            let mut got = 0;
            while got < prefix.len() {
                match from.read(&mut prefix[got..]) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(input.failure(&e)),
                }
            }
            if got == 0 {
                return Ok(());
            }
            let cut = || {
                Failure::new(format!(
                    "{} ends within a message: {} {} written before it",
                    input.name,
                    counted(self.messages, "message"),
                    if self.messages == 1 { "was" } else { "were" }
                ))
            };
            if got < prefix.len() {
                return Err(cut());
            }
            let len = u64::from(u32::from_le_bytes(prefix));
            if len > self.max_message as u64 {
                return Err(self.too_long());
            }
            message.clear();
            let n = (&mut from).take(len).read_to_end(&mut message).map_err(|e| input.failure(&e))?;
            if (n as u64) < len {
                return Err(cut());
            }
            self.append(&[&message], n + prefix.len())?;
        }
    }

    fn failure(&self, error: &Error) -> Failure {
        let accepted = self.accepted();
        let were = if accepted == 1 { "was" } else { "were" };
        Failure::new(format!("{error} ({} {were} written before that)", counted(accepted, "message")))
    }

    /// Closes the writer with the requested durability. Reports a feed that was replaced after the
    /// last message, because the messages are in the old one.
    fn end(&mut self) -> Result<(), Failure> {
        let ended = match self.durability {
            // A writer flushes when it ends; closing it here returns the error.
            DurabilityArg::Buffered | DurabilityArg::Readable => self.writer.flush(),
            DurabilityArg::Durable => self.writer.sync(),
        };
        match (ended.and_then(|()| self.writer.check_not_replaced()), &self.reopen) {
            (Err(Error::Replaced { .. }), Some((feed, _))) => {
                output::note(&format!(
                    "{} was replaced after the last message: {} went to the old one",
                    feed.display(),
                    counted(self.accepted(), "message")
                ));
                Ok(())
            }
            (ended, _) => ended.map_err(|e| self.failure(&e)),
        }
    }
}

fn split(bytes: &[u8], end: u8) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    let mut start = 0;
    for at in memchr::memchr_iter(end, bytes) {
        messages.push(&bytes[start..at]);
        start = at + 1;
    }
    messages.push(&bytes[start..]);
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_are_messages() {
        assert_eq!(split(b"a\n\nb", b'\n'), [&b"a"[..], b"", b"b"]);
        assert_eq!(split(b"", b'\n'), [&b""[..]]);
    }
}
