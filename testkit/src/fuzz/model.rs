//! One configuration in both languages: both must be read as the same.

use logdag::config::{Config, ConfigError};
use logdag::{Filter, Graph};

use super::Input;
use super::config::{ATTRIBUTES, NAMES, TOML, XML, apply, check_error};

const GROUPS: [&str; 6] = ["g", "log", "log", "h", "log", "\u{e4}-1"];
/// Names that XML and TOML write differently.
const MORE_NAMES: [&str; 6] = ["\"", "it's", "<&>", "\\\\", "a\nb", "ENV:a:{LOGDAG_NOT_THERE}"];
const FILTERS: [&str; 10] = [
    "a = 1",
    "message ~ '\\\\d' x",
    "\u{e4} = '\u{e4}' \u{e4}",
    "and(line > 1,\n exists(b)) & c",
    "b = \"x\" and",
    "not(\t\"a\" < 1)",
    "\n\na <> 'x'",
    "a = 'x' '",
    "",
    "ENV:line = 1:{LOGDAG_NOT_THERE}",
];
const MORE_VALUES: [(&str, &[&str]); 9] = [
    ("max_line", &["0", "1", "65536", "9223372036854775807", "9223372036854775808"]),
    ("queue_bytes", &["1", "-1", "00", "+7"]),
    ("latest", &["/nowhere/at.all/\u{1f600}", "\\", "'''", "\"\"\""]),
    ("retain_seconds", &["5", "1.5", "1e3", "0x10"]),
    ("retain_count", &["3", "true"]),
    ("rotate_bytes", &["102400", "102399", "18446744073709551615"]),
    ("format", &["flatbuffer", "FLATBUFFER"]),
    ("path", &["a\\b\n", "\u{e4}\t\"'", "1979-05-27", "nan", "0b11"]),
    ("colour", &["red"]),
];
const CONFIG_VALUES: [&str; 8] = ["5", "true", "<a>", "ENV:x:{LOGDAG_NOT_THERE}", "", "-1", "\\n", "a\nb"];
const IDS: [&str; 4] = ["a", "b", "\u{e4}", "ENV:a:{LOGDAG_NOT_THERE}"];
const NODES: usize = 30;
const DEPTH: usize = 6;

#[derive(Debug, Default)]
struct Group {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    outlets: Vec<Outlet>,
    configs: Vec<Settings>,
    children: Vec<Group>,
}

#[derive(Debug)]
struct Outlet {
    name: String,
    filter: Option<&'static str>,
}

#[derive(Debug)]
struct Settings {
    /// `id` and `inherit`.
    attributes: Vec<(&'static str, &'static str)>,
    values: Vec<(&'static str, &'static str)>,
}

/// A model that the bytes describe, in XML and in TOML.
pub(super) fn both(data: &[u8]) {
    let mut input = Input(data);
    let mut dice = Dice(u64::from(input.byte()));
    let mut nodes = 0;
    let mut root = group(&mut input, "logs", 0, &mut nodes);
    if root.attributes.iter().all(|(key, _)| *key != "escape") {
        // The two languages have different defaults.
        root.attributes.push(("escape", "off".to_owned()));
    }
    let (mut xml, mut toml) = (Writer::default(), Writer::default());
    xml.text.push_str("<app>");
    xml.element(&root, &mut dice);
    xml.text.push_str("</app>\n");
    toml.table(&root, "", &mut dice);
    let texts = format!("{}\n{}", xml.text, toml.text);
    let read = (Config::from_text(XML, &xml.text), Config::from_text(TOML, &toml.text));
    match read {
        (Ok(a), Ok(b)) => {
            assert_eq!(gist(&a), gist(&b), "{texts}");
            let types = [&a, &b].map(|config| config.check_types(&Graph::new()).map_err(|e| e.message));
            assert_eq!(types[0], types[1], "{texts}");
            apply(&texts, &b);
        }
        (Err(a), Err(b)) => {
            check_error(XML, &xml.text, &a);
            check_error(TOML, &toml.text, &b);
            // TOML has the attributes in another order, so another unknown one may come first. An
            // error that XML tolerates may also come before the one that both report.
            assert!(what_is_wrong(&a) == what_is_wrong(&b) || is_unknown(&b), "{a}\n{b}\n{texts}");
            xml.check_place(&a);
            toml.check_place(&b);
        }
        // What libmtev tolerates in XML is an error in TOML, and a warning in XML.
        (Ok(a), Err(b)) if is_unknown(&b) && a.warnings().iter().any(is_unknown) => {
            check_error(TOML, &toml.text, &b);
            toml.check_place(&b);
        }
        (Ok(_), Err(e)) | (Err(e), Ok(_)) => panic!("only here: {e}\n{texts}"),
    }
}

