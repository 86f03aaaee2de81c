//! The counters of `jlog ship`, for Prometheus.

use std::fmt;

use jlog_ship::{Progress, Totals};
use jlog_watch::prometheus_client::collector::Collector;
use jlog_watch::prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use jlog_watch::prometheus_client::metrics::MetricType;
use jlog_watch::prometheus_client::registry::Unit;
use jlog_watch::{Address, Server, Watch};

use crate::error::Failure;
use crate::output;
use crate::ship::Shipment;

/// Answers at the address of `--metrics`, if given, until the returned value is dropped.
pub fn serve(address: Option<&Address>, shipments: &[Shipment]) -> Result<Option<Server>, Failure> {
    let Some(address) = address else { return Ok(None) };
    let mut watch = Watch::new();
    let mut all = Vec::new();
    for shipment in shipments {
        let feed = &shipment.args.feed;
        watch = watch.feeds(feed);
        // The same name as in the feed's own metrics.
        let feed = std::path::absolute(feed).unwrap_or_else(|_| feed.clone());
        let labels = [
            ("feed", feed.display().to_string()),
            ("subscriber", shipment.args.subscriber.0.to_string()),
            ("destination", shipment.name_of_destination.clone()),
        ];
        all.push((labels, shipment.progress.clone()));
    }
    let watch = watch.collector(Metrics(all));
    let server = watch.serve(address).map_err(|e| Failure::new(format!("no metrics: {e}")))?;
    output::note(&format!("answering /metrics at {}", server.address()));
    Ok(Some(server))
}

type Labels = [(&'static str, String); 3];

/// The counters of each shipment.
#[derive(Debug)]
struct Metrics(Vec<(Labels, Progress)>);

fn counter(
    to: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&str>),
    all: &[(&Labels, Totals)],
    value: impl Fn(&Totals) -> u64,
) -> fmt::Result {
    let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
    let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
    for (labels, totals) in all {
        family.encode_family(*labels)?.encode_counter::<NoLabelSet, _, u64>(&value(totals), None)?;
    }
    Ok(())
}

fn gauge(
    to: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<Unit>),
    all: &[(&Labels, Totals)],
    value: impl Fn(&Totals) -> Option<f64>,
) -> fmt::Result {
    let mut values = all.iter().filter_map(|(labels, totals)| Some((labels, value(totals)?))).peekable();
    if values.peek().is_none() {
        return Ok(());
    }
    let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(*labels)?.encode_gauge(&value)?;
    }
    Ok(())
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let all: Vec<(&Labels, Totals)> =
            self.0.iter().map(|(labels, progress)| (labels, progress.totals())).collect();
        let messages = Some("messages");
        counter(to, ("jlog_ship_read", "Messages read from the feed to be shipped", messages), &all, |t| {
            t.read
        })?;
        let what = ("jlog_ship_acknowledged", "Messages that the destination has accepted", messages);
        counter(to, what, &all, |t| t.acknowledged)?;
        let what = ("jlog_ship_set_aside", "Messages refused for good and set aside", messages);
        counter(to, what, &all, |t| t.set_aside)?;
        let what = ("jlog_ship_skipped", "Messages refused for good and skipped", messages);
        counter(to, what, &all, |t| t.skipped)?;
        let what = ("jlog_ship_filtered", "Messages that the filter left out", messages);
        counter(to, what, &all, |t| t.filtered)?;
        let help = "Acknowledged messages that the destination already had from an earlier run";
        counter(to, ("jlog_ship_known", help, messages), &all, |t| t.known)?;
        let help = "Bytes of the acknowledged messages";
        counter(to, ("jlog_ship_acknowledged", help, Some("bytes")), &all, |t| t.bytes)?;
        counter(to, ("jlog_ship_refusals", "Refusals of all kinds", None), &all, |t| t.refusals)?;
        let unit = Some(Unit::Other("messages".to_owned()));
        // Counted by messages, which are far fewer than an f64 tells apart.
        let what = ("jlog_ship_in_flight", "Messages that were read and are not done", unit);
        gauge(to, what, &all, |t| Some(t.in_flight as f64))?;
        let help = "Whether the destination accepts nothing at the moment";
        gauge(to, ("jlog_ship_failing", help, None), &all, |t| Some(f64::from(u8::from(t.failing))))?;
        let what = ("jlog_ship_acknowledged_age", "Time since the last acknowledgement", Some(Unit::Seconds));
        let age = |t: &Totals| Some(t.acknowledged_at?.elapsed().unwrap_or_default().as_secs_f64());
        gauge(to, what, &all, age)
    }
}
