//! Which configurations are accepted, and how others are refused.

use std::path::{Path, PathBuf};

use super::error::{Result, SHOWN};
use super::files::{MAX_FILE, is_descriptor};
use super::*;
use crate::filter::Filter;
use crate::format::{Flags, Format};
use crate::graph::Graph;
use crate::options::StreamConfig;
use crate::sink::{Metric, SinkSpec};

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

#[test]
fn a_stream_that_is_the_root_of_an_included_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("log.xml", "<log name='a'/>");
    for (snippet, streams, reported) in [("off", 0, 1), ("on", 1, 0)] {
        let include = format!("<include file='log.xml' snippet='{snippet}'/>");
        write("app.xml", &format!("<app><logs>{include}<log name='b'/></logs></app>"));
        let config = Config::from_file(dir.path().join("app.xml")).unwrap();
        assert_eq!((config.streams().len(), config.warnings().len()), (1 + streams, reported));
        for warning in config.warnings() {
            assert!(
                warning.file.ends_with("log.xml")
                    && warning.message.starts_with("the <log> that is the root")
            );
        }
    }
}

/// Attributes on the root of an included XML file reach no stream, and neither does anything in a
/// file without streams.
#[test]
fn attributes_that_an_include_leaves_out_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("root.xml", "<app lockfile='/x' name='n' format='json'><log name='a' type='memory'/></app>");
    write("other.xml", "<app path='/x'><module/></app>");
    write("plain.xml", "<app><log name='a' type='memory'/></app>");
    write("top.toml", "format = 'json'\n[[log]]\nname = 'a'\ntype = 'memory'\n");
    write("wrong.toml", "fromat = 'json'\n[[log]]\nname = 'a'\n");
    let xml = |include: &str| {
        write("main.xml", &format!("<app><logs>{include}</logs></app>"));
        Config::from_file(dir.path().join("main.xml"))
    };
    let toml = |include: &str| {
        write("main.toml", &format!("include = '{include}'\n"));
        Config::from_file(dir.path().join("main.toml"))
    };
    let on_root = "format on the root of an included file has no effect: expected it on the <include>, on an";
    let on_top =
        "format on the top level of an included file has no effect: it is for the streams in the included";
    let outlet =
        "an outlet of an included file has no effect: it is for the streams in the included file, and there";
    write("format.toml", "format = 'json'\n");
    write("outlet.toml", "outlet = 'b'\n");
    write("outlet.xml", "<app><outlet name='b'/></app>");
    for (read, reported) in [
        (xml("<include file='root.xml'/>"), Some(("root.xml", on_root))),
        (toml("root.xml"), Some(("root.xml", on_root))),
        (xml("<include file='top.toml'/>"), None),
        (toml("top.toml"), None),
        (xml("<include file='format.toml'/><log name='b'/>"), Some(("format.toml", on_top))),
        (xml("<include file='outlet.toml'/><log name='b'/>"), Some(("outlet.toml", outlet))),
        (xml("<include file='outlet.xml'/><log name='b'/>"), Some(("outlet.xml", outlet))),
        (toml("format.toml'\n[[log]]\nname = 'b"), Some(("format.toml", on_top))),
        (toml("outlet.xml'\n[[log]]\nname = 'b"), Some(("outlet.xml", outlet))),
        (xml("<include file='plain.xml' format='json'/>"), None),
        (xml("<include file='other.xml' format='json'/><log name='b'/>"), None),
    ] {
        let config = read.unwrap();
        match (config.warnings(), reported) {
            ([], None) => {}
            ([warning], Some((file, text))) => {
                assert!(warning.file.ends_with(file) && warning.message.starts_with(text), "{warning}");
            }
            (warnings, reported) => panic!("{reported:?}: {warnings:?}"),
        }
    }
    for error in [xml("<include file='wrong.toml'/>").unwrap_err(), toml("wrong.toml").unwrap_err()] {
        let expected = "unknown attribute \"fromat\" on the top level; did you mean format?";
        assert!(error.file.ends_with("wrong.toml") && error.message == expected, "{error}");
    }
}

/// As in libmtev, an <include> is an element around the included content.
#[test]
fn outlets_of_an_included_file_are_for_its_own_streams() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("part.xml", "<r><outlet name='o'/><log name='in' type='memory'/></r>");
    write("snippet.xml", "<outlet name='o'/><log name='in' type='memory'/>");
    write("part.toml", "outlet = ['o']\n[[log]]\nname = 'in'\ntype = 'memory'\n");
    let outlets = |name: &str| {
        let config = Config::from_file(dir.path().join(name)).unwrap();
        assert!(config.warnings().is_empty(), "{:?}", config.warnings());
        let of = |stream: &StreamConfig| {
            let to: Vec<&str> = stream.outlets.iter().map(|(to, _)| &**to).collect();
            format!("{} {:?} -> {}", stream.name, stream.options.format, to.join(","))
        };
        config.streams().iter().map(of).collect::<Vec<_>>()
    };
    for include in [
        "<include file='part.xml' format='json' readonly='true'/>",
        "<include file='snippet.xml' snippet='on' format='json'/>",
        "<include file='part.toml' format='json'/>",
    ] {
        write("app.xml", &format!("<app><logs><log name='o'/>{include}<log name='out'/></logs></app>"));
        assert_eq!(outlets("app.xml"), ["o Plain -> ", "in Json -> o", "out Plain -> "], "{include}");
    }
    for file in ["part.xml", "part.toml"] {
        write("app.toml", &format!("include = ['{file}']\n[[log]]\nname = 'o'\n[[log]]\nname = 'out'\n"));
        assert_eq!(outlets("app.toml"), ["in Plain -> o", "o Plain -> ", "out Plain -> "], "{file}");
        let group = format!(
            "[[g.log]]\nname = 'out'\n[[log]]\nname = 'o'\n[g.include]\nfile = '{file}'\nformat = 'json'\n"
        );
        write("app.toml", &group);
        assert_eq!(outlets("app.toml"), ["out Plain -> ", "in Json -> o", "o Plain -> "], "{file}");
    }
    // The nearest one wins: the table, the include, the file.
    write("own.toml", "format = 'event'\n[[log]]\nname = 'own'\n");
    write("part.toml", "include = 'own.toml'\n[[log]]\nname = 'part'\n");
    write(
        "app.toml",
        "format = 'json'\ninclude = { file = 'part.toml', format = 'plain' }\n[[log]]\nname = 'out'\n",
    );
    assert_eq!(outlets("app.toml"), ["own Event -> ", "part Plain -> ", "out Json -> "]);
    write("app.xml", "<app><logs><include file='part.toml' format='json'/><log name='out'/></logs></app>");
    assert_eq!(outlets("app.xml"), ["own Event -> ", "part Json -> ", "out Plain -> "]);
    // Elements above <logs> may be included, too.
    write("logs.xml", "<r><http address='127.0.0.1:1'/><logs><log name='in' type='memory'/></logs></r>");
    write("app.xml", "<app><include file='logs.xml'/><logs><log name='out' type='memory'/></logs></app>");
    let config = Config::from_file(dir.path().join("app.xml")).unwrap();
    assert_eq!(config.streams().len(), 2);
    assert_eq!(config.http().unwrap().address, "127.0.0.1:1");
}

