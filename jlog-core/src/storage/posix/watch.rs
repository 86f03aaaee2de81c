//! Waiting for new data without polling: inotify reports writes by any process, C ones included.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::codec::names::Kind;
use crate::storage::traits::{Waker, Watch};

/// How often we poll if the system has no inotify watches left.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// There may be something to read.
const WRITTEN: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_CREATE).union(AddWatchFlags::IN_MOVED_TO);
/// Something may have been removed or replaced.
const REMOVED: AddWatchFlags = AddWatchFlags::IN_DELETE
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

struct PosixWatch {
    /// `None` if the system has no watch left: then we poll.
    inotify: Option<Inotify>,
    wake: Arc<EventFd>,
}

pub(super) fn open(dir: &Path) -> io::Result<Box<dyn Watch>> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .and_then(|inotify| {
            inotify.add_watch(dir, WRITTEN | REMOVED)?;
            Ok(inotify)
        })
        .ok();
    Ok(Box::new(PosixWatch { inotify, wake }))
}

/// Reads all pending events; returns whether a waiting reader needs to look: a segment was written
/// to, or the metastore, a checkpoint or the directory itself was removed. (Checkpoints that move
/// and segments that are passed change the same directory all the time.)
fn worth_a_look(inotify: &Inotify) -> bool {
    let mut found = false;
    while let Ok(events) = inotify.read_events() {
        if events.is_empty() {
            break;
        }
        found |= events.iter().any(|event| match event.name.as_deref().map(Kind::of) {
            Some(Kind::Segment(_)) => event.mask.intersects(WRITTEN),
            Some(Kind::Metastore | Kind::Checkpoint(_)) => event.mask.intersects(REMOVED),
            Some(_) => false,
            // The directory itself changed, or events were lost.
            None => true,
        });
    }
    found
}

impl Watch for PosixWatch {
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
                // An error means that there was nothing to read.
                let woken = self.wake.read().is_ok();
                if woken || self.inotify.as_ref().is_some_and(worth_a_look) {
                    return Ok(woken);
                }
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
