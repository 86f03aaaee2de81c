//! The C library's tools under their own names, with the same options and output.

pub mod jlogctl;
pub mod jlogtail;