#[test]
fn an_include_may_name_many_files_by_a_pattern() {
    let dir = tempfile::tempdir().unwrap();
    let part = dir.path().join("conf [d]");
    std::fs::create_dir(&part).unwrap();
    let write = |name: &str, log: &str| {
        std::fs::write(part.join(name), format!("<r><log name='{log}' type='memory'/></r>")).unwrap();
    };
    for (name, log) in
        [("b.xml", "b"), ("a.xml", "a"), ("c.xml.bak", "bak"), (".d.xml", "hidden"), ("x[1].xml", "x")]
    {
        write(name, log);
    }
    let read = |file: &str| {
        let text = format!("<app><logs><include file=\"{file}\"/><log name='z' type='memory'/></logs></app>");
        std::fs::write(part.join("app"), text).unwrap();
        let config = Config::from_file(part.join("app"))?;
        let names: Vec<&str> = config.streams().iter().map(|stream| &*stream.name).collect();
        let warnings = config.warnings().iter().map(|warning| warning.message.clone()).collect::<Vec<_>>();
        Ok::<_, ConfigError>((names.join(" "), warnings.join("; ")))
    };
    let nothing = String::new;
    for (file, names) in [
        ("*.xml", "a b x z"),
        ("[ab].xml", "a b z"),
        ("?.xml", "a b z"),
        ("{b,a}.xml", "b a z"),
        ("{b,{a,none}}.{xml,no}", "b a z"),
        ("x[1].xml", "x z"),
        ("../conf*/a.xml", "a z"),
    ] {
        assert_eq!(read(file).unwrap(), (names.to_owned(), nothing()), "{file}");
    }
    let absolute = format!("{}/*.xml", part.display()).replace('[', "[[]");
    assert_eq!(read(&absolute).unwrap().0, "a b x z");
    let warning = "\"none*\" matches no file: nothing is included";
    assert_eq!(read("none*").unwrap(), ("z".to_owned(), warning.to_owned()));
    for (file, why) in [
        ("*", "includes itself"),
        ("{a.xml}", "cannot include"),
        ("none.xml", "No such file"),
        ("a**", "cannot look for files to include a**: "),
    ] {
        let error = read(file).unwrap_err();
        assert!(error.message.contains(why), "{file}: {error}");
    }
    std::fs::write(part.join("app.toml"), "include = '[ab].xml'\n").unwrap();
    assert_eq!(Config::from_file(part.join("app.toml")).unwrap().streams().len(), 2);
}

