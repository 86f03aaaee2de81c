//! The types of sinks that are always there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::streams::Maker;
#[cfg(feature = "jlog")]
use crate::sink::JlogSink;
use crate::sink::{Descriptor, FdSink, FileSink, Journald, MemorySink, MetricSink, Syslog};

/// The built-in types.
pub(super) fn makers() -> BTreeMap<String, Maker> {
    let mut makers: BTreeMap<String, Maker> = BTreeMap::new();
    for (kind, sink) in [("stderr", FdSink::Stderr), ("stdout", FdSink::Stdout)] {
        makers.insert(kind.to_owned(), Arc::new(move |_| Ok(Arc::new(sink))));
    }
    for (kind, asynchronous) in [("file", true), ("file_synch", false)] {
        makers.insert(
            kind.to_owned(),
            Arc::new(move |spec| {
                let sink = FileSink::open_with_access(
                    &spec.path,
                    spec.rotation.clone(),
                    &spec.access,
                    asynchronous,
                )?;
                Ok(Arc::new(match &spec.latest {
                    Some(link) => sink.with_latest(link)?,
                    None => sink,
                }))
            }),
        );
    }
    makers.insert("fd".to_owned(), Arc::new(|spec| Ok(Arc::new(Descriptor::open(&spec.path)?))));
    makers.insert("syslog".to_owned(), Arc::new(|spec| Ok(Arc::new(Syslog::open(spec)?))));
    makers.insert("journald".to_owned(), Arc::new(|spec| Ok(Arc::new(Journald::open(spec)?))));
    makers.insert("metric".to_owned(), Arc::new(|spec| Ok(Arc::new(MetricSink::open(spec)?))));
    makers.insert(
        "memory".to_owned(),
        Arc::new(|spec| {
            let sink = MemorySink::from_path(&spec.path).map_err(|expected| {
                let why = format!("{:?}: expected {expected}", spec.path);
                io::Error::new(io::ErrorKind::InvalidInput, why)
            })?;
            Ok(Arc::new(sink.named(&spec.stream)))
        }),
    );
    #[cfg(feature = "jlog")]
    makers.insert("jlog".to_owned(), Arc::new(|spec| Ok(Arc::new(JlogSink::open(spec)?))));
    makers
}
