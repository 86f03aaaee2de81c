//! Shared by several test programs.

#![allow(dead_code, clippy::print_stderr, reason = "each test program uses a part of it")]

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

/// Whether a program that a test needs is installed. Fails if it is missing and `JLOG_REQUIRE_`
/// with this name is set.
pub(crate) fn is_there(there: bool, program: &str, name: &str, package: &str) -> bool {
    let required = std::env::var_os(format!("JLOG_REQUIRE_{name}")).is_some_and(|value| !value.is_empty());
    assert!(
        there || !required,
        "{program} is missing, or needs permissions: install Debian's package {package}"
    );
    if !there {
        eprintln!("skipped: there is no {program}");
    }
    there
}
