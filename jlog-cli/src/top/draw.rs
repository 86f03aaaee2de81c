//! Drawing.

use std::time::Duration;

use jlog_core::AtLimit;
use jlog_watch::{FeedFigures, FeedState, SubscriberState};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::app::{App, Screen, furthest};
use super::messages::Messages;
use crate::output::plain;
use crate::values::{counted, grouped, human, span};

/// What the terminal can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appearance {
    pub(super) colours: bool,
    pub(super) unicode: bool,
}

impl Appearance {
    /// The appearance that the environment requests.
    pub(super) fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let language = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
        let language = language.to_ascii_lowercase();
        Self {
            colours: set("NO_COLOR").is_none(),
            unicode: language.contains("utf-8") || language.contains("utf8"),
        }
    }

    fn colour(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn warn(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The newest values as bars, as many as fit.
    fn bars(self, values: &[u64], width: usize) -> String {
        let steps: &[char] = if self.unicode {
            &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &['_', '.', '-', '=', '+', '*', '#']
        };
        let shown = &values[values.len().saturating_sub(width)..];
        let most = shown.iter().copied().max().unwrap_or(0).max(1);
        let step = |value: &u64| {
            let last = steps.len() as u64 - 1;
            let at = u128::from(*value) * u128::from(last);
            steps[usize::try_from(at.div_ceil(u128::from(most))).unwrap_or(0).min(steps.len() - 1)]
        };
        shown.iter().map(step).collect()
    }

    /// The end of a text, which is the part that distinguishes paths.
    fn end_of(self, text: &str, width: usize) -> String {
        let len = text.chars().count();
        if len <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        let rest: String = text.chars().skip(len - width.saturating_sub(1)).collect();
        format!("{mark}{rest}")
    }
}

/// A rate for people.
fn per_second(rate: Option<f64>) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are far below 2^63")]
    match rate.map(|rate| rate.max(0.0)) {
        None => String::new(),
        Some(rate) if rate > 0.0 && rate < 10.0 => format!("{rate:.1}"),
        Some(rate) => grouped(rate.round() as u64),
    }
}

fn time(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| span(time.as_secs()))
}

fn right(text: String) -> Cell<'static> {
    Cell::new(Text::from(text).alignment(Alignment::Right))
}

/// Lag in messages, bytes and time; empty if it is not known.
fn lag(subscriber: Option<&SubscriberState>) -> [String; 3] {
    match subscriber {
        None => Default::default(),
        Some(s) if !s.sound => ["?".to_owned(), String::new(), String::new()],
        Some(s) if s.lag_messages == 0 => ["0".to_owned(), String::new(), String::new()],
        Some(s) => [grouped(s.lag_messages), human(s.lag_bytes), span(s.lag.as_secs())],
    }
}

/// Feeds and subscribers have the same widths, so that their figures align.
const COLUMNS: [Constraint; 7] = [
    Constraint::Min(12),
    Constraint::Length(11),
    Constraint::Length(10),
    Constraint::Length(6),
    Constraint::Length(9),
    Constraint::Length(7),
    Constraint::Length(10),
];

