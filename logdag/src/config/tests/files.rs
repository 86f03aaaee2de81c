//! Files and directories that a configuration names.

use super::*;

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
        (format!("type='jlog' path='{at}/file(x)'"), "file is not a directory: a jlog must be a directory"),
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
fn users_and_groups_that_are_not_there_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log").display().to_string();
    let missing = |more: &str| {
        let config = logs(&format!("<log name='a' type='file' path='{path}' {more}/>")).unwrap();
        config.missing().into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!(missing("owner='0' group='root'"), [""; 0]);
    assert_eq!(missing("owner='nosuch'"), ["there is no user \"nosuch\", which should own the log \"a\""]);
    assert_eq!(missing("group='nosuch'"), ["there is no group \"nosuch\", which should own the log \"a\""]);
    assert_eq!(missing("owner='nosuch' group='nor'").len(), 2);
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
