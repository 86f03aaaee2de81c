//! The delay from an append to a waiting consumer in another process: target 7.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use jlog_core::{Jlog, Start, Wait};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

use crate::c;
use crate::child::{Child, ready};
use crate::machine::Machine;
use crate::ours::Setup;
use crate::parts::latency::histogram;
use crate::report::{Line, Report, Target, micros};
use crate::work::{Context, MESSAGE, Sample};

/// Nanoseconds on a clock that all processes share.
fn now() -> Result<u64> {
    Ok(u64::try_from(clock_gettime(ClockId::CLOCK_MONOTONIC)?.num_nanoseconds())?)
}

/// Seconds of processor time that this process has used.
pub fn processor_time() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?).as_secs_f64())
}

/// The consumer: reports its use of the processor while it waits, then every delay in nanoseconds.
pub fn follow(feed: &Path, count: usize, rest: f64) -> Result<Vec<f64>> {
    let log = Jlog::open(feed)?;
    let mut reader = log.reader("follower")?;
    ensure!(reader.next_batch(Wait::Timeout(Duration::from_millis(1)))?.is_none(), "messages too early");
    ready()?;
    let mut delays = Vec::with_capacity(count);
    while delays.len() < count {
        let Some(batch) = reader.next_batch(Wait::Timeout(Duration::from_secs(10)))? else {
            anyhow::bail!("only {} of {count} messages came", delays.len());
        };
        let arrived = now()?;
        for message in &batch {
            let sent = message.body().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let nth = message.body()[8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            ensure!(nth == delays.len() as u64, "message {nth} came as number {}", delays.len());
            delays.push(arrived.saturating_sub(sent));
        }
    }
    let (start, used) = (Instant::now(), processor_time()?);
    while start.elapsed().as_secs_f64() < rest {
        let left = Duration::from_secs_f64(rest).saturating_sub(start.elapsed());
        ensure!(reader.next_batch(Wait::Timeout(left))?.is_none(), "messages too many");
    }
    let share = (processor_time()? - used) / start.elapsed().as_secs_f64();
    // Nanoseconds of seconds: far below 2^53.
    #[allow(clippy::cast_precision_loss)]
    let delays = delays.into_iter().map(|delay| delay as f64);
    Ok(std::iter::once(share * 100.0).chain(delays).collect())
}

/// Appends a message.
type Append<'a> = Box<dyn Fn(&[u8]) -> Result<()> + 'a>;

/// One round: appends messages with short pauses; returns the waiting consumer's use of the
/// processor in per cent.
fn deliver<'a>(
    context: &Context,
    into: &mut Histogram<u64>,
    open: impl Fn(&Path) -> Result<Append<'a>>,
) -> Result<f64> {
    let dir = context.temp()?;
    let feed: PathBuf = dir.path().join("feed");
    let log = Setup::default().create(&feed)?;
    log.subscribe("follower", Start::Beginning)?;
    let append = open(&feed)?;
    let count = context.size(1_000, 300);
    let arguments = [
        "follow".to_owned(),
        format!("--feed={}", feed.display()),
        format!("--count={count}"),
        format!("--rest={}", context.size(5.0, 1.0)),
    ];
    let mut child = Child::start(&arguments, &[])?;
    child.wait_ready()?;
    child.go()?;
    let mut body = [b'm'; MESSAGE];
    for nth in 0..count as u64 {
        // Not in phase with any timer.
        std::thread::sleep(Duration::from_micros(1_000 + nth * 7919 % 3_000));
        body[8..16].copy_from_slice(&nth.to_le_bytes());
        body[..8].copy_from_slice(&now()?.to_le_bytes());
        append(&body)?;
    }
    let figures = child.figures()?;
    ensure!(figures.len() == count + 1, "the follower gave {} figures", figures.len());
    for delay in &figures[1..] {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        into.saturating_record((*delay as u64).max(1));
    }
    Ok(figures[0])
}

/// Target 7.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let mut histograms = Vec::new();
    let mut lines = |report: &mut Report, who: &str, rounds: Vec<(Histogram<u64>, f64)>| -> Result<()> {
        for (work, percentile, limit) in [("median", 50.0, 100.0), ("99 %", 99.0, 1_000.0)] {
            let values = rounds.iter().map(|(h, _)| micros(h.value_at_percentile(percentile))).collect();
            report.line(Line {
                part: 7,
                work: format!("delivery to another process, {who} writes, {work}"),
                unit: "µs",
                ours: Sample::new("ours", values),
                reference: None,
                target: Target::AtMost(limit),
            })?;
        }
        report.line(Line {
            part: 7,
            work: format!("processor time of the waiting consumer, {who} wrote"),
            unit: "%",
            ours: Sample::new("ours", rounds.iter().map(|(_, share)| *share).collect()),
            reference: None,
            target: Target::AtMost(0.1),
        })?;
        let mut all = histogram()?;
        for (round, _) in &rounds {
            all.add(round)?;
        }
        histograms.push((format!("{who} writes"), all));
        Ok(())
    };
    let mut rounds = Vec::new();
    for _ in 0..context.rounds {
        let mut delays = histogram()?;
        let share = deliver(context, &mut delays, |feed| {
            let writer = Jlog::open(feed)?.writer()?;
            Ok(Box::new(move |body| Ok(writer.append(body).map(|_| ())?)))
        })?;
        rounds.push((delays, share));
    }
    lines(report, "ours", rounds)?;
    if let Some(api) = &context.c {
        let mut rounds = Vec::new();
        for _ in 0..context.rounds {
            let mut delays = histogram()?;
            let share = deliver(context, &mut delays, |feed| {
                let writer = c::Writer::open(api, feed, &c::Setup::default())?;
                Ok(Box::new(move |body| writer.append(body)))
            })?;
            rounds.push((delays, share));
        }
        lines(report, "C", rounds)?;
    }
    report.histograms("Delivery to another process", &histograms)
}
