//! The log-stream graph: 12.
//!
//! Every line in a file has 100 bytes, a message of 99 and the newline, without any prefix: all of
//! the loggers can leave theirs out. What ours puts into a ring or a jlog is the message alone, 99
//! bytes. Ours reads the clock for each line nevertheless, because the time belongs to a line; the
//! others need not. How much may be queued before the logging thread has to wait: in ours, 8
//! MiB (83,886 lines), and as much again that is being written; in tracing-appender, 128,000 lines;
//! flexi_logger has no limit. Each run logs many times as many lines as fit into a queue.

use std::cell::RefCell;
use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use jlog_core::{Jlog, ReaderOptions};
use logdag::{Filter, Graph, Record, Rotation, SinkSpec, Stream, StreamOptions, Value};

use crate::lines::{self, ROTATE_AT, Rates, rates, with_text};
use crate::machine::Machine;
use crate::ours;
use crate::parts::append::OURS;
use crate::peers::{flexi_logger, tracing_appender};
use crate::report::{Line, Report, Target};
use crate::work::{Contender, Context, Sample, alternate, as_f64};

const PART: u8 = 12;
const TRACING: &str = "tracing-appender";
const TRACING_ONE_FILE: &str = "tracing-appender, one file";
const FLEXI: &str = "flexi_logger";
/// Lines that go nowhere, or to memory: no files are needed.
const STREAM: &str = "bench";

/// Part 12.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    disabled(context, report)?;
    files(context, report)?;
    ring(context, report)?;
    filter(context, report)?;
    threads(context, report)
}

/// Only our figure.
fn alone(report: &mut Report, work: &str, unit: &'static str, ours: Sample, target: Target) -> Result<()> {
    report.line(Line { part: PART, work: work.to_owned(), unit, ours, reference: None, target })
}

/// Runs one piece of work in every round.
fn repeat(rounds: usize, mut work: impl FnMut() -> Result<f64>) -> Result<Sample> {
    Ok(Sample::new(OURS, (0..rounds).map(|_| work()).collect::<Result<_>>()?))
}

/// Seconds for each of `count` calls.
fn seconds_each(count: usize, mut call: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    for n in 0..count {
        call(n);
    }
    start.elapsed().as_secs_f64() / as_f64(count)
}

/// An argument that is expensive to compute.
#[inline(never)]
fn expensive(n: usize) -> String {
    format!("{:?}", vec![n; 100])
}

fn disabled(context: &Context, report: &mut Report) -> Result<()> {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 10_000)?;
    graph.add_outlet(STREAM, "ring", None)?;
    graph.set_enabled(STREAM, false)?;
    let stream = graph.stream(STREAM)?;
    let count = context.size(500_000_000, 10_000_000);
    let sample = repeat(context.rounds, || {
        // The stream is checked again for each line, and the cost of the loop is not subtracted.
        let each = seconds_each(count, |n| logdag::log!(*black_box(&stream), "x {}", expensive(n)));
        Ok(each * 1e9)
    })?;
    ensure!(
        graph.memory_last("ring", 1).is_some_and(|lines| lines.is_empty()),
        "a disabled line came through"
    );
    alone(report, "a line to a disabled stream", "ns", sample, Target::AtMost(1.0))
}

/// A graph with a stream of this sink, with a queue.
fn asynchronous(kind: &str, path: String, rotation: Rotation) -> Result<(Graph, Stream)> {
    let graph = Graph::new();
    let sink = SinkSpec::new(kind.to_owned(), path).rotation(rotation);
    let stream = graph.configure(STREAM, StreamOptions::new().sink(sink))?;
    graph.go_async();
    Ok((graph, stream))
}

fn log(stream: &Stream, numbers: std::ops::Range<usize>) {
    for n in numbers {
        with_text!(logdag::log!(stream,)(, n, n));
    }
}

