//! The tests of logdag's graphs in forked children, for a logdag without features: run
//! `cargo test -p jlog-fork` alone. When the whole workspace is tested, logdag has all features.

#![allow(unexpected_cfgs, missing_docs)]

#[path = "../../logdag/tests/fork.rs"]
mod graphs;
