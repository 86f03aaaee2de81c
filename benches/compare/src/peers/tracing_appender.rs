//! tracing-appender: a queue and a thread behind the `fmt` subscriber of tracing-subscriber.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use tracing_appender::non_blocking::NonBlockingBuilder;
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use crate::lines::{self, Rates, rates, wait_for, with_text};

/// Lines to a file that rolls. It can roll only by time, at most once a minute.
pub fn rolling(dir: &Path, count: usize) -> Result<Rates> {
    let appender = RollingFileAppender::builder().rotation(Rotation::MINUTELY).filename_prefix("log");
    log(dir, count, appender.build(dir)?)
}

/// Lines to a file that does not roll; its writer needs no clock.
pub fn one_file(dir: &Path, count: usize) -> Result<Rates> {
    log(dir, count, File::create(dir.join("log"))?)
}

fn log(dir: &Path, count: usize, file: impl Write + Send + 'static) -> Result<Rates> {
    // The logging thread waits while the queue is full: by default, it holds 128,000 lines, which
    // is 12.8 MB of such lines.
    let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(file);
    // Everything before the message is omitted, so that no clock is read.
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .finish();
    // A subscriber for a thread costs a few nanoseconds per line more than one for the process. But
    // a process can set its own only once.
    let rates = tracing::subscriber::with_default(subscriber, || {
        let log = || {
            for n in 0..count {
                with_text!(tracing::info!()(, n, n));
            }
        };
        // The guard, when dropped, waits for at most a second: wait for the lines first.
        rates(count, log, || {
            wait_for(dir, count)?;
            drop(guard);
            Ok(())
        })
    })?;
    lines::check(dir, count, "tracing-appender")?;
    Ok(rates)
}
