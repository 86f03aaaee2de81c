//! SIGINT, SIGTERM, SIGHUP and SIGQUIT: the command finishes its current work and ends.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jlog_core::Waker;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Failure;

/// Whether a signal asked the command to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    /// Becomes readable when a signal asks the command to stop.
    event: Arc<EventFd>,
    /// The waker of the current reader.
    waker: Arc<Mutex<Option<Waker>>>,
}

/// Whether a signal was ignored at the start, for example by `nohup`: it stays ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

impl Stop {
    /// Handles these signals from now on, except for those that were ignored at the start.
    pub fn on_signals() -> Result<Self, Failure> {
        let fail = |e: std::io::Error| Failure::new(format!("cannot handle signals: {e}"));
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| fail(e.into()))?;
        let stop = Self {
            flag: Arc::new(AtomicBool::new(false)),
            event: Arc::new(event),
            waker: Arc::new(Mutex::new(None)),
        };
        let heeded = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].into_iter().filter(|&signal| !is_ignored(signal));
        let mut signals = Signals::new(heeded).map_err(fail)?;
        let watched = stop.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut first = None;
                for signal in signals.forever() {
                    // The same signal again asks for an immediate end.
                    if first.replace(signal) == Some(signal) {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    watched.flag.store(true, Ordering::Release);
                    // It cannot be full, because only signals write to it.
                    let _ = watched.event.write(1);
                    if let Some(waker) = &*watched.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                        waker.wake();
                    }
                }
            })
            .map_err(fail)?;
        Ok(stop)
    }

    /// Makes a signal end the wait of this reader, instead of that of an earlier one.
    pub fn also_wake(&self, waker: Waker) {
        let mut current = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = current.insert(waker);
        if self.is_set() {
            waker.wake();
        }
    }

    /// Waits this long (at most a minute), or until it is time to stop.
    pub fn sleep(&self, time: Duration) {
        let millis = u16::try_from(time.as_millis()).unwrap_or(60_000);
        // Any signal that interrupts this call also sets the flag.
        let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], PollTimeout::from(millis));
    }

    /// Whether it is time to stop.
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// A descriptor that becomes readable once it is time to stop.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
