//! Which configurations are accepted, and how others are refused.

mod errors;
mod files;
mod include;
mod limits;
mod rotation;
mod streams;
mod toml;
mod warnings;

use std::path::{Path, PathBuf};

use super::error::{Result, SHOWN};
use super::files::{MAX_FILE, is_descriptor};
use super::*;
use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::graph::Graph;
use crate::options::StreamConfig;
use crate::sink::{Metric, SinkSpec};

fn config(text: &str) -> Result<Config> {
    Config::from_text("app.xml", text)
}

fn logs(inside: &str) -> Result<Config> {
    config(&format!("<app><logs>\n{inside}\n</logs></app>"))
}

/// The essential parts of a configuration, for comparison.
fn gist(config: &Config) -> Vec<String> {
    let outlet =
        |(to, filter): &(String, Option<Filter>)| format!("{to} {:?}", filter.as_ref().map(Filter::text));
    let one = |stream: &StreamConfig| {
        let outlets: Vec<String> = stream.outlets.iter().map(outlet).collect();
        format!("{} {:?} {outlets:?}", stream.name, stream.options)
    };
    config.streams().iter().map(one).collect()
}

fn warnings(config: &Config) -> Vec<(u32, u32, &str)> {
    config.warnings().iter().map(|w| (w.line, w.column, &*w.message)).collect()
}
