//! Shared by several test programs.

use std::sync::{Arc, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};

/// The command must not inherit ignored signals from the test runner (`nohup`, or a shell that runs
/// the tests in the background): a signal with a handler here has the default action there.
pub(crate) fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT] {
            signal_hook::flag::register_conditional_default(signal, Arc::new(true.into())).unwrap();
        }
    });
}
