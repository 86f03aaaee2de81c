//! A stream of Grafana Loki.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::FutureExt;
use reqwest::Url;
use serde_json::{Value, json};

use super::HttpOptions;
use super::post::{Post, Reply};
use crate::{Answer, Destination, Limits, Mapping, MappingKind, Outgoing, Refusal, Shipment};

/// The default path for pushing lines to Loki.
const PUSH: &str = "/loki/api/v1/push";
/// The parameter that is not a label.
const METADATA: &str = "metadata";
/// The maximum number of a stream's labels in Loki's default configuration.
const MOST_LABELS: usize = 15;
/// The maximum number of values of a mapped label. Each combination of values is a stream, and many
/// streams make Loki slow.
const MOST_VALUES: usize = 100;
/// The value of a mapped label that replaces further ones.
const OTHER: &str = "other";

/// Pushes messages to Loki, as lines of one stream, or of several if a [`Mapping`] derives labels
/// from messages.
///
/// If a message has no value for a mapped label, the label has the URL's value. After 100 values,
/// further ones become `other`, which is reported: labels are not meant for ids.
///
/// Each line has its message's id as structured metadata, `jlog_id`. Loki keeps only one of several
/// lines with the same time and text. So that it keeps two identical messages twice, but a repeated
/// message once, the last three digits of a line's time in nanoseconds, which a message's time does
/// not have, are those of its marker.
///
/// | answer | meaning |
/// |---|---|
/// | 2xx | accepted |
/// | 408, 425, 429, 5xx, no answer | retry, after `Retry-After` if given |
/// | 401 to 405, 407, 410, 411, 415, 3xx, or an error about the stream's labels or structured metadata | somebody has to fix something |
/// | any other 4xx, and a message that is not UTF-8 | a message is refused for good |
///
/// If Loki refuses a request because of one line, it still stores the other lines. They are sent
/// again while the refused line is searched for, and Loki ignores them.
#[derive(Debug)]
pub struct Loki {
    post: Post,
    labels: BTreeMap<String, String>,
    metadata: bool,
    mapping: Mapping,
    /// The values of each mapped label so far.
    values: BTreeMap<String, BTreeSet<String>>,
    notices: Vec<String>,
    limits: Limits,
}

impl Loki {
    /// A stream of the Loki at this URL, whose query has the stream's labels:
    /// `http://HOST:3100/?job=orders&env=prod`. The default path is `/loki/api/v1/push`. With
    /// `metadata=no`, lines have no structured metadata, which Loki before 3.0 refuses unless it is
    /// configured to accept it.
    ///
    /// The option [`body`](HttpOptions::body) is ignored.
    ///
    /// # Errors
    /// A description of the wrong option, or that there is no label.
    pub fn new(url: &str, options: &HttpOptions) -> Result<Self, String> {
        let mut parsed = Url::parse(url).map_err(|e| format!("{url:?} is not a URL: {e}"))?;
        let (mut labels, mut metadata) = (BTreeMap::new(), true);
        for (name, value) in parsed.query_pairs() {
            if name == METADATA {
                metadata = match &*value {
                    "yes" => true,
                    "no" => false,
                    other => return Err(format!("metadata={other}: expected yes or no")),
                };
                continue;
            }
            check_label(&name)?;
            if value.is_empty() {
                return Err(format!("the label {name} needs a value: ?{name}=…"));
            }
            if labels.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(format!("the label {name} is given twice"));
            }
        }
        if labels.is_empty() {
            return Err("it needs at least one label: ?job=…".to_owned());
        }
        options.mapping.only(&[MappingKind::Label, MappingKind::Timestamp])?;
        options.mapping.labels().try_for_each(check_label)?;
        let count =
            labels.keys().map(String::as_str).chain(options.mapping.labels()).collect::<BTreeSet<_>>().len();
        if count > MOST_LABELS {
            return Err(format!("{count} labels are too many: Loki takes {MOST_LABELS}"));
        }
        parsed.set_query(None);
        if parsed.path() == "/" {
            parsed.set_path(PUSH);
        }
        let messages = if options.messages == 0 { 1000 } else { options.messages };
        let limits = Limits { messages, in_flight: options.in_flight.max(1), ..Limits::default() };
        let post = Post::new(parsed.as_str(), options)?;
        let mapping = options.mapping.clone();
        Ok(Self { post, labels, metadata, mapping, values: BTreeMap::new(), notices: Vec::new(), limits })
    }

    fn encode(&mut self, shipment: &Shipment) -> Result<Bytes, Refusal> {
        let mut streams: BTreeMap<BTreeMap<String, String>, Vec<Value>> = BTreeMap::new();
        for message in shipment {
            let text = std::str::from_utf8(&message.body)
                .map_err(|_| Refusal::shipment("a message that is not UTF-8 cannot be a Loki line"))?;
            let (labels, micros) = self.place(message);
            let nanos = micros.saturating_mul(1000).saturating_add(u64::from(message.id.id.marker % 1000));
            let mut line = vec![Value::from(nanos.to_string()), text.into()];
            if self.metadata {
                line.push(json!({ "jlog_id": message.id.to_string() }));
            }
            streams.entry(labels).or_default().push(line.into());
        }
        let stream = |(labels, lines)| json!({ "stream": labels, "values": Value::Array(lines) });
        let streams: Vec<Value> = streams.into_iter().map(stream).collect();
        Ok(json!({ "streams": streams }).to_string().into())
    }

    /// The labels of a message's stream, and its time in that stream.
    fn place(&mut self, message: &Outgoing) -> (BTreeMap<String, String>, u64) {
        let mapped = self.mapping.of(message);
        let mut labels = self.labels.clone();
        for (name, mut value) in mapped.labels {
            let values = self.values.entry(name.clone()).or_default();
            // One extra entry marks that there were too many.
            if !values.contains(&value) && values.len() >= MOST_VALUES {
                if values.len() == MOST_VALUES && values.insert(OTHER.to_owned()) {
                    let text = format!(
                        "the label {name} has more than {MOST_VALUES} values: from {value:?} on, further ones are {OTHER:?}"
                    );
                    self.notices.push(text);
                }
                value = OTHER.to_owned();
            }
            if value != OTHER {
                values.insert(value.clone());
            }
            labels.insert(name, value);
        }
        (labels, mapped.micros.unwrap_or(message.id.time.as_micros()))
    }
}