/// Whether an attribute or key is unknown, or has no meaning in its place.
fn is_unknown(error: &ConfigError) -> bool {
    ["unknown ", "no effect"].iter().any(|part| error.message.contains(part))
}

/// The error, without the attribute or key and its place, which the two languages write
/// differently.
fn what_is_wrong(error: &ConfigError) -> &str {
    let place = [" on <", " in the top level: ", " in ["].iter().find_map(|place| error.message.find(place));
    match place.and_then(|at| error.message[at..].split_once(": ")) {
        Some((_, what)) => what,
        None => &error.message,
    }
}

/// Everything visible of a configuration.
fn gist(config: &Config) -> Vec<String> {
    let one = |stream: &logdag::StreamConfig| {
        let outlets: Vec<_> =
            stream.outlets.iter().map(|(to, filter)| (to, filter.as_ref().map(|f| f.text()))).collect();
        format!("{} {:?} {outlets:?}", stream.name, stream.options)
    };
    config.streams().iter().map(one).collect()
}

fn group(input: &mut Input<'_>, name: &'static str, depth: usize, nodes: &mut usize) -> Group {
    *nodes += 1;
    let mut group = Group { name, ..Group::default() };
    if name == "log" && input.below(16) > 0 {
        group.attributes.push(("name", stream(input)));
    }
    for _ in 0..input.below(4) {
        let n = input.below(ATTRIBUTES.len() + MORE_VALUES.len());
        let (key, values) = ATTRIBUTES.get(n).unwrap_or_else(|| &MORE_VALUES[n - ATTRIBUTES.len()]);
        let value = values[input.below(values.len())].replace("&lt;", "<").replace("&gt;", ">");
        if group.attributes.iter().all(|(known, _)| known != key) {
            group.attributes.push((key, value));
        }
    }
    for _ in 0..input.below(6).saturating_sub(2) {
        let name = stream(input);
        let filter = (input.below(2) == 0).then(|| FILTERS[input.below(FILTERS.len())]);
        group.outlets.push(Outlet { name, filter });
    }
    for _ in 0..input.below(6).saturating_sub(3) {
        let mut settings = Settings { attributes: Vec::new(), values: Vec::new() };
        let which = input.byte();
        for (bit, key) in [(1, "id"), (2, "inherit")] {
            if which & bit > 0 {
                settings.attributes.push((key, IDS[input.below(IDS.len())]));
            }
        }
        for (bit, key) in [(4, "x"), (8, "segment_size"), (16, "precommit")] {
            if which & bit > 0 {
                settings.values.push((key, CONFIG_VALUES[input.below(CONFIG_VALUES.len())]));
            }
        }
        group.configs.push(settings);
    }
    while depth < DEPTH && *nodes < NODES && !input.0.is_empty() && input.below(3) > 0 {
        let name = GROUPS[input.below(GROUPS.len())];
        group.children.push(self::group(input, name, depth + 1, nodes));
    }
    group
}

fn stream(input: &mut Input<'_>) -> String {
    let n = input.below(2 * NAMES.len() + MORE_NAMES.len());
    let name = NAMES.iter().chain(&NAMES).chain(&MORE_NAMES).nth(n).unwrap();
    // So that fewer streams have the same name.
    if n >= NAMES.len() || input.below(2) == 0 {
        (*name).to_owned()
    } else {
        format!("{name}{}", input.byte())
    }
}

/// Chooses among the ways to write the same thing.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A document, and the places of the characters of its filters.
#[derive(Default)]
struct Writer {
    text: String,
    filters: Vec<Written>,
}

struct Written {
    text: String,
    /// Where each character is, and the end.
    offsets: Vec<usize>,
    exact: bool,
}

impl Writer {
    fn check_place(&self, e: &ConfigError) {
        let Some(rest) = e.message.strip_prefix("the filter, at column ") else { return };
        let column: usize = rest.split(':').next().unwrap().parse().unwrap();
        let place = |offset: usize| {
            let before = &self.text[..offset];
            let line = before.rsplit('\n').next().unwrap();
            (before.matches('\n').count() + 1, line.chars().count() + 1)
        };
        let known = |written: &Written| {
            !written.exact
                || written
                    .offsets
                    .get(column - 1)
                    .is_some_and(|at| place(*at) == (e.line as usize, e.column as usize))
        };
        let wrong = |written: &&Written| Filter::parse(&written.text).is_err_and(|e| e.column == column);
        let at_one = self.filters.iter().filter(wrong).any(known);
        assert!(at_one, "that is not the place:\n{e}\n{}", self.text);
    }