/// Lines to files of ours, rotated by size, all of which are kept. As with the others, nothing is
/// synced.
fn rotated(dir: &Path, count: usize, threads: usize) -> Result<Rates> {
    let rotation = Rotation::new().bytes(ROTATE_AT as u64);
    let (graph, stream) = asynchronous("file", dir.join("log").display().to_string(), rotation)?;
    let log_all = || {
        if threads == 1 {
            return log(&stream, 0..count);
        }
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let stream = &stream;
                scope.spawn(move || log(stream, count * thread / threads..count * (thread + 1) / threads));
            }
        });
    };
    // Then the queue's thread has written everything and ended.
    let rates = rates(count, log_all, || {
        graph.go_sync();
        Ok(())
    })?;
    lines::check(dir, count, OURS)?;
    Ok(rates)
}

/// Lines to a jlog of ours.
fn feed(dir: &Path, count: usize) -> Result<Rates> {
    let feed = dir.join("feed");
    let (graph, stream) = asynchronous("jlog", format!("{}(keep)", feed.display()), Rotation::default())?;
    let rates = rates(
        count,
        || log(&stream, 0..count),
        || {
            // Then the contents of the pre-commit buffer are in the segment.
            graph.go_sync();
            Ok(())
        },
    )?;
    drop((graph, stream));
    let peek = ReaderOptions::default().peek(true);
    let tally = ours::look_through(&Jlog::open(&feed)?, "keep", peek)?;
    let bytes = (count * (lines::LINE - 1)) as u64;
    ensure!(tally.messages == count as u64 && tally.bytes == bytes, "the jlog has {tally:?}");
    Ok(rates)
}

/// A virtual machine returns freed memory to its host, and getting it again takes longer than
/// logging does. Therefore the memory of the files and of the queues is allocated before any
/// measurement.
fn take_memory(dir: &Path) -> Result<()> {
    let path = dir.join("memory");
    let mut file = File::create(&path)?;
    let piece = vec![1; 1 << 20];
    for _ in 0..512 {
        file.write_all(&piece)?;
    }
    Ok(std::fs::remove_file(path)?)
}

type Logger = fn(&Path, usize) -> Result<Rates>;

/// Samples of accepted lines, and of written lines.
fn both(context: &Context, count: usize, loggers: &[(&str, Logger)]) -> Result<(Vec<Sample>, Vec<Sample>)> {
    let taken: Vec<RefCell<Vec<f64>>> = loggers.iter().map(|_| RefCell::default()).collect();
    let mut contenders: Vec<Contender<'_>> = loggers
        .iter()
        .zip(&taken)
        .map(|(&(name, logger), taken)| {
            Contender::new(name, move |dir| {
                take_memory(dir)?;
                let rates = logger(dir, count)?;
                taken.borrow_mut().push(rates.taken);
                Ok(rates.written)
            })
        })
        .collect();
    let written = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    drop(contenders);
    let taken = loggers.iter().zip(taken).map(|((name, _), values)| Sample::new(*name, values.into_inner()));
    Ok((taken.collect(), written))
}

fn files(context: &Context, report: &mut Report) -> Result<()> {
    let loggers: [(&str, Logger); 5] = [
        (OURS, |dir, count| rotated(dir, count, 1)),
        (TRACING, tracing_appender::rolling),
        (TRACING_ONE_FILE, tracing_appender::one_file),
        (FLEXI, flexi_logger::rotated),
        ("ours, jlog", feed),
    ];
    let (taken, written) = both(context, context.size(2_000_000, 100_000), &loggers)?;
    for (what, samples, tracing, flexi) in
        [("until they are taken", &taken, 10.0, 3.0), ("until they are in files", &written, 5.0, 2.5)]
    {
        let targets = [Target::Times(tracing), Target::None, Target::Times(flexi)];
        for (reference, target) in samples[1..4].iter().zip(targets) {
            report.line(Line {
                part: PART,
                work: format!("lines to rotated files through a queue, {what}"),
                unit: "M/s",
                ours: samples[0].clone(),
                reference: Some(reference.clone()),
                target,
            })?;
        }
    }
    for (what, samples, target) in [
        ("until they are taken", &taken, Target::None),
        ("until they are in it", &written, Target::Times(3.0)),
    ] {
        report.line(Line {
            part: PART,
            work: format!("lines to a jlog through a queue, {what}"),
            unit: "M/s",
            ours: samples[4].clone(),
            reference: Some(samples[1].clone()),
            target,
        })?;
    }
    report.note(
        "Lines have 100 bytes in files (99 and no newline in jlogs and rings), and nothing before \
         the message. The bench checks that no library loses a line. Files are rotated at 10 MB \
         and all kept; tracing-appender can rotate only by time, here every minute (\"one file\": \
         never). Queues: 8 MiB in ours, 128,000 lines in tracing-appender, unlimited in \
         flexi_logger, which may hold all 2 million lines in memory while it takes them.",
    )
}

