//! Writing to files that may block for a long time: pipes, terminals and sockets whose reader has
//! stopped.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe that is ready for writing takes this many bytes at once (`PIPE_BUF`), without bytes of
/// other writers between them.
const AT_ONCE: usize = 4096;

thread_local! {
    /// The deadline for the writes of this thread.
    static UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// While this lives, writes of this thread have a deadline.
pub(crate) struct Patience(Option<Instant>);

impl Patience {
    /// Sets the deadline.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self(UNTIL.try_with(|until| until.replace(Some(deadline))).unwrap_or(None))
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        // At a thread's very end there is none.
        let _ = UNTIL.try_with(|until| until.set(self.0));
    }
}

/// Whether this thread has a deadline.
pub(crate) fn is_limited() -> bool {
    UNTIL.try_with(Cell::get).is_ok_and(|until| until.is_some())
}

/// Writes bytes, for no longer than [`Patience`] allows; on failure, returns how many were written.
pub(crate) fn write_all(to: impl AsFd, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let until = UNTIL.try_with(Cell::get).unwrap_or(None);
    let to = to.as_fd();
    let mut done = 0;
    // A terminal may seem to be ready and yet not take a whole line.
    let reopened = until.filter(|_| to.is_terminal()).and_then(|_| reopen(to).ok());
    let target = reopened.as_ref().map_or(to, File::as_fd);
    while done < bytes.len() {
        let mut rest = &bytes[done..];
        if let Some(until) = until {
            wait_for(target, until).map_err(|e| (done, e))?;
            rest = &rest[..rest.len().min(AT_ONCE)];
        }
        match nix::unistd::write(target, rest) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            // It takes less than it reports.
            Err(Errno::EAGAIN) if until.is_some_and(|until| Instant::now() < until) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(Errno::EAGAIN) if until.is_some() => return Err((done, not_taken())),
            Err(e) => return Err((done, e.into())),
        }
    }
    Ok(())
}

/// Opens a terminal again, so that writing to it never waits.
fn reopen(terminal: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    File::options()
        .write(true)
        .custom_flags(flags.bits())
        .open(format!("/proc/self/fd/{}", terminal.as_raw_fd()))
}

/// Makes writes wait to a file that was opened without waiting (`O_NONBLOCK`), so that no lines are
/// lost because a reader is slow.
pub(crate) fn let_writes_wait(file: &File) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?) - OFlag::O_NONBLOCK;
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

/// Waits until a file accepts bytes. Regular files always do.
fn wait_for(target: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(target, PollFlags::POLLOUT)], timeout) {
            Ok(0) if left.is_zero() => return Err(not_taken()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn not_taken() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "nobody reads what is written to it")
}

/// Writes to standard error a text that can be reported nowhere else. If the reader of standard
/// error has stopped, this waits for no more than 100 ms, and the text is left out: a program that
/// ends, or has to continue logging, must not wait for that reader.
pub fn report_on_stderr(text: &str) {
    report(text.as_bytes());
}

pub(crate) fn report(text: &[u8]) {
    const LIMIT: Duration = Duration::from_millis(100);
    let _limited = Patience::until(Instant::now() + LIMIT);
    // Not through the standard library's lock: its holder may wait for that reader.
    let _ = write_all(io::stderr(), text);
}
