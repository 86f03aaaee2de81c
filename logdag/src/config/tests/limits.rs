//! Limits on what is read, and the time that it takes.

use super::*;

#[test]
fn what_is_too_deep_or_too_much_is_refused() {
    let deep = format!("{}<log name=\"a\"/>{}", "<g>".repeat(200), "</g>".repeat(200));
    assert!(logs(&deep).unwrap_err().message.contains("100 levels deep"));
    let deep = format!("[{}log]\nname = \"a\"", "g.".repeat(200));
    let error = Config::from_text("app.toml", &deep).unwrap_err();
    assert!(error.message.contains("deep") || error.message.contains("recursion"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.xml");
    std::fs::write(&path, vec![b' '; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
    let error = Config::from_file(&path).unwrap_err();
    assert!(error.message.contains("more than 16777216 bytes"), "{error}");
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
        assert!(error.message.contains("over more than 10000 paths"), "{error}");
    });
    assert!(many < few * 67 * 4, "{few} ns for 600 outlets, {many} ns for 40,000");
}
