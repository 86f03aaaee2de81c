//! Counters and histograms derived from lines.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;

use super::spec::SinkSpec;
use super::traits::{Capabilities, Lines, Sink, WriteError};
use crate::format::Format;
use crate::record::{Record, While};
use crate::sync::Mutex;
use crate::value::Value;

/// The default upper bounds of a histogram, in its unit; they suit seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MAX_BUCKETS: usize = 100;
const MAX_LABELS: usize = 10;
const DEFAULT_SERIES: usize = 100;
const MAX_SERIES: usize = 10_000;
/// A label's value is cut at this many bytes.
const MAX_VALUE: usize = 128;
/// The value of every label once there are too many combinations.
const OTHER: &str = "other";
/// Keys of a `<config>`.
const KIND: &str = "kind";
const HELP: &str = "help";
const VALUE: &str = "value";
const BUCKETS_KEY: &str = "buckets";
const SCALE: &str = "scale";
const LABELS: &str = "labels";
const SERIES: &str = "max_series";
/// All of them.
pub(crate) const KEYS: [&str; 7] = [KIND, HELP, VALUE, BUCKETS_KEY, SCALE, LABELS, SERIES];

/// A metric derived from lines: their number, or a histogram of a number that they have as a key. A
/// stream with [`SinkSpec::metric`] counts the lines that reach it, and writes nothing; an outlet's
/// filter selects them. [`Graph::metrics`](crate::Graph::metrics) returns the values, which the
/// crate jlog-watch shows to Prometheus.
///
/// Labels are bounded: after [`max_series`](Metric::max_series) different combinations of their
/// values, further ones count where every label is `other`. Values are cut at 128 bytes.
///
/// ```
/// use logdag::{Graph, Metric, SinkSpec, StreamOptions, log};
///
/// let graph = Graph::new();
/// let metric = Metric::histogram("request_duration_seconds", "took_ms").scale(0.001).labels(["route"]);
/// graph.configure("metric/requests", StreamOptions::new().sink(SinkSpec::metric(metric)))?;
/// graph.add_outlet("access", "metric/requests", Some("status >= 200"))?;
/// let access = graph.stream("access")?;
/// log!(access, status = 200, took_ms = 30, route = "/"; "served");
/// let metrics = graph.metrics();
/// assert_eq!(metrics[0].series[0].labels, ["/"]);
/// assert_eq!(metrics[0].series[0].count, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    name: String,
    help: String,
    value: Option<String>,
    /// `None` for a counter.
    buckets: Option<Vec<f64>>,
    scale: f64,
    labels: Vec<String>,
    max_series: usize,
}

impl SinkSpec {
    /// A metric derived from the lines: see [`Metric`].
    pub fn metric(metric: Metric) -> Self {
        metric.spec()
    }
}

