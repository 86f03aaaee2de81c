//! Faults that fuzzing has found.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use logdag::config::Config;
use logdag::{Filter, Flags, Format, Record, Value, format};

const LONG: Duration = Duration::from_secs(5);

/// What `logdag check` ends with; `None` where it was killed by a signal, or does not end.
fn check(text: &str) -> Option<i32> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.xml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logdag"));
    command.arg("check").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    for _ in 0..LONG.as_millis() / 20 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn logs(inside: &str) -> String {
    format!("<app><logs>\n{inside}\n</logs></app>")
}

#[test]
fn deep_elements_use_up_no_stack() {
    for depth in [10_000, 200_000] {
        let inside = format!("{}<log name=\"a\"/>{}", "<g>".repeat(depth), "</g>".repeat(depth));
        assert!(check(&logs(&inside)).is_some(), "{depth} levels: it works, or is an error");
    }
}

#[test]
fn ways_that_double_are_an_error_or_quick() {
    let mut inside = String::new();
    for n in 0..30 {
        let next = n + 1;
        inside += &format!(r#"<log name="n{n}"><outlet name="n{next}"/><outlet name="n{next}"/></log>"#);
    }
    assert!(check(&logs(&inside)).is_some());
}

#[test]
fn a_name_of_many_parts_is_an_error_or_quick() {
    let name = vec!["a"; 5000].join("/");
    assert!(check(&logs(&format!(r#"<log name="{name}"/>"#))).is_some());
}

#[test]
fn a_chain_of_streams_that_begins_at_its_end_is_quick() {
    let log = |n| format!(r#"<log name="n{n}"><outlet name="n{}"/></log>"#, n + 1);
    assert_eq!(check(&logs(&(0..990).rev().map(log).collect::<String>())), Some(0));
}

#[test]
fn many_streams_are_quick() {
    let log = |n| format!("<log name=\"n{n}\" type=\"memory\"><outlet name=\"error\"/></log>\n");
    assert_eq!(check(&logs(&(0..20_000).map(log).collect::<String>())), Some(0));
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
    format::render(Format::Plain, flags, &record, true, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}
