//! Many subscribers, many segments, and memory: target 9.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use jlog_core::{AlterOptions, Jlog, LogId, ReaderOptions, Start, SyncPolicy, Wait};

use crate::child::Child;
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::parts::append::OURS;
use crate::parts::latency::histogram;
use crate::report::{Line, Report, Target, micros};
use crate::work::{Contender, Context, Load, Sample, Tally, alternate};

/// Target 9.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    subscribers(context, report)?;
    segments(context, report)?;
    memory(context, report)
}

fn subscribers(context: &Context, report: &mut Report) -> Result<()> {
    const MANY: usize = 1000;
    let load = Load::single(context.size(500_000, 100_000));
    let append = |dir: &Path, count: usize| -> Result<f64> {
        let log = Setup::default().create(&dir.join("feed"))?;
        for n in 1..count {
            log.subscribe(format!("s{n}"), Start::Beginning)?;
        }
        let writer = log.writer()?;
        let rate = load.timed(|| {
            ours::write(&writer, &load)?;
            Ok(writer.close()?)
        })?;
        ours::check(&log, &load)?;
        Ok(rate)
    };
    let mut contenders = vec![
        Contender::new("1,000 subscribers", |dir| append(dir, MANY)),
        Contender::new("1 subscriber", |dir| append(dir, 1)),
    ];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    report.line(Line {
        part: 9,
        work: "single append, 1,000 subscribers".to_owned(),
        unit: "M/s",
        ours: samples[0].clone(),
        reference: Some(samples[1].clone()),
        // Within the differences between runs.
        target: Target::Times(0.95),
    })?;

    let mut all = histogram()?;
    let mut values = Vec::new();
    for _ in 0..context.rounds {
        let dir = context.temp()?;
        let log = ours::fill(&dir.path().join("feed"), &Setup::default(), &Load::new(100, load.count, 1000))?;
        for n in 1..MANY {
            log.subscribe(format!("s{n}"), Start::Beginning)?;
        }
        let mut reader = log.reader("s1")?;
        let mut round = histogram()?;
        while let Some(last) = reader.next_batch(Wait::No)?.map(|batch| batch.last_id()) {
            let start = Instant::now();
            reader.commit(last)?;
            round.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
        }
        // The subscriber that retained everything releases it.
        for n in 2..MANY {
            log.set_checkpoint(format!("s{n}"), reader.position())?;
        }
        let mut keeper = log.reader("keep")?;
        while let Some(last) = keeper.next_batch(Wait::No)?.map(|batch| batch.last_id()) {
            let start = Instant::now();
            keeper.commit(last)?;
            round.saturating_record(u64::try_from(start.elapsed().as_nanos())?);
        }
        values.push(micros(round.value_at_percentile(99.0)));
        all.add(&round)?;
    }
    report.line(Line {
        part: 9,
        work: "checkpoint, 1,000 subscribers, 99 %".to_owned(),
        unit: "µs",
        ours: Sample::new(OURS, values),
        reference: None,
        target: Target::AtMost(1_000.0),
    })?;
    report.histograms(
        "Checkpoint with 1,000 subscribers (one that runs ahead, then the last one, which removes segments)",
        &[(OURS.to_owned(), all)],
    )
}

/// A jlog with this many segments, all but the last with one message.
fn many_segments(path: &Path, count: usize) -> Result<Jlog> {
    let setup = Setup { segment: 1, sync: SyncPolicy::Never, ..Setup::default() };
    let log = setup.create(path)?;
    let writer = setup.writer(&log)?;
    for _ in 1..count {
        writer.append(b"one message a segment")?;
    }
    writer.close()?;
    log.alter(AlterOptions::default().segment_size(4 << 20))?;
    Ok(log)
}

fn segments(context: &Context, report: &mut Report) -> Result<()> {
    let count: usize = context.size(100_000, 3_000);
    let load = Load::single(context.size(500_000, 100_000));
    let dir = context.temp()?;
    let (many, seconds) = ours::seconds(|| many_segments(&dir.path().join("many"), count))?;
    let one = Setup::default().create(&dir.path().join("one"))?;
    report.note(format!("{count} segments were made in {seconds:.1} s."))?;
    ensure!(many.segments()?.len() == count, "{} segments", many.segments()?.len());

    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for round in 0..context.rounds {
        let (writer, seconds) = ours::seconds(|| Ok(Jlog::open(many.path())?.writer()?))?;
        writers.push(seconds * 1e3);
        writer.close()?;
        let name = format!("end{round}");
        many.subscribe(&name, Start::After(LogId::new(u32::try_from(count / 2)?, 0)))?;
        let (reader, seconds) = ours::seconds(|| {
            let mut reader = Jlog::open(many.path())?.reader(&name)?;
            ensure!(reader.next_batch(Wait::No)?.is_some(), "nothing to read");
            Ok(reader)
        })?;
        readers.push(seconds * 1e3);
        drop(reader);
        many.unsubscribe(&name)?;
    }
    for (what, values) in [("for writing", writers), ("a reader in the middle", readers)] {
        report.line(Line {
            part: 9,
            work: format!("opening {what}, {count} segments"),
            unit: "ms",
            ours: Sample::new(OURS, values),
            reference: None,
            target: Target::AtMost(200.0),
        })?;
    }

    // In both, each round appends to the existing messages, and then reads the new ones.
    let mut figures = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..context.rounds {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let log = if which == 0 { &many } else { &one };
            let name = format!("round{round}");
            log.subscribe(&name, Start::End)?;
            let writer = log.writer()?;
            figures[0][which].push(load.timed(|| ours::write(&writer, &load))?);
            writer.close()?;
            let peek = ReaderOptions::default().peek(true);
            let (tally, seconds) = ours::seconds(|| ours::look_through(log, &name, peek))?;
            tally.check(&load.tally(), OURS)?;
            figures[1][which].push(load.rate(seconds));
            let (tally, seconds) = ours::seconds(|| ours::read(log, &name, ReaderOptions::default()))?;
            tally.check(&load.tally(), OURS)?;
            figures[2][which].push(load.rate(seconds));
            log.unsubscribe(&name)?;
        }
    }
    let works =
        ["single append", "bulk read without checkpoints", "bulk read with a checkpoint after each segment"];
    for (what, [many, one]) in works.into_iter().zip(figures) {
        report.line(Line {
            part: 9,
            work: format!("{what}, {count} segments"),
            unit: "M/s",
            ours: Sample::new(OURS, many),
            reference: Some(Sample::new("1 segment", one)),
            target: Target::Times(0.95),
        })?;
    }
    report.note(
        "\"As fast as\" means at least 0.95 times as fast, because rounds of the same work differ \
         by that much.",
    )
}

