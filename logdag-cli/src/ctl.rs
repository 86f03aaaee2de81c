//! `logdag ctl`: libmtev's console commands for logs, for a process that answers over HTTP.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use jlog_watch::Address;
use serde_json::{Value, json};

use super::{Failure, counted, report};

/// After this time, no answer is expected any more.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines that `show log` shows by default.
const LINES: u64 = 23;

const WORDS: &str = "expected one of:\n  \
    list\n  \
    config\n  \
    show log NAME [LINES]\n  \
    log details NAME\n  \
    log to NAME TEXT\n  \
    log connect NAME [- [FILTER]]\n  \
    log connect NAME OUTLET [FILTER]\n  \
    log disconnect NAME OUTLET\n  \
    [no] log enable|debug|facility|timestamps|level|keys|target|source NAME\n  \
    log rotate NAME\n  \
    log reopen NAME\n  \
    reload\n  \
    verify FEED\n  \
    show verify FEED";

/// Which process to query, and the command.
#[derive(Debug, clap::Args)]
pub(super) struct CtlArgs {
    /// Where the process listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8465")]
    http: Address,
    /// The file with its token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What to do
    #[arg(trailing_var_arg = true, required = true, value_name = "WORD")]
    words: Vec<String>,
}

/// The requested action.
#[derive(Debug, PartialEq)]
enum Wanted {
    List,
    /// The graph as a configuration.
    Config,
    Show {
        name: String,
        lines: u64,
    },
    /// Output that is shown as it arrives.
    Ask {
        method: &'static str,
        path: String,
    },
    /// Lines as they arrive.
    Follow {
        path: String,
    },
    /// A request whose answer only confirms it.
    Change {
        method: &'static str,
        path: String,
        body: Value,
    },
}