    fn element(&mut self, group: &Group, dice: &mut Dice) {
        self.text.push_str(&format!("<{}", group.name));
        for (key, value) in &group.attributes {
            self.attribute(key, value, dice);
        }
        self.text.push('>');
        for Outlet { name, filter } in &group.outlets {
            self.text.push_str("<outlet");
            self.attribute("name", name, dice);
            if let Some(filter) = filter {
                let written = self.attribute("filter", filter, dice);
                self.filters.push(written);
            }
            self.text.push_str("/>");
        }
        for Settings { attributes, values } in &group.configs {
            self.text.push_str("<config");
            for (key, value) in attributes {
                self.attribute(key, value, dice);
            }
            self.text.push('>');
            for (key, value) in values {
                let value = value.replace('&', "&amp;").replace('<', "&lt;");
                self.text.push_str(&format!("<{key}>{value}</{key}>"));
            }
            self.text.push_str("</config>");
        }
        for child in &group.children {
            if dice.below(2) == 0 {
                self.text.push_str("\n  ");
            }
            self.element(child, dice);
        }
        self.text.push_str(&format!("</{}>", group.name));
    }

    fn attribute(&mut self, key: &str, value: &str, dice: &mut Dice) -> Written {
        let quote = ['"', '\''][usize::from(dice.below(2) == 0)];
        self.text.push_str(&format!(" {key}={quote}"));
        let mut offsets = Vec::new();
        for c in value.chars() {
            offsets.push(self.text.len());
            if c.is_control() || c == quote || matches!(c, '<' | '&') || dice.below(16) == 0 {
                self.text.push_str(&format!("&#{};", u32::from(c)));
            } else {
                self.text.push(c);
            }
        }
        offsets.push(self.text.len());
        self.text.push(quote);
        Written { text: value.to_owned(), offsets, exact: true }
    }

    /// Writes a table's keys, and its tables below their headers.
    fn table(&mut self, group: &Group, path: &str, dice: &mut Dice) {
        let path_of = |name: &str| if path.is_empty() { key(name) } else { format!("{path}.{}", key(name)) };
        // As inline tables, if the order allows that.
        let inline =
            if dice.below(3) == 0 && can_be_inline(&group.children) { group.children.len() } else { 0 };
        // Of two configs with the same id the last counts, so they stay before the children.
        let headers = inline == 0 && dice.below(2) == 0;
        for entry in self.entries(group, inline, headers, dice) {
            self.entry(&entry, dice);
            self.text.push('\n');
        }
        if headers {
            for outlet in &group.outlets {
                self.text.push_str(&format!("[[{}]]\n", path_of("outlet")));
                for entry in outlet.entries() {
                    self.entry(&entry, dice);
                    self.text.push('\n');
                }
            }
            for settings in &group.configs {
                self.text.push_str(&format!("[[{}]]\n", path_of("config")));
                for entry in settings.entries() {
                    self.entry(&entry, dice);
                    self.text.push_str(" # ]\n");
                }
            }
        }
        for child in &group.children[inline..] {
            let alone = group.children.iter().filter(|other| other.name == child.name).count() == 1;
            let path = path_of(child.name);
            match dice.below(2) {
                0 if alone => self.text.push_str(&format!("[{path}]\n")),
                _ => self.text.push_str(&format!("[[{path}]]\n")),
            }
            self.table(child, &path, dice);
        }
    }