impl App {
    /// Draws everything.
    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, problem, body, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Min(1),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        let subscribers: usize =
            self.feeds().iter().filter_map(|feed| Some(feed.figures.as_ref().ok()?.subscribers.len())).sum();
        let counts = format!(
            "{}, {}",
            counted(self.feeds().len() as u64, "feed"),
            counted(subscribers as u64, "subscriber")
        );
        let clock = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let bold = Style::new().add_modifier(Modifier::BOLD);
        frame.render_widget(Line::from(vec![Span::styled("jlog top  ", bold), Span::raw(counts)]), head);
        frame.render_widget(Line::from(clock).right_aligned(), head);
        let (sentence, is_problem) = self.sentence();
        let style = if is_problem { self.appearance.bad() } else { self.appearance.good() };
        frame.render_widget(Paragraph::new(sentence).style(style).wrap(Wrap { trim: true }), problem);
        match &self.screen {
            Screen::Feeds => self.draw_feeds(frame, body),
            Screen::Subscribers => self.draw_subscribers(frame, body),
            Screen::Messages(messages) => self.draw_messages(messages, frame, body),
        }
        self.draw_foot(frame, foot);
        if self.help {
            self.draw_help(frame);
        }
    }

    fn draw_foot(&self, frame: &mut Frame<'_>, area: Rect) {
        if let Some(prompt) = &self.prompt {
            let line = format!("search for: {}", plain(prompt));
            let at = u16::try_from(line.chars().count()).unwrap_or(u16::MAX);
            frame.render_widget(Line::from(line), area);
            frame.set_cursor_position((area.x + at.min(area.width.saturating_sub(1)), area.y));
            return;
        }
        let keys = match self.screen {
            Screen::Feeds => "Enter subscribers   / search   t follow   ? help   q quit",
            Screen::Subscribers => "Esc feeds   / search   t follow   ? help   q quit",
            Screen::Messages(_) => "Esc back   / search   t follow   Space pause   ? help   q quit",
        };
        frame.render_widget(Line::from(keys).style(self.appearance.faint()), area);
    }

    fn draw_help(&self, frame: &mut Frame<'_>) {
        let help = "\
            Up, Down, k, j    choose a feed, or scroll\n\
            Enter             show the feed's subscribers\n\
            /                 search the feed's newest messages for a text\n\
            t                 follow the feed's messages (those with the text)\n\
            Space             pause messages\n\
            Esc               go back\n\
            q, Ctrl-C         quit\n\
            \n\
            behind, bytes, oldest: what the slowest subscriber has not done\n\
            in/s, done/s: messages each second, over the last minute\n\
            done in: when the subscriber has caught up at these rates\n\
            full in: when the disk or the feed's limit is full";
        let lines = u16::try_from(help.lines().count()).unwrap_or(u16::MAX);
        let area = frame.area().centered(Constraint::Length(74), Constraint::Length(lines + 2));
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(help).block(Block::bordered().title(" Keys ")), area);
    }

    fn draw_feeds(&self, frame: &mut Frame<'_>, area: Rect) {
        let heading = ["feed", "behind", "bytes", "oldest", "in/s", "full in", "trend"];
        // The rest of the width is for names.
        let width = usize::from(area.width).saturating_sub(59).max(12);
        let rows = self.feeds().iter().map(|feed| {
            let name = self.appearance.end_of(&plain(&feed.name), width);
            match &feed.figures {
                Err(_) => Row::new([Cell::new(name), right("down".to_owned())]).style(self.appearance.bad()),
                Ok(figures) => self.feed_row(feed, figures, name),
            }
        });
        let table = Table::new(rows, COLUMNS)
            .header(self.heading(&heading))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::new();
        if !self.feeds().is_empty() {
            state.select(Some(self.chosen_at()));
        }
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn heading(&self, names: &[&'static str]) -> Row<'static> {
        let last = names.len() - 1;
        let cell = |(n, name): (usize, &&'static str)| match n {
            0 => Cell::new(*name),
            n if n == last => Cell::new(*name),
            _ => right((*name).to_owned()),
        };
        Row::new(names.iter().enumerate().map(cell)).style(Style::new().add_modifier(Modifier::UNDERLINED))
    }

    fn feed_row(&self, feed: &FeedState, figures: &FeedFigures, name: String) -> Row<'static> {
        let worst = furthest(figures);
        let [behind, bytes, oldest] = lag(worst);
        let bad = worst.is_some_and(|s| !s.sound || s.lost > 0);
        let soon = figures.full_in.filter(|time| time.as_secs() < 86_400);
        let row = Row::new([
            Cell::new(name),
            right(if worst.is_none() { "nobody".to_owned() } else { behind }),
            right(bytes),
            right(oldest),
            right(per_second(figures.messages_per_second)),
            right(time(soon)).style(self.appearance.warn()),
            Cell::new(self.appearance.bars(&self.history(&feed.name, None), 10)),
        ]);
        if bad { row.style(self.appearance.bad()) } else { row }
    }

    fn draw_subscribers(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(feed) = self.chosen() else {
            frame.render_widget(Paragraph::new("This feed is gone."), area);
            return;
        };
        let name = Line::from(self.appearance.end_of(&plain(&feed.name), area.width.into()))
            .style(Style::new().add_modifier(Modifier::BOLD));
        let figures = match &feed.figures {
            Ok(figures) => figures,
            Err(why) => {
                let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
                frame.render_widget(name, head);
                let why = Paragraph::new(plain(why)).style(self.appearance.bad()).wrap(Wrap { trim: true });
                frame.render_widget(why, body);
                return;
            }
        };
        let [head, body] = Layout::vertical([Constraint::Length(5), Constraint::Min(0)]).areas(area);
        let mut disk = format!("{} free on the disk", human(figures.disk_free));
        if let Some(max) = figures.max_bytes {
            let then = match figures.at_limit {
                AtLimit::Fail => "writing fails",
                AtLimit::DropOldest => "the oldest are dropped",
            };
            disk = format!("{disk}; limit {}, then {then}", human(max));
        }
        if let Some(time) = figures.full_in {
            disk = format!("{disk}; full in {}", span(time.as_secs()));
        }
        let lines = vec![
            name,
            Line::from(format!(
                "{} in {}, {}; the last is {}",
                counted(figures.messages, "message"),
                counted(figures.segments, "segment"),
                human(figures.bytes),
                figures.end
            )),
            Line::from(disk),
            Line::from(match per_second(figures.messages_per_second) {
                rate if rate.is_empty() => String::new(),
                rate => format!("{rate} messages/s come in"),
            }),
        ];
        frame.render_widget(Paragraph::new(lines), head);
        if figures.subscribers.is_empty() {
            frame.render_widget(Paragraph::new("No subscribers: everything is kept."), body);
            return;
        }
        let heading = ["subscriber", "behind", "bytes", "oldest", "done/s", "done in", "trend"];
        let width = usize::from(area.width).saturating_sub(59).max(12);
        let mut rows = Vec::new();
        for subscriber in figures.subscribers.iter().skip(self.first) {
            rows.push(self.subscriber_row(feed, subscriber, width));
            rows.extend(self.remark(subscriber));
        }
        frame.render_widget(Table::new(rows, COLUMNS).header(self.heading(&heading)), body);
    }

    fn subscriber_row(&self, feed: &FeedState, subscriber: &SubscriberState, width: usize) -> Row<'static> {
        let [behind, bytes, oldest] = lag(Some(subscriber));
        let catches_up = subscriber.catches_up_in.filter(|_| subscriber.lag_messages > 0);
        let history = self.history(&feed.name, Some(&subscriber.name));
        Row::new([
            Cell::new(self.appearance.end_of(&plain(&subscriber.name), width)),
            right(behind),
            right(bytes),
            right(oldest),
            right(per_second(subscriber.messages_per_second)),
            right(time(catches_up)),
            Cell::new(self.appearance.bars(&history, 10)),
        ])
    }

    /// Remarks about a subscriber besides its figures, in a separate row.
    fn remark(&self, subscriber: &SubscriberState) -> Option<Row<'static>> {
        let mut parts = Vec::new();
        match subscriber.checkpoint {
            None => parts.push("its checkpoint cannot be read".to_owned()),
            Some(id) if !subscriber.sound => parts.push(format!("its checkpoint {id} is past the end")),
            Some(_) => {}
        }
        if subscriber.lost > 0 {
            parts.push(format!("lost {}", counted(subscriber.lost, "message")));
        }
        let bad = !parts.is_empty();
        if subscriber.missed > 0 {
            parts.push(format!("missed {}", counted(subscriber.missed, "message")));
        }
        if subscriber.held > 0 {
            parts.push(format!("holds {}", human(subscriber.held)));
        }
        if parts.is_empty() {
            return None;
        }
        let cell = Cell::new(format!("  {}", parts.join(", "))).column_span(7);
        let style = if bad { self.appearance.bad() } else { self.appearance.faint() };
        Some(Row::new([cell]).style(style))
    }

    fn draw_messages(&self, messages: &Messages, frame: &mut Frame<'_>, area: Rect) {
        let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        let shown = messages.shown(body.height.into());
        let what = match (messages.wanted.is_empty(), messages.follows) {
            (true, _) => String::new(),
            (false, _) => format!(" with {:?}", messages.wanted),
        };
        let state = if shown.paused {
            "paused"
        } else if messages.follows && !shown.complete {
            "following"
        } else if shown.complete {
            "complete"
        } else {
            "searching"
        };
        let counts = if messages.wanted.is_empty() {
            String::new()
        } else {
            format!(": {} of the newest {}", grouped(shown.matched), counted(shown.looked_at, "message"))
        };
        let feed = self.appearance.end_of(&plain(&messages.feed.display().to_string()), 30);
        let line = format!("{feed}{what}{counts} ({state})");
        frame.render_widget(Line::from(line).style(Style::new().add_modifier(Modifier::BOLD)), head);
        let lines = shown.lines.iter().map(|line| {
            let text = if line.is_message {
                Span::raw(line.text.clone())
            } else {
                Span::styled(line.text.clone(), self.appearance.warn())
            };
            Line::from(vec![Span::styled(format!("{} ", line.time), self.appearance.faint()), text])
        });
        frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), body);
    }
}
