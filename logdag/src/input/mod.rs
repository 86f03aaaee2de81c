//! Lines of other programs, with what they say of themselves.

mod frames;
mod json;
mod syslog;

pub use frames::for_each_syslog_message;
pub use json::JsonLines;
pub use syslog::{SyslogMessages, log_syslog};
