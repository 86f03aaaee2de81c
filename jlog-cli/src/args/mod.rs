//! The command line.

#[cfg(feature = "ship")]
mod deliver;
mod feeds;
mod messages;
mod watch;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
#[cfg(feature = "ship")]
pub use deliver::*;
pub use feeds::*;
pub use messages::*;
pub use watch::*;

/// A durable local feed: write messages once, read them with many subscribers, each at its own
/// pace.
#[derive(Debug, Parser)]
#[command(name = "jlog", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a feed
    Create(CreateArgs),
    /// Write messages from files or standard input, one per line
    Write(WriteArgs),
    /// Add a subscriber
    Subscribe(SubscribeArgs),
    /// Remove a subscriber
    Unsubscribe(UnsubscribeArgs),
    /// Move a subscriber's checkpoint, back or forward
    ///
    /// A subscriber cannot be moved while a reader is open.
    Seek(SeekArgs),
    /// Read a subscriber's next messages and move its checkpoint past them (exit code 3: some
    /// messages were damaged or lost)
    Read(ReadArgs),
    /// Show all messages, without a subscriber and without changing the feed
    Cat(CatArgs),
    /// Show the messages that match a pattern, without a subscriber and without changing the feed
    /// (exit code 1: no message matches; 2: the search failed; 3: some messages are damaged or
    /// lost)
    Grep(GrepArgs),
    /// Show messages as they are written, without a subscriber
    Tail(TailArgs),
    /// Show segments, subscribers, and how far each subscriber is behind
    Status(StatusArgs),
    /// Check how far subscribers are behind, for monitoring systems: prints one line, and exits
    /// with 0 (ok), 1 (warning), 2 (critical) or 3 (unknown)
    Check(CheckArgs),
    /// Serve the state of feeds over HTTP: metrics for Prometheus, and health
    ///
    /// Runs until SIGINT or SIGTERM. Nothing can be changed over HTTP without --control.
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Show feeds in a terminal as they change: lag, rates, the worst problem first; search and
    /// follow messages
    ///
    /// Keys: Up and Down choose, Enter opens a feed's subscribers, / searches its messages, t
    /// follows them, ? shows all keys, q quits. Changes nothing.
    #[cfg(feature = "top")]
    Top(TopArgs),
    /// Send a subscriber's messages to another feed, a command or a server, and move its checkpoint
    /// past those that were acknowledged (exit code 3: some messages were damaged or lost)
    ///
    /// Runs until SIGINT or SIGTERM. Messages that the destination refuses for the moment are
    /// retried. SIGUSR1 prints the progress.
    #[cfg(feature = "ship")]
    Ship(Box<ShipArgs>),
    /// Run a command for a subscriber's messages, shared with other workers (exit code 3: some
    /// messages were damaged or lost)
    ///
    /// You can start any number of workers with the same options on the same machine. Each message
    /// is leased to one worker, and is done when the command ends with status 0. When the command
    /// fails, or its worker is killed, the message is delivered again. A message can be processed
    /// twice.
    #[cfg(feature = "ship")]
    Work(Box<WorkArgs>),
    /// List segments, or the records of one
    Inspect(InspectArgs),
    /// Check every record, index and checkpoint (exit code 3: damage found)
    Verify(FeedArgs),
    /// Take damage out of a feed; what is taken out is kept in files beside it
    Repair(RepairArgs),
    /// Remove segments that no subscriber needs
    Clean(CleanArgs),
    /// Copy a feed while others write to it and read from it
    ///
    /// The copy has the same messages, subscribers and settings. It is complete and on disk before
    /// the command reports it; a copy that fails leaves nothing. It does not contain messages in a
    /// writer's pre-commit buffer, because they are not readable yet. During the copy, a subscriber
    /// called jlog-backup-… keeps segments from being removed.
    #[command(visible_alias = "copy")]
    Backup(BackupArgs),
    /// Write a feed to standard output as a tar archive while others write to it and read from it
    ///
    /// The archive keeps messages with their ids and times, checkpoints and settings. The feed is
    /// copied first, as by `jlog backup`, so that a slow output does not retain segments.
    Export(ExportArgs),
    /// Make a feed from an archive of `jlog export` on standard input; it is complete and on disk,
    /// or does not exist
    Import(ImportArgs),
    /// Change segment size, pre-commit buffer, safety, checksums or limits
    Alter(AlterArgs),
    /// Show the metastore
    Meta(MetaArgs),
    /// Try it: a real access log becomes a feed with two subscribers
    Demo(DemoArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages
    Man {
        /// An existing directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
