//! Appending: targets 1, 2 and 3.

use anyhow::Result;
use jlog_core::{Jlog, Locking, SyncPolicy};

use crate::machine::Machine;
use crate::ours::{self, Setup};
use crate::peers::{commitlog, raft_engine, walrus, yaque};
use crate::raw::{self, RawSync};
use crate::report::{Line, Report, Target};
use crate::work::{Contender, Context, Load, MESSAGE, RECORD, Sample, alternate, find};
use crate::{c, work};

/// Our name among the contenders.
pub const OURS: &str = "ours";
/// The C library's.
pub const C: &str = "C";

/// Ours.
pub fn contender<'a>(name: &str, setup: Setup, load: &'a Load) -> Contender<'a> {
    Contender::new(name, move |dir| ours::append(&dir.join("feed"), &setup, load))
}

/// The C library, set up as ours is, if it is available. Ours reads and checks what it wrote.
pub fn in_c<'a>(context: &'a Context, setup: Setup, load: &'a Load) -> Option<Contender<'a>> {
    let api = context.c.as_ref()?;
    Some(Contender::new(C, move |dir| {
        let feed = dir.join("feed");
        let rate = c::append(api, &feed, &setup.in_c(), load)?;
        ours::check(&Jlog::open(&feed)?, load)?;
        Ok(rate)
    }))
}

/// Bare writes of as many bytes as the load has in segments; million messages per second.
fn bare<'a>(name: &str, load: &'a Load, piece: usize, sync: RawSync) -> Contender<'a> {
    Contender::new(name, move |dir| {
        Ok(load.rate(raw::write(dir, (load.count * RECORD) as u64, piece, sync, false)?))
    })
}

/// Runs the contenders, and adds ours against the others.
fn against_c(
    context: &Context,
    report: &mut Report,
    part: u8,
    name: &str,
    setup: Setup,
    load: &Load,
    target: f64,
) -> Result<()> {
    let mut contenders = vec![contender(OURS, setup, load)];
    contenders.extend(in_c(context, setup, load));
    if setup.pre_commit == 0 {
        contenders.push(bare("pwrite of 116 bytes", load, RECORD, RawSync::OnRoll));
    }
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    report.line(Line {
        part,
        work: name.to_owned(),
        unit: "M/s",
        ours: samples[0].clone(),
        reference: find(&samples, C).cloned(),
        target: Target::Times(target),
    })?;
    if let Some(bare) = samples.last().filter(|sample| sample.name.starts_with("pwrite")) {
        report.line(Line {
            part,
            work: format!("{name}, against the kernel"),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: Some(bare.clone()),
            target: Target::None,
        })?;
    }
    Ok(())
}

/// Target 1: appends one by one.
pub fn single(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::single(context.size(1_000_000, 40_000));
    let alone = Setup { locking: Locking::SingleProcess, ..Setup::default() };
    against_c(context, report, 1, "single append, many processes", Setup::default(), &load, 2.0)?;
    against_c(context, report, 1, "single append, one process", alone, &load, 2.5)?;
    let setup = Setup { sync: SyncPolicy::Never, ..alone };
    let mut contenders = vec![
        contender(OURS, setup, &load),
        Contender::new("commitlog", |dir| commitlog::append(&dir.join("log"), &load)),
        Contender::new("yaque", |dir| yaque::append(&dir.join("queue"), &load)),
        Contender::new("raft-engine", |dir| raft_engine::append(&dir.join("engine"), &load)),
        Contender::new("walrus", |dir| Ok(walrus::run(dir, &load, MESSAGE)?.0)),
        bare("pwrite of 116 bytes, never synced", &load, RECORD, RawSync::Never),
    ];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    for sample in &samples[1..] {
        report.line(Line {
            part: 1,
            work: "single append, one process, never synced".to_owned(),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: Some(sample.clone()),
            target: Target::None,
        })?;
    }
    peers_note(report)
}

fn peers_note(report: &mut Report) -> Result<()> {
    report.note(
        "commitlog, yaque and walrus (configured to do so) never sync messages, and none of the \
         crates allows other processes to write: compared with them, ours never syncs either. \
         raft-engine always syncs a full file, also here. walrus runs in a child process.",
    )
}

