//! A command that is run for each shipment.

use std::fs::File;
use std::io::{Seek, Write};
use std::ops::ControlFlow;
use std::process::Stdio;
use std::time::Duration;

use futures_util::FutureExt;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::runtime::Runtime;

use crate::{Answer, Destination, Error, Limits, Refusal, Shipment};

/// How many bytes of a command's error output are kept.
const MOST_OF_ERROR: usize = 1000;
/// How long the pipe of a command is still read after it has ended: a process that it left behind
/// may hold it open.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// How messages are separated on a command's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// Each follows its length (4 bytes, little-endian), as `jlog write --length-prefixed` reads
    /// them.
    #[default]
    LengthPrefixed,
    /// Each ends with a newline. A message that contains one is refused.
    Lines,
    /// Each ends with a NUL byte. A message that contains one is refused.
    Null,
    /// Each run gets one message, unchanged.
    One,
}

/// Runs a shell command for each shipment, with the messages on its standard input:
/// `ssh other jlog write --length-prefixed --durability durable /var/feeds/a`.
///
/// | exit status | meaning |
/// |---|---|
/// | 0 | all messages are acknowledged |
/// | 65 (`EX_DATAERR`) | a message is refused for good |
/// | 78 (`EX_CONFIG`), 126, 127 | somebody has to fix something |
/// | anything else, or a signal | retry |
///
/// Its standard input is a file with exactly the messages of the run. Its environment has
/// `JLOG_FIRST_ID`, `JLOG_LAST_ID` and `JLOG_MESSAGES`. If it fails, the first 1000 bytes of its
/// standard error are reported as the reason. It is killed with its whole process group when its
/// time is over, and when the process that runs it ends, even if that is killed with SIGKILL. A
/// process that has left the group, with `setsid` for example, is not killed.
#[derive(Clone, Debug)]
pub struct Exec {
    command: String,
    framing: Framing,
    messages: usize,
    in_flight: usize,
    printing: bool,
}

impl Exec {
    /// Runs this command, with `sh -c`.
    pub fn new(command: impl Into<String>) -> Self {
        let framing = Framing::default();
        Self { command: command.into(), framing, messages: 10_000, in_flight: 1, printing: false }
    }