impl Metric {
    /// A counter of lines. Its name follows the rules of Prometheus (letters, digits and `_`),
    /// without `_total`, which is added in the output.
    pub fn counter(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            help: String::new(),
            value: None,
            buckets: None,
            scale: 1.0,
            labels: Vec::new(),
            max_series: DEFAULT_SERIES,
        }
    }

    /// A histogram of the numbers that lines have as this key, in buckets that suit seconds, 5 ms
    /// to 10 s. A text that is a number counts as one. Lines without the key, or with a value other
    /// than a number of 0 or more, are skipped and counted.
    pub fn histogram(name: impl Into<String>, key: impl Into<String>) -> Self {
        Self { value: Some(key.into()), buckets: Some(BUCKETS.to_vec()), ..Self::counter(name) }
    }

    /// Sets the key whose numbers a counter adds up (such as a size in bytes), or a histogram
    /// observes.
    #[must_use]
    pub fn value(mut self, key: impl Into<String>) -> Self {
        self.value = Some(key.into());
        self
    }

    /// Multiplies numbers by this: 0.001 turns milliseconds into seconds.
    #[must_use]
    pub fn scale(mut self, factor: f64) -> Self {
        self.scale = factor;
        self
    }

    /// Upper bounds of a histogram's buckets, after scaling: up to 100 numbers, in ascending order.
    #[must_use]
    pub fn buckets(mut self, bounds: impl IntoIterator<Item = f64>) -> Self {
        self.buckets = Some(bounds.into_iter().collect());
        self
    }

    /// Up to 10 keys whose values become labels. If a line has no key `level` or `stream`, these
    /// are its level and the stream that it was logged to. If a line lacks another key, the label
    /// is empty.
    #[must_use]
    pub fn labels<L: Into<String>>(mut self, keys: impl IntoIterator<Item = L>) -> Self {
        self.labels = keys.into_iter().map(Into::into).collect();
        self
    }

    /// The help text.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// How many combinations of label values are counted separately: by default 100, and at most
    /// 10,000.
    #[must_use]
    pub fn max_series(mut self, series: usize) -> Self {
        self.max_series = series;
        self
    }

    /// The specification of its sink.
    pub(super) fn spec(self) -> SinkSpec {
        let joined = |numbers: &[f64]| numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",");
        let default = Self::counter("");
        let kind = if self.buckets.is_some() { "histogram" } else { "counter" };
        let mut spec = SinkSpec::new("metric", self.name).config(KIND, kind);
        let mut add = |key: &str, value: String, given: bool| {
            if given {
                spec.config.insert(key.to_owned(), value);
            }
        };
        add(SCALE, self.scale.to_string(), self.scale != default.scale);
        add(SERIES, self.max_series.to_string(), self.max_series != default.max_series);
        add(LABELS, self.labels.join(","), !self.labels.is_empty());
        add(HELP, self.help.clone(), !self.help.is_empty());
        let buckets = self.buckets.as_deref().unwrap_or_default();
        add(BUCKETS_KEY, joined(buckets), self.buckets.is_some() && *buckets != BUCKETS);
        if let Some(value) = self.value {
            add(VALUE, value, true);
        }
        spec
    }

    /// The metric that a specification describes.
    fn of(spec: &SinkSpec) -> Result<Self, String> {
        let text = |key: &str| spec.config.get(key).map(|text| text.trim());
        let wrong = |key: &str, expected: &str| {
            format!(
                "{key} {:?} of a metric: expected {expected}",
                spec.config.get(key).map_or("", |text| text)
            )
        };
        let mut metric = match text(KIND).unwrap_or("counter") {
            "counter" => Self::counter(&spec.path),
            "histogram" => Self { buckets: Some(BUCKETS.to_vec()), ..Self::counter(&spec.path) },
            _ => return Err(wrong(KIND, "counter or histogram")),
        };
        if !is_name(&metric.name) {
            return Err(format!(
                "the name {:?} of a metric: expected letters, digits and _, a letter first, and no _total at the end",
                metric.name
            ));
        }
        if ["jlog_", "logdag_"].iter().any(|ours| metric.name.starts_with(ours)) {
            return Err(format!("the name {:?} of a metric: names that begin so are taken", metric.name));
        }
        metric.value = text(VALUE).filter(|key| !key.is_empty()).map(str::to_owned);
        if let Some(factor) = text(SCALE) {
            let factor = factor.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
            metric.scale = factor.ok_or_else(|| wrong(SCALE, "a factor above 0, such as 0.001"))?;
        }
        if metric.buckets.is_some() && metric.value.is_none() {
            return Err("a histogram without value: expected the key that has the number".to_owned());
        }
        if let Some(bounds) = text(BUCKETS_KEY) {
            let expected = format!("1 to {MAX_BUCKETS} increasing numbers, separated by commas");
            if metric.buckets.is_none() {
                return Err(wrong(BUCKETS_KEY, "none, as it is a counter: a histogram has kind histogram"));
            }
            let parsed: Option<Vec<f64>> =
                bounds.split(',').map(|n| n.trim().parse().ok().filter(|n: &f64| n.is_finite())).collect();
            let right = |all: &Vec<f64>| all.len() <= MAX_BUCKETS && all.is_sorted_by(|a, b| a < b);
            let parsed = parsed.filter(right).ok_or_else(|| wrong(BUCKETS_KEY, &expected))?;
            metric.buckets = Some(parsed);
        }
        let labels = text(LABELS).unwrap_or_default().split(',').map(str::trim);
        metric.labels = labels.filter(|label| !label.is_empty()).map(str::to_owned).collect();
        if metric.labels.len() > MAX_LABELS {
            return Err(wrong(LABELS, &format!("{MAX_LABELS} keys at most")));
        }
        let names = metric.label_names();
        let taken = |n: usize, name: &String| names[..n].contains(name) || matches!(&**name, "le" | "graph");
        if let Some((n, _)) = names.iter().enumerate().find(|(n, name)| taken(*n, name)) {
            return Err(wrong(
                LABELS,
                &format!("a key other than {:?}: its label is taken", metric.labels[n]),
            ));
        }
        if let Some(series) = text(SERIES) {
            let series = series.parse().ok().filter(|series| (1..=MAX_SERIES).contains(series));
            metric.max_series = series.ok_or_else(|| wrong(SERIES, &format!("1 to {MAX_SERIES}")))?;
        }
        metric.help = text(HELP).unwrap_or_default().to_owned();
        Ok(metric)
    }

    /// The names of the labels: the keys, with `_` for every character that labels may not have.
    fn label_names(&self) -> Vec<String> {
        let name = |key: &String| {
            let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let name: String = key.chars().map(allowed).collect();
            let name = name.trim_start_matches('_');
            if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                name.to_owned()
            } else {
                format!("key_{name}")
            }
        };
        self.labels.iter().map(name).collect()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !name.ends_with("_total")
}