    fn entries<'a>(&self, group: &'a Group, inline: usize, headers: bool, dice: &mut Dice) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> =
            group.attributes.iter().map(|(key, value)| (*key, Node::Text(value))).collect();
        if !headers && !group.outlets.is_empty() {
            let outlets = group.outlets.iter().map(|outlet| match outlet.filter {
                None if dice.below(2) == 0 => Node::Text(&outlet.name),
                _ => Node::Table(outlet.entries()),
            });
            entries.push(("outlet", Node::List(outlets.collect())));
        }
        if !headers && !group.configs.is_empty() {
            let configs = group.configs.iter().map(|settings| Node::Table(settings.entries()));
            entries.push(("config", Node::List(configs.collect())));
        }
        // Keys can come in any order.
        if entries.len() > 1 && dice.below(2) == 0 {
            entries.rotate_left(1);
        }
        for child in &group.children[..inline] {
            let node = Node::Table(self.entries(child, child.children.len(), false, dice));
            match entries.last_mut() {
                Some((name, Node::List(list))) if *name == child.name => list.push(node),
                _ => entries.push((child.name, Node::List(vec![node]))),
            }
        }
        entries
    }

    fn entry(&mut self, (name, node): &Entry<'_>, dice: &mut Dice) {
        match node {
            Node::List(list) => match &list[..] {
                // One dotted key for each.
                [Node::Table(entries)] if !entries.is_empty() && dice.below(3) == 0 && self.at_line() => {
                    for (n, (below, node)) in entries.iter().enumerate() {
                        self.text.push_str(if n > 0 { "\n" } else { "" });
                        self.text.push_str(&format!("{}.{} = ", key(name), key(below)));
                        self.node(below, node, dice);
                    }
                    return;
                }
                [one] if dice.below(2) == 0 => {
                    self.text.push_str(&format!("{} = ", key(name)));
                    self.node(name, one, dice);
                    return;
                }
                _ => self.text.push_str(&format!("{} = ", key(name))),
            },
            _ => self.text.push_str(&format!("{} = ", key(name))),
        }
        self.node(name, node, dice);
    }

    fn at_line(&self) -> bool {
        self.text.is_empty() || self.text.ends_with('\n')
    }

    fn node(&mut self, name: &str, node: &Node<'_>, dice: &mut Dice) {
        match node {
            Node::Text(value) => {
                let written = self.value(value, dice);
                if name == "filter" {
                    self.filters.push(written);
                }
            }
            Node::List(list) => {
                self.text.push('[');
                for node in list {
                    self.text.push_str(["", " ", "\n  ", " # ]\n"][usize::try_from(dice.below(4)).unwrap()]);
                    self.node(name, node, dice);
                    self.text.push(',');
                }
                self.text.push(']');
            }
            Node::Table(entries) => {
                self.text.push_str("{ ");
                for (n, entry) in entries.iter().enumerate() {
                    self.text.push_str(if n > 0 { ", " } else { "" });
                    self.entry(entry, dice);
                }
                self.text.push_str(" }");
            }
        }
    }

    fn value(&mut self, value: &str, dice: &mut Dice) -> Written {
        if dice.below(2) == 0
            && let Some(bare) = bare(value, dice)
        {
            let at = self.text.len();
            self.text.push_str(&bare);
            return Written { text: value.to_owned(), offsets: vec![at; value.len() + 1], exact: false };
        }
        let controls = value.contains(|c: char| c.is_control() && c != '\t');
        let (open, close) = match dice.below(5) {
            1 if !value.contains('\'') && !controls => ("'", "'"),
            // TOML ignores a line end right after the quotes.
            2 if !value.starts_with('\n') => ("\"\"\"", "\"\"\""),
            3 => ("\"\"\"\n", "\"\"\""),
            4 if !value.contains('\'')
                && !value.contains(|c: char| c.is_control() && !"\t\n".contains(c)) =>
            {
                ("'''\n", "'''")
            }
            _ => ("\"", "\""),
        };
        let (literal, unicode) = (open.starts_with('\''), dice.below(4) == 0);
        self.text.push_str(open);
        let mut offsets = Vec::new();
        for c in value.chars() {
            offsets.push(self.text.len());
            match c {
                _ if literal => self.text.push(c),
                c if unicode && c.is_alphabetic() => self.text.push_str(&format!("\\U{:08x}", u32::from(c))),
                '\n' if open.len() > 1 => self.text.push('\n'),
                '\n' => self.text.push_str("\\n"),
                '\t' => self.text.push_str("\\t"),
                '"' | '\\' => self.text.extend(['\\', c]),
                c => self.text.push(c),
            }
        }
        offsets.push(self.text.len());
        self.text.push_str(close);
        Written { text: value.to_owned(), offsets, exact: true }
    }
}

type Entry<'a> = (&'a str, Node<'a>);

enum Node<'a> {
    Text(&'a str),
    List(Vec<Node<'a>>),
    Table(Vec<Entry<'a>>),
}

impl Outlet {
    fn entries(&self) -> Vec<Entry<'_>> {
        let filter = self.filter.map(|filter| ("filter", Node::Text(filter)));
        [("name", Node::Text(&self.name))].into_iter().chain(filter).collect()
    }
}

impl Settings {
    fn entries(&self) -> Vec<Entry<'_>> {
        self.attributes.iter().chain(&self.values).map(|(key, value)| (*key, Node::Text(value))).collect()
    }
}

/// Whether the children can be inline tables: one list holds all children of a name, so they must
/// be adjacent.
fn can_be_inline(children: &[Group]) -> bool {
    let mut runs: Vec<&str> = children.iter().map(|child| child.name).collect();
    runs.dedup();
    let names: std::collections::BTreeSet<_> = runs.iter().collect();
    names.len() == runs.len() && children.iter().all(|child| can_be_inline(&child.children))
}

fn key(name: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare { name.to_owned() } else { format!("\"{name}\"") }
}

/// A number or a boolean.
fn bare(value: &str, dice: &mut Dice) -> Option<String> {
    if matches!(value, "true" | "false") {
        return Some(value.to_owned());
    }
    let n: i64 = value.parse().ok().filter(|n: &i64| n.to_string() == value)?;
    Some(match dice.below(4) {
        0 if n >= 0 => format!("{n:#x}"),
        1 if n >= 0 => format!("{n:#b}"),
        2 if n >= 10 => format!("{}_{}", &value[..1], &value[1..]),
        _ => value.to_owned(),
    })
}
