//! Lines from other programs, with their levels, times and keys.

mod frames;
mod json;
mod syslog;

pub use frames::for_each_syslog_message;
pub use json::JsonLines;
pub use syslog::{SyslogMessages, log_syslog};