/// The values of a [`Metric`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetricValues {
    /// Its name.
    pub name: String,
    /// What it means; may be empty.
    pub help: String,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// The upper bounds of a histogram's buckets, except the last bucket, which has none; `None`
    /// for a counter.
    pub buckets: Option<Vec<f64>>,
    /// Whether a counter adds up numbers ([`Metric::value`]) instead of counting lines.
    pub adds_up: bool,
    /// The series, sorted by the values of the labels.
    pub series: Vec<MetricSeries>,
    /// Lines that were skipped because they have no number.
    pub skipped: u64,
}

/// The values for lines with the same labels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MetricSeries {
    /// The values of the labels.
    pub labels: Vec<String>,
    /// Lines.
    pub count: u64,
    /// The sum of their numbers; 0 if they have none.
    pub sum: f64,
    /// Lines in each bucket of a histogram, and in the one without an upper bound.
    pub buckets: Vec<u64>,
}

/// Counts lines, and writes nothing.
pub(crate) struct MetricSink {
    metric: Metric,
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    /// By the values of the labels, each preceded by its length.
    series: HashMap<Vec<u8>, MetricSeries>,
    skipped: u64,
}

impl fmt::Debug for MetricSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricSink").field("metric", &self.metric).finish_non_exhaustive()
    }
}

/// Checks the path and the `<config>`.
pub(super) fn check(spec: &SinkSpec) -> Result<(), String> {
    Metric::of(spec).map(|_| ())
}

impl MetricSink {
    pub(crate) fn open(spec: &SinkSpec) -> io::Result<Self> {
        let metric = Metric::of(spec).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        Ok(Self { metric, counted: Mutex::new(Counted::default()) })
    }

