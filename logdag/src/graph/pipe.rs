//! The output of other programs, line by line.

use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

use super::stream::Stream;
use crate::level::Level;
use crate::lines::for_each_line;
use crate::record::Location;

/// The longest line from a [`Pipe`], in bytes; a longer one is split.
pub const MAX_PIPE_LINE: usize = 64 << 10;

/// A file descriptor whose lines are logged to a stream, for the output of a child process. Bytes
/// that are not UTF-8 are replaced with U+FFFD; lines are split at [`MAX_PIPE_LINE`] bytes.
///
/// ```
/// use logdag::Graph;
///
/// let graph = Graph::new();
/// let output = graph.add_memory("output", 100, 10_000)?;
/// let pipe = output.pipe()?;
/// let mut child = std::process::Command::new("echo").arg("hello").stdout(pipe.writer()?).spawn()?;
/// child.wait()?;
/// pipe.finish()?;
/// assert_eq!(graph.memory_last("output", 1).unwrap_or_default()[0].bytes, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pipe {
    writer: PipeWriter,
    reading: JoinHandle<io::Result<()>>,
}

impl Pipe {
    pub(crate) fn new(stream: Stream) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let reading = std::thread::Builder::new().name("log-pipe".to_owned()).spawn(move || {
            for_each_line(reader, MAX_PIPE_LINE, |line| {
                let text = String::from_utf8_lossy(line);
                stream.log(Level::Info, &Location::UNKNOWN, &[], &text);
            })
        })?;
        Ok(Self { writer, reading })
    }

    /// Another file descriptor of the pipe, to give away, for example to `Command::stdout`.
    ///
    /// # Errors
    /// What the system says.
    pub fn writer(&self) -> io::Result<PipeWriter> {
        self.writer.try_clone()
    }

    /// Waits until every process has closed its end and everything is logged.
    ///
    /// # Errors
    /// The error of reading.
    pub fn finish(self) -> io::Result<()> {
        drop(self.writer);
        self.reading.join().unwrap_or_else(|_| Err(io::Error::other("logging a line of a pipe panicked")))
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }
}

impl Stream {
    /// A file descriptor for a child process: its lines are logged to this stream.
    ///
    /// # Errors
    /// No more file descriptors, or no more threads.
    pub fn pipe(&self) -> io::Result<Pipe> {
        Pipe::new(self.clone())
    }
}
