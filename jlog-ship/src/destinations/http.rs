//! An HTTP server that accepts messages by POST.

use base64::Engine;
use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::{Map, Value, json};

use super::post::Post;
use crate::mapping::rfc3339;
use crate::{Answer, Destination, Limits, Mapping, MappingKind, Outgoing, Refusal, Shipment};

/// What a request holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpBody {
    /// Many messages, one line of JSON each: `{"id":…,"time":…,"body":…}`. A message that is not
    /// UTF-8 has `body_base64` in place of `body`. The default.
    #[default]
    Ndjson,
    /// Many messages, one line each, unchanged. A message that contains a newline is refused.
    Lines,
    /// One message, unchanged.
    Raw,
    /// One message, in the format of a line of [`Ndjson`](HttpBody::Ndjson).
    Json,
    /// Many messages, as a batch of [CloudEvents](https://cloudevents.io) 1.0 in JSON.
    CloudEvents,
}

/// How requests are made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HttpOptions {
    /// What a request holds.
    pub body: HttpBody,
    /// The maximum number of messages in a request; 0 means 1,000.
    pub messages: usize,
    /// Concurrent requests; 0 means 1, which keeps the order.
    pub in_flight: usize,
    /// A token that is sent as `Authorization: Bearer`.
    pub token: Option<String>,
    /// A user and a password.
    pub password: Option<(String, String)>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The properties to derive from messages that are JSON.
    pub mapping: Mapping,
    /// Certificates to trust besides the system's, in a PEM file.
    pub ca: Option<std::path::PathBuf>,
    /// A client certificate and its key, in PEM files.
    pub client: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

/// Sends messages by POST.
///
/// Each request has the header `Idempotency-Key`: the id of its message, or the ids of the first
/// and the last one, separated by `/`. Each message has its id in the JSON (`id`), so that a server
/// can recognise repeated messages.
///
/// A [`Mapping`] can set the time and the key of [`Ndjson`](HttpBody::Ndjson),
/// [`Json`](HttpBody::Json) and [`CloudEvents`](HttpBody::CloudEvents), the subject of the latter,
/// and headers of requests that hold one message.
///
/// | answer | meaning |
/// |---|---|
/// | 2xx | accepted |
/// | 408, 425, 429, 5xx, no answer | retry, after `Retry-After` if given |
/// | 401 to 405, 407, 410, 411, 415, 3xx, a TLS error | somebody has to fix something |
/// | any other 4xx | a message is refused for good |
#[derive(Debug)]
pub struct Http {
    post: Post,
    body: HttpBody,
    mapping: Mapping,
    limits: Limits,
    source: String,
}

impl Http {
    /// A server at this URL.
    ///
    /// # Errors
    /// A description of the wrong option.
    pub fn new(url: &str, options: &HttpOptions) -> Result<Self, String> {
        let post = Post::new(url, options)?;
        let messages = match options.body {
            HttpBody::Raw | HttpBody::Json => 1,
            _ if options.messages == 0 => 1000,
            _ => options.messages,
        };
        use MappingKind::{Header, Key, Subject, Timestamp};
        options.mapping.only(match options.body {
            HttpBody::Lines => &[],
            HttpBody::Raw => &[Header],
            HttpBody::Json => &[Key, Timestamp, Header],
            // A request has many messages, so headers cannot be set.
            HttpBody::Ndjson => &[Key, Timestamp],
            HttpBody::CloudEvents => &[Key, Timestamp, Subject],
        })?;
        let limits = Limits { messages, in_flight: options.in_flight.max(1), ..Limits::default() };
        Ok(Self { post, body: options.body, mapping: options.mapping.clone(), limits, source: String::new() })
    }

    fn encode(&self, shipment: &Shipment) -> Result<(&'static str, Bytes), Refusal> {
        let lines = |each: &dyn Fn(&Outgoing, &mut Vec<u8>)| {
            let mut out = Vec::new();
            for message in shipment {
                each(message, &mut out);
                out.push(b'\n');
            }
            Bytes::from(out)
        };
        Ok(match self.body {
            HttpBody::Raw => {
                ("application/octet-stream", shipment.first().map(|m| m.body.clone()).unwrap_or_default())
            }
            HttpBody::Json => {
                let text =
                    shipment.first().map(|message| self.envelope(message).to_string()).unwrap_or_default();
                ("application/json", text.into())
            }
            HttpBody::Ndjson => {
                let each = |message: &Outgoing, out: &mut Vec<u8>| {
                    out.extend_from_slice(self.envelope(message).to_string().as_bytes())
                };
                ("application/x-ndjson", lines(&each))
            }
            HttpBody::Lines if shipment.iter().any(|message| message.body.contains(&b'\n')) => {
                return Err(Refusal::shipment("a message that contains a newline cannot be sent as a line"));
            }
            HttpBody::Lines => {
                ("text/plain; charset=utf-8", lines(&|message, out| out.extend_from_slice(&message.body)))
            }
            HttpBody::CloudEvents => {
                let events: Vec<Value> = shipment.iter().map(|message| self.cloud_event(message)).collect();
                ("application/cloudevents-batch+json", Value::from(events).to_string().into())
            }
        })
    }

