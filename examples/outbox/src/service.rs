//! The side that accepts messages.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jlog_core::asynchronous::AsyncWriter;
use jlog_core::{Error, Jlog};

use crate::{Counters, SUBSCRIBER, metrics};

/// Where messages are kept.
pub trait Store: Send + Sync + 'static {
    /// Stores a message, and returns its id. When the future is ready, the message survives a power
    /// failure.
    fn append(&self, message: Bytes) -> impl Future<Output = Result<String, Failure>> + Send;

    /// The answer to `GET /metrics`.
    fn metrics(&self) -> impl Future<Output = Result<String, Failure>> + Send {
        async { Ok(String::new()) }
    }
}

/// Why a request cannot be served, and the status of the answer.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: StatusCode,
    /// The reason, for the client.
    pub why: String,
}

impl Failure {
    /// A failure that is not the client's.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, why: why.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            // Subscribers may catch up, or somebody may free space: the client tries again later.
            Error::AtCapacity { .. } | Error::DiskFull { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Error::MessageTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, why: error.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.why + "\n").into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        response
    }
}

/// A feed as a store.
pub struct Feed {
    /// The feed.
    pub log: Jlog,
    /// Its writer.
    pub writer: AsyncWriter,
    /// Counts since the start.
    pub counters: Arc<Counters>,
}

impl Store for Feed {
    async fn append(&self, message: Bytes) -> Result<String, Failure> {
        let id = self.writer.append_durable(message).await?;
        self.counters.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(id.to_string())
    }

    async fn metrics(&self) -> Result<String, Failure> {
        let log = self.log.clone();
        let lag = tokio::task::spawn_blocking(move || log.lag(SUBSCRIBER)).await;
        Ok(metrics::text(&self.counters, lag.map_err(Failure::internal)??))
    }
}

/// `POST /messages` stores a message and answers 201 with its id; `GET /metrics` is for Prometheus.
pub fn router<S: Store>(store: Arc<S>) -> Router {
    Router::new()
        .route("/messages", post(accept::<S>))
        .route("/metrics", get(show_metrics::<S>))
        .with_state(store)
}

async fn accept<S: Store>(State(store): State<Arc<S>>, message: Bytes) -> Result<Response, Failure> {
    let id = store.append(message).await?;
    Ok((StatusCode::CREATED, id + "\n").into_response())
}

async fn show_metrics<S: Store>(State(store): State<Arc<S>>) -> Result<String, Failure> {
    store.metrics().await
}
