//! Configurations: reading, the places of errors, and the effect of applying one again.

use std::path::Path;
use std::time::Duration;

use logdag::config::Config;
use logdag::{Format, Graph, Rotation, log};

use super::{typed, xml};

fn logs(inside: &str) -> String {
    format!("<app><logs>\n{inside}\n</logs></app>")
}

fn messages(dir: &Path, subscriber: &str) -> Vec<String> {
    let mut reader = jlog_core::Jlog::open(dir).unwrap().reader(subscriber).unwrap();
    let mut out = Vec::new();
    while let Some(batch) = reader.next_batch(jlog_core::Wait::No).unwrap() {
        out.extend(batch.iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()));
    }
    out
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
        // A mistake on the second line of the value.
        ("filter=\"a = 1\n  and b = 2\"", 3, 3),
        // A mistake after a character reference.
        ("filter=\"a &gt;&gt; 1\"", 2, 46),
        // A value from the environment has no place in the file, so the error shows the value.
        ("filter=\"ENV:a = 1         x:{NOT_THERE}\"", 2, 40),
    ] {
        let text = logs(&format!(r#"<log name="a"><outlet name="b" {attribute}/></log>"#));
        let error = Config::from_text("app.xml", &text).unwrap_err();
        let len = text.lines().nth(error.line as usize - 1).unwrap().chars().count();
        assert!(error.column as usize <= len + 1, "behind the end of the line:\n{error}");
        assert_eq!((error.line, error.column), (line, column), "{error}");
    }
}

/// When a configuration no longer declares a stream, the stream gets back its earlier outlets.
#[test]
fn outlets_that_a_configuration_takes_away_are_gone() {
    let graph = Graph::new();
    graph.add_memory("ring", 10, 1000).unwrap();
    graph.add_memory("app", 10, 1000).unwrap();
    let texts = |name: &str| -> Vec<Vec<u8>> {
        graph.memory_last(name, 10).unwrap().into_iter().map(|line| line.bytes).collect()
    };
    let stream = graph.stream("app/http").unwrap();
    log!(stream, "a");
    xml("<log name='app/http'><outlet name='ring'/></log>").apply(&graph).unwrap();
    log!(stream, "b");
    xml("<log name='app/http'><outlet name='ring'/><outlet name='app'/></log>").apply(&graph).unwrap();
    log!(stream, "c");
    xml("").replace(&graph).unwrap();
    log!(stream, "d");
    // A configuration never removes outlets that a program has added, whenever that was.
    graph.add_outlet("app/http", "ring", None).unwrap();
    xml("").replace(&graph).unwrap();
    log!(stream, "e");
    assert_eq!(texts("app"), [b"a", b"c", b"d", b"e"]);
    assert_eq!(texts("ring"), [b"b", b"c", b"e"]);
    graph.add_memory("third", 10, 1000).unwrap();
    xml("<log name='app/http'><outlet name='ring'/></log>").apply(&graph).unwrap();
    graph.add_outlet("app/http", "third", None).unwrap();
    log!(stream, "f");
    // Outlets that the program has removed do not come back.
    assert_eq!(graph.remove_outlet("app/http", "app"), 0);
    xml("").replace(&graph).unwrap();
    log!(stream, "g");
    assert_eq!(texts("app"), [b"a", b"c", b"d", b"e"]);
    assert_eq!(texts("ring"), [b"b", b"c", b"e", b"f", b"g"]);
    assert_eq!(texts("third"), [b"f", b"g"]);
}

#[test]
fn a_configuration_that_is_applied_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let config = xml(&format!(
        "<log name='ring' type='memory'/><log name='feed' type='jlog' path='{}(s)'><outlet name='ring'/></log>",
        feed.display()
    ));
    let graph = Graph::new();
    config.apply(&graph).unwrap();
    graph.go_async();
    let stream = graph.find("feed").unwrap();
    for n in 0..300 {
        log!(stream, "{n}");
        if n % 10 == 0 {
            config.apply(&graph).unwrap();
        }
    }
    graph.flush().unwrap();
    let expected: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(messages(&feed, "s"), expected);
    assert_eq!(graph.memory_last("ring", 1000).unwrap().len(), 300);
}

#[test]
fn an_apply_that_fails_takes_no_subscriber_away() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let log = jlog_core::Jlog::options().create_or_open(&feed).unwrap();
    log.subscribe("precious", jlog_core::Start::Beginning).unwrap();
    let feed = feed.display();
    let failing =
        format!("<log name='f' type='jlog' path='{feed}(s)'/><log name='g' type='file' path='/nowhere/x'/>");
    let graph = Graph::new();
    xml(&failing).apply(&graph).unwrap_err();
    let names = |log: &jlog_core::Jlog| -> Vec<String> {
        log.subscribers().unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&log), ["precious"]);
    assert!(graph.find("f").is_none());
    xml(&format!("<log name='f' type='jlog' path='{feed}(s)'/>")).apply(&graph).unwrap();
    assert_eq!(names(&log), ["s"]);
}

#[test]
fn attributes_of_the_built_in_stream_count() {
    let graph = Graph::new();
    xml("<log name='stderr' format='json' dedup_seconds='5' disabled='true'/>").apply(&graph).unwrap();
    let reported = graph.describe("stderr").unwrap();
    assert_eq!((reported.format, reported.flags.timestamps, &*reported.kind), (Format::Json, true, "stderr"));
    assert_eq!(graph.options("stderr").unwrap().dedup, Some(Duration::from_secs(5)));
    xml("<log name='stderr' timestamps='off'/>").apply(&graph).unwrap();
    assert!(!graph.describe("stderr").unwrap().flags.timestamps);
}

#[test]
fn a_stream_whose_sink_cannot_be_opened_is_not_made() {
    let graph = Graph::new();
    let before = graph.names();
    let path = Path::new("/nowhere/app.log");
    assert!(graph.configure("a/b", typed("file", path, Rotation::default())).is_err());
    assert_eq!(graph.names(), before, "nothing is changed then");
}

#[test]
fn a_synchronous_feed_keeps_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("feed");
    let graph = Graph::new();
    let config = format!(
        "<log name='f' type='jlog' path='{}(s)'><config><precommit>100000</precommit></config></log>",
        feed.display()
    );
    xml(&config).apply(&graph).unwrap();
    let stream = graph.find("f").unwrap();
    graph.go_async();
    log!(stream, "queued");
    graph.go_sync();
    log!(stream, "written");
    assert_eq!(messages(&feed, "s"), ["queued", "written"]);
}
