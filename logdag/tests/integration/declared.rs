//! Streams that a configuration declares, changes, or leaves out.

use std::sync::{Arc, Mutex};

use logdag::config::Config;
use logdag::{Graph, Lines, Sink, Stream, WriteError, log};

use super::{assert_complete, log_from_threads, ring};

fn xml(logs: &str) -> Config {
    Config::from_text("app.xml", &format!("<app><logs>{logs}</logs></app>")).unwrap()
}

fn outlets(graph: &Graph, name: &str) -> Vec<String> {
    graph.describe(name).unwrap().outlets.into_iter().map(|(to, _)| to).collect()
}

fn stream(graph: &Graph, name: &str) -> Stream {
    graph.stream(name).unwrap()
}

#[test]
fn a_declared_stream_has_the_declared_outlets_and_no_others() {
    let graph = Graph::new();
    // `app/http/slow` exists before, with an outlet to the stream above it.
    stream(&graph, "app/http/slow");
    xml(r#"<log name="error/foo" type="memory"/><log name="error"/><log name="debug" type="memory"/>
           <log name="app" type="memory"/><log name="app/http" type="memory"/>
           <log name="app/http/slow" type="memory"/>
           <group><outlet name="app"/><log name="app/db"/></group>
           <log name="early"><outlet name="late/below"/></log><log name="late" type="memory"/>
           <log name="late/below" type="memory"/>"#)
    .apply(&graph)
    .unwrap();
    for name in ["error/foo", "error", "debug", "app", "app/http", "app/http/slow", "late/below"] {
        assert_eq!(outlets(&graph, name), [""; 0], "{name}");
    }
    assert_eq!(outlets(&graph, "app/db"), ["app"]);
    assert!(!stream(&graph, "error").is_enabled(), "it has no sink, and leads to none");
    for name in ["app", "app/http", "app/http/slow", "app/db", "early"] {
        log!(stream(&graph, name), "of {name}");
    }
    assert_eq!(ring(&graph, "app"), ["of app", "of app/db"]);
    assert_eq!(ring(&graph, "app/http"), ["of app/http"]);
    assert_eq!(ring(&graph, "app/http/slow"), ["of app/http/slow"]);
    assert_eq!((ring(&graph, "late/below"), ring(&graph, "late")), (vec!["of early".to_owned()], vec![]));
    // A stream that no configuration declares has an outlet to the stream above it.
    assert_eq!(outlets(&graph, "notice"), ["stderr"]);
    log!(stream(&graph, "app/http/fast"), "quick");
    assert_eq!(ring(&graph, "app/http"), ["of app/http", "quick"]);
}

#[test]
fn an_outlet_that_is_given_twice_counts_once_with_the_first_filter() {
    let graph = Graph::new();
    xml(r#"<log name="all" type="memory"/><log name="some" type="memory"/>
           <group><outlet name="all"/><outlet name="some" filter="n &gt; 1"/>
             <log name="a"><outlet name="all" filter="n &gt; 2"/><outlet name="some"/></log>
             <log name="b"/></group>"#)
    .apply(&graph)
    .unwrap();
    let say = |name: &str| {
        for n in 1..=2 {
            log!(stream(&graph, name), n = n; "{name}{n}");
        }
    };
    say("a");
    assert_eq!(
        (ring(&graph, "all"), ring(&graph, "some")),
        (vec!["a1".into(), "a2".into()], vec!["a2".into()])
    );
    // A call has the same effect.
    graph.add_outlet("b", "all", Some("n > 2")).unwrap();
    say("b");
    assert_eq!(ring(&graph, "all"), ["a1", "a2", "b1", "b2"]);
    graph.remove_outlet("b", "all");
    graph.add_outlet("b", "all", Some("n > 1")).unwrap();
    graph.add_outlet("b", "all", None).unwrap();
    say("b");
    assert_eq!(ring(&graph, "all"), ["a1", "a2", "b1", "b2", "b2"]);
}

#[derive(Debug, Default)]
struct Kept(Mutex<Vec<String>>);

impl Sink for Kept {
    fn write(&self, lines: &Lines<'_>) -> Result<(), WriteError> {
        let texts = lines.iter().map(|(line, _)| String::from_utf8_lossy(line).trim_end().to_owned());
        self.0.lock().unwrap().extend(texts);
        Ok(())
    }
}

#[test]
fn a_type_may_be_registered_after_the_configuration_is_applied() {
    let graph = Graph::new();
    let config = xml(r#"<log name="a" type="tape" path="x"/><log name="ring" type="memory"/>"#);
    config.apply(&graph).unwrap();
    assert_eq!(graph.unregistered(), [("a".to_owned(), "tape".to_owned())]);
    let a = stream(&graph, "a");
    assert!(!a.is_enabled());
    let tape = Arc::new(Kept::default());
    let again = Arc::clone(&tape);
    graph
        .register("tape", move |spec| {
            assert_eq!((&*spec.stream, &*spec.path), ("a", "x"));
            Ok(Arc::clone(&again) as Arc<dyn Sink>)
        })
        .unwrap();
    log!(a, "one");
    assert_eq!(graph.unregistered(), []);
    assert_eq!(*tape.0.lock().unwrap(), ["one"]);
    let error = config.check_types(&Graph::new()).unwrap_err();
    assert!(error.message.contains("unknown type \"tape\""), "{error}");
}

#[test]
fn streams_that_a_new_configuration_leaves_out_are_what_they_were_before() {
    let graph = Graph::new();
    graph.add_memory("own", 10, 1000).unwrap();
    graph.add_outlet("own", "stderr", Some("n > 1")).unwrap();
    let facts = |name: &str| {
        let reported = graph.describe(name).unwrap();
        (
            reported.kind,
            reported.path,
            reported.format,
            reported.flags,
            reported.enabled,
            reported.enabled_below,
            reported.outlets,
        )
    };
    let names = ["own", "error", "debug", "stderr", "app/http"];
    stream(&graph, "app/http");
    let before = names.map(facts);
    xml(r#"<log name="own" format="json" timestamps="on"/><log name="error" disabled="on"/>
           <log name="debug" type="memory"/><log name="stderr" disabled="on" timestamps="off"/>
           <log name="app" type="memory"/><log name="app/http" type="memory"/><log name="new" type="memory"/>"#)
    .apply(&graph)
    .unwrap();
    xml(r#"<log name="app" type="memory"/><log name="own" disabled="on"/>"#).replace(&graph).unwrap();
    log!(stream(&graph, "app/http"), "a line");
    assert_eq!(ring(&graph, "app"), ["a line"], "its parent is its outlet again");
    xml("").replace(&graph).unwrap();
    assert_eq!(names.map(facts), before);
    log!(stream(&graph, "own"), "back");
    assert_eq!(ring(&graph, "own"), ["back"]);
    let new = facts("new");
    assert_eq!((&*new.0, new.5, new.6), ("", false, vec![]));
}

#[test]
fn what_a_new_configuration_declares_as_before_stays_as_it_is() {
    let graph = Graph::new();
    let logs = r#"<log name="ring" type="memory"/><log name="switch"><outlet name="ring"/></log>"#;
    xml(logs).apply(&graph).unwrap();
    graph.set_enabled("switch", false).unwrap();
    graph.add_memory("other", 10, 1000).unwrap();
    graph.add_outlet("ring", "other", None).unwrap();
    log!(stream(&graph, "ring"), "one");
    xml(&format!(r#"{logs}<log name="more" type="memory"/>"#)).replace(&graph).unwrap();
    assert!(!graph.describe("switch").unwrap().enabled, "it was switched off at run time");
    log!(stream(&graph, "ring"), "two");
    assert_eq!(
        (ring(&graph, "ring"), ring(&graph, "other")),
        (vec!["one".into(), "two".into()], ring(&graph, "ring"))
    );
    // The new declaration counts, and a ring that it does not change keeps its lines.
    let changed = r#"<log name="ring" type="memory" when_full="drop"/><log name="switch" facility="on"><outlet name="ring"/></log>"#;
    xml(changed).replace(&graph).unwrap();
    log!(stream(&graph, "switch"), "three");
    assert_eq!(ring(&graph, "ring"), ["one", "two", "[switch] three"]);
    assert_eq!(outlets(&graph, "ring"), [""; 0]);
}

#[test]
fn a_configuration_that_cannot_be_set_up_replaces_nothing() {
    let graph = Graph::new();
    let logs = r#"<log name="ring" type="memory"/><log name="a"><outlet name="ring"/></log>"#;
    xml(logs).apply(&graph).unwrap();
    for (wrong, line) in [
        (format!("{logs}\n<log name=\"b\" type=\"file\" path=\"/nowhere/at/all\"/>"), 2),
        ("<log name=\"c\"><outlet name=\"a\"/></log>\n<log name=\"a/b\" type=\"file\" path=\"/nowhere/x\"/>".into(), 2),
    ] {
        let error = xml(&wrong).replace(&graph).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        log!(stream(&graph, "a"), "{line}");
    }
    assert_eq!(ring(&graph, "ring"), ["2", "2"]);
    assert!(graph.find("b").is_none() && graph.find("c").is_none());
}

#[test]
fn no_line_is_lost_or_doubled_while_configurations_replace_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let graph = Graph::new();
    let logs = |more: &str, name: &str| {
        format!(
            r#"<log name="file" type="file" path="{}" {more}/><log name="{name}" type="memory"/>
               <log name="a"><outlet name="file"/><outlet name="{name}"/></log>"#,
            path.display()
        )
    };
    let configs =
        [logs("", "x"), logs("queue_bytes='1000'", "y"), logs("max_line='5000'", "x")].map(|l| xml(&l));
    configs[0].apply(&graph).unwrap();
    graph.go_async();
    let a = stream(&graph, "a");
    std::thread::scope(|scope| {
        let logging = scope.spawn(|| log_from_threads(&a, 3, 5000));
        for n in 1.. {
            configs[n % 3].replace(&graph).unwrap();
            if logging.is_finished() {
                break;
            }
        }
    });
    graph.flush().unwrap();
    assert_complete(std::fs::read_to_string(&path).unwrap().lines(), 3, 5000);
}