/// The essential parts of a configuration, for comparison.
fn gist(config: &Config) -> Vec<String> {
    let outlet =
        |(to, filter): &(String, Option<Filter>)| format!("{to} {:?}", filter.as_ref().map(Filter::text));
    let one = |stream: &StreamConfig| {
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
fn errors_in_toml_name_the_place() {
    for (text, line, column, message) in [
        ("x = ", 1, 5, "string values must be quoted"),
        ("[[log]]\nname = \"a\"\nformat = \"xml\"", 3, 11, "expected one of plain"),
        ("[[log]]\ntype = \"memory\"", 1, 1, "a log without a name"),
        ("[[log]]\nname = [\"a\"]", 2, 9, "name: expected a string"),
        ("[[log]]\nname = \"a\"\noutlet = { filter = \"x = 1\" }", 3, 10, "an outlet without a name"),
        (
            "[[log]]\nname = \"a\"\noutlet = { name = \"b\", filter = 'x =' }",
            3,
            37,
            "a quoted text or a number",
        ),
        ("[[log]]\nname = \"a\"\noutlet = [[1]]", 3, 11, "expected a string, or a table with name"),
        ("[[log]]\nname = \"a\"\nconfig = { x = [] }", 3, 16, "expected a string, a number"),
        ("include = \"/nowhere/at.all\"", 1, 12, "cannot include"),
        (
            "[[log]]\nname = \"a\"\nlimit = \"5/s\"",
            3,
            10,
            "unknown attribute \"limit\" on [[log]]: it belongs on an outlet",
        ),
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
    // The streams of one table stay together.
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
        assert!(error.message.contains("expected a string, a number, true, false, or tables"), "{error}");
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.xml");
    std::fs::write(&path, vec![b' '; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
    let error = Config::from_file(&path).unwrap_err();
    assert!(error.message.contains("more than 16777216 bytes"), "{error}");
}

#[test]
fn only_regular_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo.toml");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = dir.path().join("link.toml");
    std::os::unix::fs::symlink("fifo.toml", &link).unwrap();
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, expected) in [
        (&*fifo, "it is a FIFO: expected a regular file"),
        (&link, "it is a FIFO: expected a regular file"),
        (&socket, "it is a device or a socket: expected a regular file"),
        (dir.path(), "it is a directory: expected a regular file"),
        (Path::new("/dev/zero"), "it is a device or a socket: expected a regular file"),
    ] {
        assert_eq!(Config::from_file(path).unwrap_err().message, expected);
        for text in [format!("<include file='{}'/>", path.display()), "".to_owned()] {
            let error = match &*text {
                "" => Config::from_text("a.toml", &format!("include = '{}'", path.display())).unwrap_err(),
                text => logs(text).unwrap_err(),
            };
            assert!(
                error.message.ends_with(&format!("cannot include {}: {expected}", path.display())),
                "{error}"
            );
        }
    }
    assert!(!is_descriptor(&fifo) && is_descriptor(Path::new("/dev/stdin")));
}

#[test]
fn a_pipe_that_is_open_already_can_be_named() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, b"<app><logs><log name='a'/></logs></app>").unwrap();
    drop(writer);
    let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    assert_eq!(Config::from_file(path).unwrap().streams().len(), 1);
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

fn warnings(config: &Config) -> Vec<(u32, u32, &str)> {
    config.warnings().iter().map(|w| (w.line, w.column, &*w.message)).collect()
}

#[test]
fn what_means_nothing_but_is_near_to_something_is_a_warning() {
    for (inside, line, column, message) in [
        ("<oulet name='stderr'/>", 2, 1, "<oulet> only groups what is in it: did you mean <outlet>?"),
        ("<Log name='a'/>", 2, 1, "<Log> only groups what is in it: did you mean <log>?"),
        ("<confg/>", 2, 1, "did you mean <config>?"),
        ("<inculde file='x'/>", 2, 1, "did you mean <include>?"),
        ("<g timestmaps='on'/>", 2, 16, "unknown attribute \"timestmaps\" on <g>; did you mean timestamps?"),
        ("<g name='a'/>", 2, 10, "name on <g> has no effect"),
        (
            "<log name='b'><outlet name='stdrr'/></log>",
            2,
            15,
            "\"stdrr\" that this outlet leads to; did you mean stderr?",
        ),
        ("<log name='b'><outlet name='x/y'/></log>", 2, 15, "nothing makes the stream \"x/y\""),
        (
            "<log name='b'><outlet name='stderr'><filter>a = 1</filter></outlet></log>",
            2,
            37,
            "<filter> in <outlet> means nothing: an outlet has attributes only",
        ),
        ("<log name='b'><outlet name='stderr'>a = 1</outlet></log>", 2, 15, "text in <outlet> means nothing"),
        ("<log name='b'>x.log<outlet name='stderr'/></log>", 2, 1, "text in <log> means nothing"),
        ("<htp address='127.0.0.1:1'/>", 2, 1, "<htp> only groups what is in it: did you mean <http>?"),
        (
            "<log name='b' path='x'/>",
            2,
            21,
            "path=\"x\" on <log> has no effect without a type: expected type=",
        ),
        ("<log name='b' mode='600'/>", 2, 21, "mode=\"600\" on <log> has no effect without a type"),
        ("<log name='b' format='json'/>", 2, 23, "format=\"json\" on <log> has no effect without a type"),
        (
            "<log name='b'><config><precommit>5</precommit></config></log>",
            2,
            15,
            "<config> has no effect without a type: expected type=\"jlog\"",
        ),
        ("<log name='stderr' path='x'/>", 2, 26, "path=\"x\" on <log> has no effect on a log of type stderr"),
        (
            "<log name='b' type='file' path='x'><config><timeout>5</timeout></config></log>",
            2,
            44,
            "timeout in <config> has no effect on a log of type file",
        ),
        (
            "<log name='b' type='journald'><config><facility>daemon</facility></config></log>",
            2,
            39,
            "facility in <config> has no effect on a log of type journald",
        ),
        ("<log name='b' type='memory' rotate_bytes='1MB'/>", 2, 43, "no effect on a log of type memory"),
        ("<log name='b' type='memory' when_full='drop'/>", 2, 40, "no effect on a log of type memory"),
        ("<log name='b' type='jlog' path='x' mode='600'/>", 2, 42, "no effect on a log of type jlog"),
        ("<log name='b' type='stdout' path='x'/>", 2, 35, "no effect on a log of type stdout"),
        ("<config inherti='x'/>", 2, 18, "unknown attribute \"inherti\" on <config>; did you mean inherit?"),
        (
            "<log name='b'><outlet name='stderr' filter='level ~ \"errr\"'/></log>",
            2,
            45,
            "no level matches: their names are trace, debug, info, warning, error",
        ),
        ("<log name='b'><outlet name='stderr' filter='lvel = 1'/></log>", 2, 45, "did you mean level?"),
        ("<log name='b'><outlet name='stderr' filter='lin = 1'/></log>", 2, 45, "did you mean line?"),
        ("<log name='b'><outlet name='stderr' filter='exists(fle)'/></log>", 2, 45, "did you mean file?"),
        ("<log name='b'><outlet name='stderr' filter='Flie = 1'/></log>", 2, 45, "did you mean file?"),
        (
            "<log name='b' type='file' path='x' retain_bytes='5MB'/>",
            2,
            50,
            "has no effect without rotate_bytes",
        ),
        (
            "<log name='b' type='file' path='x'><config><segmnt_size>5</segmnt_size></config></log>",
            2,
            44,
            "unknown key \"segmnt_size\" on <config>; did you mean segment_size?",
        ),
        (
            "<g><outlet name='stderr' filter='n = 1'/><log name='b'><outlet name='stderr'/></log></g>",
            2,
            56,
            "an outlet to \"stderr\" is inherited already, with the filter \"n = 1\", which counts",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='n = 1'/><outlet name='stderr'/></log>",
            2,
            53,
            "an outlet to \"stderr\" is given already, with the filter \"n = 1\", which counts",
        ),
        ("<logs name='b'/>", 2, 1, "<logs> only groups what is in it: did you mean <log>?"),
        (
            "<log name='b'><outlet name='stderr' filter='or(x = 1, threadid = \"abc\")'/></log>",
            2,
            45,
            "the filter: threadid is a number, and never \"abc\"",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='not(levle = \"error\")'/></log>",
            2,
            45,
            "the filter: no line has levle unless it is one of its keys: did you mean level?",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='facilty ~ \"^a\"'/></log>",
            2,
            45,
            "did you mean facility?",
        ),
        ("<log name='b'><outlet name='stderr' filter='line >= \"x\"'/></log>", 2, 45, "line is a number"),
        (
            "<log name='b'><outlet name='stderr' filter='level > \"error\"'/></log>",
            2,
            45,
            "no level is above",
        ),
        (
            "<log name='b'><outlet name='stderr' filter='levl = \"error\"'/></log>",
            2,
            45,
            "did you mean level?",
        ),
    ] {
        let config = logs(&format!("{inside}<log name='left' type='memory'/>")).expect(inside);
        let [(l, c, reported)] = warnings(&config)[..] else { panic!("{inside}: {:?}", config.warnings()) };
        assert_eq!((l, c), (line, column), "{inside}: {reported}");
        assert!(reported.contains(message), "{inside}: {reported}");
    }
    let config = config("<app><lgos><log name='a'/></lgos></app>").unwrap();
    let [(1, 6, reported)] = warnings(&config)[..] else { panic!("{:?}", config.warnings()) };
    assert!(
        reported.contains("it configures nothing") && reported.contains("did you mean <logs>"),
        "{reported}"
    );
}

/// Elements outside `<logs>` are the application's; a mistyped name must not pass as one of them.
#[test]
fn mistakes_outside_logs_are_warnings_too() {
    for (app, expected) in [
        ("<app><includ file='x'/>LOGS</app>", Some("<includ> means nothing: did you mean <include>?")),
        ("<app>LOGS<oulet name='stderr'/></app>", Some("<oulet> means nothing: did you mean <outlet>?")),
        ("<app>LOGS<Log name='b'/></app>", Some("<Log> means nothing: did you mean <log>?")),
        ("<app>LOGS<log name='b'/></app>", Some("<log> is no stream here: expected it below <logs>")),
        ("<app>LOGS<lgos/></app>", Some("<lgos> means nothing: did you mean <logs>?")),
        ("<app><part><Config/></part>LOGS</app>", Some("<Config> means nothing: did you mean <config>?")),
        ("<app><includes file='x'/>LOGS</app>", Some("<includes> means nothing: did you mean <include>?")),
        ("<app><htp address='1'/>LOGS</app>", Some("<htp> means nothing: did you mean <http>?")),
        ("<app timestmaps='on'>LOGS</app>", Some("is no attribute of streams: did you mean timestamps?")),
        // These are the application's.
        (
            "<blog><https address='x'/><configs><config/></configs><part><config><lag>5</lag></config></part>LOGS</blog>",
            None,
        ),
        ("<app user='x' pat='y'><http port='80'/><eventer><config/></eventer>LOGS</app>", None),
    ] {
        let text = app.replace("LOGS", "<logs><log name='a' type='memory'/></logs>");
        let config = config(&text).expect(app);
        match (&warnings(&config)[..], expected) {
            ([], None) => {}
            ([(.., reported)], Some(expected)) => assert!(reported.contains(expected), "{app}: {reported}"),
            (reported, _) => panic!("{app}: {reported:?}"),
        }
    }
    for (app, expected) in [
        (
            "<app><http adress='x'/>LOGS</app>",
            "unknown attribute \"adress\" on <http>; did you mean address?",
        ),
        ("<app><logs><http address='1' tls_cert='x'/></logs></app>", "tls_cert and tls_key belong together"),
        ("<app><logs><http token_fil='x'/></logs></app>", "on <http>; did you mean token_file?"),
        ("<app><include file='/x' snipet='on'/></app>", "on <include>; did you mean snippet?"),
    ] {
        let error = config(&app.replace("LOGS", "<logs><log name='a'/></logs>")).expect_err(app);
        assert!(error.message.contains(expected), "{app}: {error}");
    }
    for (text, expected) in [
        ("[htp]\naddress = '127.0.0.1:1'", "[htp] only groups what is in it: did you mean [http]?"),
        (
            "[[log]]\nname = 'a'\noutlet = { name = 'stderr', filter = { a = 1 } }",
            "[filter] in [outlet] means nothing: an outlet has attributes only",
        ),
        ("include = { file = '/x', colour = 1 }", "unknown attribute \"colour\" on include"),
        (
            "include = { file = '/x', fromat = 'json' }",
            "unknown attribute \"fromat\" on include; did you mean format?",
        ),
        (
            "include = { file = '/x', log = { name = 'a' } }",
            "[[log]] means nothing: include has attributes only",
        ),
    ] {
        let error = Config::from_text("a.toml", text).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_in_the_way_of_a_sink_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (link, to) in [("far", "none/x.log"), ("one", "other"), ("other", "one"), ("near", "x.log")] {
        std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
    }
    for (attributes, expected) in [
        (format!("type='file' path='{at}/far'"), "none of the log \"a\" is missing"),
        (format!("type='file' path='{at}/one'"), "one: its symbolic links form a loop"),
        (format!("type='file' path='{at}/near'"), ""),
        (format!("type='file' path='{at}'"), "is a directory: expected the path of a file"),
        (format!("type='file_synch' path='{at}/none/'"), "none/ is a directory"),
        (format!("type='jlog' path='{at}/file(x)'"), "file is not a directory: a jlog is one"),
        (format!("type='file' path='{at}/a' latest='{at}/file'"), "other than a symbolic link at"),
        (format!("type='file' path='{at}/a' latest='{at}/none/l'"), "for the link \"latest\" of the log"),
        (format!("type='file' path='{at}/a' latest='{at}/l'"), ""),
    ] {
        let missing = logs(&format!("<log name='a' {attributes}/>")).unwrap().missing();
        match (&missing[..], expected) {
            ([], "") => {}
            ([reported], expected) => {
                assert!(reported.message.contains(expected), "{attributes}: {reported}")
            }
            _ => panic!("{attributes}: {missing:?}"),
        }
    }
}

#[test]
fn a_link_to_the_latest_file_has_a_name_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let same = format!("<log name='a' type='file' path='{at}/a' latest='{at}/./a'/>");
    let of_another = format!(
        "<log name='a' type='file' path='{at}/a'/><log name='b' type='file' path='{at}/b' latest='{at}/a'/>"
    );
    for text in [same, of_another] {
        let error = logs(&text).unwrap_err();
        assert!(error.message.contains("has the path of the log \"a\": expected another one"), "{error}");
    }
    let config = logs(&format!(
        "<g type='file' latest='{at}/l'><log name='a' path='{at}/a'/><log name='b' path='{at}/b'/></g>"
    ));
    let config = config.unwrap();
    let [(.., reported)] = warnings(&config)[..] else { panic!("{:?}", config.warnings()) };
    assert!(reported.contains("the log \"a\" has its link \"latest\" at"), "{reported}");
    // A log that is itself a link stays one.
    std::os::unix::fs::symlink("data", dir.path().join("linked")).unwrap();
    let path = dir.path().join("linked");
    let sink = crate::FileSink::open(&path, crate::Rotation::new(), true).unwrap();
    let error = sink.with_latest(&path).unwrap_err().to_string();
    assert!(error.contains("the log itself has this name"), "{error}");
    assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("data"));
}

#[test]
fn what_means_something_or_nothing_at_all_is_no_warning() {
    for inside in [
        // Turning off the rotation makes inherited settings, or settings for later, ineffective on
        // purpose.
        "<g type='file' rotate_bytes='1MB' retain_count='3'><log name='a' path='x'/><log name='b' path='y' rotate_bytes='0'/>
         <log name='c' path='z' rotate_bytes='0' retain_count='5'/><log name='d' type='memory' rotate_bytes='0'/></g>",
        "<g path='x' mode='600' when_full='drop'><log name='a'/><log name='b' type='memory' path='1,2'/></g>",
        "<log name='a' type='tape' path='x' rotate_bytes='1MB' mode='600'/>",
        "<log name='stderr' format='json' when_full='drop' timestamps='on'/><log name='a' timestamps='on' stats='on'/>",
        "<log name='a' type='syslog'><config><facility>daemon</facility><timeout>5</timeout></config></log>",
        "<log name='a'><outlet name='stderr' filter='level ~ &quot;(?i)^ERR|warning&quot;'/></log>",
        // Groups may have any name, and elements above <logs> are the application's.
        "<console_output timestamps='on'><error><log name='a'/></error></console_output>",
        // Streams below a stream make it known, and the environment may leave a stream out.
        "<log name='a'><outlet name='error/x/y'/><outlet name='b/c'/><outlet name='d'/></log><log name='b'/>
         <log name='d' require_env='!PATH'/>",
        "<g retain_bytes='5MB'><log name='a' type='file' path='x' rotate_bytes='1MB'/><log name='b'/></g>",
        "<log name='a' type='tape'><config><speed>5</speed></config></log>",
        "<g><outlet name='stderr'/><log name='b'><outlet name='stderr'/></log></g>",
        "<config><precommit>5</precommit></config><log name='a' type='memory'/>",
        "<log name='a'><outlet name='stderr' filter='and(threadid = \"7\", lines > 5, messages = 1, link = 2)'/></log>",
    ] {
        let config =
            config(&format!("<app lockfile='x'><eventer/><logs>{inside}</logs></app>")).expect(inside);
        assert_eq!(config.warnings(), [], "{inside}");
    }
}

#[test]
fn unknown_keys_in_toml_are_errors() {
    for (text, line, message) in [
        (
            "timestmaps = true\n[[log]]\nname = \"a\"",
            1,
            "unknown attribute \"timestmaps\" on the top level; did you mean timestamps?",
        ),
        (
            "[g]\ncolour = 1\n[[g.log]]\nname = \"a\"",
            2,
            "unknown attribute \"colour\" on [g]: expected one of name, type",
        ),
        (
            "includ = \"x\"\n[[log]]\nname = \"a\"",
            1,
            "unknown attribute \"includ\" on the top level; did you mean include?",
        ),
        (
            "[[log]]\nname = \"a\"\noutlt = \"x\"",
            3,
            "unknown attribute \"outlt\" on [[log]]; did you mean outlet?",
        ),
        ("[[log]]\nname = \"a\"\npth = \"x\"", 3, "unknown attribute \"pth\" on [[log]]; did you mean path?"),
        (
            "[[log]]\nname = \"a\"\noutlet = { name = \"error\", fliter = \"x = 1\" }",
            3,
            "did you mean filter?",
        ),
        (
            "[[log]]\nname = \"a\"\ntimestamps = \"maybe\"",
            3,
            "timestamps = \"maybe\" in [[log]]: expected on, off",
        ),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
    for (text, message) in [
        ("[[log]]\nname = 'a'\n name = 'b'\n", "duplicate key \"name\" in [[log]]"),
        ("timestamps = true\ntimestamps = true", "duplicate key \"timestamps\" in the top level"),
        ("[http]\nadress = 'x'", "unknown attribute \"adress\" on [http]; did you mean address?"),
        ("[http]\ntoken_file = 'x'", "[http] without address: expected 127.0.0.1:PORT or unix:PATH"),
    ] {
        let error = Config::from_text("app.toml", text).expect_err(text);
        assert_eq!(error.message, message);
    }
    let config = Config::from_text("app.toml", "[[lgo]]\nname = \"a\"").unwrap();
    assert!(
        config
            .warnings()
            .iter()
            .any(|w| w.message.contains("[lgo] only groups what is in it: did you mean log?"))
    );
}

#[test]
fn errors_of_values_name_the_attribute_and_the_element() {
    for (inside, message) in [
        (
            "<g timestamps='maybe'><log name='a'/></g>",
            "timestamps=\"maybe\" on <g>: expected on, off, true or false",
        ),
        (
            "<log name='a' max_line='10M'/>",
            "max_line=\"10M\" on <log>: expected a number of bytes, such as 10000000, 10MB",
        ),
        ("<log name='a' max_line='0'/>", "max_line=\"0\" on <log>: expected a number of bytes, 1 or more"),
        (
            "<log name='a' dedup_seconds='soon'/>",
            "dedup_seconds=\"soon\" on <log>: expected a number of seconds",
        ),
        ("<log name='a' when_full='wait'/>", "when_full=\"wait\" on <log>: expected block or drop"),
        ("<log name='a' format='jsno'/>", "; did you mean json?"),
        ("<log name='a' name='b'/>", "duplicate attribute \"name\" on <log>"),
    ] {
        let error = logs(inside).expect_err(inside);
        assert!(error.message.contains(message), "{inside}: {error}");
    }
}

#[test]
fn sizes_and_durations_have_units_and_0_turns_inherited_rotation_off() {
    let config = logs(
        "<g type='file' rotate_bytes='10MiB' rotate_seconds='1d' retain_seconds='7d' retain_bytes='1.5GB'>
           <log name='a' path='a' dedup_seconds='1m' queue_bytes='2kB' max_line='1MB'/>
           <log name='b' path='b' rotate_bytes='0' retain_bytes='0'/>
           <log name='c' path='c' rotate_bytes='0' rotate_seconds='0' retain_seconds='0' retain_bytes='0'/></g>",
    )
    .unwrap();
    let options: Vec<_> = config.streams().iter().map(|stream| &stream.options).collect();
    let rotation = |n: usize| options[n].sink.as_ref().unwrap().rotation.clone();
    let of = |seconds, bytes, retain_seconds, retain_bytes| crate::Rotation {
        seconds,
        bytes,
        retain_seconds,
        retain_bytes,
        ..rotation(2)
    };
    assert_eq!(rotation(0), of(86_400, 10 << 20, 604_800, 1_500_000_000));
    assert_eq!(rotation(1), of(86_400, 0, 604_800, 0));
    assert_eq!(rotation(2), of(0, 0, 0, 0));
    assert_eq!(
        (options[0].dedup, options[0].queue_bytes, options[0].max_line),
        (Some(std::time::Duration::from_secs(60)), 2000, 1_000_000)
    );
    assert_eq!(config.warnings(), []);
}

#[test]
fn sizes_of_jlogs_that_are_out_of_range_are_not_taken() {
    for (key, given, taken, warned) in [
        ("segment_size", "1000", Some("1000"), false),
        ("segment_size", "1MiB", Some("1048576"), false),
        ("segment_size", "0", None, true),
        ("segment_size", "-5", None, true),
        ("segment_size", "-1MiB", None, true),
        ("segment_size", "+1000", Some("1000"), false),
        ("segment_size", "1073741825", None, true),
        ("segment_size", "99999999999999999999", None, true),
        ("precommit", "128KiB", Some("131072"), false),
        ("precommit", "0", Some("0"), false),
        ("precommit", "-1", Some("0"), true),
        ("precommit", "-128KiB", Some("0"), true),
        ("precommit", "999999999999999999999999999999999999999999", Some("8388608"), true),
        ("precommit", "9000000", Some("8388608"), true),
    ] {
        let inside =
            format!("<log name='a' type='jlog' path='x'><config><{key}>{given}</{key}></config></log>");
        let config = logs(&inside).expect(&inside);
        let sink = config.streams()[0].options.sink.as_ref().unwrap();
        assert_eq!(sink.config.get(key).map(|text| &**text), taken, "{inside}");
        assert_eq!(config.warnings().len(), usize::from(warned), "{inside}: {:?}", config.warnings());
    }
    let error = logs("<log name='a' type='jlog' path='x'><config><precommit>much</precommit></config></log>")
        .unwrap_err();
    assert!(
        error.message.contains("precommit=\"much\" on <precommit>: expected a number of bytes"),
        "{error}"
    );
}

#[test]
fn an_element_that_is_closed_too_early_or_never_is_named_with_its_place() {
    for (text, line, column, message) in [
        // A mistake from an old document: an element that should group others is self-closing.
        (
            "<app>\n<logs>\n<log name='a' path='>'/>\n <!-- <log> --><outlet name='b'/>\n</log>\n</logs></app>",
            5,
            1,
            "</log> closes nothing here: <log>, which begins at line 3, column 1, was closed already, by \"/>\" at line 3, \
             column 23; expected </logs>",
        ),
        (
            "<app/>\n<logs><log name='a'/></logs>",
            2,
            1,
            "nothing may follow the root: <app>, which begins at line 1, column 1, was closed already, by \"/>\" at line 1",
        ),
        (
            "<app></app>\n<logs/>",
            2,
            1,
            "<app>, which begins at line 1, column 1, was closed already, by </app> at line 1, column 6",
        ),
        ("<app>\n<logs></app>", 2, 7, "expected </logs>, which closes <logs>, begun at line 2, column 1"),
        ("<app>\n <logs>\n<log name='a'/>\n", 1, 1, "<logs>, begun at line 2, column 2, is never closed"),
    ] {
        let error = config(text).expect_err(text);
        assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[test]
fn text_that_is_not_well_formed_is_explained() {
    for (text, column, message) in [
        ("<a><log name='x' filter='n < 5'/></a>", 28, "no \"<\" in it: write &lt;, or close the value"),
        ("<a><log name=\"x</a>", 16, "no \"<\" in it: write &lt;, or close the value"),
        ("<a><log name='R&D'/></a>", 16, "expected &amp; in the place of \"&\""),
        ("<a><log name='&it;'/></a>", 15, "unknown entity &it;"),
        ("<a><!-- a -- b --></a>", 4, "a comment has no \"--\" in it"),
        ("<a>]]></a>", 7, "text has no \"]]>\" in it"),
        ("<!DOCTYPE a><a/>", 1, "a document type (<!DOCTYPE>) is not accepted"),
    ] {
        let error = config(text).expect_err(text);
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn no_error_shows_a_file_that_is_no_configuration_or_is_included() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    std::fs::create_dir_all(ours.join("below")).unwrap();
    std::fs::create_dir(&theirs).unwrap();
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
    for (name, text) in [
        ("passwd", "SECRET:x:0:0\n"),
        ("key.xml", "<SECRET>\n</key>"),
        ("attribute.xml", "<r><log name='a' colour='SECRET'/></r>"),
        ("key.toml", "SECRET\n"),
        ("twice.toml", "SECRET = 1\nSECRET = 2\n"),
    ] {
        write(theirs.join(name), text);
    }
    write(ours.join("passwd"), "SECRET:x:0:0\n");
    std::os::unix::fs::symlink(theirs.join("key.xml"), ours.join("link.xml")).unwrap();
    let elsewhere = ["passwd", "key.xml", "attribute.xml", "key.toml", "twice.toml"];
    let files =
        elsewhere.iter().map(|name| theirs.join(name)).chain([ours.join("passwd"), ours.join("link.xml")]);
    for file in files {
        for snippet in ["", "snippet='on'"] {
            let text = format!("<app><logs><include file='{}' {snippet}/></logs></app>", file.display());
            write(ours.join("app.xml"), &text);
            let error = Config::from_file(ours.join("app.xml")).unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
            assert!(error.starts_with(&file.display().to_string()), "{error}");
        }
    }
    let error = Config::from_file(ours.join("passwd")).unwrap_err().to_string();
    assert!(!error.contains("SECRET") && error.contains("it is not a configuration"), "{error}");
    // The name of the main file does not make it a configuration.
    for (name, text) in [
        ("users.xml", "<users><user password='SECRET'></users>"),
        ("users.xml", "<users><user password='SECRET'/></users>"),
        ("users.xml", "<!DOCTYPE SECRET>"),
        ("link.toml", "SECRET:x:0:0\n"),
        ("link.toml", "PASSWORD=SECRET\n"),
        ("link.toml", "log:SECRET:0:0\nlogger = 1\nSECRET"),
        ("link.toml", "[db]\npassword = 'SECRET'\n"),
        ("link.toml", "[db]\npassword = 'SECRET'\npassword = 'x'\n"),
    ] {
        write(ours.join("main"), text);
        let _ = std::fs::remove_file(ours.join(name));
        std::os::unix::fs::symlink("main", ours.join(name)).unwrap();
        let reported = match Config::from_file(ours.join(name)) {
            Ok(config) => config.warnings().iter().map(|warning| format!("{warning}\n")).collect(),
            Err(e) => e.to_string(),
        };
        assert!(!reported.is_empty() && !reported.contains("SECRET"), "{text}: {reported}");
    }
    // A configuration with mistakes is quoted.
    for (name, text) in [
        ("own.xml", "<app><Log name='MINE'/></app>"),
        ("own.xml", "<app><logs><x a='MINE'></logs></app>"),
        ("own.toml", "MINE\n[[log]]\n"),
        ("own.toml", "log = [{ name = 'a', colour = 'MINE' }]\n"),
        ("own.toml", "[log.config]\n MINE\n"),
    ] {
        write(ours.join(name), text);
        let reported = match Config::from_file(ours.join(name)) {
            Ok(config) => config.warnings().iter().map(|warning| format!("{warning}\n")).collect(),
            Err(e) => e.to_string(),
        };
        assert!(reported.contains("MINE"), "{text}: {reported}");
    }
    // Neither does an error about files next to the configuration: not even names, unless they have
    // streams.
    for (n, text) in [
        "<SECRET>\n",
        "SECRET = 1",
        "password = SECRET",
        "[db]\npassword = 'SECRET'",
        "[SECRET]\npassword = 'x'",
        "SECRET = ['a']",
        "format = 'SECRET'",
        "mode = 'SECRET'",
        "<r><SECRET a='1'/></r>",
        "<r><log name='a' format='SECRET'/></r>",
        "<r><include file='SECRET'/></r>",
        "include = 'SECRET'",
        "<log name='a' max_line='SECRET'/>",
    ]
    .into_iter()
    .enumerate()
    {
        for extension in ["xml", "toml", "conf"] {
            let name = format!("part{n}.{extension}");
            write(ours.join(&name), text);
            for (main, including) in [
                (
                    "app.xml",
                    format!("<a><logs><include file='{name}'/><log name='m' type='memory'/></logs></a>"),
                ),
                (
                    "app.xml",
                    format!("<a><logs><include file='{name}' snippet='on'/><log name='m'/></logs></a>"),
                ),
                ("app.toml", format!("include = '{name}'\n[[log]]\nname = 'm'\n")),
            ] {
                write(ours.join(main), &including);
                let reported = match Config::from_file(ours.join(main)) {
                    Ok(config) => config.warnings().iter().map(|warning| format!("{warning}\n")).collect(),
                    Err(e) => e.to_string(),
                };
                assert!(!reported.contains("SECRET"), "{text}: {reported}");
            }
        }
    }
    // The text of a part of the configuration is not shown either, but the mistake is named.
    write(ours.join("below/part.xml"), "<r><log name='a' colour='SECRET'/></r>");
    write(ours.join("app.xml"), "<app><logs><include file='below/part.xml'/></logs></app>");
    let error = Config::from_file(ours.join("app.xml")).unwrap_err();
    assert!(error.message.starts_with("unknown attribute \"colour\" on <log>: expected one of"), "{error}");
    assert_eq!((error.line, error.column, &*error.text), (1, 26, ""));
    let error = Config::from_file(ours.join("below/part.xml")).unwrap();
    assert!(error.warnings()[0].to_string().contains("\n  <r><log name='a' colour='SECRET'/></r>\n"));
}

#[test]
fn users_and_groups_that_are_not_there_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log").display().to_string();
    let missing = |more: &str| {
        let config = logs(&format!("<log name='a' type='file' path='{path}' {more}/>")).unwrap();
        config.missing().into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!(missing("owner='0' group='root'"), [""; 0]);
    assert_eq!(
        missing("owner='nosuch'"),
        ["there is no user \"nosuch\", which the log \"a\" is to belong to"]
    );
    assert_eq!(
        missing("group='nosuch'"),
        ["there is no group \"nosuch\", which the log \"a\" is to belong to"]
    );
    assert_eq!(missing("owner='nosuch' group='nor'").len(), 2);
}

#[test]
fn an_error_shows_a_long_line_in_part() {
    let long = format!("<log name='a' path='{}' tpye='x' mode='{}'/>", "é".repeat(5000), "y".repeat(5000));
    let shown = logs(&long).unwrap_err().to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 300), "{shown}");
    let column = lines[2].find('^').unwrap();
    assert!(lines[1].chars().skip(column).collect::<String>().starts_with("x' mode="), "{shown}");
    assert!(lines[1].trim().starts_with('…') && lines[1].ends_with('…'), "{shown}");
}

#[test]
fn missing_directories_are_found_and_made_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let at = dir.path().display();
    let text = format!(
        "<log name='a' type='file' path='{at}/none/a.log'/><log name='b' type='file_synch' path='{at}/none/b.log'/>
         <log name='c' type='jlog' path='{at}/nor/this/feed(x)'/><log name='d' type='file' path='{at}/d.log'/>
         <log name='e' type='memory'/>"
    );
    let config = logs(&text).unwrap();
    let missing: Vec<String> = config.missing().into_iter().map(|w| w.message).collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing[0].starts_with(&format!("the directory {at}/none of the log \"a\" is missing")),
        "{missing:?}"
    );
    assert!(
        missing[1].starts_with(&format!("the directory {at}/nor/this of the log \"c\" is missing")),
        "{missing:?}"
    );
    let graph = Graph::new();
    config.apply(&graph).unwrap_err();
    let making = logs(&format!("<g make_dirs='on'>{text}</g>")).unwrap();
    assert_eq!(making.missing(), []);
    assert!(!dir.path().join("none").exists(), "a check makes nothing");
    making.apply(&graph).unwrap();
    crate::log!(graph.find("a").unwrap(), "a line");
    assert_eq!(std::fs::read_to_string(dir.path().join("none/a.log")).unwrap(), "a line\n");
    assert!(dir.path().join("nor/this/feed/metastore").exists());
    // If a file is in the way, no directory can be made.
    let blocked =
        logs(&format!("<log name='a' make_dirs='on' type='file' path='{at}/file/x/a.log'/>")).unwrap();
    assert_eq!(blocked.missing().len(), 1);
}

/// The processor time of this thread, which does not depend on what else the machine does.
fn processor_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap()
}

