//! Another feed.

use std::path::PathBuf;

use futures_util::FutureExt;
use jlog_core::{Error, Jlog, Writer};

use crate::{Answer, Destination, Limits, Refusal, Shipment};

/// Appends messages to another feed on this machine, which is created if it does not exist. They
/// keep their times. A message is acknowledged when it is durable.
///
/// A feed does not know where its messages came from, so messages that were in flight when the
/// shipper was killed can arrive twice.
#[derive(Debug)]
pub struct Feed {
    path: PathBuf,
    writer: Option<Writer>,
}

impl Feed {
    /// The feed in this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writer: None }
    }

    fn append(&mut self, shipment: &Shipment) -> Result<(), Error> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Jlog::create_or_open(&self.path)?.writer()?),
        };
        let messages: Vec<_> = shipment.iter().map(|message| (message.id.time, &message.body)).collect();
        writer.append_batch_with_times(&messages)?;
        writer.sync()
    }
}

impl Destination for Feed {
    fn name(&self) -> String {
        format!("jlog:{}", self.path.display())
    }

    fn limits(&self) -> Limits {
        Limits { messages: 10_000, bytes: 4 << 20, ..Limits::default() }
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let appended = self.append(&shipment);
        let answer = appended.map_err(|error| {
            // The feed may have been replaced, and a writer whose sync failed stays failed: open
            // the path again.
            self.writer = None;
            match error {
                Error::MessageTooLarge { .. } => Refusal::shipment(error),
                Error::AtCapacity { .. } | Error::DiskFull { .. } | Error::Replaced { .. } => {
                    Refusal::temporary(error)
                }
                _ => Refusal::misconfigured(error),
            }
        });
        async { answer }.boxed()
    }
}
