//! Waiting for new data without polling: inotify tells of writes by any process, C ones too.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::storage::{Waker, Watch};

/// How often a system without free inotify watches is asked whether there is something new.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

struct PosixWatch {
    /// `None` where the system has no watch left for us: then we poll.
    inotify: Option<Inotify>,
    file: Option<(PathBuf, WatchDescriptor)>,
    wake: Arc<EventFd>,
}

pub(super) fn open(dir: &Path) -> io::Result<Box<dyn Watch>> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .and_then(|inotify| {
            inotify.add_watch(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
            Ok(inotify)
        })
        .ok();
    Ok(Box::new(PosixWatch { inotify, file: None, wake }))
}

impl Watch for PosixWatch {
    fn set_file(&mut self, path: &Path) -> io::Result<bool> {
        let Some(inotify) = &self.inotify else { return Ok(false) };
        if self.file.as_ref().is_some_and(|(watched, _)| watched == path) {
            return Ok(false);
        }
        if let Some((_, old)) = self.file.take() {
            // It fails when the file is gone, and its watch with it.
            let _ = inotify.rm_watch(old);
        }
        match inotify.add_watch(path, AddWatchFlags::IN_MODIFY) {
            Ok(descriptor) => {
                self.file = Some((path.to_owned(), descriptor));
                Ok(true)
            }
            // The segment is not there yet: the directory's watch tells when it comes.
            Err(Errno::ENOENT) => Ok(false),
            Err(_) => {
                self.inotify = None;
                Ok(false)
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let mut timeout = timeout;
        if self.inotify.is_none() {
            timeout = Some(timeout.map_or(POLL_INTERVAL, |t| t.min(POLL_INTERVAL)));
        }
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let millis = match left {
                None => PollTimeout::NONE,
                // Rounded up, so that the last millisecond is not spent spinning.
                Some(left) => PollTimeout::try_from(left.as_micros().div_ceil(1000).min(60_000))
                    .map_err(io::Error::other)?,
            };
            let mut fds = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            if let Some(inotify) = &self.inotify {
                fds.push(PollFd::new(inotify.as_fd(), PollFlags::POLLIN));
            }
            let ready = match poll(&mut fds, millis) {
                Ok(n) => n > 0,
                Err(Errno::EINTR) => false,
                Err(e) => return Err(e.into()),
            };
            if ready {
                // Both are emptied, so that the next wait waits; errors mean that they are empty.
                let woken = self.wake.read().is_ok();
                if let Some(inotify) = &self.inotify {
                    while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
                }
                return Ok(woken);
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(false);
            }
        }
    }

    fn waker(&self) -> io::Result<Waker> {
        Ok(Waker(Arc::clone(&self.wake)))
    }
}
