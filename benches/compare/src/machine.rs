//! Facts about the machine that the figures belong to.

use std::path::Path;
use std::process::Command;

use crate::work::Context;

/// Facts.
pub struct Machine {
    cores: usize,
    kernel: String,
    files: String,
    durable_files: String,
    rustc: String,
    date: String,
    load_before: String,
    rounds: usize,
    quick: bool,
}

impl Machine {
    /// Collects the facts.
    pub fn look(context: &Context) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            files: file_system(&context.dir),
            durable_files: file_system(&context.durable_dir),
            rustc: output("rustc", &["--version"]),
            date: output("date", &["+%Y-%m-%d"]),
            load_before: load_average(),
            rounds: context.rounds,
            quick: context.quick,
        }
    }

    /// The file system where durability is measured.
    pub fn durable_files(&self) -> &str {
        &self.durable_files
    }

    /// As text.
    pub fn text(&self) -> String {
        format!(
            "{}: {} cores, Linux {}, files on {} (durability on {}), {}, load average {} at first and {} now, \
             {} rounds{}",
            self.date,
            self.cores,
            self.kernel,
            self.files,
            self.durable_files,
            self.rustc,
            self.load_before,
            load_average(),
            self.rounds,
            if self.quick { ", small sizes: only to show that it works" } else { "" }
        )
    }

    /// As a paragraph of Markdown.
    pub fn markdown(&self) -> String {
        format!("{}.\n", self.text())
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| format!("{program} unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// The type of the file system that a directory is on.
fn file_system(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(at, _)| dir.starts_with(at))
        .max_by_key(|(at, _)| at.len())
        .map_or_else(|| "an unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}
