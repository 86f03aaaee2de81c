//! What configurations are taken, and how they are refused.

use super::*;
use crate::filter::Filter;
use crate::format::{Flags, Format};

fn config(text: &str) -> Result<Config> {
    Config::from_text("app.xml", text)
}

fn logs(inside: &str) -> Result<Config> {
    config(&format!("<app><logs>\n{inside}\n</logs></app>"))
}

#[test]
fn attributes_are_inherited_outlets_add_up_and_config_is_merged() {
    let config = logs(
            r#"<a type="jlog" path="/x" timestamps="on" facility="off">
                 <config id="big"><segment_size>1000</segment_size><precommit>5</precommit></config>
                 <outlet name="one"/>
                 <b format="json">
                   <log name="l" facility="TRUE"><outlet name="two" filter="status >= 500"/>
                     <config><precommit>7</precommit></config></log>
                   <log name="m" type="memory" path="1,2" timestamps="off"/>
                 </b>
               </a>
               <log name="n" type="jlog" path="/y"><config inherit="big"><precommit>9</precommit></config></log>"#,
        )
        .unwrap();
    let [l, m, n] = config.streams() else { panic!("three streams") };
    let sink = l.options.sink.as_ref().unwrap();
    assert_eq!((&*sink.kind, &*sink.path, l.options.format), ("jlog", "/x", Format::Json));
    assert_eq!(l.options.flags, Flags { timestamps: true, facility: true, ..Flags::default() });
    assert_eq!(sink.config["segment_size"], "1000");
    assert_eq!(sink.config["precommit"], "7");
    let outlets: Vec<_> = l.outlets.iter().map(|(to, f)| (&**to, f.as_ref().map(Filter::text))).collect();
    assert_eq!(outlets, [("one", None), ("two", Some("status >= 500"))]);
    assert_eq!(m.outlets.len(), 1);
    assert_eq!(m.options.sink.as_ref().unwrap().kind, "memory");
    assert!(!m.options.flags.timestamps);
    let config = &n.options.sink.as_ref().unwrap().config;
    assert_eq!((&*config["segment_size"], &*config["precommit"]), ("1000", "9"));
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (inside, line, column, message) in [
        (r#"<log type="memory"/>"#, 2, 1, "a log without a name"),
        (r#"<log name="a"/> <log name="a"/>"#, 2, 28, "there is a log \"a\" already"),
        (r#"<log name="a" timestamps="maybe"/>"#, 2, 27, "expected on, off, true or false"),
        (r#"<log name="a" colour="red"/>"#, 2, 23, "unknown attribute \"colour\""),
        (r#"<log name="a" type="file"/>"#, 2, 1, "without a path"),
        (r#"<log name="a" type="file" path="/x" rotate_bytes="5"/>"#, 2, 51, "expected 102400 or more"),
        (r#"<log name="a" type="file" path="/x" rotate_seconds="599"/>"#, 2, 53, "expected 600 or more"),
        (r#"<log name="a" dedup_seconds="-1"/>"#, 2, 30, "expected a number"),
        (r#"<log name="a" format="xml"/>"#, 2, 23, "expected one of plain, json, event, flatbuffer"),
        (r#"<log name="a"><outlet/></log>"#, 2, 15, "an outlet without a name"),
        (r#"<log name="a"><outlet name="b" filter="x ="/></log>"#, 2, 43, "a quoted text or a number"),
        (r#"<log name="a"><outlet name="a"/></log>"#, 2, 1, "a -> a"),
        (
            r#"<log name="a"><outlet name="b"/></log><log name="b"><outlet name="a"/></log>"#,
            2,
            39,
            "b -> a -> b",
        ),
        (r#"<log name="a" require_env="=x"/>"#, 2, 28, "expected VAR"),
        (
            r#"<log name="a" type="jlog" path="/x"><config inherit="no"/></log>"#,
            2,
            54,
            "no config with the id",
        ),
        (r#"<log name="a"/></more>"#, 2, 16, "</more> closes nothing here"),
        (r#"<include file="/nowhere/at.all"/>"#, 2, 16, "cannot include"),
    ] {
        let error = logs(inside).expect_err(inside);
        assert_eq!((error.line, error.column), (line, column), "{inside}: {error}");
        assert!(error.message.contains(message), "{inside}: {error}");
        assert!(error.to_string().starts_with("app.xml:2:"), "{error}");
    }
    let error = logs(r#"<log name="a" format="xml"/>"#).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[1..], ["  <log name=\"a\" format=\"xml\"/>", "                        ^"]);
}

#[test]
fn the_environment_decides() {
    // PATH is there in every test; the other name is in none.
    let config = logs(
        r#"<log name="a" require_env="PATH"/><log name="b" require_env="!PATH"/>
               <log name="c" require_env="PATH~."/><log name="d" require_env="PATH=nothing"/>
               <log name="e" require_env="!LOGDAG_NOT_THERE"/>
               <g require_env="LOGDAG_NOT_THERE"><log name="f"/></g>
               <log name="g" type="memory" path="ENV:3,4:{LOGDAG_NOT_THERE}"/>"#,
    )
    .unwrap();
    let names: Vec<&str> = config.streams().iter().map(|stream| &*stream.name).collect();
    assert_eq!(names, ["a", "c", "e", "g"]);
    assert_eq!(config.streams()[3].options.sink.as_ref().unwrap().path, "3,4");
}

#[test]
fn files_are_included_and_never_round_and_round() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("root.xml", "<r><log name=\"b\"/></r>");
    write("snippet.xml", "<log name=\"c\"/><log name=\"d\" format=\"no\"/>");
    write("loop.xml", "<app><logs><include file=\"loop.xml\"/></logs></app>");
    write("app.xml", "<app><logs><include file=\"root.xml\"/><log name=\"a\"/></logs></app>");
    let config = Config::from_file(dir.path().join("app.xml")).unwrap();
    let names: Vec<&str> = config.streams().iter().map(|stream| &*stream.name).collect();
    assert_eq!(names, ["b", "a"]);
    let error = Config::from_file(dir.path().join("loop.xml")).unwrap_err();
    assert!(error.message.contains("includes itself"), "{error}");
    write("app.xml", "<app><logs><include file=\"snippet.xml\" snippet=\"true\"/></logs></app>");
    let error = Config::from_file(dir.path().join("app.xml")).unwrap_err();
    assert!(error.file.ends_with("snippet.xml"), "{error}");
    assert_eq!((error.line, error.column), (1, 38), "{error}");
    let error = Config::from_file(dir.path().join("none.xml")).unwrap_err();
    assert!(error.to_string().contains("none.xml: No such file"), "{error}");
}

/// What matters of a configuration, for comparing.
fn gist(config: &Config) -> Vec<String> {
    let outlet =
        |(to, filter): &(String, Option<Filter>)| format!("{to} {:?}", filter.as_ref().map(Filter::text));
    let one = |stream: &Configured| {
        let outlets: Vec<String> = stream.outlets.iter().map(outlet).collect();
        format!("{} {:?} {outlets:?}", stream.name, stream.options)
    };
    config.streams().iter().map(one).collect()
}

#[test]
fn the_same_in_toml() {
    let xml = logs(
        r#"<log name="f" type="file" path="3,4" rotate_bytes="200000" retain_bytes="1000000" retain_count="3"
                    timestamps="on" latest="/x/latest" when_full="drop" max_line="99" level="on"/>
               <web level="on" timestamps="true"><outlet name="f"/><outlet name="stderr" filter="status &gt;= 500"/>
                 <config id="big"><segment_size>1000</segment_size></config>
                 <log name="http/access" type="jlog" path="ENV:/d(*):{LOGDAG_NOT_THERE}"><config><precommit>7</precommit></config></log>
                 <deeper><log name="http/error" disabled="TRUE"><outlet name="error"/></log></deeper></web>
               <log name="n" type="jlog" path="/y" level="on"><config inherit="big"/></log>"#,
    );
    // What differs is libmtev's way with line ends, which only its own configurations have.
    let toml = Config::from_text(
        "app.toml",
        r#"
            escape = false
            level = true

            [[log]]
            name = "f"
            type = "file"
            path = "3,4"
            rotate_bytes = 200_000
            retain_bytes = 0xF4240
            retain_count = 3
            timestamps = true
            latest = "/x/latest"
            when_full = "drop"
            max_line = 99

            [web]
            timestamps = true
            outlet = ["f", { name = "stderr", filter = "status >= 500" }]
            config = { id = "big", segment_size = 1000 }

            [[web.log]]
            name = "http/access"
            type = "jlog"
            path = "ENV:/d(*):{LOGDAG_NOT_THERE}"
            config.precommit = 7

            [[web.deeper.log]]
            name = "http/error"
            disabled = true
            outlet = "error"

            [[log]]
            name = "n"
            type = "jlog"
            path = "/y"
            config = { inherit = "big" }
            "#,
    );
    assert_eq!(gist(&toml.unwrap()), gist(&xml.unwrap()));
}

#[test]
fn errors_in_toml_name_the_place() {
    for (text, line, column, message) in [
        ("x = ", 1, 5, "string values must be quoted"),
        ("[[log]]\nname = \"a\"\nformat = \"xml\"", 3, 11, "expected one of plain"),
        ("[[log]]\ntype = \"memory\"", 1, 1, "a log without a name"),
        ("[[log]]\nname = [\"a\"]", 2, 9, "name: expected a text"),
        ("[[log]]\nname = \"a\"\noutlet = { filter = \"x = 1\" }", 3, 10, "an outlet without a name"),
        (
            "[[log]]\nname = \"a\"\noutlet = { name = \"b\", filter = 'x =' }",
            3,
            37,
            "a quoted text or a number",
        ),
        ("[[log]]\nname = \"a\"\noutlet = [[1]]", 3, 11, "expected a text, or a table with name"),
        ("[[log]]\nname = \"a\"\nconfig = { x = [] }", 3, 16, "expected a text, a number"),
        ("include = \"/nowhere/at.all\"", 1, 12, "cannot include"),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn the_place_of_a_filters_error_in_every_kind_of_string() {
    for (filter, line, column) in [
        (r#""a = 1 x""#, 3, 40),
        (r#"'a = "\\" x'"#, 3, 43),
        (r#"'m ~ "\\\\\\\\" x'"#, 3, 49),
        (r#""\u0061 = 1 x""#, 3, 45),
        (r#""\U00000061 = 1 x""#, 3, 49),
        (r#""\x61 = 1 x""#, 3, 43),
        (r#""""a = 1 x""""#, 3, 42),
        (r#"'''a = 1 x'''"#, 3, 42),
        ("'''\na = 1 x'''", 4, 7),
        ("\"\"\"\r\na = 1 x\"\"\"", 4, 7),
        ("\"\"\"a = \\\n    1 x\"\"\"", 4, 7),
    ] {
        let text = format!("[[log]]\nname = \"a\"\noutlet = {{ name = \"b\", filter = {filter} }}\n\n");
        let error = Config::from_text("app.toml", &text).unwrap_err();
        assert_eq!((error.line, error.column), (line, column), "{filter}: {error}");
    }
}

#[test]
fn toml_is_taken_in_the_order_in_which_it_stands() {
    let text =
        "[b.c]\n[[b.c.log]]\nname = \"1\"\n[a]\n[[a.log]]\nname = \"2\"\n[b]\n[[b.log]]\nname = \"3\"\n";
    let config = Config::from_text("app.toml", text).unwrap();
    // What belongs to one table stays together.
    assert_eq!(config.streams().iter().map(|stream| &*stream.name).collect::<Vec<_>>(), ["1", "3", "2"]);
    let text = "[[log]]\nname = \"a\"\nzebra = 1\napple = 1\n";
    let error = Config::from_text("app.toml", text).unwrap_err();
    assert_eq!((error.line, error.column), (3, 9), "{error}");
}

#[test]
fn values_in_toml_are_those_of_xml() {
    let text = r#"
            [[log]]
            name = "a"
            type = "jlog"
            path = "/x"
            retain_bytes = 0xffff_ffff_ffff_ffff
            config = { inherit = "ENV:big:{LOGDAG_NOT_THERE}" }
            [other.config]
            id = "big"
            segment_size = " 1000 "
            "#;
    let config = Config::from_text("app.toml", text).unwrap();
    let sink = config.streams()[0].options.sink.as_ref().unwrap();
    assert_eq!(sink.config["segment_size"], "1000");
    assert_eq!(sink.rotation.retain_bytes, u64::MAX);
    for mistaken in ["log = \"a\"", "timestamps = []", "[g]\nconfig = 5"] {
        let error = Config::from_text("app.toml", mistaken).unwrap_err();
        assert!(error.message.contains("expected a text, a number, true, false, or tables"), "{error}");
    }
}

#[test]
fn xml_and_toml_include_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("a.toml", "include = [\"b.xml\"]\n[[log]]\nname = \"a\"\n");
    write("b.xml", "<r><log name=\"b\"/><include file=\"c.toml\"/></r>");
    write("c.toml", "[[log]]\nname = \"c\"\n");
    let names = |file: &str| -> Vec<String> {
        let config = Config::from_file(dir.path().join(file)).unwrap();
        config.streams().iter().map(|stream| stream.name.clone()).collect()
    };
    assert_eq!(names("a.toml"), ["b", "c", "a"]);
    write("c.toml", "include = \"a.toml\"");
    let error = Config::from_file(dir.path().join("a.toml")).unwrap_err();
    assert!(error.message.contains("includes itself"), "{error}");
    assert!(error.file.ends_with("c.toml"), "{error}");
}

#[test]
fn what_is_too_deep_or_too_much_is_refused() {
    let deep = format!("{}<log name=\"a\"/>{}", "<g>".repeat(200), "</g>".repeat(200));
    assert!(logs(&deep).unwrap_err().message.contains("100 deep"));
    let deep = format!("[{}log]\nname = \"a\"", "g.".repeat(200));
    let error = Config::from_text("app.toml", &deep).unwrap_err();
    assert!(error.message.contains("deep") || error.message.contains("recursion"), "{error}");
    let error = logs("<include file=\"/dev/zero\"/>").unwrap_err();
    assert!(error.message.contains("more than 16777216 bytes"), "{error}");
}

#[test]
fn configs_that_inherit_one_another_are_refused() {
    let error = logs(
        r#"<config id="a" inherit="b"/><config id="b" inherit="a"/>
               <log name="l" type="jlog" path="/x"><config inherit="a"/></log>"#,
    )
    .unwrap_err();
    assert!(error.message.contains("config \"b\" inherits itself"), "{error}");
}

#[test]
fn two_streams_on_one_file_that_is_rotated_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let other = dir.path().join("./log");
    let text = |rotation: &str| {
        let (path, other) = (path.display(), other.display());
        format!(
            "<log name=\"a\" type=\"file\" path=\"{path}\"/>\n<log name=\"b\" type=\"file_synch\" path=\"{other}\" {rotation}/>"
        )
    };
    assert!(logs(&text("")).is_ok());
    let error = logs(&text("rotate_bytes=\"200000\"")).unwrap_err();
    assert_eq!(error.line, 3);
    assert!(error.message.contains("the log \"a\" writes to"), "{error}");
}

#[test]
fn streams_on_one_jlog_agree_on_its_subscribers() {
    let text = |second: &str| {
        format!(
            "<log name='a' type='jlog' path='/tmp/feed(x,y)'/>\n<log name='b' type='jlog' path='{second}'/>"
        )
    };
    assert!(logs(&text("/tmp/feed(x,y)")).is_ok());
    assert!(logs(&text("/tmp/other(y)")).is_ok());
    for second in ["/tmp/feed", "/tmp/feed(y)", "/tmp/./feed(x)", "/tmp/../tmp/feed(*)"] {
        let error = logs(&text(second)).unwrap_err();
        assert!(error.message.contains("the log \"a\" writes to"), "{error}");
    }
}

#[test]
fn a_file_is_the_same_however_its_path_is_written() {
    let absolute = std::env::current_dir().unwrap().join("s.log").display().to_string();
    for second in ["./s.log", "../logdag/s.log", &absolute] {
        let error = logs(&format!(
            "<log name='a' type='file' path='s.log' rotate_bytes='200000'/>\n<log name='b' type='file' path='{second}'/>"
        ))
        .unwrap_err();
        assert!(error.message.contains("the log \"a\" writes to"), "{error}");
    }
}

#[test]
fn a_config_that_is_not_there_cannot_be_inherited() {
    let error = logs("<log name='a'><config inherit='nope'/></log>").unwrap_err();
    assert!(error.message.contains("there is no config with the id \"nope\""), "{error}");
}

#[test]
fn the_sample_works() {
    let dir = tempfile::tempdir().unwrap();
    let text = include_str!("../../examples/sample.xml").replace("/var/log", dir.path().to_str().unwrap());
    let config = config(&text).unwrap();
    let graph = Graph::new();
    config.apply(&graph).unwrap();
    graph.set_enabled("stderr", false).unwrap();
    let example = graph.find("error/example").unwrap();
    crate::log!(example, "it {}", "works");
    crate::log!(graph.find("http/access").unwrap(), status = 200; "GET /");
    assert!(!graph.find("debug/example").unwrap().is_material());
    graph.flush().unwrap();
    let log = std::fs::read_to_string(dir.path().join("app.log")).unwrap();
    assert!(log.starts_with('[') && log.ends_with("] it works\n"), "{log}");
    let feed = jlog_core::Jlog::open(dir.path().join("app-http.feed")).unwrap();
    feed.subscribe("s", jlog_core::Start::Beginning).unwrap();
    let mut reader = feed.reader("s").unwrap();
    let batch = reader.next_batch(jlog_core::Wait::No).unwrap().unwrap();
    assert_eq!(batch.iter().map(|m| m.body().to_vec()).collect::<Vec<_>>(), [b"GET /".to_vec()]);
    // The ring is there only where the environment asks for it.
    assert!(graph.describe("internal").unwrap().kind.is_empty());
}
