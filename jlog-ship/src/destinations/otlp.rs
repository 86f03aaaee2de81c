//! A receiver of OpenTelemetry logs.

use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jlog_core::LogId;
use reqwest::Url;
use serde_json::{Value, json};

use super::HttpOptions;
use super::post::{Post, Reply};
use crate::{
    Answer, Destination, Feed, Limits, MappedValue, Mapping, MappingKind, Outgoing, Refusal, Shipment,
};

/// The default path of receivers.
const LOGS: &str = "/v1/logs";
/// The mandatory attribute of the resource.
const SERVICE: &str = "service.name";
/// The attribute of records for the message's id.
const ID: &str = "jlog.id";

/// Posts messages as log records of OpenTelemetry (OTLP over HTTP, in JSON).
///
/// A record's body is the message's text, or its bytes if it is not UTF-8. Its time is the
/// message's, and its attribute `jlog.id` is the id. The resource has the attributes that the URL
/// names, and `jlog.feed`, the feed's identity. A [`Mapping`] can set a record's time, its
/// severity, and further attributes.
///
/// | answer | meaning |
/// |---|---|
/// | 2xx | accepted |
/// | 2xx with a partial success that counts refused records | some messages are refused for good, and it is not known which |
/// | 408, 425, 429, 5xx, no answer | retry, after `Retry-After` if given |
/// | 401 to 405, 407, 410, 411, 415, 3xx | somebody has to fix something |
/// | any other 4xx | a message is refused for good |
///
/// After a partial success, nothing of the request is sent again, unless refusals block: see
/// [`RefusalKind::Some`](crate::RefusalKind::Some).
#[derive(Debug)]
pub struct Otlp {
    post: Post,
    resource: BTreeMap<String, String>,
    mapping: Mapping,
    feed: String,
    limits: Limits,
}

impl Otlp {
    /// The receiver at this URL, whose query has the attributes of the resource:
    /// `http://HOST:4318/?service.name=orders`. The default path is `/v1/logs`.
    ///
    /// The option [`body`](HttpOptions::body) is ignored.
    ///
    /// # Errors
    /// A description of the wrong option, or that `service.name` is missing.
    pub fn new(url: &str, options: &HttpOptions) -> Result<Self, String> {
        let mut parsed = Url::parse(url).map_err(|e| format!("{url:?} is not a URL: {e}"))?;
        let mut resource = BTreeMap::new();
        for (name, value) in parsed.query_pairs() {
            if name.is_empty() || value.is_empty() {
                return Err(format!("{name}={value}: an attribute has a name and a value"));
            }
            if resource.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(format!("the attribute {name} is given twice"));
            }
        }
        if !resource.contains_key(SERVICE) {
            return Err(format!("it needs the name of the service: ?{SERVICE}=…"));
        }
        parsed.set_query(None);
        if parsed.path() == "/" {
            parsed.set_path(LOGS);
        }
        options.mapping.only(&[MappingKind::Timestamp, MappingKind::Severity, MappingKind::Attribute])?;
        if options.mapping.attributes().any(|name| name == ID) {
            return Err(format!("the attribute {ID} is the message's id, and cannot be mapped"));
        }
        let mapping = options.mapping.clone();
        let messages = if options.messages == 0 { 1000 } else { options.messages };
        let limits = Limits { messages, in_flight: options.in_flight.max(1), ..Limits::default() };
        Ok(Self {
            post: Post::new(parsed.as_str(), options)?,
            resource,
            mapping,
            feed: String::new(),
            limits,
        })
    }

    fn encode(&self, shipment: &Shipment) -> Bytes {
        let resource = self.resource.iter().map(|(name, value)| attribute(name, value));
        let resource: Vec<Value> = resource.chain([attribute("jlog.feed", &self.feed)]).collect();
        let records: Vec<Value> = shipment.iter().map(|message| self.record(message)).collect();
        let scope = json!({ "name": "jlog-ship", "version": env!("CARGO_PKG_VERSION") });
        json!({ "resourceLogs": [{
            "resource": { "attributes": resource },
            "scopeLogs": [{ "scope": scope, "logRecords": records }],
        }] })
        .to_string()
        .into()
    }

    fn record(&self, message: &Outgoing) -> Value {
        let mapped = self.mapping.of(message);
        // 64-bit numbers are strings in protobuf's JSON.
        let nanos = |micros: u64| (u128::from(micros) * 1000).to_string();
        let written = message.id.time.as_micros();
        let body = match std::str::from_utf8(&message.body) {
            Ok(text) => json!({ "stringValue": text }),
            Err(_) => json!({ "bytesValue": base64::prelude::BASE64_STANDARD.encode(&message.body) }),
        };
        let id = attribute(ID, &message.id.to_string());
        let attributes: Vec<Value> = [id].into_iter().chain(mapped.attributes.iter().map(typed)).collect();
        let mut record = json!({
            "timeUnixNano": nanos(mapped.micros.unwrap_or(written)),
            "observedTimeUnixNano": nanos(written),
            "body": body,
            "attributes": attributes,
        });
        if let (Value::Object(members), Some((text, number))) = (&mut record, mapped.severity) {
            members.extend(number.map(|number| ("severityNumber".to_owned(), number.into())));
            members.insert("severityText".to_owned(), text.into());
        }
        record
    }
}

