//! Shared by the destinations that speak HTTP: a client, its secrets, and the meaning of answers.

use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::HttpOptions;
use crate::tls::Tls;
use crate::{Refusal, Shipment};

/// How many characters of a server's answer are kept as the reason.
const MOST_OF_ANSWER: usize = 500;
/// How many bytes of an answer are read. After a longer answer, the connection is not reused.
const LONGEST_ANSWER: usize = 64 << 10;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Headers about the body and the client, which no message may change.
const OWN_HEADERS: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "upgrade",
];

/// Posts to one URL.
#[derive(Debug)]
pub(super) struct Post {
    url: Url,
    client: Client,
}

/// A server's answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    retry_after: Option<Duration>,
    /// The answer's body, or its beginning.
    pub said: String,
}

impl Post {
    /// The options about the body and the number of requests are ignored here.
    pub fn new(url: &str, options: &HttpOptions) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|e| format!("{url:?} is not a URL: {e}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{}: is not an HTTP scheme: expected http or https", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("everybody can see a password in a URL: give the password in a file".to_owned());
        }
        let own = |name: &&str| OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name));
        if let Some(name) = options.mapping.headers().find(own) {
            return Err(format!("the header {name} cannot be mapped"));
        }
        let mut headers = HeaderMap::new();
        let mut secret = |text: String, what: &str| {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| format!("{what} has characters that are not allowed in a header"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
            Ok::<(), String>(())
        };
        if let Some(token) = &options.token {
            secret(format!("Bearer {token}"), "the token")?;
        } else if let Some((user, password)) = &options.password {
            let both = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
            secret(format!("Basic {both}"), "the password")?;
        }
        for (name, value) in &options.headers {
            let wrong = || format!("{name}: {value} is not a header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
        }
        let tls = Tls { ca: options.ca.clone(), client: options.client.clone() }.config()?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .default_headers(headers)
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("jlog-ship/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| format!("cannot make an HTTP client: {e}"))?;
        Ok(Self { url, client })
    }

    /// The URL, without parts that may be secret.
    pub fn name(&self) -> String {
        // A query may contain a key.
        let mut shown = self.url.clone();
        shown.set_query(None);
        shown.to_string()
    }

    /// Sends a body that contains these messages, with additional headers.
    pub fn send(
        &self,
        kind: &'static str,
        shipment: &Shipment,
        body: Bytes,
        further: Vec<(String, String)>,
    ) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let key = match &shipment[..] {
            [one] => one.id.to_string(),
            [first, .., last] => format!("{}/{}", first.id, last.id),
            [] => String::new(),
        };
        let mut request =
            self.client.post(self.url.clone()).header(CONTENT_TYPE, kind).header("Idempotency-Key", key);
        for (name, value) in further {
            request = request.header(name, value.as_bytes());
        }
        async move {
            let sent = request.body(body).send().await;
            let answer = sent.map_err(|e| unanswered(&e))?;
            let status = answer.status();
            // In seconds. A date, which hardly any server sends, is ignored, and the back-off
            // applies.
            let after =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let said = read(answer).await;
            Ok(Reply { status, retry_after: after.map(Duration::from_secs), said })
        }
        .boxed()
    }
}

impl Reply {
    /// The refusal if it is not 2xx.
    pub fn refusal(&self) -> Refusal {
        let why = self.why();
        match self.status.as_u16() {
            408 | 425 | 429 | 500..=599 => Refusal::temporary(why).retry_after(self.retry_after),
            300..=399 | 401..=405 | 407 | 410 | 411 | 415 => Refusal::misconfigured(why),
            _ => Refusal::shipment(why),
        }
    }

    /// The status and the server's text, for a report.
    pub fn why(&self) -> String {
        let said: String = self.said.trim().chars().take(MOST_OF_ANSWER).collect();
        if said.is_empty() {
            self.status.to_string()
        } else {
            format!("{}: {}", self.status, said.trim_end())
        }
    }
}

/// The body of an answer, or its beginning if it is long or breaks off.
async fn read(mut answer: Response) -> String {
    let mut said = Vec::new();
    while said.len() < LONGEST_ANSWER
        && let Ok(Some(part)) = answer.chunk().await
    {
        said.extend_from_slice(&part);
    }
    said.truncate(LONGEST_ANSWER);
    String::from_utf8_lossy(&said).into_owned()
}

/// The refusal if there was no answer. The innermost reason says more than "error sending request".
fn unanswered(error: &reqwest::Error) -> Refusal {
    let mut inner: &(dyn std::error::Error + 'static) = error;
    loop {
        // The source of an I/O error that wraps another error is that error's source, not the error
        // itself.
        let held = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let Some(source) = held.map(|held| held as _).or_else(|| inner.source()) else { break };
        inner = source;
    }
    if inner.is::<rustls::Error>() {
        // Bad certificates, and servers that do not speak TLS, do not recover by themselves.
        Refusal::misconfigured(inner)
    } else {
        Refusal::temporary(inner)
    }
}
