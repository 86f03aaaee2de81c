//! The tests of logdag's graphs in forked children, for a logdag without features: alone with
//! `cargo test -p jlog-fork`. Where the whole workspace is tested, logdag has all of them.

#![allow(unexpected_cfgs, missing_docs)]

#[path = "../../logdag/tests/fork.rs"]
mod graphs;
