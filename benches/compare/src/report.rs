//! The report: lines with targets, tables and charts, on the terminal and as Markdown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::machine::Machine;
use crate::plot;
use crate::work::Sample;

/// The work and the reference of the lines that results open with; README shows some of them.
const SUMMARY: &[(&str, &str)] = &[
    ("single append, many processes", "C"),
    ("pre-commit 1 MiB, many processes", "C"),
    ("batches of 1000, many processes", "pwrite of 64 KiB"),
    ("bulk read, verified", "commitlog"),
    ("one by one, iterator, verified", "C"),
    ("durable append, 1 thread, many processes", "pwrite and fdatasync"),
    ("durable append, 16 threads, many processes", "okaywal"),
    ("delivery to another process, ours writes, median", ""),
    ("opening for writing after a crash, segment of 1024 MiB, checksums there", ""),
    ("lines to rotated files through a queue, until they are in files", "flexi_logger"),
];

/// The target of a line's figure.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// Ours is at least this many times the reference.
    Times(f64),
    /// Ours is at most this many times the reference.
    AtMostTimes(f64),
    /// Ours is at most this, whatever others do.
    AtMost(f64),
    /// Ours is at least this, whatever others do.
    AtLeast(f64),
    /// Shown for comparison only.
    None,
}

/// One of our figures next to a reference.
pub struct Line {
    /// Number of the target that it belongs to.
    pub part: u8,
    /// What was done.
    pub work: String,
    /// What the figures count.
    pub unit: &'static str,
    /// Our figures.
    pub ours: Sample,
    /// What they are compared with.
    pub reference: Option<Sample>,
    /// What they have to reach.
    pub target: Target,
}

impl Line {
    /// The ratio of our figure to the reference.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.ours.median() / self.reference.as_ref()?.median())
    }

    /// How far the target is reached: 1 and above means met.
    pub fn score(&self) -> Option<f64> {
        match self.target {
            Target::Times(times) => Some(self.ratio()? / times),
            Target::AtMostTimes(times) => Some(times / self.ratio()?),
            Target::AtMost(limit) => Some(limit / self.ours.median().max(f64::MIN_POSITIVE)),
            Target::AtLeast(limit) => Some(self.ours.median() / limit),
            Target::None => None,
        }
    }

    fn met(&self) -> &'static str {
        match (self.target, self.score()) {
            (Target::None, _) => "",
            (_, None) => "no reference",
            (_, Some(score)) if score >= 1.0 => "met",
            _ => "not met",
        }
    }

    fn target(&self) -> String {
        let name = self.reference.as_ref().map_or("the reference", |reference| reference.name.as_str());
        match self.target {
            Target::Times(times) => format!("≥ {times} × {name}"),
            Target::AtMostTimes(times) => format!("≤ {times} × {name}"),
            Target::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Target::AtLeast(limit) => format!("≥ {limit} {}", self.unit),
            Target::None => String::new(),
        }
    }

    /// Medians only.
    fn brief(&self) -> Vec<String> {
        let figure = |sample: &Sample| format!("{} {}", short(sample.median()), self.unit);
        vec![
            self.work.clone(),
            figure(&self.ours),
            self.reference.as_ref().map_or_else(String::new, |r| format!("{}: {}", r.name, figure(r))),
            self.ratio().map_or_else(String::new, short),
        ]
    }

    fn cells(&self) -> Vec<String> {
        let figure = |sample: &Sample| {
            let (low, high) = sample.range();
            format!("{} ({}–{})", short(sample.median()), short(low), short(high))
        };
        vec![
            self.part.to_string(),
            self.work.clone(),
            self.unit.to_owned(),
            figure(&self.ours),
            self.reference.as_ref().map_or_else(String::new, |r| format!("{}: {}", r.name, figure(r))),
            self.ratio().map_or_else(String::new, short),
            self.target(),
            self.met().to_owned(),
        ]
    }
}

/// A table below the lines.
pub struct Table {
    /// What it shows.
    pub title: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Rows.
    pub rows: Vec<Vec<String>>,
}

/// How a figure grows with something.
pub struct Chart {
    /// What was done.
    pub title: String,
    /// What grows.
    pub x: &'static str,
    /// Its values.
    pub xs: Vec<f64>,
    /// What the figures count.
    pub unit: &'static str,
    /// Figures, one for each value.
    pub series: Vec<(String, Vec<f64>)>,
}

/// The whole report.
#[derive(Default)]
pub struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
    tables: Vec<Table>,
    charts: Vec<Chart>,
}

impl Report {
    /// Adds a line, and prints it.
    pub fn line(&mut self, line: Line) -> Result<()> {
        let cells = line.cells();
        let mut text = format!("[{}] {}: {} {}", cells[0], cells[1], cells[3], cells[2]);
        if line.reference.is_some() {
            let _ = write!(text, "; {}; ratio {}", cells[4], cells[5]);
        }
        if !matches!(line.target, Target::None) {
            let _ = write!(text, "; target {}: {}", cells[6], cells[7]);
        }
        say(&text)?;
        self.lines.push(line);
        Ok(())
    }