    /// Sets how messages are separated.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Sets the maximum number of messages per run: 10,000 by default.
    #[must_use]
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages.max(1);
        self
    }

    /// Sets the maximum number of concurrent runs: 1 by default. With more, messages are processed
    /// in any order.
    #[must_use]
    pub fn in_flight(mut self, runs: usize) -> Self {
        self.in_flight = runs.max(1);
        self
    }

    /// Sets whether the command's output appears on this process's standard output and standard
    /// error. By default it does not.
    #[must_use]
    pub fn printing(mut self, printing: bool) -> Self {
        self.printing = printing;
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
                // A refused message does not keep those before it from being sent: the shipment is
                // halved.
                Framing::Lines if message.body.contains(&b'\n') => {
                    return Err(Refusal::shipment(
                        "a message that contains a newline cannot be sent as a line",
                    ));
                }
                Framing::Null if message.body.contains(&0) => {
                    return Err(Refusal::shipment(
                        "a message that contains a NUL byte cannot be ended by one",
                    ));
                }
                Framing::Lines | Framing::Null => {
                    input.extend_from_slice(&message.body);
                    input.push(if self.framing == Framing::Lines { b'\n' } else { 0 });
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
        Limits { messages, bytes: 4 << 20, in_flight: self.in_flight, ..Limits::default() }
    }

    fn send(&mut self, shipment: Shipment) -> Answer {
        let input = match self.input(&shipment) {
            Ok(input) => input,
            Err(refusal) => return async { Err(refusal) }.boxed(),
        };
        let input = match whole(&input) {
            Ok(file) => Stdio::from(file),
            Err(e) => {
                let refusal = Refusal::temporary(format!("cannot keep the messages for the command: {e}"));
                return async { Err(refusal) }.boxed();
            }
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        let stdout = if self.printing { Stdio::inherit() } else { Stdio::null() };
        command.stdin(input).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
        if let (Some(first), Some(last)) = (shipment.first(), shipment.last()) {
            command.env("JLOG_FIRST_ID", first.id.to_string()).env("JLOG_LAST_ID", last.id.to_string());
        }
        command.env("JLOG_MESSAGES", shipment.len().to_string());
        let printing = self.printing;
        async move {
            let failed = |e| Refusal::temporary(format!("cannot run sh: {e}"));
            let mut guard = guard().map_err(failed)?;
            // Declared after the guard: it is dropped first, while the id of the group cannot have
            // been reused.
            let mut group = Group(guard.id().and_then(|group| i32::try_from(group).ok()));
            // A terminal's signals go to the shipper, which shuts down cleanly.
            command.process_group(group.0.unwrap_or(0));
            let mut child = command.spawn().map_err(failed)?;
            let stderr = child.stderr.take();
            let mut said = Vec::new();
            let status = {
                let mut pipe = std::pin::pin!(listen(stderr, &mut said, printing));
                tokio::select! {
                    status = child.wait() => {
                        // Processes that the command has left behind continue.
                        group.0 = None;
                        let _ = tokio::time::timeout(LEFT_BEHIND, pipe).await;
                        status
                    }
                    () = &mut pipe => child.wait().await,
                }
            };
            group.0 = None;
            // If somebody else has killed it, it is gone, too.
            let _ = guard.kill().await;
            let status =
                status.map_err(|e| Refusal::temporary(format!("cannot wait for the command: {e}")))?;
            if status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
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

/// An [`Exec`] command for programs that wait for each run.
#[derive(Debug)]
pub struct BlockingExec {
    exec: Exec,
    runtime: Runtime,
}

impl BlockingExec {
    /// Prepares this command.
    ///
    /// # Errors
    /// [`Error::System`] if there are no file descriptors left.
    pub fn new(exec: Exec) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let system = |source| Error::System { action: "start a runtime", source };
        Ok(Self { exec, runtime: runtime.map_err(system)? })
    }

    /// Runs the command once, and waits until it ends. Meanwhile, it calls `beat` at this interval.
    /// [`ControlFlow::Break`] kills the command, and its text becomes the reason of a temporary
    /// refusal.
    ///
    /// # Errors
    /// Depends on the command's exit status, as with [`Exec`].
    pub fn run(
        &mut self,
        shipment: Shipment,
        every: Duration,
        mut beat: impl FnMut() -> ControlFlow<String>,
    ) -> Result<(), Refusal> {
        let exec = &mut self.exec;
        self.runtime.block_on(async move {
            let mut answer = exec.send(shipment);
            loop {
                tokio::select! {
                    answer = &mut answer => return answer,
                    () = tokio::time::sleep(every) => {}
                }
                if let ControlFlow::Break(why) = beat() {
                    return Err(Refusal::temporary(why));
                }
            }
        })
    }
}

/// Starts the first process of a group. It kills the group when its standard input ends, which
/// happens when this process ends, even by SIGKILL.
fn guard() -> std::io::Result<Child> {
    let mut guard = Command::new("sh");
    guard.arg("-c").arg("read -r _; kill -KILL 0").stdin(Stdio::piped());
    guard.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).kill_on_drop(true).spawn()
}

/// The process group of a running command, which is killed when this is dropped.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may already have ended by itself.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Bytes as a command's standard input. All of them are written before the command starts, so that
/// it cannot take part of a message for the whole, even if this process is killed.
fn whole(input: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(c"jlog-messages", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(input)?;
    file.rewind()?;
    Ok(file)
}

/// Reads a command's output to the end, and keeps its beginning.
async fn listen(stderr: Option<ChildStderr>, said: &mut Vec<u8>, printing: bool) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 4096];
    while let Ok(n) = stderr.read(&mut buffer).await
        && n > 0
    {
        let piece = &buffer[..n];
        if printing {
            // If stderr fails, there is nowhere to report it.
            let _ = std::io::stderr().write_all(piece);
        }
        said.extend_from_slice(&piece[..n.min(MOST_OF_ERROR - said.len())]);
    }
}
