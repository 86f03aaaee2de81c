//! Which request gets which answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;

use crate::access::Refused;
use crate::api;
use crate::health;
use crate::metrics;
use crate::mtev;
use crate::page;
use crate::respond::{self, error};
use crate::watch::Core;

/// The longest body of a request.
const MAX_BODY: usize = 64 << 10;

pub(crate) fn router(core: Arc<Core>) -> Router {
    let router = Router::new();
    #[cfg(feature = "graph")]
    let router = router.route("/eventer/logs/{*file}", get(mtev::ring));
    router
        .merge(page::router())
        .nest("/api/v1", api::router(core.control))
        .route("/capa.json", get(mtev::capabilities))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/mtev/stats.json", get(mtev::stats))
        .route("/metrics", get(metrics::metrics))
        .fallback(async || error(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            error(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is not allowed here; the server was started without permission for changes",
            )
        })
        .layer(middleware::from_fn_with_state(Arc::clone(&core), guard))
        .with_state(core)
}

/// Refuses clients without access, reads the body, and adds the headers for browsers.
async fn guard(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let mut response = match core.access.check(request.uri(), request.headers()) {
        Err((status, why)) => error(status, why),
        Ok(()) => match tokio::time::timeout(core.limits.header_time, whole(request)).await {
            Ok(Ok(request)) => next.run(request).await,
            Ok(Err((status, why))) => error(status, why),
            Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the request's body does not arrive"),
        },
    };
    respond::protect(response.headers_mut());
    response
}

/// The request with its whole, short body, so that no handler waits for a client.
async fn whole(request: Request) -> Result<Request, Refused> {
    const TOO_LONG: Refused = (StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too long");
    let length =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(TOO_LONG);
    }
    let (parts, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the request's body is incomplete"))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(TOO_LONG);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Request::from_parts(parts, bytes.into()))
}
