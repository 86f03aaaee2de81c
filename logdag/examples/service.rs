//! A service that logs with `tracing`, as `service.toml` says: run it in this directory with
//! `cargo run --example service`.

#![allow(missing_docs)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Dropping it writes what waits in queues.
    let logging = logdag::init("service.toml")?;
    // SIGHUP reloads service.toml.
    logging.reload_on_hangup()?;
    tracing::info!(port = 8080, "listening");
    tracing::error!(status = 503, path = "/page/4", "request failed");
    Ok(())
}
