//! Lines of other programs, with what they say of themselves.

mod json;
mod syslog;

pub use json::JsonLines;
pub use syslog::log_syslog;
