//! The integration tests; this list is their table of contents.

mod support;

mod golden;