    fn cloud_event(&self, message: &Outgoing) -> Value {
        let mut event = Map::new();
        event.insert("specversion".into(), "1.0".into());
        event.insert("id".into(), message.id.to_string().into());
        event.insert("source".into(), self.source.clone().into());
        event.insert("type".into(), "jlog.message".into());
        let mapped = self.mapping.of(message);
        let micros = mapped.micros.unwrap_or(message.id.time.as_micros());
        event.insert("time".into(), rfc3339(micros).into());
        event.extend(mapped.subject.map(|subject| ("subject".into(), subject.into())));
        event.extend(mapped.key.map(|key| ("partitionkey".into(), key.into())));
        let (key, value) = data(&message.body);
        if let ("data", Ok(data)) = (key, serde_json::from_slice::<Value>(&message.body)) {
            event.insert("datacontenttype".into(), "application/json".into());
            event.insert("data".into(), data);
        } else {
            let kind = if key == "data" { "text/plain" } else { "application/octet-stream" };
            event.insert("datacontenttype".into(), kind.into());
            event.insert(key.into(), value);
        }
        event.into()
    }

    fn envelope(&self, message: &Outgoing) -> Value {
        let mapped = self.mapping.of(message);
        let time = rfc3339(mapped.micros.unwrap_or(message.id.time.as_micros()));
        let (key, body) = data(&message.body);
        let key = if key == "data" { "body" } else { "body_base64" };
        let mut envelope = json!({ "id": message.id.to_string(), "time": time, key: body });
        if let (Value::Object(members), Some(key)) = (&mut envelope, mapped.key) {
            members.insert("key".to_owned(), key.into());
        }
        envelope
    }
}

/// Its text as `data`, or other bytes as `data_base64`.
fn data(body: &[u8]) -> (&'static str, Value) {
    match std::str::from_utf8(body) {
        Ok(text) => ("data", text.into()),
        Err(_) => ("data_base64", base64::prelude::BASE64_STANDARD.encode(body).into()),
    }
}

impl Destination for Http {
    fn name(&self) -> String {
        self.post.name()
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn open<'a>(
        &'a mut self,
        feed: &'a crate::Feed,
    ) -> futures_util::future::BoxFuture<'a, Result<Option<jlog_core::LogId>, Refusal>> {
        self.source = format!("jlog:{}", feed.identity());
        async { Ok(None) }.boxed()
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let (kind, body) = match self.encode(&shipment) {
            Ok(encoded) => encoded,
            Err(refusal) => return async { Err(refusal) }.boxed(),
        };
        // With headers, there is exactly one message.
        let headers = shipment.first().map(|message| self.mapping.of(message).headers).unwrap_or_default();
        let answer = self.post.send(kind, &shipment, body, headers);
        async move {
            let answer = answer.await?;
            if answer.status.is_success() { Ok(()) } else { Err(answer.refusal()) }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_requests_have_themselves_or_that_are_of_many_messages_cannot_be_mapped() {
        let refused = |body, key| {
            let mut options = HttpOptions { body, ..HttpOptions::default() };
            options.mapping.set(key, "{a}").unwrap();
            Http::new("http://localhost/", &options).unwrap_err()
        };
        let error = refused(HttpBody::Raw, "header.idempotency-KEY");
        assert_eq!(error, "the header idempotency-KEY cannot be mapped");
        let error = refused(HttpBody::Ndjson, "header.X-A");
        assert_eq!(error, "it cannot use header.X-A, which is mapped; it can use key, timestamp");
        assert!(refused(HttpBody::Lines, "key").ends_with("it can use nothing"));
        assert!(refused(HttpBody::Json, "label.a").contains("label.a"));
    }

    #[test]
    fn passwords_in_a_url_are_refused() {
        let error = Http::new("http://user:secret@localhost/", &HttpOptions::default()).unwrap_err();
        assert!(error.contains("in a file") && !error.contains("secret"), "{error}");
    }
}
