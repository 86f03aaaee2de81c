//! Included files.

use super::*;

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
