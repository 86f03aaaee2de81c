//! Events for people at a terminal.

use std::io::Write;
use std::sync::LazyLock;

use anstyle::{AnsiColor, Style};

use super::escape::{logfmt, on_one_line};
use super::layout::{last_of_each, says_the_level};
use super::plain::{key_value, local_time};
use crate::level::Level;
use crate::record::Record;

/// Whether the environment asks for no colours.
static COLOURS: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));

/// Appends an event as one line: time, level, event, keys, stream.
pub(crate) fn render_for_people(record: &Record<'_>, out: &mut Vec<u8>) {
    render(record, *COLOURS, out);
}

fn render(record: &Record<'_>, colours: bool, out: &mut Vec<u8>) {
    let styled = |style: Style| if colours { style } else { Style::new() };
    let level = styled(match record.level {
        Level::Trace | Level::Debug => Style::new().dimmed(),
        Level::Info => AnsiColor::Green.on_default(),
        Level::Warn => AnsiColor::Yellow.on_default(),
        Level::Error => AnsiColor::Red.on_default().bold(),
    });
    let bold = styled(Style::new().bold());
    let key_style = styled(AnsiColor::Cyan.on_default());
    local_time(record.micros(), out);
    let keys = last_of_each(record.keys).filter(|(key, value)| !says_the_level(key, *value));
    // Writing to a Vec cannot fail.
    let _ = write!(out, " {level}{:<7}{level:#} {bold}", record.level.name());
    on_one_line(record.message(), out);
    let _ = write!(out, "{bold:#}");
    for (key, value) in keys {
        let _ = write!(out, " {key_style}");
        logfmt(key, out);
        let _ = write!(out, "{key_style:#}=");
        key_value(value, out);
    }
    out.extend_from_slice(b" (");
    on_one_line(record.facility, out);
    out.extend_from_slice(b")\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    #[test]
    fn one_line_for_people() {
        let keys =
            [("status", Value::I64(503)), ("path", Value::Str("/a b")), ("bell", Value::Str("\x07\x1b[2J"))];
        let arguments = format_args!("http.request\n.done");
        let mut record = Record::new(1_700_000_000_000_042, "http/access", &arguments);
        (record.level, record.keys) = (Level::Warn, &keys);
        let mut out = Vec::new();
        render(&record, false, &mut out);
        let line = String::from_utf8(out).unwrap();
        let (time, rest) = line.split_at("YYYY-MM-DD HH:MM:SS.uuuuuu".len());
        assert!(time.ends_with(".000042"), "{line}");
        let expected = " warning http.request\\n.done status=503 path=\"/a b\" bell=\"\\u0007\\u001b[2J\" (http/access)\n";
        assert_eq!(rest, expected);
        let mut out = Vec::new();
        render(&record, true, &mut out);
        let line = String::from_utf8(out).unwrap();
        assert!(line.contains(" \x1b[33mwarning\x1b[0m \x1b[1mhttp.request"), "{line:?}");
    }
}
