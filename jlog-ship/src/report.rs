//! The reports of a shipper.

use std::fmt;
use std::path::PathBuf;

use jlog_core::Event;

use crate::MessageId;

/// Something that happened during shipping and did not end it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Report {
    /// An event of the feed: skipped damage, dropped or lost messages, a checkpoint that moved.
    Feed(Event),
    /// The destination accepts no messages for now; the shipper keeps them and retries. Reported at
    /// the start, when the reason changes, and once a minute.
    Refused {
        /// The destination's name.
        destination: String,
        /// The reason it gave.
        why: String,
        /// Whether somebody has to fix something before it can continue.
        misconfigured: bool,
    },
    /// The destination accepts messages again.
    Resumed {
        /// The destination's name.
        destination: String,
    },
    /// The destination has refused a message for good; the message was set aside or skipped.
    Rejected {
        /// The message.
        id: MessageId,
        /// The destination's reason.
        why: String,
        /// The feed that the message was set aside in; `None` if it was skipped.
        set_aside: Option<PathBuf>,
    },
    /// The feed or the subscriber went away before the destination had accepted these messages, and
    /// the shipper ended: no later run can read them.
    Abandoned {
        /// How many messages.
        messages: u64,
        /// What happened to the feed.
        why: String,
    },
    /// A notice of the destination ([`Destination::notices`](crate::Destination::notices)).
    Notice {
        /// The destination's name.
        destination: String,
        /// The notice.
        text: String,
    },
    /// The checkpoint could not be stored; the shipper retries.
    Checkpoint(String),
    /// The feed or the subscriber disappeared; the shipper waits for it.
    Waiting(String),
}

impl Report {
    /// Whether messages were lost or skipped.
    pub fn is_loss(&self) -> bool {
        match self {
            Report::Feed(event) => event.is_damage(),
            Report::Rejected { .. } | Report::Abandoned { .. } => true,
            _ => false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::Feed(event) => event.fmt(f),
            Report::Refused { destination, why, misconfigured: true } => {
                write!(f, "{destination} refuses messages until something is fixed: {why}; trying again")
            }
            Report::Refused { destination, why, misconfigured: false } => {
                write!(f, "{destination} does not accept messages: {why}; trying again")
            }
            Report::Resumed { destination } => write!(f, "{destination} accepts messages again"),
            Report::Rejected { id, why, set_aside: Some(path) } => {
                write!(f, "message {} was refused and set aside in {}: {why}", id.id, path.display())
            }
            Report::Rejected { id, why, set_aside: None } => {
                write!(f, "message {} was refused and skipped: {why}", id.id)
            }
            Report::Abandoned { messages: 1, why } => {
                write!(f, "1 message was read and not accepted, and cannot be read again: {why}")
            }
            Report::Abandoned { messages, why } => {
                write!(f, "{messages} messages were read and not accepted, and cannot be read again: {why}")
            }
            Report::Notice { destination, text } => write!(f, "{destination}: {text}"),
            Report::Checkpoint(why) => write!(f, "the checkpoint was not stored: {why}; trying again"),
            Report::Waiting(why) => write!(f, "{why}; waiting"),
        }
    }
}
