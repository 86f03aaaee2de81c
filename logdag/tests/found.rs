//! Faults that fuzzing has found.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use logdag::config::Config;
use logdag::{Filter, Flags, Format, Record, Value, format};

fn logs(inside: &str) -> String {
    format!("<app><logs>\n{inside}\n</logs></app>")
}

#[test]
fn a_config_may_inherit_along_a_long_chain() {
    let config = |n| format!(r#"<config id="c{n}" inherit="c{}"><k>{n}</k></config>"#, n + 1);
    let chain: String = (0..40).map(config).collect();
    let inside = format!(r#"<log name="a" type="memory">{chain}<config id="c40"/></log>"#);
    Config::from_text("app.xml", &logs(&inside)).expect("none of them inherits itself");
}

#[test]
fn a_comment_changes_no_value_of_a_config() {
    for value in ["<!-- c -->1000", "10<!-- c -->00", "1000<!-- c -->"] {
        let inside = format!(
            r#"<log name="a" type="memory"><config><segment_size>{value}</segment_size></config></log>"#
        );
        let config = Config::from_text("app.xml", &logs(&inside)).unwrap();
        let sink = config.streams()[0].options.sink.clone().unwrap();
        assert_eq!(sink.config["segment_size"], "1000", "{value}");
    }
}

#[test]
fn a_place_in_a_filter_is_a_place_in_the_file() {
    for (attribute, line, column) in [
        // On its second line.
        ("filter=\"a = 1\n  and b = 2\"", 3, 3),
        // Behind what is written with more characters.
        ("filter=\"a &gt;&gt; 1\"", 2, 46),
        // What comes from elsewhere is nowhere: the value itself is shown.
        ("filter=\"ENV:a = 1         x:{NOT_THERE}\"", 2, 40),
    ] {
        let text = logs(&format!(r#"<log name="a"><outlet name="b" {attribute}/></log>"#));
        let error = Config::from_text("app.xml", &text).unwrap_err();
        let len = text.lines().nth(error.line as usize - 1).unwrap().chars().count();
        assert!(error.column as usize <= len + 1, "behind the end of the line:\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
    }
}

#[test]
fn a_number_that_is_none_is_not_equal_to_any() {
    let keys = [("x", Value::F64(f64::NAN))];
    let arguments = format_args!("m");
    let mut record = Record::new(1, "a", &arguments);
    record.keys = &keys;
    assert!(!Filter::parse("x = 1").unwrap().passes(&record));
    assert!(Filter::parse("x != 1").unwrap().passes(&record), "as doubles compare everywhere");
}

#[test]
fn a_thread_name_breaks_no_line() {
    let arguments = format_args!("message");
    let mut record = Record::new(1, "a", &arguments);
    record.set_thread(0, "one\n[error] two");
    let mut out = Vec::new();
    let flags = Flags { debug: true, ..Flags::default() };
    format::render(Format::Plain, flags, logdag::Layout::default(), &record, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}
