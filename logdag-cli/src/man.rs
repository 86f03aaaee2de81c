//! Man pages, each with examples.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use crate::args::Args;

/// Descriptions of examples, and their lines.
type Example = (&'static str, &'static str);

/// Writes a page for the command and each of its subcommands.
pub(crate) fn write(directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(Args::command(), directory)?;
    append(&directory.join("logdag.1"), FIRST)?;
    for command in Args::command().get_subcommands() {
        let name = command.get_name();
        append(&directory.join(format!("logdag-{name}.1")), examples(name))?;
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
    ("Check a configuration, and see its graph", "logdag check web.toml\nlogdag graph web.toml"),
    ("Log a service's output, with rotation and filters", "logdag exec web.toml --stdout app -- ./service"),
];

/// The examples of a subcommand.
fn examples(command: &str) -> &'static [Example] {
    match command {
        "check" => &[("Also refuse a configuration with warnings, in CI", "logdag check --strict web.toml")],
        "graph" => &[
            ("Draw the graph", "logdag graph --dot web.toml | dot -Tsvg > graph.svg"),
            ("List the disabled streams", "logdag graph --json web.toml | jq 'select(.enabled | not)'"),
        ],
        "decode" => &[("See the last lines of a file of FlatBuffers", "logdag decode app.log | tail -n 5")],
        "ctl" => &[
            ("List the streams of a running process", "logdag ctl --http 127.0.0.1:9100 list"),
            (
                "Let a stream log debug lines for a while",
                "logdag ctl --http unix:/run/web.sock log enable debug/web",
            ),
        ],
        "run" => &[
            ("Log lines from a pipe", "./service | logdag run web.toml --in app=stdin"),
            ("Log JSON lines as events", "./service | logdag run web.toml --in app=stdin --json-field"),
            ("Take syslog messages", "logdag run web.toml --in net=syslog-udp:127.0.0.1:5514"),
            (
                "Serve the state of the streams over HTTP",
                "./service | logdag run web.toml --in app=stdin --http 127.0.0.1:9100",
            ),
        ],
        "exec" => &[(
            "Log a command's output and errors to two streams",
            "logdag exec web.toml --stdout access --stderr error -- ./service --port 8080",
        )],
        "completions" => &[("In a running bash", "source <(logdag completions bash)")],
        "man" => &[("Install the pages", "logdag man /usr/local/share/man/man1")],
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
        for (name, examples) in all.chain([("logdag", FIRST)]) {
            assert!(!examples.is_empty(), "{name} has no example");
            for line in examples.iter().flat_map(|(_, lines)| lines.lines()) {
                for command in line.split(['|', '>']).filter(|part| part.trim().starts_with("logdag ")) {
                    let parsed = Args::try_parse_from(command.split_whitespace());
                    assert!(parsed.is_ok(), "{command}");
                }
            }
        }
    }

    /// A viewer drops a line that begins like a request but is not one.
    #[test]
    fn every_line_of_a_page_is_shown_or_is_a_request() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let requests = [".TH", ".SH", ".TP", ".PP", ".IP", ".RS", ".RE", ".nf", ".fi", ".br", ".ie", ".el"];
        let mut pages = 0;
        for page in std::fs::read_dir(dir.path()).unwrap() {
            let path = page.unwrap().path();
            pages += 1;
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let word = line.split(' ').next().unwrap_or_default();
                let is_text = !line.starts_with(['.', '\'']);
                assert!(is_text || requests.contains(&word), "{}: {line}", path.display());
            }
        }
        assert_eq!(pages, 1 + Args::command().get_subcommands().count());
    }

    #[test]
    fn pages_have_their_examples() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let page = std::fs::read_to_string(dir.path().join("logdag-run.1")).unwrap();
        assert!(page.contains(".SH EXAMPLES"), "{page}");
        assert!(page.contains("\\&./service | logdag run web.toml \\-\\-in app=stdin"), "{page}");
    }
}
