//! A process that writes or reads a jlog, for the tests that need several.

fn main() {}