/// The least time that the work takes, because other load only makes it slower.
fn least_nanos(work: impl Fn()) -> u64 {
    let once = |_| {
        let begun = processor_nanos();
        work();
        processor_nanos() - begun
    };
    (0..3).map(once).min().unwrap()
}

/// The time per stream must not grow with the number of streams.
#[test]
fn time_grows_with_the_number_of_streams_only() {
    let text = |n: usize| {
        let log = |n| {
            format!("<log name='n{n}' type='file' path='/nowhere/{n}'><outlet name='nowhere{n}'/></log>\n")
        };
        format!(
            "<app><logs><outlet name='error' filter='n = 1'/>{}</logs></app>",
            (0..n).map(log).collect::<String>()
        )
    };
    let time = |n: usize| {
        let text = text(n);
        least_nanos(|| {
            let config = Config::from_text("app.xml", &text).unwrap();
            assert_eq!((config.streams().len(), config.warnings().len()), (n, n));
            assert_eq!(config.missing().len(), 1);
        })
    };
    let (few, many) = (time(1000), time(16_000));
    assert!(many < few * 16 * 4, "{few} ns for 1000 streams, {many} ns for 16,000");
}

/// The time per outlet must not grow with the number of a stream's outlets either. Too many of them
/// are refused as fast.
#[test]
fn time_grows_with_the_number_of_outlets_only() {
    let text = |n: usize| {
        let outlets: String = (0..n).map(|n| format!("<outlet name='s{n}'/>")).collect();
        format!("<app><logs><log name='hub'>{outlets}</log></logs></app>")
    };
    let (few, many) = (text(600), text(40_000));
    let few = least_nanos(|| {
        let config = Config::from_text("app.xml", &few).unwrap();
        config.apply(&Graph::new()).unwrap();
        assert_eq!((config.streams()[0].outlets.len(), config.warnings().len()), (600, 600));
    });
    let many = least_nanos(|| {
        let error = Config::from_text("app.xml", &many).unwrap_err();
        assert!(error.message.contains("take more than 10000 ways"), "{error}");
    });
    assert!(many < few * 67 * 4, "{few} ns for 600 outlets, {many} ns for 40,000");
}

