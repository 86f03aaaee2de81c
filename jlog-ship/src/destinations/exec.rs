//! A command that is run for each shipment.

use std::process::Stdio;

use futures_util::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::{Answer, Destination, Limits, Refusal, Shipment};

/// How much of what a command prints as its error is kept.
const MOST_OF_ERROR: u64 = 1000;

/// How messages are told apart on a command's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Each behind its length (4 bytes, little-endian), as `jlog write --length-prefixed` reads them.
    #[default]
    LengthPrefixed,
    /// Each with a line end behind it. A message that contains a line end is refused.
    Lines,
    /// Each in a run of the command by itself, as it is.
    One,
}

/// Runs a shell command for each shipment, with the messages on its standard input:
/// `ssh other jlog write --length-prefixed --durability durable /var/feeds/a`.
///
/// | it ends with | that means |
/// |---|---|
/// | 0 | all messages are acknowledged |
/// | 65 (`EX_DATAERR`) | a message is refused for good |
/// | 78 (`EX_CONFIG`), 126, 127 | somebody has to change something |
/// | anything else, or a signal | try again |
///
/// The command finds `JLOG_FIRST_ID`, `JLOG_LAST_ID` and `JLOG_MESSAGES` in its environment, and its last lines on standard
/// error are the reason that is reported. It is killed when its time is over.
#[derive(Clone, Debug)]
pub struct Exec {
    command: String,
    framing: Framing,
    messages: usize,
}

impl Exec {
    /// This command, for `sh -c`.
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), framing: Framing::default(), messages: 10_000 }
    }

    /// How messages are told apart.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// How many messages a run gets at most: 10,000 by default.
    #[must_use]
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages.max(1);
        self
    }

    fn input(&self, shipment: &Shipment) -> Result<Vec<u8>, Refusal> {
        let mut input = Vec::with_capacity(shipment.iter().map(|message| message.body.len() + 4).sum());
        for message in shipment {
            match self.framing {
                Framing::LengthPrefixed => {
                    let len = u32::try_from(message.body.len()).map_err(Refusal::message)?;
                    input.extend_from_slice(&len.to_le_bytes());
                    input.extend_from_slice(&message.body);
                }
                // One that is refused does not keep those before it from being sent: the shipment is halved.
                Framing::Lines if message.body.contains(&b'\n') => {
                    return Err(Refusal::shipment(
                        "a message with a line end in it cannot be sent as a line",
                    ));
                }
                Framing::Lines => {
                    input.extend_from_slice(&message.body);
                    input.push(b'\n');
                }
                Framing::One => input.extend_from_slice(&message.body),
            }
        }
        Ok(input)
    }
}

impl Destination for Exec {
    fn name(&self) -> String {
        format!("exec:{}", self.command)
    }

    fn limits(&self) -> Limits {
        let messages = if self.framing == Framing::One { 1 } else { self.messages };
        Limits { messages, bytes: 4 << 20, ..Limits::default() }
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let input = match self.input(&shipment) {
            Ok(input) => input,
            Err(refusal) => return async { Err(refusal) }.boxed(),
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // A terminal's signals are for the shipper, which ends in order.
        command.process_group(0);
        if let (Some(first), Some(last)) = (shipment.first(), shipment.last()) {
            command.env("JLOG_FIRST_ID", first.id.to_string()).env("JLOG_LAST_ID", last.id.to_string());
        }
        command.env("JLOG_MESSAGES", shipment.len().to_string());
        async move {
            let mut child = command.spawn().map_err(|e| Refusal::temporary(format!("cannot run sh: {e}")))?;
            let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
            let write = async {
                if let Some(mut stdin) = stdin {
                    // A command may end before it has read everything; its status counts.
                    let _ = stdin.write_all(&input).await;
                    let _ = stdin.shutdown().await;
                }
            };
            let read = async {
                let mut said = Vec::new();
                if let Some(mut stderr) = stderr {
                    let _ = (&mut stderr).take(MOST_OF_ERROR).read_to_end(&mut said).await;
                    let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
                }
                String::from_utf8_lossy(&said).trim().replace('\n', "; ")
            };
            let ((), said, status) = tokio::join!(write, read, child.wait());
            let status =
                status.map_err(|e| Refusal::temporary(format!("cannot wait for the command: {e}")))?;
            if status.success() {
                return Ok(());
            }
            let why = if said.is_empty() {
                format!("it ended with {status}")
            } else {
                format!("{said} ({status})")
            };
            Err(match status.code() {
                Some(65) => Refusal::shipment(why),
                Some(78 | 126 | 127) => Refusal::misconfigured(why),
                _ => Refusal::temporary(why),
            })
        }
        .boxed()
    }
}
