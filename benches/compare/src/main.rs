//! Runs the same work on jlog-core and logdag, on the C library, on other crates and on the bare
//! kernel, and prints how they compare, next to the targets.
//!
//! `cargo run --release --manifest-path benches/compare/Cargo.toml` runs everything; the C library
//! takes part when `JLOG_C_LIB` names its shared object, and our C interface when `JLOG_OUR_LIB`
//! names that of jlog-capi.

mod c;
mod child;
mod lines;
mod machine;
mod ours;
mod parts;
mod peers;
mod plot;
mod raw;
mod report;
mod work;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use crate::machine::Machine;
use crate::report::{Report, say};
use crate::work::Context;

/// Compares jlog-core (and jlog-capi from JLOG_OUR_LIB) with the C library (from JLOG_C_LIB), other
/// crates, and what the kernel allows.
#[derive(Parser, Debug)]
#[command(disable_help_subcommand = true, override_usage = "compare [OPTIONS]")]
struct Args {
    /// Only these targets (1 to 10), 11 for how figures grow with sizes, threads and processes, 12
    /// for logdag, 13 for bulk reads through the C interface, and 14 or ship for shipping
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = part)]
    only: Vec<u8>,
    /// Small sizes, to check that everything works; the figures mean little
    #[arg(long)]
    quick: bool,
    /// Alternating rounds [default: 5, with --quick 1]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Where files are created [default: beside the program]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where files are created for measurements of durability; on a real disk [default: as --dir]
    #[arg(long, value_name = "DIR")]
    durable_dir: Option<PathBuf>,
    /// Writes the results as Markdown to this file, and as a plot (its name in lower case with
    /// .svg) beside it
    #[arg(long, value_name = "PATH")]
    write_results: Option<PathBuf>,
    #[command(subcommand)]
    child: Option<child::Mode>,
}

/// The number of a part.
fn part(text: &str) -> Result<u8, String> {
    let number = if text == "ship" { Some(14) } else { text.parse().ok() };
    let known = number.filter(|number| (1..=14).contains(number));
    known.ok_or_else(|| "the parts are 1 to 14, of which 14 is also called ship".to_owned())
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(mode) = &args.child {
        return child::work(mode);
    }
    let beside =
        std::env::current_exe()?.parent().map(Path::to_owned).context("a program without a place")?;
    let dir = args.dir.clone().unwrap_or(beside);
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 5 });
    ensure!(rounds > 0, "at least one round is needed");
    let library = |variable: &str| {
        let path = std::env::var_os(variable);
        path.map(|path| c::Api::load(Path::new(&path))).transpose()
    };
    let (c, our_c) = (library("JLOG_C_LIB")?, library("JLOG_OUR_LIB")?);
    let context = Context {
        durable_dir: args.durable_dir.clone().unwrap_or_else(|| dir.clone()),
        dir,
        rounds,
        quick: args.quick,
        c,
        our_c,
    };
    let machine = Machine::look(&context);
    say(&machine.text())?;
    let mut report = Report::default();
    if context.c.is_none() {
        report.note("The C library was not compared: JLOG_C_LIB did not name it.")?;
    }
    for (number, part) in (1..).zip(parts::ALL) {
        if args.only.is_empty() || args.only.contains(&number) {
            part(&context, &machine, &mut report)?;
        }
    }
    report.summary()?;
    if let Some(path) = &args.write_results {
        report.write(path, &machine)?;
    }
    Ok(())
}
