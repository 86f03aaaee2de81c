//! How figures grow with message size, batch, segment size, threads and processes.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use jlog_core::{Jlog, ReaderOptions, SyncPolicy};

use crate::c;
use crate::child::{Child, ready};
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::parts::append::{C, OURS, contender, in_c};
use crate::parts::durable::in_threads;
use crate::report::{Chart, Report};
use crate::work::{Contender, Context, HEADER, Load, MESSAGE, Sample, Tally, alternate, as_f64};

/// All of them.
pub fn run(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    report.chart(message_sizes(context)?)?;
    report.chart(batch_sizes(context)?)?;
    report.chart(segment_sizes(context)?)?;
    report.chart(threads(context)?)?;
    report.chart(processes(context)?)
}

/// Runs the contenders for each value, in fewer rounds than the targets have.
fn chart<'a, T: Copy>(
    context: &'a Context,
    (title, x, unit): (&str, &'static str, &'static str),
    values: &[T],
    as_x: impl Fn(T) -> f64,
    mut samples: impl FnMut(T, usize) -> Result<Vec<Sample>> + 'a,
) -> Result<Chart> {
    let mut series: Vec<(String, Vec<f64>)> = Vec::new();
    for &value in values {
        for (n, sample) in samples(value, context.rounds.min(3))?.into_iter().enumerate() {
            if series.len() <= n {
                series.push((sample.name.clone(), Vec::new()));
            }
            series[n].1.push(sample.median());
        }
    }
    let xs = values.iter().map(|&value| as_x(value)).collect();
    Ok(Chart { title: title.to_owned(), x, xs, unit, series })
}

fn message_sizes(context: &Context) -> Result<Chart> {
    let sizes = [10usize, 100, 1_000, 10_000, 100_000, 1 << 20];
    let about = ("message size, many processes", "bytes of a message", "MB/s");
    chart(context, about, &sizes, as_f64, |len, rounds| {
        // As many as fit in a number of bytes, up to a maximum: appending more one by one takes
        // long.
        let count = (context.size(256 << 20, 8 << 20) / (len + HEADER)).clamp(8, 200_000);
        let load = Load::new(len, count, 1);
        let batches = Load::new(len, count, (256 << 10) / (len + HEADER) + 1);
        let setup = Setup::default();
        let to_bytes = |rate: f64| rate * as_f64(len);
        let mut contenders = vec![contender("ours, append", setup, &load)];
        contenders.push(contender("ours, batches of 256 KiB", setup, &batches));
        contenders.push(Contender::new("ours, bulk read, verified", |dir| {
            let log = ours::fill(&dir.join("feed"), &setup, &batches)?;
            ours::forget_indexes(log.path())?;
            let (tally, seconds) = ours::seconds(|| ours::read(&log, "keep", ReaderOptions::default()))?;
            tally.check(&batches.tally(), OURS)?;
            Ok(batches.rate(seconds))
        }));
        contenders.extend(in_c(context, setup, &load));
        if let Some(api) = &context.c {
            contenders.push(Contender::new("C, bulk read", |dir| {
                let log = ours::fill(&dir.join("feed"), &setup, &batches)?;
                ours::forget_indexes(log.path())?;
                let (tally, seconds) = ours::seconds(|| c::read(api, log.path(), "keep", true, Tally::add))?;
                tally.check(&batches.tally(), C)?;
                Ok(batches.rate(seconds))
            }));
        }
        let samples = alternate(|| context.temp(), rounds, &mut contenders)?;
        Ok(samples
            .into_iter()
            .map(|sample| Sample::new(sample.name.clone(), vec![to_bytes(sample.median())]))
            .collect())
    })
}

fn batch_sizes(context: &Context) -> Result<Chart> {
    let sizes = [1usize, 10, 100, 1_000, 10_000];
    let about = ("batch size, many processes", "messages of a batch", "M/s");
    chart(context, about, &sizes, as_f64, |batch, rounds| {
        let load = Load::new(MESSAGE, context.size(200_000 * batch.min(10), 40_000), batch);
        let never = Setup { sync: SyncPolicy::Never, ..Setup::default() };
        let mut contenders =
            vec![contender(OURS, Setup::default(), &load), contender("ours, never synced", never, &load)];
        alternate(|| context.temp(), rounds, &mut contenders)
    })
}