/// A part of a path.
fn encoded(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn parse(words: &[&str]) -> Option<Wanted> {
    let change = |method, path: String, body| Some(Wanted::Change { method, path, body });
    let stream = |name: &str| format!("/api/v1/streams/{}", encoded(name));
    let outlet = |name: &str, to: &str| format!("{}/outlets/{}", stream(name), encoded(to));
    let flag = |word: &str, name: &str, on: bool| {
        let member = match word {
            "enable" => "enabled",
            "debug" => "debugging",
            "facility" | "timestamps" | "level" | "keys" | "target" | "source" => word,
            _ => return None,
        };
        change("PATCH", stream(name), json!({ member: on }))
    };
    match words {
        ["list"] => Some(Wanted::List),
        ["config"] => Some(Wanted::Config),
        ["show", "log", name] => Some(Wanted::Show { name: (*name).to_owned(), lines: LINES }),
        ["show", "log", name, lines] => {
            Some(Wanted::Show { name: (*name).to_owned(), lines: lines.parse().ok().filter(|n| *n > 0)? })
        }
        ["log", "details", name] => Some(Wanted::Ask { method: "GET", path: stream(name) }),
        ["reload"] => change("POST", "/api/v1/reload".to_owned(), Value::Null),
        ["verify", feed] => {
            Some(Wanted::Ask { method: "POST", path: format!("/api/v1/feeds/{}/verify", encoded(feed)) })
        }
        ["show", "verify", feed] => {
            Some(Wanted::Ask { method: "GET", path: format!("/api/v1/feeds/{}/verify", encoded(feed)) })
        }
        ["log", "to", name, text @ ..] if !text.is_empty() => {
            change("POST", format!("{}/log", stream(name)), json!({ "text": text.join(" ") }))
        }
        ["log", "connect", name] | ["log", "connect", name, "-"] => {
            Some(Wanted::Follow { path: format!("{}/tail", stream(name)) })
        }
        ["log", "connect", name, "-", filter @ ..] => {
            let filter = encoded(&filter.join(" "));
            Some(Wanted::Follow { path: format!("{}/tail?filter={filter}", stream(name)) })
        }
        ["log", "connect", name, to] => change("PUT", outlet(name, to), json!({})),
        ["log", "connect", name, to, filter @ ..] => {
            change("PUT", outlet(name, to), json!({ "filter": filter.join(" ") }))
        }
        ["log", "disconnect", name, to] => change("DELETE", outlet(name, to), Value::Null),
        ["log", word @ ("rotate" | "reopen"), name] => {
            change("POST", format!("{}/{word}", stream(name)), Value::Null)
        }
        ["no", "log", word, name] => flag(word, name, false),
        ["log", word, name] => flag(word, name, true),
        _ => None,
    }
}

/// Text for a terminal: characters that could move its cursor or change its colours are escaped.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '\t' && is_dangerous(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal may interpret a character, or it changes the direction of the text.
fn is_dangerous(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON for a terminal: the same value.
fn pretty(json: &Value) -> String {
    let mut out = String::new();
    for c in format!("{json:#}\n").chars() {
        if c != '\n' && is_dangerous(c) {
            // Writing to a String cannot fail. All of them have four digits.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A process that answers over HTTP.
struct Client<'a> {
    address: &'a Address,
    token: Option<String>,
}

impl Client<'_> {
    /// Sends a request and returns a reader of the answer. Reading times out after the given time,
    /// if any.
    fn send(
        &self,
        method: &str,
        path: &str,
        body: &Value,
        patience: Option<Duration>,
    ) -> io::Result<Box<dyn Read>> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let token =
            self.token.as_ref().map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
        // HTTP/1.0: the answer ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{token}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        match self.address {
            Address::Tcp(address) => {
                let mut stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(patience)?;
                stream.write_all(request.as_bytes())?;
                Ok(Box::new(stream))
            }
            Address::Unix(path) => {
                let mut stream = UnixStream::connect(path)?;
                stream.set_read_timeout(patience)?;
                stream.write_all(request.as_bytes())?;
                Ok(Box::new(stream))
            }
        }
    }

    fn failed(&self, e: &io::Error) -> Failure {
        format!("{}: {e}", self.address).into()
    }

    /// Sends a request and returns the answer. Anything but success is an error.
    fn get(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let mut answer = Vec::new();
        let answered = self.send(method, path, body, Some(PATIENCE));
        answered.and_then(|mut from| from.read_to_end(&mut answer)).map_err(|e| self.failed(&e))?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
        let value: Value =
            serde_json::from_str(body).map_err(|e| format!("the answer to {path} is not JSON: {e}"))?;
        match status(head)? {
            200..300 => Ok(value),
            status => Err(refusal(method, status, &value)),
        }
    }

    /// Writes lines as they arrive, until the process ends, the stream is gone, or nobody reads
    /// them any more.
    fn follow(&self, path: &str) -> Result<(), Failure> {
        let answered = self.send("GET", path, &Value::Null, None).map_err(|e| self.failed(&e))?;
        let mut lines = BufReader::new(answered).split(b'\n');
        let mut next = || -> Result<Option<String>, Failure> {
            let line = lines.next().transpose().map_err(|e| self.failed(&e))?;
            Ok(line.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()))
        };
        let status = status(&next()?.unwrap_or_default())?;
        while next()?.is_some_and(|line| !line.is_empty()) {}
        if status != 200 {
            let value = serde_json::from_str(&next()?.unwrap_or_default()).unwrap_or_default();
            return Err(refusal("GET", status, &value));
        }
        let mut name = String::new();
        while let Some(line) = next()? {
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).unwrap_or_default();
                let text = |key: &str| plain(data[key].as_str().unwrap_or_default().trim_end_matches('\n'));
                match &*std::mem::take(&mut name) {
                    "" if writeln!(io::stdout(), "{}", text("line")).is_err() => return Ok(()),
                    "" => {}
                    "ended" => return Err(text("error").into()),
                    _ => _ = writeln!(io::stderr(), "logdag: {}", text("text")),
                }
            }
        }
        Err(format!("{}: the process has ended", self.address).into())
    }
}

/// The status in an answer's first line.
fn status(head: &str) -> Result<u16, Failure> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| "the answer is not HTTP".into())
}

/// The error in an answer that is not a success.
fn refusal(method: &str, status: u16, value: &Value) -> Failure {
    let why = value["error"].as_str().unwrap_or("it was refused");
    let hint = match status {
        401 => " (--token-file FILE)",
        405 => " (it needs --control)",
        404 if method != "GET" && why == "there is nothing here" => " (it needs --control)",
        _ => "",
    };
    // An error of a configuration shows the place in a line of its own.
    let lines: Vec<String> = why.lines().map(plain).collect();
    format!("{}{hint}", lines.join("\n")).into()
}

fn token(path: &Path) -> Result<String, Failure> {
    let text = jlog_files::read_text(path, jlog_files::SECRET)
        .map_err(|e| format!("the token file {}: {e}", path.display()))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the token file {}: expected one line with a token", path.display()).into());
    }
    Ok(token.to_owned())
}