/// The work of a process whose memory is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemoryWork {
    /// Nothing.
    Nothing,
    /// Appends one by one.
    Append,
    /// Appends in batches of 1000.
    Batches,
    /// Reads everything.
    Read,
}

/// The child: does the work, and reports the peak size of the process in MiB.
pub fn use_memory(feed: &Path, work: MemoryWork, count: usize, len: usize) -> Result<Vec<f64>> {
    match work {
        MemoryWork::Nothing => {}
        MemoryWork::Append | MemoryWork::Batches => {
            // The load holds a few messages, which an empty process does not have: they are made
            // one by one.
            let writer = Jlog::open(feed)?.writer()?;
            let body = vec![b'm'; len];
            if work == MemoryWork::Append {
                for _ in 0..count {
                    writer.append(&body)?;
                }
            } else {
                let batch = vec![body.as_slice(); 1000];
                for _ in 0..count / 1000 {
                    writer.append_batch(&batch)?;
                }
            }
            writer.close()?;
        }
        MemoryWork::Read => {
            let log = Jlog::open(feed)?;
            let mut reader = log.reader("memory")?;
            let mut tally = Tally::default();
            while let Some(batch) = reader.next_batch(Wait::No)? {
                batch.iter().for_each(|message| tally.add(message.body()));
            }
            ensure!(tally.messages == count as u64, "{} of {count} messages", tally.messages);
        }
    }
    Ok(vec![largest_size()?])
}

/// The largest size that this process had, in MiB.
pub fn largest_size() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes / 1024.0)
}

fn memory(context: &Context, report: &mut Report) -> Result<()> {
    let mebibytes = |feed: &Path, work: MemoryWork, count: usize, len: usize| -> Result<f64> {
        let work = work.to_possible_value().context("a work without a name")?;
        let arguments = [
            "memory".to_owned(),
            format!("--feed={}", feed.display()),
            format!("--work={}", work.get_name()),
            format!("--count={count}"),
            format!("--len={len}"),
        ];
        Child::start(&arguments, &[])?.figures()?.first().copied().context("no figure")
    };
    let total: usize = context.size(1 << 30, 32 << 20);
    for (name, segment, pre_commit, len, work) in [
        ("1 GiB segment", 1 << 30, 0, 100, MemoryWork::Batches),
        ("4 MiB segments", 4 << 20, 0, 100, MemoryWork::Append),
        ("4 MiB segments, pre-commit 8 MiB", 4 << 20, 8 << 20, 100, MemoryWork::Append),
        ("4 MiB segments, messages of 64 KiB", 4 << 20, 0, 64 << 10, MemoryWork::Append),
        ("64 KiB segments", 64 << 10, 0, 100, MemoryWork::Append),
    ] {
        let total = if segment < 1 << 20 { total / 8 } else { total };
        let count = (total / (len + 16)).next_multiple_of(1000);
        let dir = context.temp()?;
        let feed = dir.path().join("feed");
        let log = Setup { segment, pre_commit, ..Setup::default() }.create(&feed)?;
        log.subscribe("memory", Start::Beginning)?;
        let empty = mebibytes(&feed, MemoryWork::Nothing, 0, len)?;
        let writer = mebibytes(&feed, work, count, len)? - empty;
        let reader = mebibytes(&feed, MemoryWork::Read, count, len)? - empty;
        let limit = f64::from(pre_commit) / f64::from(1 << 20) + 4.0;
        for (what, figure, limit) in [("writer", writer, limit), ("reader", reader, 8.0)] {
            report.line(Line {
                part: 9,
                work: format!("memory of a {what} over an empty process, {name}"),
                unit: "MiB",
                ours: Sample::new(OURS, vec![figure]),
                reference: None,
                target: Target::AtMost(limit),
            })?;
        }
    }
    Ok(())
}
