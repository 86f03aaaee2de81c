//! Reading: targets 4, 5 and 13.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use jlog_core::{Compression, Jlog, Locking, ReadMethod, ReaderOptions, Start};

use crate::c;
use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::parts::append::{C, OURS, contender, in_c};
use crate::peers::{commitlog, walrus, yaque};
use crate::raw;
use crate::report::{Line, Report, Target};
use crate::work::{Contender, Context, HEADER, Load, MESSAGE, Sample, Tally, alternate, as_f64, find};

/// A jlog to read repeatedly, with a new subscriber each time.
struct Feed<'a> {
    log: Jlog,
    expected: Tally,
    load: &'a Load,
    used: Cell<u32>,
}

impl<'a> Feed<'a> {
    fn new(path: &Path, setup: &Setup, load: &'a Load) -> Result<Self> {
        let log = ours::fill(path, setup, load)?;
        Ok(Self { log, expected: load.tally(), load, used: Cell::new(0) })
    }

    /// Reads everything without an index; million messages per second.
    fn read(&self, who: &str, work: impl FnOnce(&Jlog, &str) -> Result<Tally>) -> Result<f64> {
        ours::forget_indexes(self.log.path())?;
        Ok(self.load.rate(self.timed(who, &self.expected, work)?))
    }

    /// How many seconds it takes to read everything as a new subscriber.
    fn timed(
        &self,
        who: &str,
        expected: &Tally,
        work: impl FnOnce(&Jlog, &str) -> Result<Tally>,
    ) -> Result<f64> {
        self.used.set(self.used.get() + 1);
        let subscriber = format!("s{}", self.used.get());
        self.log.subscribe(&subscriber, Start::Beginning)?;
        let (tally, seconds) = ours::seconds(|| work(&self.log, &subscriber))?;
        self.log.unsubscribe(&subscriber)?;
        tally.check(expected, who)?;
        Ok(seconds)
    }

    fn ours(&'a self, name: &'a str, options: ReaderOptions) -> Contender<'a> {
        Contender::new(name, move |_| self.read(name, |log, who| ours::read(log, who, options)))
    }

    /// Reads it in bulk through a C interface, with its indexes, and counts messages with `count`.
    fn indexed(
        &'a self,
        name: &'a str,
        api: &'a c::Api,
        expected: Tally,
        count: fn(&mut Tally, &[u8]),
    ) -> Contender<'a> {
        Contender::new(name, move |_| {
            let mut seconds = 0.0;
            // The first read creates the indexes.
            for _ in 0..2 {
                seconds =
                    self.timed(name, &expected, |log, who| c::read(api, log.path(), who, true, count))?;
            }
            Ok(self.load.rate(seconds))
        })
    }

    /// Bare reads of its segments, without looking at them.
    fn raw(&'a self) -> Contender<'a> {
        Contender::new(RAW, move |_| Ok(self.load.rate(raw::read(&segments(&self.log)?, 256 << 10)?)))
    }

    fn in_c(&'a self, context: &'a Context, bulk: bool) -> Option<Contender<'a>> {
        let api = context.c.as_ref()?;
        Some(Contender::new(C, move |_| {
            self.read(C, |log, who| c::read(api, log.path(), who, bulk, Tally::add))
        }))
    }
}

const VERIFIED: &str = "ours, verified";
const MAPPED: &str = "ours, mapped";
const BY_ID: &str = "ours, by id";
const INDEXED: &str = "C, index there";
const RAW: &str = "pread of 256 KiB";

