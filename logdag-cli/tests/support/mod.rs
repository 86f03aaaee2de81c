//! What several test programs need.

use std::sync::{Arc, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};

/// Signals that whoever runs the tests ignores (`nohup`, or a shell that runs them in the background) are none that the command
/// finds ignored: what has a handler here begins with the default there.
pub(crate) fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT] {
            signal_hook::flag::register_conditional_default(signal, Arc::new(true.into())).unwrap();
        }
    });
}
