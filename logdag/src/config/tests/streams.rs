//! Streams, what they inherit, and their outlets.

use super::*;

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
fn the_environment_decides() {
    // PATH is set in every test; the other variable is set in none.
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
    // The only difference is libmtev's treatment of line ends, which applies only to XML.
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
    let text = include_str!("../../../examples/sample.xml").replace("/var/log", dir.path().to_str().unwrap());
    let config = config(&text).unwrap();
    let graph = Graph::new();
    config.apply(&graph).unwrap();
    graph.set_enabled("stderr", false).unwrap();
    let example = graph.find("error/example").unwrap();
    crate::log!(example, "it {}", "works");
    crate::log!(graph.find("http/access").unwrap(), status = 200; "GET /");
    assert!(!graph.find("debug/example").unwrap().is_enabled());
    graph.flush().unwrap();
    let log = std::fs::read_to_string(dir.path().join("app.log")).unwrap();
    assert!(log.starts_with('[') && log.ends_with("] it works\n"), "{log}");
    let feed = jlog_core::Jlog::open(dir.path().join("app-http.feed")).unwrap();
    feed.subscribe("s", jlog_core::Start::Beginning).unwrap();
    let mut reader = feed.reader("s").unwrap();
    let batch = reader.next_batch(jlog_core::Wait::No).unwrap().unwrap();
    assert_eq!(batch.iter().map(|m| m.body().to_vec()).collect::<Vec<_>>(), [b"GET /".to_vec()]);
    // The ring exists only if the environment asks for it.
    assert!(graph.describe("internal").unwrap().kind.is_empty());
}

#[test]
fn http_is_said_in_either_language_and_a_group_may_have_the_name() {
    let http = |file: &str, text: &str| Config::from_text(file, text).map(|config| config.http().cloned());
    let expected = Http {
        address: "127.0.0.1:1".to_owned(),
        token_file: Some("t".into()),
        tls_cert: Some("c".into()),
        tls_key: Some("k".into()),
        tls_client_ca: Some("a".into()),
        allow_hosts: vec!["a".to_owned(), "b".to_owned()],
    };
    let attributes = "address=\"127.0.0.1:1\" token_file=\"t\" allow_host=\"a, b\" tls_cert=\"c\" tls_key=\"k\" tls_client_ca=\"a\"";
    for xml in [
        format!("<app><http {attributes}/><logs><log name=\"x\"/></logs></app>"),
        format!("<app><logs><http {attributes}/><log name=\"x\"/></logs></app>"),
    ] {
        let config = Config::from_text("a.xml", &xml).unwrap();
        assert_eq!(config.http(), Some(&expected));
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        let error = config.http_error("wrong");
        assert_eq!((error.line, &*error.message), (1, "wrong"));
    }
    let toml = "[http]\naddress = \"127.0.0.1:1\"\ntoken_file = \"t\"\nallow_host = \"a,b\"\n\
                tls_cert = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"a\"\n[[log]]\nname = \"x\"\n";
    assert_eq!(http("a.toml", toml).unwrap(), Some(expected));

    let group = "<app><logs><http><log name=\"http/access\"/></http></logs></app>";
    assert_eq!(http("a.xml", group).unwrap(), None);
    assert_eq!(Config::from_text("a.xml", group).unwrap().streams().len(), 1);
    for (text, says) in [
        ("[http]\naddress = \"1\"\nadress = \"1\"\n", "unknown attribute \"adress\" on [http]; did you mean"),
        ("[http]\naddress = \"1\"\n[[http.log]]\nname = \"x\"\n", "[http] can have only attributes"),
    ] {
        let error = http("a.toml", text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let twice = "<app><http address=\"1\"/><logs><http address=\"2\"/><log name=\"x\"/></logs></app>";
    let error = http("a.xml", twice).unwrap_err().to_string();
    assert!(error.contains("there is an <http> already"), "{error}");
}

#[test]
fn metrics_are_outlets_that_count() {
    let outlets = |config: &Config, name: &str| -> Vec<(String, Option<String>)> {
        let stream = config.streams().iter().find(|stream| stream.name == name).unwrap();
        let filter = |filter: &Option<Filter>| filter.as_ref().map(|filter| filter.text().to_owned());
        stream.outlets.iter().map(|(to, by)| (to.clone(), filter(by))).collect()
    };
    let xml = logs(
        r#"<g><metric name="lines" labels="level"/>
             <log name="a"><metric name="took_seconds" type="histogram" value="took" filter="took > 0"/></log>
             <log name="b"/></g>"#,
    )
    .unwrap();
    let expected =
        [("metric/lines".to_owned(), None), ("metric/took_seconds".to_owned(), Some("took > 0".to_owned()))];
    assert_eq!(outlets(&xml, "a"), expected);
    assert_eq!(outlets(&xml, "b"), expected[..1]);
    assert_eq!(xml.warnings(), []);
    #[cfg(feature = "toml")]
    {
        let toml = "[g]\nmetric = { name = \"lines\", labels = \"level\" }\n[[g.log]]\nname = \"a\"\n\
                    [[g.log.metric]]\nname = \"took_seconds\"\ntype = \"histogram\"\nvalue = \"took\"\n\
                    filter = \"took > 0\"\n[[g.log]]\nname = \"b\"\n";
        let toml = Config::from_text("a.toml", toml).unwrap();
        let sorted = |config: &Config| {
            let mut streams = config.streams().to_vec();
            // libmtev's XML has no escaping.
            streams.iter_mut().for_each(|stream| stream.options.escape = true);
            streams.sort_by(|a, b| a.name.cmp(&b.name));
            streams
        };
        assert_eq!(sorted(&toml), sorted(&xml));
    }
    let graph = Graph::new();
    xml.apply(&graph).unwrap();
    let builder = Metric::histogram("took_seconds", "took");
    let spec = SinkSpec { stream: "metric/took_seconds".to_owned(), ..SinkSpec::metric(builder) };
    assert_eq!(graph.options("metric/took_seconds").unwrap().sink, Some(spec));

    for (inside, message) in [
        (r#"<log name="a"><metric/></log>"#, "a metric without a name"),
        (r#"<log name="a"><metric name="x" colour="red"/></log>"#, "unknown attribute \"colour\""),
        (r#"<log name="a"><metric name="x" type="gauge"/></log>"#, "kind \"gauge\" of a metric"),
        (r#"<log name="a"><metric name="x-y"/></log>"#, "the name \"x-y\" of a metric"),
        (r#"<log name="a"><metric name="x" type="histogram"/></log>"#, "a histogram without value"),
        (r#"<log name="a"><metric name="x" filter="x ="/></log>"#, "the filter"),
        (
            r#"<log name="a"><metric name="x"/><metric name="x"/></log>"#,
            "there is a log \"metric/x\" already",
        ),
    ] {
        let error = logs(inside).unwrap_err().to_string();
        assert!(error.contains(message), "{inside}: {error}");
    }
    let twice = r#"<log name="a"><metric name="x"/></log><log name="b" type="metric" path="x"/>"#;
    let error = logs(twice).unwrap().apply(&Graph::new()).unwrap_err().to_string();
    assert!(error.contains("already has a metric named \"x\""), "{error}");
    let typo = logs(r#"<log name="a"><metrics name="x"/></log>"#).unwrap();
    assert!(typo.warnings()[0].message.contains("did you mean <metric>?"), "{:?}", typo.warnings());
}
