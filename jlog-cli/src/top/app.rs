//! The state of the display, and the effect of keys.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use jlog_watch::{FeedFigures, FeedState, Look, SubscriberState};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::Appearance;
use super::messages::Messages;
use crate::output::plain;
use crate::values::{counted, span};

/// How many samples the plots keep.
const REMEMBERED: usize = 120;
/// The longest search text.
const MAX_WANTED: usize = 200;

/// Which part is shown.
#[derive(Debug)]
pub(super) enum Screen {
    Feeds,
    /// The subscribers of the chosen feed.
    Subscribers,
    Messages(Messages),
}

/// The state of the display.
#[derive(Debug)]
pub(super) struct App {
    pub(super) appearance: Appearance,
    /// `None` before the first one.
    pub(super) look: Option<Look>,
    /// Lag in messages at each look, by feed (the maximum of its subscribers), and by feed and
    /// subscriber.
    history: HashMap<(String, Option<String>), VecDeque<u64>>,
    pub(super) screen: Screen,
    /// The name of the selected feed: its position may change.
    chosen: Option<String>,
    /// The first subscriber that is shown.
    pub(super) first: usize,
    pub(super) help: bool,
    /// The search text being typed.
    pub(super) prompt: Option<String>,
}

/// The subscriber of a feed that is furthest behind.
pub(super) fn furthest(figures: &FeedFigures) -> Option<&SubscriberState> {
    figures.subscribers.iter().max_by_key(|s| (!s.sound, s.lag, s.lag_messages))
}

impl App {
    pub(super) fn new(appearance: Appearance) -> Self {
        Self {
            appearance,
            look: None,
            history: HashMap::new(),
            screen: Screen::Feeds,
            chosen: None,
            first: 0,
            help: false,
            prompt: None,
        }
    }

