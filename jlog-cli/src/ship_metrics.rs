//! What `jlog ship` has done, for Prometheus.

use std::fmt;

use jlog_ship::{Progress, Totals};
use jlog_watch::prometheus_client::collector::Collector;
use jlog_watch::prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use jlog_watch::prometheus_client::metrics::MetricType;
use jlog_watch::prometheus_client::registry::Unit;
use jlog_watch::{Server, Watch};

use crate::args::ShipArgs;
use crate::error::Failure;
use crate::output;

/// Answers at the address of `--metrics`, where there is one, until what this returns is dropped.
pub fn serve(args: &ShipArgs, destination: String, progress: Progress) -> Result<Option<Server>, Failure> {
    let Some(address) = &args.metrics else { return Ok(None) };
    // As the feed's own metrics call it.
    let feed = std::path::absolute(&args.feed).unwrap_or_else(|_| args.feed.clone());
    let labels = [
        ("feed", feed.display().to_string()),
        ("subscriber", args.subscriber.0.to_string()),
        ("destination", destination),
    ];
    let watch = Watch::new().feeds(&args.feed).collector(Metrics { labels, progress });
    let server = watch.serve(address).map_err(|e| Failure::new(format!("no metrics: {e}")))?;
    output::note(&format!("answering /metrics at {}", server.address()));
    Ok(Some(server))
}

#[derive(Debug)]
struct Metrics {
    labels: [(&'static str, String); 3],
    progress: Progress,
}

impl Metrics {
    fn counter(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&str>,
        value: u64,
    ) -> fmt::Result {
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        family.encode_family(&self.labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(
        &self,
        to: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: f64,
    ) -> fmt::Result {
        let mut family = to.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        family.encode_family(&self.labels)?.encode_gauge(&value)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        let totals: Totals = self.progress.totals();
        for (name, help, value) in [
            ("jlog_ship_read", "Messages read from the feed to be shipped", totals.read),
            ("jlog_ship_acknowledged", "Messages that the destination has accepted", totals.acknowledged),
            ("jlog_ship_set_aside", "Messages refused for good and set aside", totals.set_aside),
            ("jlog_ship_skipped", "Messages refused for good and skipped", totals.skipped),
            (
                "jlog_ship_known",
                "Acknowledged messages that the destination had from an earlier run",
                totals.known,
            ),
        ] {
            self.counter(to, name, help, Some("messages"), value)?;
        }
        let help = "Bytes of the acknowledged messages";
        self.counter(to, "jlog_ship_acknowledged", help, Some("bytes"), totals.bytes)?;
        self.counter(to, "jlog_ship_refusals", "Refusals of all kinds", None, totals.refusals)?;
        let messages = Some(Unit::Other("messages".to_owned()));
        // Counted by messages, which are far fewer than an f64 tells apart.
        let in_flight = totals.in_flight as f64;
        self.gauge(to, "jlog_ship_in_flight", "Messages read, and not done", messages, in_flight)?;
        let failing = f64::from(u8::from(totals.failing));
        self.gauge(
            to,
            "jlog_ship_failing",
            "Whether the destination accepts nothing at the moment",
            None,
            failing,
        )?;
        if let Some(at) = totals.acknowledged_at {
            let age = at.elapsed().unwrap_or_default().as_secs_f64();
            let help = "Time since the last acknowledgement";
            self.gauge(to, "jlog_ship_acknowledged_age", help, Some(Unit::Seconds), age)?;
        }
        Ok(())
    }
}
