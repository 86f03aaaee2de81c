//! Durable appends: target 6.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, anyhow};
use jlog_core::{Locking, SyncPolicy};

use crate::machine::Machine;
use crate::ours::Setup;
use crate::parts::append::OURS;
use crate::peers::okaywal;
use crate::raw::{self, RawSync};
use crate::report::{Line, Report, Target};
use crate::work::{Contender, Context, Load, MESSAGE, RECORD, Tally, alternate, as_f64, find};

/// Does the same in this many threads at once; returns seconds.
pub fn in_threads(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        handles.into_iter().try_for_each(|handle| handle.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Our durable appends, in thousands per second.
fn ours(path: &Path, setup: &Setup, threads: usize, each: usize) -> Result<f64> {
    let log = setup.create(path)?;
    let writer = setup.writer(&log)?;
    let body = [b'm'; MESSAGE];
    let seconds = in_threads(threads, || {
        for _ in 0..each {
            writer.append(body)?;
        }
        Ok(())
    })?;
    writer.close()?;
    let mut expected = Tally::default();
    for _ in 0..threads * each {
        expected.add(&body);
    }
    crate::ours::read(&log, "keep", jlog_core::ReaderOptions::default())?.check(&expected, OURS)?;
    Ok(as_f64(threads * each) / seconds / 1e3)
}

/// Target 6.
pub fn run(context: &Context, machine: &Machine, report: &mut Report) -> Result<()> {
    report.note(format!("Durable appends were measured on {}.", machine.durable_files()))?;
    if machine.durable_files() == "tmpfs" {
        report.note("tmpfs syncs nothing: the durable figures above mean little; use --durable-dir.")?;
    }
    let body = Load::single(1);
    let mut bytes = Vec::new();
    body.each(|body| {
        bytes = body.to_vec();
        Ok(())
    })?;
    let multi = Setup { sync: SyncPolicy::EachAppend, ..Setup::default() };
    let alone = Setup { locking: Locking::SingleProcess, ..multi };
    let each = context.size(5_000, 300);
    let bare = |allocated: bool| {
        move |dir: &Path| {
            Ok(as_f64(each)
                / 1e3
                / raw::write(dir, (each * RECORD) as u64, RECORD, RawSync::Each, allocated)?)
        }
    };
    let mut contenders = vec![
        Contender::new(OURS, |dir| ours(&dir.join("feed"), &multi, 1, each)),
        Contender::new("ours, one process", |dir| ours(&dir.join("feed"), &alone, 1, each)),
        Contender::new("okaywal", |dir| Ok(okaywal::durable(&dir.join("log"), 1, each, &bytes)? / 1e3)),
        Contender::new("pwrite and fdatasync", bare(false)),
        Contender::new("pwrite and fdatasync, allocated before", bare(true)),
    ];
    let samples = alternate(|| context.durable_temp(), context.rounds, &mut contenders)?;
    let growing = find(&samples, "pwrite and fdatasync");
    for (ours, reference, target) in [
        (&samples[0], growing, Target::Times(0.9)),
        (&samples[0], find(&samples, "pwrite and fdatasync, allocated before"), Target::None),
        (&samples[0], find(&samples, "okaywal"), Target::None),
        (&samples[1], growing, Target::None),
    ] {
        let processes = if ours.name == OURS { "many processes" } else { "one process" };
        report.line(Line {
            part: 6,
            work: format!("durable append, 1 thread, {processes}"),
            unit: "k/s",
            ours: ours.clone(),
            reference: reference.cloned(),
            target,
        })?;
    }

    let each = context.size(1_000, 60);
    let mut contenders = vec![
        Contender::new(OURS, |dir| ours(&dir.join("feed"), &multi, 16, each)),
        Contender::new("ours, one process", |dir| ours(&dir.join("feed"), &alone, 16, each)),
        Contender::new("okaywal", |dir| Ok(okaywal::durable(&dir.join("log"), 16, each, &bytes)? / 1e3)),
    ];
    let samples = alternate(|| context.durable_temp(), context.rounds, &mut contenders)?;
    for (ours, processes) in samples.iter().zip(["many processes", "one process"]) {
        report.line(Line {
            part: 6,
            work: format!("durable append, 16 threads, {processes}"),
            unit: "k/s",
            ours: ours.clone(),
            reference: find(&samples, "okaywal").cloned(),
            target: if processes == "many processes" { Target::Times(2.0) } else { Target::None },
        })?;
    }
    report.note(
        "Bare writes and ours both append to growing files; okaywal writes into recycled files \
         that it has filled with zeroes before.",
    )
}