fn segment_sizes(context: &Context) -> Result<Chart> {
    let sizes = [64u32 << 10, 1 << 20, 4 << 20, 64 << 20, 256 << 20];
    let about = ("segment size, single append, many processes", "bytes of a segment", "M/s");
    chart(context, about, &sizes, f64::from, |segment, rounds| {
        let load = Load::single(context.size(400_000, 20_000));
        let batches = Load::new(MESSAGE, context.size(2_000_000, 40_000), 1_000);
        let setup = Setup { segment, ..Setup::default() };
        let mut contenders =
            vec![contender(OURS, setup, &load), contender("ours, batches of 1,000", setup, &batches)];
        contenders.extend(in_c(context, setup, &load));
        alternate(|| context.temp(), rounds, &mut contenders)
    })
}

fn threads(context: &Context) -> Result<Chart> {
    let counts = [1usize, 2, 4, 8];
    let about = ("threads with one writer, many processes", "threads", "M/s");
    chart(context, about, &counts, as_f64, |threads, rounds| {
        let each = context.size(400_000, 20_000) / threads;
        let body = [b'm'; MESSAGE];
        let rate = |seconds: f64| as_f64(each * threads) / seconds / 1e6;
        let ours = move |setup: Setup| {
            move |dir: &Path| {
                let log = setup.create(&dir.join("feed"))?;
                let writer = setup.writer(&log)?;
                let seconds = in_threads(threads, || {
                    (0..each).try_for_each(|_| writer.append(body).map(|_| ()))?;
                    Ok(())
                })?;
                writer.close()?;
                anyhow::ensure!(log.status()?.records == (each * threads) as u64, "ours lost messages");
                Ok(rate(seconds))
            }
        };
        let buffered = Setup { pre_commit: 1 << 20, ..Setup::default() };
        let mut contenders = vec![
            Contender::new(OURS, ours(Setup::default())),
            Contender::new("ours, pre-commit 1 MiB", ours(buffered)),
        ];
        if let Some(api) = &context.c {
            contenders.push(Contender::new(C, move |dir| {
                let feed = dir.join("feed");
                c::create(api, &feed, &c::Setup::default())?;
                let writer = c::Writer::open(api, &feed, &c::Setup::default())?;
                let seconds = in_threads(threads, || (0..each).try_for_each(|_| writer.append(&body)))?;
                writer.close();
                let records = Jlog::open(&feed)?.status()?.records;
                anyhow::ensure!(records == (each * threads) as u64, "C lost messages");
                Ok(rate(seconds))
            }));
        }
        alternate(|| context.temp(), rounds, &mut contenders)
    })
}

/// The child: appends on the parent's request.
pub fn append_on_request(feed: &Path, count: usize, in_c: bool) -> Result<Vec<f64>> {
    let load = Load::single(count);
    if in_c {
        let api = c::Api::load(Path::new(&std::env::var_os("JLOG_C_LIB").unwrap_or_default()))?;
        let writer = c::Writer::open(&api, feed, &c::Setup::default())?;
        ready()?;
        load.each(|body| writer.append(body))?;
        writer.close();
    } else {
        let writer = Jlog::open(feed)?.writer()?;
        ready()?;
        ours::write(&writer, &load)?;
        writer.close()?;
    }
    Ok(Vec::new())
}

fn processes(context: &Context) -> Result<Chart> {
    let counts = [1usize, 2, 3, 4];
    let about = ("processes appending to one jlog", "processes", "M/s");
    chart(context, about, &counts, as_f64, |processes, rounds| {
        let each = context.size(300_000, 20_000) / processes;
        let run = |in_c: bool| {
            move |dir: &Path| {
                let feed = dir.join("feed");
                let log = Setup::default().create(&feed)?;
                let mut arguments = vec![
                    "append".to_owned(),
                    format!("--feed={}", feed.display()),
                    format!("--count={each}"),
                ];
                if in_c {
                    arguments.push("--c".to_owned());
                }
                let mut children =
                    (0..processes).map(|_| Child::start(&arguments, &[])).collect::<Result<Vec<_>>>()?;
                children.iter_mut().try_for_each(Child::wait_ready)?;
                let start = Instant::now();
                children.iter_mut().try_for_each(Child::go)?;
                for child in &mut children {
                    child.figures()?;
                }
                let seconds = start.elapsed().as_secs_f64();
                anyhow::ensure!(log.status()?.records == (each * processes) as u64, "messages were lost");
                Ok(as_f64(each * processes) / seconds / 1e6)
            }
        };
        let mut contenders = vec![Contender::new(OURS, run(false))];
        if context.c.is_some() {
            contenders.push(Contender::new(C, run(true)));
        }
        alternate(|| context.temp(), rounds, &mut contenders)
    })
}
