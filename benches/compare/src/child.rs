//! Work that has to happen in another process: this program starts a copy of itself.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::parts::{delivery, open, scale, ship, sweep};
use crate::peers::walrus;
use crate::report::say;

/// The arguments of a process that consumes a feed.
#[derive(Args, Debug)]
pub struct FollowArgs {
    /// The jlog.
    #[arg(long)]
    feed: PathBuf,
    /// Messages to wait for.
    #[arg(long)]
    count: usize,
    /// Seconds to idle at the end, with nothing to read.
    #[arg(long)]
    rest: f64,
}

/// What a child does.
#[derive(Subcommand, Debug)]
pub enum Mode {
    /// walrus appends and reads.
    #[command(hide = true)]
    Walrus {
        /// Messages.
        #[arg(long)]
        count: usize,
        /// Messages in a batch.
        #[arg(long)]
        batch: usize,
        /// Their length.
        #[arg(long)]
        len: usize,
    },
    /// A reader follows a jlog and measures delays.
    #[command(hide = true)]
    Follow(FollowArgs),
    /// A shipper sends a backlog to a destination that acknowledges at once, then idles.
    #[command(hide = true)]
    Ship(FollowArgs),
    /// A writer fills one segment, and waits to be killed.
    #[command(hide = true)]
    Crash {
        /// The jlog.
        #[arg(long)]
        feed: PathBuf,
        /// Messages.
        #[arg(long)]
        count: usize,
        /// Segment size.
        #[arg(long)]
        segment: u32,
    },
    /// Does something to a jlog and reports the peak memory of the process.
    #[command(hide = true)]
    Memory {
        /// The jlog.
        #[arg(long)]
        feed: PathBuf,
        /// What is done.
        #[arg(long)]
        work: scale::MemoryWork,
        /// Messages to write.
        #[arg(long)]
        count: usize,
        /// Their length.
        #[arg(long)]
        len: usize,
    },
    /// Appends on request.
    #[command(hide = true)]
    Append {
        /// The jlog.
        #[arg(long)]
        feed: PathBuf,
        /// Messages.
        #[arg(long)]
        count: usize,
        /// Whether to use the C library.
        #[arg(long)]
        c: bool,
    },
}

/// Does the work that the parent asked for, and prints the resulting figures.
pub fn work(mode: &Mode) -> Result<()> {
    let figures = match mode {
        Mode::Walrus { count, batch, len } => walrus::work(*count, *batch, *len)?,
        Mode::Follow(args) => delivery::follow(&args.feed, args.count, args.rest)?,
        Mode::Ship(args) => ship::follow(&args.feed, args.count, args.rest)?,
        Mode::Crash { feed, count, segment } => open::fill_and_wait(feed, *count, *segment)?,
        Mode::Memory { feed, work, count, len } => scale::use_memory(feed, *work, *count, *len)?,
        Mode::Append { feed, count, c } => sweep::append_on_request(feed, *count, *c)?,
    };
    let figures: Vec<String> = figures.iter().map(f64::to_string).collect();
    say(&format!("figures {}", figures.join(" ")))
}

/// In the child: reports that everything is ready, and waits for the parent to let it begin.
pub fn ready() -> Result<()> {
    say("ready")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(())
}

/// A child at work. It is killed when this is dropped.
pub struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program again, with these arguments and variables.
    pub fn start(arguments: &[String], variables: &[(&str, &OsStr)]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .envs(variables.iter().copied())
            .env("WALRUS_QUIET", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take();
        let stdout = BufReader::new(process.stdout.take().context("a child without output")?);
        Ok(Self { process, stdin, stdout })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("a child ended early: {}", self.process.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    /// Waits until the child is ready.
    pub fn wait_ready(&mut self) -> Result<()> {
        match self.line()?.as_str() {
            "ready" => Ok(()),
            other => bail!("a child said {other:?} instead of ready"),
        }
    }

    /// Lets the child begin.
    pub fn go(&mut self) -> Result<()> {
        self.stdin.as_mut().context("a child without input")?.write_all(b"go\n")?;
        Ok(())
    }

    /// Waits for the figures.
    pub fn figures(&mut self) -> Result<Vec<f64>> {
        let line = self.line()?;
        let figures = line.strip_prefix("figures").with_context(|| format!("a child said {line:?}"))?;
        let figures = figures.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        self.process.wait()?;
        Ok(figures)
    }

    /// Kills the child, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has usually ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