    /// Takes the current state, with the worst feeds first.
    pub(super) fn take(&mut self, mut look: Look) {
        let rank = |feed: &FeedState| match &feed.figures {
            Err(_) => (2, Duration::MAX, u64::MAX),
            Ok(figures) => furthest(figures).map_or((0, Duration::ZERO, 0), |s| {
                (u8::from(!s.sound || s.lost > 0), s.lag, s.lag_messages)
            }),
        };
        look.feeds.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.name.cmp(&b.name)));
        let mut history = std::mem::take(&mut self.history);
        let mut remember = |key: (String, Option<String>), lag: u64| {
            let mut values = history.remove(&key).unwrap_or_default();
            if values.len() == REMEMBERED {
                values.pop_front();
            }
            values.push_back(lag);
            self.history.insert(key, values);
        };
        for feed in &look.feeds {
            let Ok(figures) = &feed.figures else { continue };
            let most = figures.subscribers.iter().map(|s| s.lag_messages).max();
            remember((feed.name.clone(), None), most.unwrap_or(0));
            for subscriber in &figures.subscribers {
                remember((feed.name.clone(), Some(subscriber.name.clone())), subscriber.lag_messages);
            }
        }
        self.look = Some(look);
    }

    /// Lag at each look so far.
    pub(super) fn history(&self, feed: &str, subscriber: Option<&str>) -> Vec<u64> {
        let key = (feed.to_owned(), subscriber.map(str::to_owned));
        self.history.get(&key).map(|values| values.iter().copied().collect()).unwrap_or_default()
    }

    pub(super) fn feeds(&self) -> &[FeedState] {
        self.look.as_ref().map_or(&[], |look| &look.feeds)
    }

    /// The position of the selected feed; that of the first if none is selected, or if the selected
    /// one is gone.
    pub(super) fn chosen_at(&self) -> usize {
        let at = |name: &String| self.feeds().iter().position(|feed| feed.name == *name);
        self.chosen.as_ref().and_then(at).unwrap_or(0)
    }

    pub(super) fn chosen(&self) -> Option<&FeedState> {
        self.feeds().get(self.chosen_at())
    }

    /// The worst finding, in a sentence, and whether it is a problem.
    pub(super) fn sentence(&self) -> (String, bool) {
        let Some(look) = &self.look else { return ("Looking…".to_owned(), false) };
        if let Some(worst) = look.problems.first() {
            let more = look.problems.len() - 1;
            let more = if more == 0 {
                String::new()
            } else {
                format!(" (and {} more)", counted(more as u64, "problem"))
            };
            let mut text = plain(worst);
            // Sentences begin with an upper-case letter, unless that changes a name.
            if let Some(first) = text.get(..1).map(str::to_ascii_uppercase) {
                text.replace_range(..1, &first);
            }
            return (text + &more, true);
        }
        let behind = look.feeds.iter().filter_map(|feed| {
            let subscriber = furthest(feed.figures.as_ref().ok()?)?;
            (subscriber.lag_messages > 0).then_some((feed, subscriber))
        });
        let text = match behind.max_by_key(|(feed, s)| (s.lag, s.lag_messages, Reverse(&feed.name))) {
            Some((feed, subscriber)) => format!(
                "No problem. Furthest behind: {} of {}, by {}, the oldest {} old.",
                plain(&subscriber.name),
                plain(&feed.name),
                counted(subscriber.lag_messages, "message"),
                span(subscriber.lag.as_secs()),
            ),
            None if look.feeds.is_empty() => "There is no feed here yet.".to_owned(),
            None => "No problem. Every subscriber has done everything.".to_owned(),
        };
        (text, false)
    }

    /// Whether messages have arrived since the last display.
    pub(super) fn has_news(&self) -> bool {
        matches!(&self.screen, Screen::Messages(messages) if messages.has_news())
    }

    /// Handles a key; breaks if the key ends the program.
    pub(super) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return ControlFlow::Break(());
        }
        if let Some(prompt) = &mut self.prompt {
            match key.code {
                KeyCode::Esc => self.prompt = None,
                KeyCode::Enter => {
                    let wanted = self.prompt.take().unwrap_or_default();
                    self.search(&wanted);
                }
                KeyCode::Backspace => {
                    prompt.pop();
                }
                KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => prompt.clear(),
                KeyCode::Char(c) if !c.is_control() && prompt.len() < MAX_WANTED => prompt.push(c),
                _ => {}
            }
            return ControlFlow::Continue(());
        }
        if std::mem::take(&mut self.help) {
            // Any key closes the help; this one also quits.
            return if key.code == KeyCode::Char('q') {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            };
        }
        match key.code {
            KeyCode::Char('q') => return ControlFlow::Break(()),
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') if self.chosen().is_some() => {
                let before = match &self.screen {
                    Screen::Messages(messages) => messages.wanted.clone(),
                    _ => String::new(),
                };
                self.prompt = Some(before);
            }
            KeyCode::Char('t') => self.follow(),
            KeyCode::Char(' ') => {
                if let Screen::Messages(messages) = &mut self.screen {
                    messages.pause();
                }
            }
            KeyCode::Enter if matches!(self.screen, Screen::Feeds) && self.chosen().is_some() => {
                // The feed that is shown stays selected.
                self.choose(0);
                self.first = 0;
                self.screen = Screen::Subscribers;
            }
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                self.screen = match self.screen {
                    Screen::Messages(_) => Screen::Subscribers,
                    _ => Screen::Feeds,
                };
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-10),
            KeyCode::PageDown => self.go(10),
            KeyCode::Home => self.go(isize::MIN / 2),
            KeyCode::End => self.go(isize::MAX / 2),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn go(&mut self, by: isize) {
        match self.screen {
            Screen::Feeds => self.choose(by),
            Screen::Subscribers => {
                let figures = self.chosen().and_then(|feed| feed.figures.as_ref().ok());
                let last = figures.map_or(0, |figures| figures.subscribers.len().saturating_sub(1));
                self.first = self.first.saturating_add_signed(by).min(last);
            }
            Screen::Messages(_) => {}
        }
    }

    fn choose(&mut self, by: isize) {
        let last = self.feeds().len().saturating_sub(1);
        let at = self.chosen_at().saturating_add_signed(by).min(last);
        self.chosen = self.feeds().get(at).map(|feed| feed.name.clone());
    }

    fn search(&mut self, wanted: &str) {
        let (feed, follows) = match (&self.screen, self.chosen()) {
            (Screen::Messages(messages), _) => (messages.feed.clone(), messages.follows),
            (_, Some(feed)) => (feed.path.clone(), false),
            (_, None) => return,
        };
        self.choose(0);
        self.screen = Screen::Messages(Messages::new(&feed, wanted, follows));
    }

    fn follow(&mut self) {
        let (feed, wanted) = match (&self.screen, self.chosen()) {
            (Screen::Messages(messages), _) => (messages.feed.clone(), messages.wanted.clone()),
            (_, Some(feed)) => (feed.path.clone(), String::new()),
            (_, None) => return,
        };
        self.choose(0);
        self.screen = Screen::Messages(Messages::new(&feed, &wanted, true));
    }
}