    fn count(&self, record: &Record<'_>) {
        let metric = &self.metric;
        let key = |name: &str| record.keys.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let number = metric.value.as_ref().map(|name| {
            let number = match key(name)? {
                Value::Str(text) => text.trim().parse().ok(),
                value => value.as_number(),
            };
            number.map(|number: f64| number * metric.scale).filter(|n| n.is_finite() && *n >= 0.0)
        });
        let values = metric.labels.iter().map(|name| match (key(name), &**name) {
            (Some(value), _) => cut(value.to_string()),
            (None, "level") => record.level.name().to_owned(),
            (None, "stream") => cut(record.facility.to_owned()),
            (None, _) => String::new(),
        });
        let values: Vec<String> = values.collect();
        let mut counted = self.counted.lock();
        if number == Some(None) {
            counted.skipped += 1;
            return;
        }
        let full = counted.series.len() >= metric.max_series;
        let mut id = identity(&values);
        let values = if full && !counted.series.contains_key(&id) {
            let other = vec![OTHER.to_owned(); values.len()];
            id = identity(&other);
            other
        } else {
            values
        };
        let buckets = metric.buckets.as_ref();
        let series = counted.series.entry(id).or_insert_with(|| MetricSeries {
            labels: values,
            count: 0,
            sum: 0.0,
            buckets: buckets.map_or_else(Vec::new, |bounds| vec![0; bounds.len() + 1]),
        });
        series.count += 1;
        if let Some(Some(number)) = number {
            series.sum += number;
            if let Some(bounds) = buckets
                && let Some(bucket) = series.buckets.get_mut(bounds.partition_point(|bound| *bound < number))
            {
                *bucket += 1;
            }
        }
    }

    /// The values so far.
    pub(crate) fn values(&self) -> MetricValues {
        let metric = &self.metric;
        let (series, skipped) = {
            let (_busy, counted) = (While::busy(), self.counted.lock());
            (counted.series.values().cloned().collect::<Vec<_>>(), counted.skipped)
        };
        let sorted: BTreeMap<Vec<String>, MetricSeries> =
            series.into_iter().map(|series| (series.labels.clone(), series)).collect();
        MetricValues {
            name: metric.name.clone(),
            help: metric.help.clone(),
            labels: metric.label_names(),
            buckets: metric.buckets.clone(),
            adds_up: metric.value.is_some(),
            series: sorted.into_values().collect(),
            skipped,
        }
    }
}

fn identity(values: &[String]) -> Vec<u8> {
    let mut id = Vec::with_capacity(values.iter().map(|value| value.len() + 1).sum());
    for value in values {
        // Values are cut well below 255 bytes.
        id.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        id.extend_from_slice(value.as_bytes());
    }
    id
}

fn cut(mut value: String) -> String {
    if value.len() <= MAX_VALUE {
        return value;
    }
    let end = (0..=MAX_VALUE).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    value.truncate(end);
    value
}

impl Sink for MetricSink {
    fn write(&self, _: &Lines<'_>) -> Result<(), WriteError> {
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().splits_lines(false).needs_times(false).wraps(true)
    }

