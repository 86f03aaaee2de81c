//! Programs that tests start, and what a test does without one.

use std::sync::{Arc, Once};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT};

/// Makes commands start with the default actions of signals, even if whoever runs the tests ignores
/// them (`nohup`, or a shell that runs them in the background): a signal with a handler here has
/// the default action there.
pub fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [SIGHUP, SIGINT, SIGQUIT] {
            signal_hook::flag::register_conditional_default(signal, Arc::new(true.into())).unwrap();
        }
    });
}

/// Whether `JLOG_REQUIRE_` with this name is set: then no test may be skipped for want of it.
pub fn is_required(name: &str) -> bool {
    std::env::var_os(format!("JLOG_REQUIRE_{name}")).is_some_and(|value| !value.is_empty())
}

/// Reports that a test is skipped. Fails if [it is required](is_required).
#[track_caller]
pub fn skip(name: &str, why: &str) {
    assert!(!is_required(name), "{why}, and JLOG_REQUIRE_{name} is set");
    eprintln!("skipped: {why}");
}

/// Whether a program that a test needs is installed. If it is missing, reports that the test is
/// skipped, or fails if [it is required](is_required).
#[track_caller]
pub fn is_there(there: bool, program: &str, name: &str, package: &str) -> bool {
    if !there {
        skip(name, &format!("{program} is missing, or needs permissions (Debian's package {package})"));
    }
    there
}
