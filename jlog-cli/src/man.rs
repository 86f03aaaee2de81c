//! Man pages, each with examples.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use crate::args::Args;

/// Descriptions of examples, and their lines.
type Example = (&'static str, &'static str);

/// Writes a page for the command and each of its subcommands.
pub fn write(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Args::command(), directory)?;
    append(&directory.join("jlog.1"), FIRST)?;
    for command in Args::command().get_subcommands() {
        let name = command.get_name();
        append(&directory.join(format!("jlog-{name}.1")), examples(name))?;
    }
    Ok(())
}

/// Adds examples to a page.
fn append(page: &Path, examples: &[Example]) -> io::Result<()> {
    let mut text = String::from(".SH EXAMPLES\n");
    for (what, lines) in examples {
        text.push_str(&format!("{}:\n.PP\n.RS 4\n.nf\n", escape(what)));
        for line in lines.lines() {
            text.push_str(&escape(line));
            text.push('\n');
        }
        text.push_str(".fi\n.RE\n.PP\n");
    }
    std::fs::File::options().append(true).open(page)?.write_all(text.as_bytes())
}

/// Escapes a line, so that it is not taken for a roff request, which begins with a dot or an
/// apostrophe.
fn escape(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if escaped.starts_with('.') { format!("\\&{escaped}") } else { escaped }
}

const FIRST: &[Example] = &[
    ("Write one message per line, and create the feed", "printf 'one\\ntwo\\n' | jlog write --create feed"),
    ("Read them as a subscriber", "jlog subscribe feed billing\njlog read feed billing"),
    ("See who is behind", "jlog status feed"),
];