    fn wrap(&self, record: &Record<'_>, _: Format, line: &mut Vec<u8>) {
        self.count(record);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use crate::{Graph, Metric, SinkSpec, StreamOptions, log};

    fn counted(metric: Metric, log: impl Fn(&crate::Stream)) -> crate::MetricValues {
        let graph = Graph::new();
        graph.configure("m", StreamOptions::new().sink(SinkSpec::metric(metric))).unwrap();
        graph.add_outlet("app", "m", None).unwrap();
        log(&graph.stream("app").unwrap());
        graph.metrics().remove(0)
    }

    #[test]
    fn lines_are_counted_by_their_labels() {
        let metric = Metric::counter("lines").labels(["http.status", "level", "stream"]).help("Lines");
        let values = counted(metric, |app| {
            for status in [200, 500, 200] {
                let keys = [("http.status", crate::Value::U64(status))];
                app.log(crate::Level::Info, &crate::Location::UNKNOWN, &keys, &"served");
            }
            log!(app, "without");
        });
        assert_eq!(values.labels, ["http_status", "level", "stream"]);
        assert_eq!((&*values.name, &*values.help, values.adds_up), ("lines", "Lines", false));
        let series: Vec<_> =
            values.series.iter().map(|series| (series.labels.join(" "), series.count)).collect();
        let expected = [(" info app", 1), ("200 info app", 2), ("500 info app", 1)];
        assert_eq!(series, expected.map(|(labels, count)| (labels.to_owned(), count)));
    }

    #[test]
    fn numbers_go_into_buckets() {
        let metric = Metric::histogram("took_seconds", "took").scale(0.001).buckets([0.01, 0.1]);
        let values = counted(metric, |app| {
            for took in [1, 10, 11, 5000] {
                log!(app, took = took; "served");
            }
            log!(app, took = "20"; "a text that is a number");
            for wrong in ["soon", "-1", "inf", ""] {
                log!(app, took = wrong; "no number");
            }
            log!(app, "none");
        });
        assert_eq!(values.skipped, 5);
        let [series] = &*values.series else { panic!("{values:?}") };
        assert_eq!((series.count, &*series.buckets), (5, &[2, 2, 1][..]));
        assert!((series.sum - 5.042).abs() < 1e-9, "{}", series.sum);
        let added = counted(Metric::counter("bytes").value("size"), |app| {
            log!(app, size = 7; "x");
            log!(app, size = 8.5; "x");
        });
        assert!((added.series[0].sum - 15.5).abs() < 1e-9 && added.adds_up);
    }

    #[test]
    fn labels_are_bounded() {
        let values = counted(Metric::counter("lines").labels(["user", "level"]).max_series(3), |app| {
            for user in 0..10 {
                log!(app, user = user; "x");
            }
            log!(app, user = 1; "x");
            log!(app, user = &*"ä".repeat(1000); "x");
        });
        let series: Vec<_> =
            values.series.iter().map(|series| (series.labels.join(" "), series.count)).collect();
        let expected = [("0 info", 1), ("1 info", 2), ("2 info", 1), ("other other", 8)];
        assert_eq!(series, expected.map(|(labels, count)| (labels.to_owned(), count)));
        let long = counted(Metric::counter("lines").labels(["user"]), |app| {
            log!(app, user = &*"ä".repeat(1000); "x");
        });
        assert_eq!(long.series[0].labels, ["ä".repeat(64)]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let spec = |metric: Metric| super::check(&SinkSpec::metric(metric));
        assert_eq!(
            spec(Metric::histogram("a_seconds", "took").buckets([0.1, 1.0]).labels(["a", "b"])),
            Ok(())
        );
        for (metric, why) in [
            (Metric::counter(""), "the name \"\""),
            (Metric::counter("a-b"), "the name \"a-b\""),
            (Metric::counter("a_total"), "no _total"),
            (Metric::counter("jlog_a"), "are taken"),
            (Metric::histogram("a", ""), "without value"),
            (Metric::histogram("a", "b").buckets([]), "buckets \"\""),
            (Metric::histogram("a", "b").buckets([1.0, 1.0]), "increasing numbers"),
            (Metric::counter("a").scale(0.0), "scale \"0\""),
            (Metric::counter("a").scale(f64::NAN), "scale \"NaN\""),
            (Metric::counter("a").labels(["a.b", "a_b"]), "a key other than \"a_b\""),
            (Metric::counter("a").labels(["le"]), "a key other than \"le\""),
            (Metric::counter("a").labels((0..11).map(|n| format!("k{n}"))), "10 keys at most"),
            (Metric::counter("a").max_series(0), "1 to 10000"),
        ] {
            let error = spec(metric.clone()).unwrap_err();
            assert!(error.contains(why), "{metric:?}: {error}");
        }
        let wrong = SinkSpec::new("metric", "a").config("kind", "gauge");
        assert!(super::check(&wrong).unwrap_err().contains("counter or histogram"));
        let wrong = SinkSpec::new("metric", "a").config("buckets", "1");
        assert!(super::check(&wrong).unwrap_err().contains("as it is a counter"));
    }
}
