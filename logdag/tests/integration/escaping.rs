//! Lines that could forge others, or control a terminal.

use std::sync::{Arc, Mutex};

use logdag::config::Config;
use logdag::{
    Capabilities, Flags, Format, Graph, Lines, Record, Sink, SinkSpec, StreamOptions, WriteError, log,
};

const HOSTILE: &str = "\x1b]0;title\x07 a\rb\u{9b}2J\x7f\u{202e}\n[error] forged\tx";

/// A terminal, as far as the graph can tell.
#[derive(Clone, Debug, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Sink for Screen {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        self.0.lock().unwrap().extend_from_slice(lines.bytes());
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().is_terminal(true)
    }
}

#[test]
fn a_terminal_never_gets_a_control_character() {
    for (format, lines) in [(Format::Plain, 2), (Format::Json, 1)] {
        let graph = Graph::new();
        let screen = Screen::default();
        let made = screen.clone();
        graph.register("screen", move |_| Ok(Arc::new(made.clone()))).unwrap();
        let options = StreamOptions::new()
            .sink(SinkSpec::new("screen", ""))
            .format(format)
            .flags(Flags::new().facility(true).keys(true).target(true))
            .escape(false);
        let stream = graph.configure("screen", options).unwrap();
        log!(stream, key = HOSTILE; "{HOSTILE}");
        let text = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
        let raw = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || c == '\u{202e}';
        assert!(!text.contains(raw) && text.matches('\n').count() == lines, "{text:?}");
        if format == Format::Json {
            let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&parsed["message"], &parsed["key"]), (&HOSTILE.into(), &HOSTILE.into()));
        } else {
            assert!(text.contains("\n\t[error] forged\tx key="), "{text:?}");
        }
    }
}

#[test]
fn files_are_escaped_but_where_libmtev_configured_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let shown = path.to_str().unwrap();
    let message = "one\x1b\ntwo";
    let xml = |more: &str| {
        format!(r#"<a><logs><log name="f" type="file" path="{shown}" facility="on" {more}/></logs></a>"#)
    };
    let toml = |more: &str| {
        format!("[[log]]\nname = \"f\"\ntype = \"file\"\npath = \"{shown}\"\nfacility = true\n{more}")
    };
    let (escaped, split) = ("[f] one\\u{1b}\n\ttwo\n", "[f] one\x1b\n[f] two\n");
    for (file, text, expected) in [
        ("c.xml", xml(""), split),
        ("c.xml", xml(r#"escape="on""#), escaped),
        ("c.toml", toml(""), escaped),
        ("c.toml", toml("escape = false"), split),
    ] {
        let graph = Graph::new();
        Config::from_text(file, &text).unwrap().apply(&graph).unwrap();
        log!(graph.stream("f").unwrap(), "{message}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected, "{text}");
        std::fs::remove_file(&path).unwrap();
    }
    let graph = Graph::new();
    let options = super::typed("file", &path, Default::default());
    log!(graph.configure("f", options).unwrap(), "{message}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), escaped.replace("[f] ", ""));
}

#[test]
fn a_thread_name_breaks_no_line() {
    let arguments = format_args!("message");
    let mut record = Record::new(1, "a", &arguments);
    record.set_thread(0, "one\n[error] two");
    let mut out = Vec::new();
    let flags = Flags::new().debug(true);
    logdag::format::render(Format::Plain, flags, logdag::Layout::default(), &record, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}