/// Target 4: reading in bulk and one by one, initially without an index.
pub fn plain(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::new(MESSAGE, context.size(2_000_000, 100_000), 1000);
    let dir = context.temp()?;
    let feed = Feed::new(&dir.path().join("feed"), &Setup::default(), &load)?;
    let mut log = commitlog::open(&dir.path().join("log"), 4 << 20)?;
    commitlog::write(&mut log, &load)?;
    let expected = load.tally();
    // It is so much slower that more messages would only take longer.
    let less = Load::new(MESSAGE, context.size(400_000, 200_000), 1000);
    let bare = ReaderOptions::default().verify(false);
    let mut contenders = vec![
        feed.ours(OURS, bare),
        feed.ours(VERIFIED, ReaderOptions::default()),
        feed.ours(MAPPED, bare.read_method(ReadMethod::Mmap)),
        Contender::new("commitlog", |_| {
            let (tally, seconds) = ours::seconds(|| commitlog::read(&log))?;
            tally.check(&expected, "commitlog")?;
            Ok(load.rate(seconds))
        }),
        Contender::new("yaque", |dir| {
            let path = dir.join("queue");
            crate::peers::yaque::append(&path, &load)?;
            let (tally, seconds) = ours::seconds(|| yaque::read(&path, load.count))?;
            tally.check(&expected, "yaque")?;
            Ok(load.rate(seconds))
        }),
        Contender::new("walrus", |dir| Ok(walrus::run(dir, &less, MESSAGE)?.1)),
    ];
    contenders.extend(feed.in_c(context, true));
    contenders.push(feed.raw());
    contenders.extend(context.c.as_ref().map(|api| feed.indexed(INDEXED, api, feed.expected, Tally::add)));
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    let mut line = |work: &str, ours: &Sample, reference: Option<&Sample>, target| {
        report.line(Line {
            part: 4,
            work: work.to_owned(),
            unit: "M/s",
            ours: ours.clone(),
            reference: reference.cloned(),
            target,
        })
    };
    let (ours, verified, mapped) = (&samples[0], &samples[1], &samples[2]);
    line("bulk read, not verified", ours, find(&samples, C), Target::Times(3.0))?;
    line("bulk read, not verified", ours, find(&samples, "commitlog"), Target::Times(2.0))?;
    line("bulk read, verified", verified, find(&samples, C), Target::Times(2.0))?;
    line("bulk read, verified", verified, find(&samples, "commitlog"), Target::None)?;
    line("bulk read, not verified", ours, find(&samples, INDEXED), Target::None)?;
    line("bulk read, verified", verified, find(&samples, INDEXED), Target::None)?;
    line("bulk read, not verified", ours, find(&samples, RAW), Target::None)?;
    line("bulk read, verified", verified, find(&samples, RAW), Target::None)?;
    line("bulk read, not verified, mapped", mapped, find(&samples, C), Target::None)?;
    line("bulk read, not verified", ours, find(&samples, "yaque"), Target::None)?;
    line("bulk read, not verified", ours, find(&samples, "walrus"), Target::None)?;
    report.note(
        "commitlog and walrus always verify their checksums while they read. yaque reads one by \
         one, and has no checksums. walrus is read one by one, too: its bulk read (0.2.0) leaves \
         out messages at the end of each block of 10 MiB. Its last tenth is not timed, because it \
         stores its position for each message of a block that is still being written. Files were \
         in the page cache; indexes of jlogs were removed before each reading.",
    )?;

    let mut contenders = vec![feed.ours(OURS, bare), feed.ours(VERIFIED, ReaderOptions::default())];
    contenders.push(Contender::new(BY_ID, |_| feed.read(BY_ID, |log, who| ours::read_by_id(log, who, bare))));
    contenders.extend(feed.in_c(context, false));
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    let mut line = |work: &str, ours: &Sample, target| {
        report.line(Line {
            part: 4,
            work: work.to_owned(),
            unit: "M/s",
            ours: ours.clone(),
            reference: find(&samples, C).cloned(),
            target,
        })
    };
    line("one by one, iterator, verified", &samples[1], Target::Times(15.0))?;
    line("one by one, iterator, not verified", &samples[0], Target::None)?;
    line("one by one, by id, not verified", &samples[2], Target::None)
}