/// Target 2: with a pre-commit buffer.
pub fn pre_commit(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::single(context.size(4_000_000, 200_000));
    let setup = Setup { pre_commit: 1 << 20, ..Setup::default() };
    let alone = Setup { locking: Locking::SingleProcess, ..setup };
    against_c(context, report, 2, "pre-commit 1 MiB, one process", alone, &load, 4.0)?;
    against_c(context, report, 2, "pre-commit 1 MiB, many processes", setup, &load, 8.0)?;
    let never = Setup { sync: SyncPolicy::Never, ..alone };
    let mut contenders = vec![
        contender(OURS, never, &load),
        bare("pwrite of 1 MiB, never synced", &load, 1 << 20, RawSync::Never),
        Contender::new("memcpy and clock", |_| Ok(load.rate(copy_and_clock(&load)?))),
    ];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    for sample in &samples[1..] {
        report.line(Line {
            part: 2,
            work: "pre-commit 1 MiB, one process, never synced".to_owned(),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: Some(sample.clone()),
            target: Target::None,
        })?;
    }
    Ok(())
}

/// Seconds for copying the load's messages into a buffer, reading the clock for each.
fn copy_and_clock(load: &Load) -> Result<f64> {
    let mut buffer = vec![0u8; 1 << 20];
    let mut at = 0;
    let ((), seconds) = ours::seconds(|| {
        load.each(|body| {
            let time = std::time::SystemTime::now();
            if at + work::HEADER + body.len() > buffer.len() {
                at = 0;
            }
            at += work::HEADER;
            buffer[at..at + body.len()].copy_from_slice(body);
            std::hint::black_box((&mut buffer, time));
            at += body.len();
            Ok(())
        })
    })?;
    Ok(seconds)
}

/// Target 3: batches.
pub fn batches(context: &Context, _: &Machine, report: &mut Report) -> Result<()> {
    let load = Load::new(MESSAGE, context.size(4_000_000, 200_000), 100);
    let few = Load::single(context.size(1_000_000, 40_000));
    let mut contenders = vec![contender(OURS, Setup::default(), &load)];
    contenders.extend(in_c(context, Setup::default(), &few));
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    report.line(Line {
        part: 3,
        work: "batches of 100, many processes, against single appends".to_owned(),
        unit: "M/s",
        ours: samples[0].clone(),
        reference: find(&samples, C).cloned(),
        target: Target::Times(15.0),
    })?;

    let never = Setup { sync: SyncPolicy::Never, ..Setup::default() };
    // It is so much slower that more messages would only take longer.
    let less = Load::new(MESSAGE, context.size(400_000, 20_000), 100);
    let mut contenders = vec![
        contender(OURS, never, &load),
        Contender::new("commitlog", |dir| commitlog::append(&dir.join("log"), &load)),
        Contender::new("yaque", |dir| yaque::append(&dir.join("queue"), &load)),
        Contender::new("raft-engine", |dir| raft_engine::append(&dir.join("engine"), &load)),
        Contender::new("walrus", |dir| Ok(walrus::run(dir, &less, MESSAGE)?.0)),
    ];
    let samples = alternate(|| context.temp(), context.rounds, &mut contenders)?;
    let best = samples[1..].iter().max_by(|a, b| a.median().total_cmp(&b.median()));
    for sample in &samples[1..] {
        let is_best = best.is_some_and(|best| best.name == sample.name);
        report.line(Line {
            part: 3,
            work: format!(
                "batches of 100, never synced{}",
                if is_best { ", against the best crate" } else { "" }
            ),
            unit: "M/s",
            ours: samples[0].clone(),
            reference: Some(sample.clone()),
            target: if is_best { Target::Times(1.3) } else { Target::None },
        })?;
    }
    peers_note(report)?;

    let load = Load::new(MESSAGE, context.size(8_000_000, 400_000), 1000);
    for (name, sync, raw) in [
        ("batches of 1000", SyncPolicy::OnRoll, RawSync::OnRoll),
        ("batches of 1000, never synced", SyncPolicy::Never, RawSync::Never),
    ] {
        let setup = Setup { sync, ..Setup::default() };
        let alone = Setup { locking: Locking::SingleProcess, ..setup };
        let mut contenders = vec![
            contender(OURS, setup, &load),
            contender("ours, one process", alone, &load),
            bare("pwrite of 64 KiB", &load, 64 << 10, raw),
        ];
        let samples: Vec<Sample> = alternate(|| context.temp(), context.rounds, &mut contenders)?;
        for (ours, processes) in samples[..2].iter().zip(["many processes", "one process"]) {
            report.line(Line {
                part: 3,
                work: format!("{name}, {processes}"),
                unit: "M/s",
                ours: ours.clone(),
                reference: Some(samples[2].clone()),
                target: if processes == "many processes" { Target::Times(0.7) } else { Target::None },
            })?;
        }
    }
    Ok(())
}
