//! Answered requests, in the log formats of web servers.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::graph::Stream;
use crate::level::Level;
use crate::record::{Details, Location, now_micros};
use crate::value::Value;

/// An answered request. It is logged as a line in the Common or Combined Log Format, with its parts
/// as keys: `remote`, `user`, `request`, `status`, `bytes`, and in the combined format `referer`
/// and `user_agent`.
///
/// ```
/// use logdag::{HttpAccess, Graph};
///
/// let graph = Graph::new();
/// graph.add_memory("errors", 10, 1000)?;
/// graph.add_outlet("http/access", "errors", Some("status >= 500"))?;
/// let answered = HttpAccess { remote: "192.0.2.1", request: "GET / HTTP/1.1", status: 503, ..HttpAccess::default() };
/// answered.log_combined(&graph.stream("http/access")?);
/// let line = &graph.memory_last("errors", 1).unwrap_or_default()[0].bytes;
/// assert!(line.ends_with(br#"] "GET / HTTP/1.1" 503 - "-" "-""#));
/// # Ok::<(), logdag::GraphError>(())
/// ```
///
/// Quotation marks, backslashes and control characters from clients are escaped, as web servers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpAccess<'a> {
    /// The client's address or name.
    pub remote: &'a str,
    /// The authenticated user.
    pub user: Option<&'a str>,
    /// When the request came, in microseconds since 1970 UTC; by default the time of the call.
    pub micros: Option<u64>,
    /// The first line of the request.
    pub request: &'a str,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of its body.
    pub bytes: Option<u64>,
    /// The `Referer` header.
    pub referer: Option<&'a str>,
    /// The `User-Agent` header.
    pub user_agent: Option<&'a str>,
}

impl HttpAccess<'_> {
    /// Logs it in the Common Log Format.
    pub fn log_common(&self, stream: &Stream) {
        self.log(stream, false);
    }

    /// Logs it in the Combined Log Format.
    pub fn log_combined(&self, stream: &Stream) {
        self.log(stream, true);
    }

    fn log(&self, stream: &Stream, combined: bool) {
        if !stream.accepts(Level::Info) {
            return;
        }
        let micros = self.micros.unwrap_or_else(now_micros);
        let mut keys = vec![
            ("remote", Value::Str(self.remote)),
            ("request", Value::Str(self.request)),
            ("status", Value::U64(self.status.into())),
        ];
        keys.extend(self.user.map(|user| ("user", Value::Str(user))));
        keys.extend(self.bytes.map(|bytes| ("bytes", Value::U64(bytes))));
        if combined {
            keys.extend(self.referer.map(|referer| ("referer", Value::Str(referer))));
            keys.extend(self.user_agent.map(|agent| ("user_agent", Value::Str(agent))));
        }
        let line = Line { access: *self, micros, combined };
        let details = Details { micros: Some(micros), ..Details::NONE };
        stream.log_with(&details, Level::Info, &Location::UNKNOWN, &keys, &format_args!("{line}"));
    }
}

struct Line<'a> {
    access: HttpAccess<'a>,
    micros: u64,
    combined: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HttpAccess { remote, user, request, status, bytes, referer, user_agent, .. } = self.access;
        let time = i64::try_from(self.micros).ok().and_then(|t| Timestamp::from_microsecond(t).ok());
        let time = time.unwrap_or_default().to_zoned(TimeZone::system());
        // A part between spaces must contain none.
        let word = |text: &str| {
            let text = if text.is_empty() { "-" } else { text };
            escaped(text).replace(' ', "\\x20")
        };
        write!(
            f,
            "{} - {} [{}] ",
            word(remote),
            word(user.unwrap_or("-")),
            time.strftime("%d/%b/%Y:%H:%M:%S %z")
        )?;
        write!(f, "\"{}\" {status} ", escaped(request))?;
        match bytes {
            Some(bytes) => write!(f, "{bytes}")?,
            None => f.write_str("-")?,
        }
        if self.combined {
            let [referer, agent] = [referer, user_agent].map(|text| escaped(text.unwrap_or("-")));
            write!(f, " \"{referer}\" \"{agent}\"")?;
        }
        Ok(())
    }
}

/// A text, escaped for use between quotation marks.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;

    #[test]
    fn lines_have_every_part_in_its_place() {
        let graph = Graph::new();
        let ring = graph.add_memory("ring", 10, 10_000).unwrap();
        let access = HttpAccess {
            remote: "192.0.2.7",
            user: Some("frank doe"),
            micros: Some(971_211_336_000_000),
            request: "GET /a\"b\\ HTTP/1.0\r\n\x1b[2J",
            status: 200,
            bytes: Some(2326),
            referer: Some("http://www.example.com/"),
            user_agent: Some("Mozilla/4.08 [en] (\"x\")"),
        };
        access.log_common(&ring);
        access.log_combined(&ring);
        HttpAccess::default().log_combined(&ring);
        let lines = graph.memory_last("ring", 10).unwrap();
        let text = |n: usize| String::from_utf8(lines[n].bytes.clone()).unwrap();
        let time = Timestamp::from_second(971_211_336).unwrap().to_zoned(TimeZone::system());
        let time = time.strftime("%d/%b/%Y:%H:%M:%S %z");
        let common =
            format!(r#"192.0.2.7 - frank\x20doe [{time}] "GET /a\"b\\ HTTP/1.0\r\n\x1b[2J" 200 2326"#);
        assert_eq!(text(0), common);
        assert_eq!(text(1), common + r#" "http://www.example.com/" "Mozilla/4.08 [en] (\"x\")""#);
        assert!(text(2).starts_with("- - - [") && text(2).ends_with(r#"] "" 0 - "-" "-""#), "{}", text(2));
        assert_eq!(lines[0].micros, 971_211_336_000_000);
    }
}