/// Many warnings about one long line do not each keep the whole line.
#[test]
fn warnings_about_a_long_line_keep_what_they_show() {
    let outlets: String = (0..600).map(|n| format!("<outlet name='é{n}'/>")).collect();
    let config = logs(&format!("<log name='hub'>{outlets}</log>")).unwrap();
    for (n, warning) in config.warnings().iter().enumerate() {
        let kept = warning.text.chars().count();
        assert!(kept <= SHOWN + 1, "{}", warning.text);
        let shown = warning.to_string();
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        let at: String = lines[1].chars().skip(caret).collect();
        assert!(at.starts_with(&format!("<outlet name='é{n}'")), "{shown}");
    }
    assert_eq!(config.warnings().len(), 600);
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
        ("[http]\naddress = \"1\"\n[[http.log]]\nname = \"x\"\n", "[http] has nothing in it but attributes"),
    ] {
        let error = http("a.toml", text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    let twice = "<app><http address=\"1\"/><logs><http address=\"2\"/><log name=\"x\"/></logs></app>";
    let error = http("a.xml", twice).unwrap_err().to_string();
    assert!(error.contains("there is an <http> already"), "{error}");
}

#[test]
fn attributes_of_rotation_are_read_and_inherited() {
    use crate::{Compression, RotateAt};
    let config = logs(
        "<g type='file' rotate_at='daily' rotate_zone='Europe/Berlin' rotate_name='{name}-%F{ext}' compress='zstd'>
           <log name='a' path='/x/a.log'/>
           <log name='b' path='/x/b.log' rotate_at='off' compress='off' rotate_on_start='on' rotate_name='number'
                rotate_zone='local'/></g>",
    )
    .unwrap();
    let rotation = |n: usize| config.streams()[n].options.sink.as_ref().unwrap().rotation.clone();
    let expected = crate::Rotation {
        at: Some(RotateAt::Daily),
        zone: "Europe/Berlin".parse().unwrap(),
        name: "{name}-%F{ext}".parse().unwrap(),
        compress: Some(Compression::Zstd),
        ..crate::Rotation::default()
    };
    assert_eq!(rotation(0), expected);
    assert_eq!(
        rotation(0).to_string(),
        "rotates daily (Europe/Berlin) to {name}-%F{ext}, compresses with zstd"
    );
    let expected =
        crate::Rotation { on_start: true, name: "number".parse().unwrap(), ..crate::Rotation::default() };
    assert_eq!(rotation(1), expected);
    // A zone that nothing uses is reported, even the default.
    let [(.., reported)] = warnings(&config)[..] else { panic!("{:?}", config.warnings()) };
    assert_eq!(
        reported,
        "rotate_zone=\"local\" on <log> has no effect without rotate_at or a pattern in rotate_name"
    );
    let toml = Config::from_text(
        "app.toml",
        "[[log]]\nname = 'a'\ntype = 'file'\npath = 'a'\nrotate_at = 'hourly'\nrotate_on_start = true\n\
         retain_count = 1\nrotate_zone = 'utc'",
    )
    .unwrap();
    let rotation = &toml.streams()[0].options.sink.as_ref().unwrap().rotation;
    assert_eq!(rotation.to_string(), "rotates at the start, hourly (utc), keeps 1 file");
    assert_eq!(toml.warnings(), []);
}

#[test]
fn rotations_that_mean_nothing_are_refused() {
    for (attributes, expected) in [
        (
            "rotate_at='dialy'",
            "rotate_at=\"dialy\" on <log>: expected hourly, daily, weekly or monthly; did you mean daily?",
        ),
        (
            "rotate_zone='Europe/Berln'",
            "rotate_zone=\"Europe/Berln\" on <log>: expected local, utc, or a name of the time zone database such as \
             Europe/Berlin; did you mean Europe/Berlin?",
        ),
        ("compress='gzp'", "compress=\"gzp\" on <log>: expected gzip or zstd; did you mean gzip?"),
        ("rotate_on_start='yes'", "rotate_on_start=\"yes\" on <log>: expected on, off, true or false"),
        ("rotate_name='nubmer'", "such as {name}-%F{ext}; did you mean number?"),
        ("rotate_name='a-%Y-%D'", "in a pattern, not %D"),
        (
            "rotate_name='a-%H'",
            "expected the date, such as %F with %H: names of different times would be the same",
        ),
        ("rotate_name='%Y/a-%m'", "expected the directives in the name of the file, not in its directory"),
        ("rotate_names='number'", "did you mean rotate_name?"),
    ] {
        let error = logs(&format!("<log name='a' type='file' path='a' rotate_bytes='1MB' {attributes}/>"));
        let error = error.expect_err(attributes);
        assert!(error.message.contains(expected), "{attributes}: {error}");
    }
    let same = |name: &str, other: &str| {
        logs(&format!(
            "<g type='file' rotate_bytes='1MB'><log name='a' path='/x/a.log' rotate_name='{name}'/>
             <log name='b' path='/x/b.log' rotate_name='{other}' rotate_zone='Asia/Tokyo'/></g>"
        ))
    };
    let error = same("app-%F", "app-%F").unwrap_err().message;
    assert!(error.contains("rotated files of the log \"a\" would have the same names"), "{error}");
    assert!(same("{name}-%F", "{name}-%F").is_ok());
    assert!(same("app-%F", "app-%F.log").is_ok());
    assert!(same("number", "number").is_ok());
}

#[test]
fn rotations_that_are_of_no_use_are_warned_of() {
    let none = "has no effect without rotate_bytes, rotate_seconds, rotate_at or rotate_on_start";
    for (attributes, expected) in [
        ("compress='gzip'", Some(none)),
        ("rotate_name='number'", Some(none)),
        ("rotate_zone='utc'", Some(none)),
        ("retain_count='3'", Some(none)),
        ("compress='off' retain_count='0'", None),
        ("rotate_on_start='on' compress='gzip' retain_count='3'", None),
        ("rotate_at='daily' rotate_name='a-%Y-%m'", Some("expected a directive finer than %m")),
        ("rotate_at='hourly' rotate_name='a-%F'", Some("expected a directive finer than %d")),
        ("rotate_seconds='2h' rotate_name='a-%F'", Some("expected a directive finer than %d")),
        ("rotate_at='weekly' rotate_name='a-%Y-%m'", Some("expected a directive finer than %m")),
        ("rotate_at='weekly' rotate_name='a-%G-W%V'", None),
        ("rotate_at='monthly' rotate_name='a-%Y-%m'", None),
        ("rotate_at='daily' rotate_name='a-%Y%j' rotate_zone='utc'", None),
        ("rotate_at='daily' rotate_name='number'", None),
        ("rotate_bytes='1MB' rotate_name='a-%Y-%m'", None),
        ("rotate_bytes='1MB' rotate_zone='utc'", Some("without rotate_at or a pattern in rotate_name")),
    ] {
        let config = logs(&format!("<log name='a' type='file' path='a' {attributes}/>")).unwrap();
        match (&warnings(&config)[..], expected) {
            ([], None) => {}
            ([(.., reported)], Some(expected)) => {
                assert!(reported.contains(expected), "{attributes}: {reported}")
            }
            (reported, _) => panic!("{attributes}: {reported:?}"),
        }
    }
}

#[test]
fn the_directory_of_rotated_files_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log").display().to_string();
    let missing = |more: &str| {
        let config = logs(&format!(
            "<log name='a' type='file' path='{path}' rotate_at='daily' rotate_name='old/a-%F' {more}/>"
        ));
        config.unwrap().missing()
    };
    let [reported] = &missing("")[..] else { panic!("one is missing") };
    let expected =
        format!("the directory {}/old/ for rotated files of the log \"a\" is missing", dir.path().display());
    assert!(reported.message.contains(&expected), "{reported}");
    assert_eq!(missing("make_dirs='on'"), []);
    std::fs::create_dir(dir.path().join("old")).unwrap();
    assert_eq!(missing(""), []);
}

/// The error for a list in the wrong place suggests the name that it may have been meant for.
#[test]
fn a_list_of_a_mistyped_name_is_reported() {
    for text in ["[[log]]\nname = 'a'\noutlets = ['b']", "[[log]]\nname = 'a'\noutlets = []"] {
        let error = Config::from_text("c.toml", text).unwrap_err().to_string();
        assert!(
            error.contains("outlets: expected a string") && error.contains("did you mean outlet?"),
            "{error}"
        );
    }
    let text = "[[logs]]\nname = 'a'\ntype = 'memory'\n[[log]]\nname = 'b'\n";
    let config = Config::from_text("c.toml", text).unwrap();
    let expected = "[[logs]] only groups what is in it: did you mean log?";
    assert_eq!(warnings(&config), [(1, 1, expected)]);
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
    assert!(error.contains("has a metric of the name \"x\" already"), "{error}");
    let typo = logs(r#"<log name="a"><metrics name="x"/></log>"#).unwrap();
    assert!(typo.warnings()[0].message.contains("did you mean <metric>?"), "{:?}", typo.warnings());
}
