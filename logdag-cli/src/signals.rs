//! The signals that `run` and `exec` handle.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGXFSZ,
};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};

use crate::Failure;

/// The signals that a command handles from its start.
pub(crate) enum Heeded {
    Run(Signals),
    Exec(EndAtOnce, SignalsInfo<WithOrigin>),
    /// Signals have their default actions.
    None,
}

impl Heeded {
    /// The signals for the command that the first argument names; the other arguments are not
    /// parsed yet.
    pub(crate) fn by_the_command() -> Result<Self, Failure> {
        Ok(match std::env::args_os().nth(1) {
            Some(command) if command == "run" => Self::Run(signals_of_run()?),
            Some(command) if command == "exec" => {
                let (end_at_once, signals) = signals_of_exec()?;
                Self::Exec(end_at_once, signals)
            }
            _ => Self::None,
        })
    }
}

pub(crate) fn signals_of_run() -> Result<Signals, Failure> {
    // A reload may be requested before anything is read.
    let signals = Signals::new(heeded(&[SIGHUP]))?;
    EndAtOnce::new()?.count_from_here()?;
    for signal in heeded(&[SIGTERM, SIGINT]) {
        signals.add_signal(signal)?;
    }
    Ok(signals)
}

pub(crate) fn signals_of_exec() -> Result<(EndAtOnce, SignalsInfo<WithOrigin>), Failure> {
    let forwarded = [SIGHUP, SIGTERM, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH];
    Ok((EndAtOnce::new()?, SignalsInfo::new(heeded(&forwarded))?))
}

/// The signals that were ignored at the start, for example by `nohup`, as bits.
static IGNORED: LazyLock<u64> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
});

/// The signals that were not ignored at the start. Others stay ignored, also for the command that
/// we run.
fn heeded(signals: &[i32]) -> Vec<i32> {
    signals.iter().copied().filter(|signal| *IGNORED >> (signal - 1) & 1 == 0).collect()
}

/// A second signal ends the process even if a sink is stuck.
pub(crate) struct EndAtOnce {
    asked_before: Arc<AtomicBool>,
    signals: Vec<i32>,
}

impl EndAtOnce {
    fn new() -> io::Result<Self> {
        let (asked_before, signals) = (Arc::new(AtomicBool::new(false)), heeded(&[SIGTERM, SIGINT]));
        for &signal in &signals {
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&asked_before),
            )?;
        }
        // If a file may not grow, its sink fails.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { asked_before, signals })
    }

    /// The next signal counts as the first one.
    pub(crate) fn count_from_here(&self) -> io::Result<()> {
        for &signal in &self.signals {
            // The handlers run in this order, so that the first signal does not count as the
            // second.
            signal_hook::flag::register(signal, Arc::clone(&self.asked_before))?;
        }
        Ok(())
    }
}
