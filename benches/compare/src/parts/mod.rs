//! The comparisons, one module for each kind of work.

use anyhow::Result;

use crate::machine::Machine;
use crate::report::Report;
use crate::work::Context;

pub mod append;
pub mod delivery;
pub mod durable;
pub mod latency;
pub mod logdag;
pub mod open;
pub mod read;
pub mod scale;
pub mod ship;
pub mod sweep;

/// A comparison.
pub type Part = fn(&Context, &Machine, &mut Report) -> Result<()>;

/// All of them, in the order of the targets' numbers.
pub const ALL: [Part; 14] = [
    append::single,
    append::pre_commit,
    append::batches,
    read::plain,
    read::lz4,
    durable::run,
    delivery::run,
    open::run,
    scale::run,
    latency::run,
    sweep::run,
    logdag::run,
    read::interface,
    ship::run,
];