fn check_label(name: &str) -> Result<(), String> {
    if is_label(name) {
        return Ok(());
    }
    Err(format!(
        "{name:?} cannot be a label: it takes letters, digits and _, and begins with a letter or a single _"
    ))
}

fn is_label(name: &str) -> bool {
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    // Loki reserves names that begin with two underscores.
    begins && !name.starts_with("__") && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a refusal is about properties that all messages share.
fn is_about_all(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    let labels =
        ["label names; limit", "has label name too long", "has label value too long", "error parsing labels"];
    labels.iter().any(|text| said.contains(text))
        || (said.contains("structured metadata") && said.contains("disallowed"))
}

fn refusal(reply: &Reply) -> Refusal {
    if reply.status.is_client_error() && is_about_all(&reply.said) {
        return Refusal::misconfigured(reply.why());
    }
    reply.refusal()
}

impl Destination for Loki {
    fn name(&self) -> String {
        self.post.name()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let body = match self.encode(&shipment) {
            Ok(body) => body,
            Err(refusal) => return async { Err(refusal) }.boxed(),
        };
        let answer = self.post.send("application/json", &shipment, body, Vec::new());
        async move {
            let answer = answer.await?;
            if answer.status.is_success() { Ok(()) } else { Err(refusal(&answer)) }
        }
        .boxed()
    }

    fn notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_labels_or_with_wrong_ones_are_refused() {
        for (query, says) in [
            ("", "it needs at least one label"),
            ("?metadata=no", "it needs at least one label"),
            ("?job=", "the label job needs a value"),
            ("?job=a&job=b", "the label job is given twice"),
            ("?a-b=c", "\"a-b\" cannot be a label"),
            ("?__name__=c", "\"__name__\" cannot be a label"),
            ("?1=c", "\"1\" cannot be a label"),
            ("?job=a&metadata=maybe", "metadata=maybe: expected yes or no"),
        ] {
            let error = Loki::new(&format!("http://localhost/{query}"), &HttpOptions::default()).unwrap_err();
            assert!(error.contains(says), "{query}: {error}");
        }
        let secret = Loki::new("http://user:secret@localhost/?job=a", &HttpOptions::default()).unwrap_err();
        assert!(secret.contains("in a file") && !secret.contains("secret@"), "{secret}");
    }

    #[test]
    fn the_path_is_lokis_unless_there_is_one() {
        let name = |url| Loki::new(url, &HttpOptions::default()).unwrap().name();
        assert_eq!(name("http://localhost:3100?job=a"), "http://localhost:3100/loki/api/v1/push");
        assert_eq!(name("http://localhost/logs/push?job=a"), "http://localhost/logs/push");
    }
}