/// The examples of a subcommand.
fn examples(command: &str) -> &'static [Example] {
    match command {
        "create" => &[
            ("A feed with compressed messages", "jlog create feed --compression lz4"),
            (
                "A feed that never holds more than 1 GiB and drops the oldest segments",
                "jlog create feed --max-bytes 1GiB --at-limit drop-oldest",
            ),
        ],
        "write" => &[
            (
                "One message per line, durable when the command ends",
                "jlog write feed lines.txt --durability durable",
            ),
            ("A file as one message", "jlog write feed --whole report.pdf"),
            (
                "Copy messages of arbitrary bytes from one feed to another",
                "jlog cat old -o length-prefixed | jlog write new --length-prefixed",
            ),
        ],
        "subscribe" => &[
            ("Begin with the first message", "jlog subscribe feed billing"),
            (
                "Add several that begin with messages written from now on",
                "jlog subscribe feed billing search --end",
            ),
            ("Add one in a script that may run twice", "jlog subscribe feed billing --if-missing --end"),
            ("Read the last two days again", "jlog subscribe feed billing --move --since 2d"),
        ],
        "unsubscribe" => &[("Remove a subscriber that is no longer used", "jlog unsubscribe feed billing")],
        "read" => &[
            ("Process new messages; the checkpoint follows the output", "jlog read feed billing | process"),
            ("Follow, and wait for a feed that does not exist yet", "jlog read feed billing -f --wait"),
            #[cfg(feature = "ship")]
            (
                "Run a command for each message, four at a time; a message that fails ten times is set aside in another feed",
                "jlog read feed billing -f --exec 'curl --fail-with-body -d @- http://localhost:8080/bill' --jobs 4 --on-reject set-aside --set-aside refused",
            ),
            ("Look without moving the checkpoint", "jlog read feed billing --peek -n 3 -o short"),
            ("Read without a subscriber, from a time on", "jlog read feed --from 'yesterday 14:00'"),
        ],
        "seek" => &[
            ("Process yesterday's messages again", "jlog seek feed billing --to yesterday"),
            ("Skip the next message", "jlog seek feed billing --by +1"),
        ],
        "grep" => &[
            (
                "Errors of the last hour, with three messages around each",
                "jlog grep feed error --since 1h -C 3",
            ),
            ("Count the messages that contain a text", "jlog grep feed -F -c 'order 4711'"),
        ],
        "cat" => &[
            ("From one record to another", "jlog cat feed --from 0000002a:00000001 --to 0000002a:00000010"),
            ("All messages, with times and ids", "jlog cat feed -o short"),
            ("An hour of it", "jlog cat feed --since '2026-11-25 10:00' --until '2026-11-25 11:00'"),
        ],
        "tail" => &[
            ("The last ten messages, and new ones", "jlog tail feed --last 10"),
            ("Wait for a feed that does not exist yet", "jlog tail feed --wait"),
        ],
        "status" => &[
            ("All feeds, every five seconds", "jlog status --watch=5 /var/spool/feeds/*"),
            ("For a script", "jlog status feed -o json | jq '.subscribers[].messages_behind'"),
        ],
        "check" => &[
            (
                "For a monitoring system: critical if a subscriber is more than 10 minutes behind",
                "jlog check feed --warn-lag 2min --max-lag 10min --min-free 1GiB",
            ),
            (
                "One subscriber, by its number of messages",
                "jlog check feed --subscriber billing --max-messages 10000",
            ),
        ],
        "serve" => &[
            ("Every feed in a directory, for a Prometheus on this machine", "jlog serve /var/spool/feeds"),
            (
                "For a Prometheus on another machine, with a token",
                "(umask 077; openssl rand -hex 32 > token)\njlog serve /var/spool/feeds --http 0.0.0.0:8465 --token-file token",
            ),
            (
                "Over a socket, queried by hand",
                "jlog serve feed --http unix:feed.sock &\ncurl --unix-socket feed.sock http://localhost/health/ready",
            ),
        ],
        "top" => &[
            ("The feeds below the current directory", "jlog top"),
            (
                "A subscriber more than 10 minutes behind is a problem",
                "jlog top /var/spool/feeds --max-lag 10min",
            ),
        ],
        "ship" => &[
            (
                "To a feed on another machine; the subscriber is added if it is missing",
                "jlog ship feed backup 'exec:ssh other jlog write -q --length-prefixed --durability durable /var/feeds/copy' --from 0:0",
            ),
            (
                "To an HTTP server; messages that it refuses for good are set aside",
                "jlog ship feed hook https://example.com/in --token-file token --on-reject set-aside --set-aside refused",
            ),
            (
                "Publish to a NATS stream, each message once and in order",
                "jlog ship feed nats 'nats://127.0.0.1:4222/ORDERS?subject=orders.new' --from 0:0",
            ),
            (
                "Push to Loki, as lines of the stream with these labels",
                "jlog ship feed loki 'loki+http://127.0.0.1:3100?job=orders&env=prod' --from 0:0",
            ),
            (
                "Post to a receiver of OpenTelemetry logs",
                "jlog ship feed otel 'otlp+http://127.0.0.1:4318?service.name=orders' --from 0:0",
            ),
            (
                "Publish only orders that failed, each to the subject of its country",
                "jlog ship feed failed 'nats://127.0.0.1:4222/ORDERS?subject=orders.other' --filter 'status = 500' --map 'subject=orders.{country}'",
            ),
            ("Ship many feeds in one process, as a file says", "jlog ship --config ship.toml"),
            ("See what would be sent", "jlog ship feed backup jlog:copy --dry-run"),
        ],
        "inspect" => {
            &[("The segments", "jlog inspect feed"), ("The records of one", "jlog inspect feed 0000002a")]
        }
        "verify" => &[("Check a feed in a script", "jlog verify feed || echo damaged")],
        "repair" => {
            &[("Take damage out; the bytes taken out are kept in separate files", "jlog repair feed")]
        }
        "backup" => &[("Copy a feed that is in use", "jlog backup feed /backups/feed-1")],
        "export" => &[
            ("Move a feed to another machine", "jlog export feed | ssh other jlog import /var/feeds/feed"),
            ("Keep a compressed archive", "jlog export feed | zstd > feed.tar.zst"),
        ],
        "import" => &[("Make a feed from an archive", "zstd -dc feed.tar.zst | jlog import feed")],
        "work" => &[
            (
                "Two workers that process each customer's orders in sequence; more can run in other terminals",
                "jlog work orders shop -f --exec ./do-order --key $.customer --jobs 2",
            ),
            (
                "Set aside messages that have failed five times",
                "jlog work orders shop --exec ./do-order --max-deliveries 5 --on-reject set-aside --set-aside failed",
            ),
        ],
        "clean" => &[("Remove segments that nobody needs, from cron", "jlog clean feed --roll")],
        "alter" => &[("Keep a week at most", "jlog alter feed --max-age 7d --at-limit drop-oldest")],
        "meta" => &[("A feed's settings, for a script", "jlog meta feed -o json")],
        "demo" => &[("See a feed with two subscribers at work", "jlog demo")],
        "completions" => {
            &[("For bash", "jlog completions bash > ~/.local/share/bash-completion/completions/jlog")]
        }
        "man" => &[("Install the pages for one user", "jlog man ~/.local/share/man/man1")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_example_is_a_command_line_that_is_understood() {
        let commands = Args::command();
        let all =
            commands.get_subcommands().map(|command| (command.get_name(), examples(command.get_name())));
        for (name, examples) in all.chain([("jlog", FIRST)]) {
            assert!(!examples.is_empty(), "{name} has no example");
            for line in examples.iter().flat_map(|(_, lines)| lines.lines()) {
                for command in line.split(['|', '>']).filter(|part| part.trim().starts_with("jlog ")) {
                    let words = shlex::split(command).unwrap();
                    assert!(Args::try_parse_from(&words).is_ok(), "{command}");
                }
            }
        }
    }
}