/// Target 5: compressed bodies.
pub fn lz4(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::single(context.size(500_000, 40_000));
    let setup = Setup { compression: Compression::Lz4, ..Setup::default() };
    for (work, locking, target) in [
        ("LZ4, single append, many processes", Locking::MultiProcess, Target::Times(2.0)),
        ("LZ4, single append, one process", Locking::SingleProcess, Target::None),
    ] {
        let setup = Setup { locking, ..setup };
        let mut contenders = vec![contender(OURS, setup, &load)];
        contenders.extend(in_c(context, setup, &load));
        let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
        report.line(Line {
            part: 5,
            work: work.to_owned(),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: find(&samples, C).cloned(),
            target,
        })?;
    }
    let load = Load::new(MESSAGE, context.size(2_000_000, 100_000), 1000);
    let dir = context.temp()?;
    let feed = Feed::new(&dir.path().join("feed"), &setup, &load)?;
    report.note(format!(
        "LZ4: records of 100-byte messages had {:.0} bytes on disk on average, headers of 20 bytes included.",
        as_f64(usize::try_from(segment_bytes(&feed.log)?)?) / as_f64(load.count)
    ))?;
    let mut contenders = vec![
        feed.ours(OURS, ReaderOptions::default().verify(false)),
        feed.ours(VERIFIED, ReaderOptions::default()),
    ];
    contenders.extend(feed.in_c(context, true));
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    for (ours, work) in samples.iter().zip(["LZ4, bulk read, not verified", "LZ4, bulk read, verified"]) {
        report.line(Line {
            part: 5,
            work: work.to_owned(),
            unit: "M/s",
            ours: ours.clone(),
            reference: find(&samples, C).cloned(),
            target: Target::Times(2.0),
        })?;
    }
    Ok(())
}

/// Target 13: reading in bulk through the C interface, alternately of the C library and of ours,
/// with complete indexes.
pub fn interface(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let (Some(c), Some(our_c)) = (&context.c, &context.our_c) else {
        return report.note("Bulk reads through the C interface need JLOG_C_LIB and JLOG_OUR_LIB.");
    };
    type Count = fn(&mut Tally, &[u8]);
    let ends: Count = Tally::add;
    let whole: Count = |tally, body| {
        tally.add(body);
        tally.look_at(body);
    };
    for len in [10, 100, 1000, 10_000, 100_000, 1 << 20] {
        let load = Load::new(len, context.size(256 << 20, 16 << 20) / (len + HEADER), 1);
        for (checksums, checked, times) in [(false, "no checksums", 1.0), (true, "verified", 0.8)] {
            let dir = context.temp()?;
            let setup = Setup { checksums, pre_commit: 1 << 20, ..Setup::default() };
            let feed = Feed::new(&dir.path().join("feed"), &setup, &load)?;
            for (looked_at, count) in [("ends", ends), ("all bytes", whole)] {
                let mut expected = Tally::default();
                load.each(|body| {
                    count(&mut expected, body);
                    Ok(())
                })?;
                let mut contenders = [
                    feed.indexed(OURS, our_c, expected, count),
                    feed.indexed(INDEXED, c, expected, count),
                    feed.raw(),
                ];
                let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
                for (reference, target) in [(INDEXED, Target::Times(times)), (RAW, Target::None)] {
                    report.line(Line {
                        part: 13,
                        work: format!("bulk read in C, {len} B, {checked}, {looked_at} looked at"),
                        unit: "M/s",
                        ours: samples[0].clone(),
                        reference: find(&samples, reference).cloned(),
                        target,
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn segments(log: &Jlog) -> Result<Vec<PathBuf>> {
    let numbers = log.segments()?.into_iter();
    Ok(numbers.map(|number| log.path().join(jlog_core::names::segment(number))).collect())
}

fn segment_bytes(log: &Jlog) -> Result<u64> {
    let mut bytes = 0;
    for segment in segments(log)? {
        bytes += std::fs::metadata(segment)?.len();
    }
    Ok(bytes)
}
