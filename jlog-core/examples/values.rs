//! Values as messages: orders as JSON, and among them a message that is not one; run with
//! `--features typed`.

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use jlog_core::typed::{Encoding, Json};
use jlog_core::{Jlog, Start, Wait};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let log = Jlog::create_or_open(dir.path().join("feed"))?;
    log.ensure_subscriber("billing", Start::Beginning)?;

    let writer = log.writer()?;
    Json.append(&writer, &Order { customer: "Ada".to_owned(), cents: 1250 })?;
    writer.append("not an order")?;
    Json.append(&writer, &Order { customer: "Grace".to_owned(), cents: 300 })?;

    let mut reader = log.reader("billing")?;
    let Some(batch) = reader.next_batch(Wait::No)? else { return Ok(()) };
    for message in &batch {
        match Json.read::<Order>(&message) {
            Ok(order) => println!("{}: {} owes {}", message.id(), order.customer, order.cents),
            Err(error) => eprintln!("{error}"),
        }
    }
    let last = batch.last_id();
    reader.commit(last)?;
    Ok(())
}
