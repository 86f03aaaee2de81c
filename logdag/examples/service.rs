//! A service that logs with `tracing`, to what `service.toml` says: run it in this directory, by
//! `cargo run --example service`.

#![allow(missing_docs)]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Writes what waits in queues when it is dropped.
    let logging = logdag::init("service.toml")?;
    // SIGHUP has service.toml read again.
    logging.reload_on_hangup()?;
    tracing::info!(port = 8080, "listening");
    tracing::error!(status = 503, path = "/page/4", "request failed");
    Ok(())
}
