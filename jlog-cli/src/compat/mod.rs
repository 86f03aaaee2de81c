//! The C library's tools, by their names: the same options, the same lines.

pub mod jlogctl;
pub mod jlogtail;