    /// Adds a remark, and prints it.
    pub fn note(&mut self, note: impl Into<String>) -> Result<()> {
        let note = note.into();
        say(&format!("    note: {note}"))?;
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
        Ok(())
    }

    /// Adds a table, and prints it.
    pub fn table(&mut self, table: Table) -> Result<()> {
        say(&format!("    {}", table.title))?;
        for row in std::iter::once(&table.header).chain(&table.rows) {
            let cells: Vec<String> = row.iter().map(|cell| format!("{cell:>16}")).collect();
            say(&format!("    {}", cells.join(" ")))?;
        }
        self.tables.push(table);
        Ok(())
    }

    /// Adds a table of percentiles (the histograms are in nanoseconds), and prints it.
    pub fn histograms(&mut self, title: &str, histograms: &[(String, Histogram<u64>)]) -> Result<()> {
        let percentiles = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];
        let header = ["", "count"].map(str::to_owned).into_iter();
        let header = header.chain(percentiles.map(|p| format!("{p} % (µs)"))).collect();
        let rows = histograms
            .iter()
            .map(|(name, histogram)| {
                let figures = percentiles.map(|p| short(micros(histogram.value_at_percentile(p))));
                [name.clone(), histogram.len().to_string()].into_iter().chain(figures).collect()
            })
            .collect();
        self.table(Table { title: title.to_owned(), header, rows })
    }

    /// Adds a chart, and prints it as a table.
    pub fn chart(&mut self, chart: Chart) -> Result<()> {
        let header =
            std::iter::once(chart.x.to_owned()).chain(chart.series.iter().map(|(name, _)| name.clone()));
        let rows = chart.xs.iter().enumerate().map(|(i, x)| {
            let figures = chart.series.iter().map(|(_, ys)| ys.get(i).map_or(String::new(), |y| short(*y)));
            std::iter::once(short(*x)).chain(figures).collect()
        });
        let table = Table {
            title: format!("{} ({})", chart.title, chart.unit),
            header: header.collect(),
            rows: rows.collect(),
        };
        self.table(table)?;
        self.charts.push(chart);
        Ok(())
    }

    /// Prints how many targets are met.
    pub fn summary(&self) -> Result<()> {
        let met = |verdict: &str| self.lines.iter().filter(|line| line.met() == verdict).count();
        say(&format!(
            "{} lines with a target met, {} not met, {} without a reference",
            met("met"),
            met("not met"),
            met("no reference")
        ))
    }

    /// Writes the report as Markdown to this path, and the plot beside it.
    pub fn write(&self, path: &Path, machine: &Machine) -> Result<()> {
        let stem = path.file_stem().context("a file without a name")?.to_string_lossy().to_lowercase();
        let plot = path.with_file_name(format!("{stem}.svg"));
        plot::draw(&plot, &self.lines, &self.charts)?;
        let mut text = String::from("# Results\n\n");
        let _ = writeln!(text, "Written by `benches/compare`.\n\n{}", machine.markdown());
        let _ = writeln!(
            text,
            "Messages of 100 bytes (116 in a segment), segments of 4 MiB, checksums on, synced at a roll and \
             on closing, unless stated otherwise. Figures are medians of alternating rounds (lowest–highest); \
             ratio is ours in terms of the reference.\n"
        );
        let header = ["work", "ours", "compared with", "ratio"];
        let chosen = SUMMARY.iter().filter_map(|&(work, reference)| {
            self.lines.iter().find(|line| {
                let name = line.reference.as_ref().map_or("", |reference| reference.name.as_str());
                line.work == work && name == reference
            })
        });
        let rows: Vec<_> = chosen.map(Line::brief).collect();
        if !rows.is_empty() {
            markdown_table(&mut text, &header, rows.into_iter());
            let _ = writeln!(text, "\n## All figures\n");
        }
        let header = ["target", "work", "unit", "ours", "reference", "ratio", "to reach", ""];
        markdown_table(&mut text, &header, self.lines.iter().map(Line::cells));
        if let Some(name) = plot.file_name() {
            let _ = writeln!(text, "\n![plot]({})", name.to_string_lossy());
        }
        if !self.notes.is_empty() {
            let _ = writeln!(text, "\n## Notes\n");
            for note in &self.notes {
                let _ = writeln!(text, "- {note}");
            }
        }
        for table in &self.tables {
            let _ = writeln!(text, "\n## {}\n", table.title);
            let header: Vec<&str> = table.header.iter().map(String::as_str).collect();
            markdown_table(&mut text, &header, table.rows.iter().cloned());
        }
        Ok(std::fs::write(path, text)?)
    }
}

fn markdown_table(text: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(text, "| {} |\n|{}", header.join(" | "), "---|".repeat(header.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
}

/// Prints a line.
pub fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Nanoseconds as microseconds.
#[allow(clippy::cast_precision_loss)]
pub fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// A figure with three significant digits.
pub fn short(figure: f64) -> String {
    let digits = match figure.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.01 => 3,
        _ => 5,
    };
    format!("{figure:.digits$}")
}