fn ring(context: &Context, report: &mut Report) -> Result<()> {
    let graph = Graph::new();
    let stream = graph.add_memory(STREAM, 10_000, 2_000_000)?;
    let count = context.size(5_000_000, 200_000);
    let full =
        |graph: &Graph| graph.memory_last(STREAM, usize::MAX).is_some_and(|lines| lines.len() == 10_000);
    let sample = repeat(context.rounds, || {
        Ok(1e-6 / seconds_each(count, |n| with_text!(logdag::log!(stream,)(, n, n))))
    })?;
    ensure!(full(&graph), "the ring does not have what it can hold");
    alone(report, "lines to a memory ring of 10,000", "M/s", sample, Target::AtLeast(10.0))?;
    let line = with_text!(format!()(, 1, 1));
    let sample =
        repeat(context.rounds, || Ok(1e-6 / seconds_each(count, |_| logdag::log!(stream, "{}", line))))?;
    ensure!(full(&graph), "the ring does not have what it can hold");
    alone(report, "lines to a memory ring of 10,000, text that is there already", "M/s", sample, Target::None)
}

fn filter(context: &Context, report: &mut Report) -> Result<()> {
    const FILTER: &str = "status >= 500";
    let count = context.size(20_000_000, 500_000);
    for (work, filter, target) in [
        // The whole call: the clock, the thread's name and the walk over the route as well as the
        // filter.
        ("a whole call of log!, with one outlet that `status >= 500` closes", FILTER, Target::AtMost(50.0)),
        // The cost of a call with a filter that has nothing to compare.
        ("a whole call of log!, with one outlet that `exists(other)` closes", "exists(other)", Target::None),
    ] {
        let graph = Graph::new();
        graph.add_memory("ring", 10, 10_000)?;
        graph.add_outlet(STREAM, "ring", Some(filter))?;
        let stream = graph.stream(STREAM)?;
        let sample = repeat(context.rounds, || {
            let each = seconds_each(count, |n| {
                logdag::log!(stream, status = black_box(200); "GET /archive/{}", n);
            });
            Ok(each * 1e9)
        })?;
        let closed = graph.memory_last("ring", 1).is_some_and(|lines| lines.is_empty());
        ensure!(closed, "a line came through the filter {filter}");
        alone(report, work, "ns", sample, target)?;
    }
    let filter = Filter::parse(FILTER)?;
    let sample = repeat(context.rounds, || {
        let keys = [("status", Value::from(200))];
        let arguments = format_args!("GET /");
        let mut record = Record::new(0, STREAM, &arguments);
        record.keys = &keys;
        let each = seconds_each(count, |_| {
            black_box(filter.passes(black_box(&record)));
        });
        Ok(each * 1e9)
    })?;
    alone(report, "the filter `status >= 500` alone", "ns", sample, Target::None)
}

fn threads(context: &Context, report: &mut Report) -> Result<()> {
    let loggers: [(&str, Logger); 2] = [
        ("8 threads", |dir, count| rotated(dir, count, 8)),
        ("1 thread", |dir, count| rotated(dir, count, 1)),
    ];
    let (taken, written) = both(context, context.size(2_000_000, 100_000), &loggers)?;
    for (what, samples, target) in [
        ("until they are taken", taken, Target::None),
        ("until they are in files", written, Target::Times(1.0)),
    ] {
        report.line(Line {
            part: PART,
            work: format!("lines of 8 threads to rotated files through one queue, {what}"),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: Some(samples[1].clone()),
            target,
        })?;
    }
    Ok(())
}
