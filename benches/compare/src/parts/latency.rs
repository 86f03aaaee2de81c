//! Worst-case latency of single appends: target 10.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use hdrhistogram::Histogram;
use jlog_core::{Jlog, Locking, SyncPolicy};

use crate::c;
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::parts::append::{C, OURS};
use crate::report::{Line, Report, Target, micros};
use crate::work::{Contender, Context, Load, MESSAGE, Sample, alternate, find};

/// A histogram of nanoseconds.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 100_000_000_000, 3)?)
}

/// Appends with `append`, and records how long each one takes.
fn timed(load: &Load, into: &mut Histogram<u64>, append: impl Fn(&[u8]) -> Result<()>) -> Result<f64> {
    let mut round = histogram()?;
    load.each(|body| {
        let start = Instant::now();
        append(body)?;
        round.saturating_record(u64::try_from(start.elapsed().as_nanos())?.max(1));
        Ok(())
    })?;
    into.add(&round)?;
    Ok(micros(round.value_at_percentile(99.9)))
}

fn in_c(api: &c::Api, path: &Path, setup: &Setup, load: &Load, into: &mut Histogram<u64>) -> Result<f64> {
    c::create(api, path, &setup.in_c())?;
    let writer = c::Writer::open(api, path, &setup.in_c())?;
    let figure = timed(load, into, |body| writer.append(body))?;
    writer.close();
    ours::check(&Jlog::open(path)?, load)?;
    Ok(figure)
}

fn in_ours(path: &Path, setup: &Setup, load: &Load, into: &mut Histogram<u64>) -> Result<f64> {
    let log = setup.create(path)?;
    let writer = setup.writer(&log)?;
    let figure = timed(load, into, |body| Ok(writer.append(body).map(|_| ())?))?;
    writer.close()?;
    ours::check(&log, load)?;
    Ok(figure)
}

/// Target 10.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let multi = Setup { pre_commit: 1 << 20, ..Setup::default() };
    let alone = Setup { locking: Locking::SingleProcess, ..multi };
    let count = context.size(2_000_000, 100_000);
    let behind = Setup { sync: SyncPolicy::AfterRoll, ..multi };
    for (work, len, setup, durable) in [
        ("pre-commit 1 MiB, many processes", MESSAGE, multi, false),
        ("pre-commit 1 MiB, one process", MESSAGE, alone, false),
        ("pre-commit 1 MiB, many processes, 8 KiB messages", 8 << 10, multi, false),
        ("pre-commit 1 MiB, many processes, 8 KiB messages, on a disk", 8 << 10, multi, true),
        (
            "pre-commit 1 MiB, many processes, 8 KiB messages, on a disk, synced behind the roll",
            8 << 10,
            behind,
            true,
        ),
        ("no pre-commit, many processes", MESSAGE, Setup::default(), false),
    ] {
        let load = Load::new(len, if len > MESSAGE { count / 20 } else { count / 2 }, 1);
        let (mut ours, mut theirs) = (histogram()?, histogram()?);
        let mut contenders =
            vec![Contender::new(OURS, |dir| in_ours(&dir.join("feed"), &setup, &load, &mut ours))];
        if let Some(api) = &context.c {
            contenders
                .push(Contender::new(C, |dir| in_c(api, &dir.join("feed"), &setup, &load, &mut theirs)));
        }
        let samples: Vec<Sample> = alternate(
            || if durable { context.durable_temp() } else { context.temp() },
            context.rounds,
            &mut contenders,
        )?;
        drop(contenders);
        report.line(Line {
            part: 10,
            work: format!("99.9 % of single appends, {work}"),
            unit: "µs",
            ours: samples[0].clone(),
            reference: find(&samples, C).cloned(),
            target: if setup.pre_commit > 0 { Target::AtMostTimes(0.2) } else { Target::None },
        })?;
        let mut histograms = vec![(OURS.to_owned(), ours)];
        if !theirs.is_empty() {
            histograms.push((C.to_owned(), theirs));
        }
        report.histograms(&format!("Single append, {work}"), &histograms)?;
    }
    report.note(
        "With 100-byte messages, a buffer of 1 MiB is flushed once in 9,039 appends, and a segment \
         is rolled once in 36,158: neither shows at 99.9 %, only above. With messages of 8 KiB, it \
         is once in 127 and once in 508: there 99.9 % measures the roll.",
    )
}
