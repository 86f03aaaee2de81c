//! The signals that `run` and `exec` heed.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGXFSZ,
};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Signals, SignalsInfo};

use crate::Failure;

/// The signals that a command heeds from its start on.
pub(crate) enum Heeded {
    Run(Signals),
    Exec(EndAtOnce, SignalsInfo<WithOrigin>),
    /// They do what they do by default.
    None,
}

impl Heeded {
    /// Those of the command that the first argument names: the other arguments are not looked at yet.
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
    // It may be told to reload before it has read anything.
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

/// The signals that were ignored at the start, by `nohup` for example, as bits.
static IGNORED: LazyLock<u64> = LazyLock::new(|| {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
});

/// Those of the signals that were not ignored at the start: others stay ignored, also for the command that is run.
fn heeded(signals: &[i32]) -> Vec<i32> {
    signals.iter().copied().filter(|signal| *IGNORED >> (signal - 1) & 1 == 0).collect()
}

/// A way out where a sink keeps everything from being written: the second signal.
pub(crate) struct EndAtOnce {
    told: Arc<AtomicBool>,
    signals: Vec<i32>,
}

impl EndAtOnce {
    fn new() -> io::Result<Self> {
        let (told, signals) = (Arc::new(AtomicBool::new(false)), heeded(&[SIGTERM, SIGINT]));
        for &signal in &signals {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&told))?;
        }
        // A file that may not grow is a sink that fails.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Self { told, signals })
    }

    /// The next signal is the first one.
    pub(crate) fn count_from_here(&self) -> io::Result<()> {
        for &signal in &self.signals {
            // What is asked for first is done first: the first signal does not find itself.
            signal_hook::flag::register(signal, Arc::clone(&self.told))?;
        }
        Ok(())
    }
}
