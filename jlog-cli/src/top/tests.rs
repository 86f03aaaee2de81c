//! The contents of the screen, on a simulated terminal.

use std::path::Path;
use std::time::Instant;

use jlog_core::compat::JlogCompat;
use jlog_core::{Jlog, LogId, Start};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Color;

use super::*;

/// Feeds in a temporary directory, and the display.
struct Shown {
    dir: tempfile::TempDir,
    app: App,
    terminal: Terminal<TestBackend>,
}

impl Shown {
    fn new(colours: bool) -> Self {
        let app = App::new(Appearance { colours, unicode: true });
        let terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), app, terminal }
    }

    /// A feed with these messages and a subscriber that has done the first.
    fn feed(&self, name: &str, messages: &[&str]) -> Jlog {
        let log = Jlog::create(self.dir.path().join(name)).unwrap();
        log.subscribe("billing", Start::Beginning).unwrap();
        log.writer().unwrap().append_batch(messages).unwrap();
        log.set_checkpoint("billing", LogId::new(0, 1)).unwrap();
        log
    }

    fn look(&mut self) {
        let observer = Watch::new().feeds(self.dir.path()).observer().unwrap();
        self.app.take(observer.look());
    }

    fn key(&mut self, code: KeyCode) -> bool {
        self.app.key(KeyEvent::new(code, KeyModifiers::NONE)).is_break()
    }

    fn type_text(&mut self, text: &str) {
        for c in text.chars() {
            self.key(KeyCode::Char(c));
        }
    }

    /// The lines of the screen.
    fn screen(&mut self) -> Vec<String> {
        self.terminal.draw(|frame| self.app.draw(frame)).unwrap();
        let buffer = self.terminal.backend().buffer();
        let row = |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..24).map(|y| row(y).trim_end().to_owned()).collect()
    }

    /// The screen once it has this text.
    fn until(&mut self, text: &str) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if screen.iter().any(|line| line.contains(text)) {
                return screen;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no {text:?} in {screen:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn feeds_come_with_the_worst_first() {
    let mut shown = Shown::new(true);
    assert!(shown.screen()[1].starts_with("Looking"));
    shown.look();
    assert!(shown.screen()[1].starts_with("There is no feed here yet."));
    shown.feed("a-done", &["one"]);
    shown.feed("b-behind", &["one", "two", "three"]);
    std::fs::create_dir(shown.dir.path().join("c-broken")).unwrap();
    std::fs::write(shown.dir.path().join("c-broken/metastore"), "x").unwrap();
    shown.look();
    let screen = shown.screen();
    assert!(screen[0].starts_with("jlog top  3 feeds, 2 subscribers"), "{screen:#?}");
    assert!(screen[1].contains("c-broken"), "{screen:#?}");
    assert_eq!(words(&screen[3]), ["feed", "behind", "bytes", "oldest", "in/s", "full", "in", "trend"]);
    assert!(screen[4].contains("c-broken") && screen[4].contains("down"), "{screen:#?}");
    assert!(screen[5].contains("b-behind"), "{screen:#?}");
    assert_eq!(words(&screen[5])[1], "2");
    assert!(screen[5].ends_with('█'), "{screen:#?}");
    assert_eq!(words(&screen[6])[1..], ["0", "▁"]);
    let buffer = shown.terminal.backend().buffer();
    assert!(buffer.content.iter().any(|cell| cell.fg == Color::Red));
    std::fs::remove_dir_all(shown.dir.path().join("c-broken")).unwrap();
    shown.look();
    let sentence = shown.screen()[1..3].join(" ");
    assert!(sentence.contains("No problem. Furthest behind: billing of"), "{sentence}");
    assert!(sentence.contains("by 2 messages, the oldest"), "{sentence}");
}

#[test]
fn without_colours_there_are_none() {
    let mut shown = Shown::new(false);
    shown.feed("a", &["one", "two"]);
    shown.look();
    shown.screen();
    let buffer = shown.terminal.backend().buffer();
    assert!(buffer.content.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
}

#[test]
fn subscribers_of_the_chosen_feed() {
    let mut shown = Shown::new(true);
    shown.feed("a", &["one", "two"]);
    let log = shown.feed("b", &["one"]);
    log.subscribe("audit\x1b[31m", Start::Beginning).unwrap();
    log.store_checkpoint("lost", LogId::new(9, 1)).unwrap();
    shown.look();
    // The damaged feed is first.
    assert!(shown.screen()[1..3].join(" ").contains("checkpoint 00000009:00000001 is past the end"));
    shown.key(KeyCode::Down);
    shown.key(KeyCode::Up);
    shown.key(KeyCode::Enter);
    let screen = shown.screen();
    assert!(screen[3].ends_with("/b"), "{screen:#?}");
    assert!(screen[4].starts_with("1 message in 1 segment, "), "{screen:#?}");
    assert!(screen[4].ends_with("the last is 00000000:00000001"), "{screen:#?}");
    assert_eq!(words(&screen[8])[..2], ["subscriber", "behind"]);
    assert_eq!(words(&screen[9])[..2], ["audit\\u{1b}[31m", "1"]);
    assert_eq!(words(&screen[10])[..2], ["billing", "0"]);
    assert_eq!(words(&screen[11])[..2], ["lost", "?"]);
    assert!(screen[12].contains("its checkpoint 00000009:00000001 is past the end"), "{screen:#?}");
    shown.key(KeyCode::Down);
    assert!(shown.screen()[9].starts_with("billing"));
    shown.key(KeyCode::Esc);
    assert!(shown.screen()[3].starts_with("feed"));
}

#[test]
fn messages_are_searched_and_followed() {
    let mut shown = Shown::new(true);
    let log = shown.feed("a", &["one \x1b[2J\u{9b}31m", "GET /index", "get /other", "four\nlines"]);
    shown.look();
    shown.key(KeyCode::Char('/'));
    shown.type_text("getx");
    shown.key(KeyCode::Backspace);
    assert!(shown.screen()[23].starts_with("search for: get"));
    shown.key(KeyCode::Enter);
    let screen = shown.until("(complete)");
    assert!(screen[3].contains("with \"get\": 2 of the newest 4 messages (complete)"), "{screen:#?}");
    assert!(screen[4].ends_with(" GET /index") && screen[5].ends_with(" get /other"), "{screen:#?}");
    assert_eq!(screen[6], "");
    // An upper-case letter in the search text makes the case matter.
    shown.key(KeyCode::Char('/'));
    for _ in 0..3 {
        shown.key(KeyCode::Backspace);
    }
    shown.type_text("GET");
    shown.key(KeyCode::Enter);
    shown.until("\"GET\": 1 of the newest 4 messages (complete)");
    shown.key(KeyCode::Esc);
    shown.key(KeyCode::Char('t'));
    let screen = shown.until("four\\nlines");
    assert!(screen[3].ends_with("(following)"), "{screen:#?}");
    assert!(screen[4].ends_with(" one \\u{1b}[2J\\u{9b}31m"), "{screen:#?}");
    log.writer().unwrap().append(b"five").unwrap();
    shown.until(" five");
    shown.key(KeyCode::Char(' '));
    log.writer().unwrap().append(b"six").unwrap();
    let screen = shown.until("(paused)");
    assert!(!screen.iter().any(|line| line.ends_with(" six")), "{screen:#?}");
    shown.key(KeyCode::Char(' '));
    shown.until(" six");
    // A removed feed is reported.
    std::fs::remove_dir_all(shown.dir.path().join("a")).unwrap();
    let screen = shown.until("(complete)");
    assert!(
        screen.iter().any(|line| line.contains(&*shown.dir.path().join("a").to_string_lossy())),
        "{screen:#?}"
    );
    assert!(!Path::new(&shown.dir.path().join("a")).exists());
}

#[test]
fn keys_that_help_and_quit() {
    let mut shown = Shown::new(true);
    shown.look();
    // There is nothing to open.
    for code in [KeyCode::Enter, KeyCode::Char('/'), KeyCode::Char('t'), KeyCode::Char(' '), KeyCode::End] {
        assert!(!shown.key(code));
    }
    shown.key(KeyCode::Char('?'));
    let screen = shown.screen();
    assert!(screen.iter().any(|line| line.contains("Ctrl-C") && line.contains("quit")), "{screen:#?}");
    assert!(!shown.key(KeyCode::Char('x')));
    assert!(shown.screen()[23].starts_with("Enter subscribers"));
    assert!(shown.key(KeyCode::Char('q')));
    assert!(shown.app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)).is_break());
}