/// One line per stream.
fn list(answer: &Value) -> String {
    let mut out = String::new();
    for stream in answer["streams"].as_array().into_iter().flatten() {
        let text = |key: &str| plain(stream[key].as_str().unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = write!(out, "{}", text("name"));
        if !text("type").is_empty() {
            let stats = &stream["stats"];
            let lines = stats["lines"].as_u64().unwrap_or(0);
            let sink = format!("{} {}", text("type"), text("path"));
            let _ = write!(out, "  [{}] {}", sink.trim(), counted(lines, "line"));
            if let Some(rate) = stream["lines_per_second"].as_f64() {
                let _ = write!(out, ", {rate} a second");
            }
            for lost in ["dropped", "failed"] {
                if stats[lost] != 0 {
                    let _ = write!(out, ", {} {lost}", stats[lost]);
                }
            }
            if let Some(waiting) = stream["queue"]["lines"].as_u64().filter(|lines| *lines > 0) {
                let _ = write!(out, ", {waiting} waiting");
            }
        } else if let Some(received) = stream["stats"]["received"].as_u64().filter(|received| *received > 0) {
            let _ = write!(out, "  {}", counted(received, "line"));
        }
        if !text("why_immaterial").is_empty() {
            let _ = write!(out, "  ({})", text("why_immaterial"));
        }
        out.push('\n');
        for outlet in stream["outlets"].as_array().into_iter().flatten() {
            let _ = write!(out, "  -> {}", plain(outlet["name"].as_str().unwrap_or_default()));
            if let Some(filter) = outlet["filter"].as_str() {
                let _ = write!(out, "  if {}", plain(filter));
            }
            let count = |key: &str| outlet[key].as_u64().filter(|lines| *lines > 0);
            let counts = [("filtered", "filtered"), ("left_out", "left out")];
            let counts =
                counts.into_iter().filter_map(|(key, shown)| Some(format!("{} {shown}", count(key)?)));
            let counts = counts.collect::<Vec<_>>().join(", ");
            if !counts.is_empty() {
                let _ = write!(out, "  ({counts})");
            }
            out.push('\n');
        }
    }
    out
}

/// Says that a reload is not finished.
fn under_way(pending: &[Value]) -> String {
    let names: Vec<String> = pending.iter().map(|name| plain(name.as_str().unwrap_or_default())).collect();
    let waits = match names.len() {
        0 => String::new(),
        1 => format!(": the sink of {} is still busy with earlier lines", names[0]),
        _ => format!(": the sinks of {} are still busy with earlier lines", names.join(", ")),
    };
    format!("the reload is still under way{waits}; its errors go to the log")
}

/// `logdag ctl`
pub(super) fn ctl(args: &CtlArgs) -> Result<ExitCode, Failure> {
    let words: Vec<&str> = args.words.iter().map(|word| &**word).collect();
    let Some(wanted) = parse(&words) else {
        return Err(format!("{:?}: {WORDS}", words.join(" ")).into());
    };
    let client = Client { address: &args.http, token: args.token_file.as_deref().map(token).transpose()? };
    let out = match wanted {
        Wanted::List => list(&client.get("GET", "/api/v1/streams", &Value::Null)?),
        Wanted::Config => {
            let answer = client.get("GET", "/api/v1/config", &Value::Null)?;
            answer["toml"].as_str().ok_or("the answer has no configuration")?.to_owned()
        }
        Wanted::Ask { method, path } => {
            let answer = client.get(method, &path, &Value::Null)?;
            pretty(&answer)
        }
        Wanted::Show { name, lines } => {
            let path = format!("/eventer/logs/{}.json?last={lines}", encoded(&name));
            let lines = client.get("GET", &path, &Value::Null).map_err(|e| {
                format!("{e}: only memory streams have lines to show; `logdag ctl list` lists all streams")
            })?;
            let lines = lines.as_array().into_iter().flatten();
            let line =
                |line: &Value| plain(line["line"].as_str().unwrap_or_default().trim_end_matches('\n')) + "\n";
            lines.map(line).collect()
        }
        Wanted::Follow { path } => {
            client.follow(&path)?;
            String::new()
        }
        Wanted::Change { method, path, body } => {
            let answer = client.get(method, &path, &body)?;
            if let Some(pending) = answer["pending"].as_array() {
                report(format_args!("logdag: {}", under_way(pending)));
            }
            String::new()
        }
    };
    // If the reader has gone away, it has seen enough.
    let _ = io::stdout().write_all(out.as_bytes());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_does_anything_to_a_terminal() {
        assert_eq!(plain("a\t\x1b[31m\u{9b}b\u{202e}"), "a\t\\u{1b}[31m\\u{9b}b\\u{202e}");
        let value = json!({ "a": ["\u{9b}31m \u{202e}\n é"] });
        let text = pretty(&value);
        assert!(!text.replace('\n', "").contains(is_dangerous) && text.contains('é'), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn lists_have_what_waits_and_what_outlets_keep_back() {
        let answer = json!({ "streams": [
            {
                "name": "web", "type": "", "path": "", "stats": { "lines": 0, "received": 9 },
                "outlets": [
                    { "name": "a", "filter": "status >= 500", "lines": 9, "filtered": 7 },
                    { "name": "b", "filter": "limit 1/s", "left_out": 3 },
                    { "name": "c", "filter": "and(x = 1), limit 1/s", "lines": 9, "filtered": 1, "left_out": 2 },
                    { "name": "d", "filter": "x = 1", "lines": 9, "filtered": 0 },
                ],
            },
            {
                "name": "a", "type": "file", "path": "a.log",
                "stats": { "lines": 1, "dropped": 2, "failed": 0 }, "outlets": [],
                "queue": { "lines": 4, "bytes": 100, "limit": 1000, "age_ms": null },
            },
            {
                "name": "b", "type": "file", "path": "b.log",
                "stats": { "lines": 2, "dropped": 0, "failed": 0 }, "outlets": [],
                "queue": { "lines": 0, "bytes": 0, "limit": 1000, "age_ms": null },
            },
            {
                "name": "c", "type": "memory", "path": "",
                "stats": { "lines": 2, "dropped": 0, "failed": 1 }, "outlets": [], "queue": null,
            },
        ]});
        let expected = [
            "web  9 lines",
            "  -> a  if status >= 500  (7 filtered)",
            "  -> b  if limit 1/s  (3 left out)",
            "  -> c  if and(x = 1), limit 1/s  (1 filtered, 2 left out)",
            "  -> d  if x = 1",
            "a  [file a.log] 1 line, 2 dropped, 4 waiting",
            "b  [file b.log] 2 lines",
            "c  [memory] 2 lines, 1 failed",
        ];
        assert_eq!(list(&answer).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn words_mean_what_they_mean_on_the_console() {
        let words = |text: &str| parse(&text.split(' ').collect::<Vec<_>>());
        let change = |method, path: &str, body| Some(Wanted::Change { method, path: path.to_owned(), body });
        assert_eq!(words("list"), Some(Wanted::List));
        assert_eq!(words("config"), Some(Wanted::Config));
        assert_eq!(words("show log a/b"), Some(Wanted::Show { name: "a/b".to_owned(), lines: 23 }));
        assert_eq!(words("show log a 5"), Some(Wanted::Show { name: "a".to_owned(), lines: 5 }));
        let path = "/api/v1/streams/a%2Fb";
        assert_eq!(words("no log enable a/b"), change("PATCH", path, json!({ "enabled": false })));
        assert_eq!(words("log debug a/b"), change("PATCH", path, json!({ "debugging": true })));
        assert_eq!(
            words("log to a/b some  text"),
            change("POST", "/api/v1/streams/a%2Fb/log", json!({ "text": "some  text" }))
        );
        assert_eq!(
            words("log connect a b status >= 500"),
            change("PUT", "/api/v1/streams/a/outlets/b", json!({ "filter": "status >= 500" }))
        );
        let follow = |path: &str| Some(Wanted::Follow { path: path.to_owned() });
        assert_eq!(words("log connect a/b"), follow("/api/v1/streams/a%2Fb/tail"));
        assert_eq!(words("log connect a -"), words("log connect a"));
        assert_eq!(
            words("log connect a - status >= 500"),
            follow("/api/v1/streams/a/tail?filter=status%20%3E%3D%20500")
        );
        assert_eq!(words("log disconnect a b"), change("DELETE", "/api/v1/streams/a/outlets/b", Value::Null));
        assert_eq!(words("log rotate a"), change("POST", "/api/v1/streams/a/rotate", Value::Null));
        assert_eq!(words("reload"), change("POST", "/api/v1/reload", Value::Null));
        let ask = |method, path: &str| Some(Wanted::Ask { method, path: path.to_owned() });
        assert_eq!(words("verify /a"), ask("POST", "/api/v1/feeds/%2Fa/verify"));
        assert_eq!(words("show verify a"), ask("GET", "/api/v1/feeds/a/verify"));
        for wrong in [
            "",
            "verify",
            "reload now",
            "show",
            "show log a x",
            "show log a 0",
            "log",
            "log loud a",
            "no log",
            "log to a",
            "exit",
        ] {
            assert_eq!(words(wrong), None, "{wrong}");
        }
    }
}
