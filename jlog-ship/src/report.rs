//! What a shipper has to say while it works.

use std::fmt;
use std::path::PathBuf;

use jlog_core::Event;

use crate::MessageId;

/// Something that happened while shipping and did not end it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Report {
    /// What the feed reports: damage that was skipped, messages that were dropped or lost, a checkpoint that moved.
    Feed(Event),
    /// The destination does not accept messages for now; they are kept, and it is tried again. Reported when it begins, when
    /// the reason changes, and once a minute.
    Refused {
        /// What the destination is called.
        destination: String,
        /// What it said.
        why: String,
        /// Whether somebody has to change something before it can go on.
        misconfigured: bool,
    },
    /// The destination accepts messages again.
    Resumed {
        /// What the destination is called.
        destination: String,
    },
    /// The destination refuses a message for good, and what became of that message.
    Rejected {
        /// The message.
        id: MessageId,
        /// What the destination said.
        why: String,
        /// The feed that the message was set aside into; `None` if it was skipped.
        set_aside: Option<PathBuf>,
    },
    /// The feed or the subscriber went away before the destination had accepted these messages, and the shipper ended: no
    /// later run can read them.
    Abandoned {
        /// How many messages.
        messages: u64,
        /// What happened to the feed.
        why: String,
    },
    /// What the destination reports of itself ([`Destination::notices`](crate::Destination::notices)).
    Notice {
        /// What the destination is called.
        destination: String,
        /// What it says.
        text: String,
    },
    /// The checkpoint could not be stored; it is tried again.
    Checkpoint(String),
    /// The feed or the subscriber went away; it is waited for.
    Waiting(String),
}

impl Report {
    /// Whether messages were lost or left out.
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
                write!(f, "{destination} refuses messages until something is changed: {why}; trying again")
            }
            Report::Refused { destination, why, misconfigured: false } => {
                write!(f, "{destination} does not accept messages: {why}; trying again")
            }
            Report::Resumed { destination } => write!(f, "{destination} accepts messages again"),
            Report::Rejected { id, why, set_aside: Some(path) } => {
                write!(f, "message {} was refused and set aside into {}: {why}", id.id, path.display())
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