fn attribute(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

fn typed((name, value): &(String, MappedValue)) -> Value {
    let value = match value {
        MappedValue::Text(text) => json!({ "stringValue": text }),
        MappedValue::Int(n) => json!({ "intValue": n.to_string() }),
        MappedValue::Float(n) => json!({ "doubleValue": n }),
        MappedValue::Bool(b) => json!({ "boolValue": b }),
    };
    json!({ "key": name, "value": value })
}

/// The refused records in an answer with a status of 2xx: their number, and the reason.
fn refused(said: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(said).ok()?;
    let partial = answer.get("partialSuccess")?;
    // A string in protobuf's JSON; a number is allowed as well.
    let count = match partial.get("rejectedLogRecords")? {
        Value::String(text) => text.trim().parse().ok()?,
        number => number.as_u64()?,
    };
    let why = partial.get("errorMessage").and_then(Value::as_str).unwrap_or("no reason given");
    (count > 0).then(|| format!("partial success, {count} refused: {why}"))
}

fn outcome(reply: &Reply) -> Result<(), Refusal> {
    if !reply.status.is_success() {
        return Err(reply.refusal());
    }
    refused(&reply.said).map_or(Ok(()), |why| Err(Refusal::some(why)))
}

impl Destination for Otlp {
    fn name(&self) -> String {
        self.post.name()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open<'a>(&'a mut self, feed: &'a Feed) -> BoxFuture<'a, Result<Option<LogId>, Refusal>> {
        self.feed = feed.identity().to_string();
        async { Ok(None) }.boxed()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let answer = self.post.send("application/json", &shipment, self.encode(&shipment), Vec::new());
        async move { outcome(&answer.await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_a_service_or_with_wrong_attributes_are_refused() {
        for (query, says) in [
            ("", "it needs the name of the service: ?service.name=…"),
            ("?env=prod", "it needs the name of the service"),
            ("?service.name=", "service.name=: an attribute has a name and a value"),
            ("?service.name=a&service.name=b", "the attribute service.name is given twice"),
        ] {
            let error = Otlp::new(&format!("http://localhost/{query}"), &HttpOptions::default()).unwrap_err();
            assert!(error.contains(says), "{query}: {error}");
        }
        let name = |url| Otlp::new(url, &HttpOptions::default()).unwrap().name();
        assert_eq!(name("http://localhost:4318?service.name=a"), "http://localhost:4318/v1/logs");
        assert_eq!(name("http://localhost/otlp/v1/logs?service.name=a"), "http://localhost/otlp/v1/logs");
    }

    #[test]
    fn only_a_partial_success_that_counts_records_refuses_any() {
        for said in ["", "{}", "ok", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":null}"#] {
            assert_eq!(refused(said), None, "{said}");
        }
        let warning = r#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"old client"}}"#;
        assert_eq!(refused(warning), None);
        let text = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
        assert_eq!(refused(text).unwrap(), "partial success, 2 refused: too old");
        let number = r#"{"partialSuccess":{"rejectedLogRecords":1}}"#;
        assert_eq!(refused(number).unwrap(), "partial success, 1 refused: no reason given");
    }
}
