//! Properties of sent messages that are derived from their JSON: subject, key, headers, time,
//! severity, attributes and labels.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::Outgoing;

/// The maximum size of a header or a label in bytes; longer ones are cut.
const LONGEST_VALUE: usize = 1024;
/// Numbers from the year 2000 on, in seconds since 1970, are taken for times. Smaller numbers may
/// be durations.
const FIRST_SECOND: u64 = 946_684_800;
/// The possible keys of entries.
const KINDS: &str =
    "subject, key, timestamp, severity, header.NAME, attribute.NAME and label.NAME can be mapped";

/// The key of an entry of a [`Mapping`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Subject,
    Key,
    Timestamp,
    Severity,
    Header(String),
    Attribute(String),
    Label(String),
}

/// The kinds of entries that a destination can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// `subject`
    Subject,
    /// `key`
    Key,
    /// `timestamp`
    Timestamp,
    /// `severity`
    Severity,
    /// `header.NAME`
    Header,
    /// `attribute.NAME`
    Attribute,
    /// `label.NAME`
    Label,
}

impl Target {
    fn parse(key: &str) -> Result<Self, String> {
        let named = |name: &str, make: fn(String) -> Self| {
            if name.is_empty() { Err(format!("{key}: a name is missing")) } else { Ok(make(name.to_owned())) }
        };
        match key {
            "subject" => Ok(Target::Subject),
            "key" => Ok(Target::Key),
            "timestamp" => Ok(Target::Timestamp),
            "severity" => Ok(Target::Severity),
            _ => match key.split_once('.') {
                Some(("header", name)) => named(name, Target::Header),
                Some(("attribute", name)) => named(name, Target::Attribute),
                Some(("label", name)) => named(name, Target::Label),
                _ => Err(format!("{key:?} is not known: {KINDS}")),
            },
        }
    }

    fn kind(&self) -> MappingKind {
        match self {
            Target::Subject => MappingKind::Subject,
            Target::Key => MappingKind::Key,
            Target::Timestamp => MappingKind::Timestamp,
            Target::Severity => MappingKind::Severity,
            Target::Header(_) => MappingKind::Header,
            Target::Attribute(_) => MappingKind::Attribute,
            Target::Label(_) => MappingKind::Label,
        }
    }

    fn check(&self, template: &Template) -> Result<(), String> {
        match self {
            Target::Subject => check_subject(template),
            Target::Header(name) => {
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                if name.bytes().all(token) {
                    Ok(())
                } else {
                    Err(format!("{name:?} is not the name of a header"))
                }
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Subject => f.write_str("subject"),
            Target::Key => f.write_str("key"),
            Target::Timestamp => f.write_str("timestamp"),
            Target::Severity => f.write_str("severity"),
            Target::Header(name) => write!(f, "header.{name}"),
            Target::Attribute(name) => write!(f, "attribute.{name}"),
            Target::Label(name) => write!(f, "label.{name}"),
        }
    }
}

/// Derives properties of sent messages from their JSON. Each entry has a key and a template:
///
/// | key | sets |
/// |---|---|
/// | `subject` | the subject of NATS or of a CloudEvent |
/// | `key` | the key of a Kafka record, the key of a JSON envelope, the `partitionkey` of a CloudEvent |
/// | `header.NAME` | a header of a NATS message, of a Kafka record, or of an HTTP request with one message |
/// | `timestamp` | the time for Loki, OpenTelemetry, Kafka and in envelopes: RFC 3339, or seconds, milli-, micro- or nanoseconds since 1970 |
/// | `severity` | the severity of an OpenTelemetry record, from the name of a level or a number of syslog or pino |
/// | `attribute.NAME` | an attribute of an OpenTelemetry record |
/// | `label.NAME` | a label of Loki |
///
/// In a template, `{name}` is the value of the member of this name, `{a.b}` that of a member of its
/// member, or of an item of an array (from 0), and `{/a/b}` the same as a JSON pointer.
/// `{name|text}` gives the text if there is no such member. Write literal braces twice: `{{` and
/// `}}`. A member that is null or an empty string counts as missing; arrays and objects become
/// their JSON.
///
/// No message is refused because of its mapping. If a member is missing and there is no default, or
/// the message is not JSON, the message is sent as if there were no such entry: with the URL's
/// subject, with its own time, without that header, attribute or label. Characters that are not
/// allowed are replaced: in subjects, everything but letters, digits and `-_=+/@:,~#%&!` becomes
/// `_` (the template's own text may have dots); in headers, control characters become spaces.
/// Headers and labels are cut after 1,024 bytes.
///
/// ```
/// use jlog_ship::Mapping;
///
/// let mut mapping = Mapping::new();
/// mapping.set("subject", "orders.{country|none}.{shop.id}")?;
/// mapping.set("header.X-Customer", "{customer}")?;
/// let mapped = mapping.apply(br#"{"shop":{"id":7},"customer":"a"}"#);
/// assert_eq!(mapped.subject.as_deref(), Some("orders.none.7"));
/// assert_eq!(mapped.headers, [("X-Customer".to_owned(), "a".to_owned())]);
/// assert_eq!(mapping.apply(b"no JSON"), Default::default());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping(BTreeMap<Target, Template>);

/// The derived properties of a message.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Mapped {
    /// Its subject.
    pub subject: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Its time, in microseconds since 1970.
    pub micros: Option<u64>,
    /// Its severity as text, and OpenTelemetry's number for it, if there is one.
    pub severity: Option<(String, Option<u8>)>,
    /// Its attributes.
    pub attributes: Vec<(String, MappedValue)>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
}

/// The value of an attribute. It has the member's type if the template is a single member, and is a
/// text otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum MappedValue {
    /// A text.
    Text(String),
    /// An integer.
    Int(i64),
    /// Another number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl fmt::Display for MappedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MappedValue::Text(text) => f.write_str(text),
            MappedValue::Int(n) => n.fmt(f),
            MappedValue::Float(n) => n.fmt(f),
            MappedValue::Bool(b) => b.fmt(f),
        }
    }
}

impl fmt::Display for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<String> = Vec::new();
        all.extend(self.subject.iter().map(|subject| format!("subject={subject}")));
        all.extend(self.key.iter().map(|key| format!("key={key}")));
        all.extend(self.micros.iter().map(|&micros| format!("timestamp={}", rfc3339(micros))));
        all.extend(self.severity.iter().map(|(text, _)| format!("severity={text}")));
        all.extend(self.headers.iter().map(|(name, value)| format!("header.{name}={value}")));
        all.extend(self.attributes.iter().map(|(name, value)| format!("attribute.{name}={value}")));
        all.extend(self.labels.iter().map(|(name, value)| format!("label.{name}={value}")));
        f.write_str(&all.join(" "))
    }
}

impl Mapping {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// A description of the mistake in the key or the template, or that the key has an entry
    /// already.
    pub fn set(&mut self, key: &str, template: &str) -> Result<(), String> {
        let target = Target::parse(key)?;
        let template = Template::parse(template).map_err(|why| format!("{key}: {why}"))?;
        target.check(&template).map_err(|why| format!("{key}: {why}"))?;
        if self.0.contains_key(&target) {
            return Err(format!("{key} is mapped twice"));
        }
        self.0.insert(target, template);
        Ok(())
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if there is an entry that a destination cannot use.
    ///
    /// # Errors
    /// A text that names the entry, and the keys that can be used.
    pub fn only(&self, kinds: &[MappingKind]) -> Result<(), String> {
        let Some(other) = self.0.keys().find(|target| !kinds.contains(&target.kind())) else { return Ok(()) };
        let usable: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        let usable = if usable.is_empty() { "nothing".to_owned() } else { usable.join(", ") };
        Err(format!("it cannot use {other}, which is mapped; it can use {usable}"))
    }

    /// The names of the labels.
    #[cfg(feature = "http")]
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|target| match target {
            Target::Label(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The names of the headers.
    #[cfg(any(feature = "http", feature = "kafka", feature = "nats"))]
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|target| match target {
            Target::Header(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The names of the attributes.
    #[cfg(feature = "http")]
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|target| match target {
            Target::Attribute(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// A subject with wildcards that matches all subjects of the template.
    #[cfg(any(feature = "nats", test))]
    pub(crate) fn subjects(&self) -> Option<String> {
        let template = self.0.get(&Target::Subject)?;
        let text = template.with(|_| Some(Cow::Borrowed("*")))?;
        let words = text.split('.').map(|word| if word.contains('*') { "*" } else { word });
        Some(words.collect::<Vec<_>>().join("."))
    }

    /// The properties of a message with these bytes.
    pub fn apply(&self, body: &[u8]) -> Mapped {
        let mut mapped = Mapped::default();
        if self.0.is_empty() {
            return mapped;
        }
        let fields = Fields::of(body);
        for (target, template) in &self.0 {
            let text = |clean: fn(&str) -> Cow<'_, str>| {
                let text = template.with(|field| {
                    let found =
                        fields.as_ref().and_then(|fields| fields.find(&field.path)).map(|found| found.text());
                    let value = found.or_else(|| field.default.as_deref().map(Cow::Borrowed))?;
                    Some(Cow::Owned(clean(&value).into_owned()))
                });
                text.filter(|text| !text.is_empty())
            };
            match target {
                Target::Subject => {
                    mapped.subject = text(subject_part).filter(|subject| subject.len() <= LONGEST_VALUE)
                }
                Target::Key => mapped.key = text(as_it_is),
                Target::Timestamp => mapped.micros = text(as_it_is).and_then(|text| micros_of(&text)),
                Target::Severity => {
                    mapped.severity = text(as_it_is).map(|text| {
                        let number = severity_of(&text);
                        (text, number)
                    });
                }
                Target::Header(name) => {
                    let value = text(as_it_is);
                    let value = value.map(|text| cut(header_part(&text).trim()).trim_end().to_owned());
                    mapped
                        .headers
                        .extend(value.filter(|text| !text.is_empty()).map(|text| (name.clone(), text)));
                }
                Target::Label(name) => {
                    mapped.labels.extend(text(as_it_is).map(|text| (name.clone(), cut(&text).to_owned())));
                }
                Target::Attribute(name) => {
                    let typed = template.single().and_then(|field| fields.as_ref()?.find(&field.path));
                    let value =
                        typed.map(|found| found.typed()).or_else(|| text(as_it_is).map(MappedValue::Text));
                    mapped.attributes.extend(value.map(|value| (name.clone(), value)));
                }
            }
        }
        mapped
    }

    /// The same for a message in flight.
    pub fn of(&self, message: &Outgoing) -> Mapped {
        self.apply(&message.body)
    }
}

impl MappingKind {
    fn name(self) -> &'static str {
        match self {
            MappingKind::Subject => "subject",
            MappingKind::Key => "key",
            MappingKind::Timestamp => "timestamp",
            MappingKind::Severity => "severity",
            MappingKind::Header => "header.NAME",
            MappingKind::Attribute => "attribute.NAME",
            MappingKind::Label => "label.NAME",
        }
    }
}

/// A text with placeholders for members.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    path: String,
    default: Option<String>,
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = behind;
                continue;
            }
            if brace == "}" {
                return Err(format!("in {text:?}, a }} has no {{ before it; write a literal brace as }}}}"));
            }
            let Some(end) = rest.find('}') else {
                return Err(format!("in {text:?}, a {{ has no }} after it; write a literal brace as {{{{"));
            };
            let inside = &rest[..end];
            rest = &rest[end + 1..];
            let (path, default) = match inside.split_once('|') {
                Some((path, default)) => (path, Some(default.to_owned())),
                None => (inside, None),
            };
            if path.is_empty() || inside.contains('{') {
                return Err(format!(
                    "in {text:?}, {{{inside}}} does not name a member: {{name}} or {{name|default}}"
                ));
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Field(Field { path: path.to_owned(), default }));
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if parts.is_empty() {
            return Err("the template is empty".to_owned());
        }
        Ok(Self(parts))
    }

    /// The text with these values; `None` if one is missing.
    fn with<'v>(&'v self, value: impl Fn(&'v Field) -> Option<Cow<'v, str>>) -> Option<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Field(field) => text.push_str(&value(field)?),
            }
        }
        Some(text)
    }

    /// The member, if the template has nothing else.
    fn single(&self) -> Option<&Field> {
        match &self.0[..] {
            [Part::Field(field)] => Some(field),
            _ => None,
        }
    }
}

/// A message's JSON.
struct Fields<'a> {
    raw: &'a RawValue,
    /// Its members, if it is an object: most templates refer to these.
    members: Option<BTreeMap<Cow<'a, str>, &'a RawValue>>,
}

/// The value of a member.
enum Found<'a> {
    Text(Cow<'a, str>),
    Other(&'a str),
}

impl<'a> Fields<'a> {
    /// `None` if it is not JSON.
    fn of(body: &'a [u8]) -> Option<Self> {
        let raw: &RawValue = serde_json::from_slice(body).ok()?;
        Some(Self { raw, members: serde_json::from_str(raw.get()).ok() })
    }

    fn find(&self, path: &str) -> Option<Found<'a>> {
        let raw = match path.strip_prefix('/') {
            Some(pointer) => {
                let mut at = self.raw;
                for name in pointer.split('/') {
                    at = member(at, &name.replace("~1", "/").replace("~0", "~"))?;
                }
                at
            }
            None => self.within(path)?,
        };
        let text = raw.get();
        match text.as_bytes().first()? {
            b'"' if text == "\"\"" => None,
            b'n' => None,
            // Half a surrogate pair is valid JSON, but not text: it stays escaped.
            b'"' => match serde_json::from_str(text) {
                Ok(decoded) => Some(Found::Text(Cow::Owned(decoded))),
                Err(_) => Some(Found::Text(Cow::Borrowed(text))),
            },
            _ => Some(Found::Other(text)),
        }
    }

    /// Finds a member by a dotted name. If names contain dots, the longest existing one counts.
    fn within(&self, path: &str) -> Option<&'a RawValue> {
        let Some(members) = &self.members else { return within(self.raw, path) };
        let whole = members.get(path).copied();
        whole.or_else(|| splits(path).find_map(|(name, rest)| within(members.get(name)?, rest)))
    }
}

/// A name and what follows it, for each dot from the last one on.
fn splits(path: &str) -> impl Iterator<Item = (&str, &str)> {
    path.rmatch_indices('.').map(|(at, _)| (&path[..at], &path[at + 1..]))
}

fn within<'a>(value: &'a RawValue, path: &str) -> Option<&'a RawValue> {
    member(value, path).or_else(|| splits(path).find_map(|(name, rest)| within(member(value, name)?, rest)))
}

/// A member of an object (the last one if several have the same name), or an item of an array.
fn member<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    match value.get().as_bytes().first()? {
        b'{' => serde_json::from_str::<BTreeMap<Cow<'a, str>, &RawValue>>(value.get()).ok()?.remove(name),
        b'[' => serde_json::from_str::<Vec<&RawValue>>(value.get())
            .ok()?
            .get(name.parse::<usize>().ok()?)
            .copied(),
        _ => None,
    }
}

impl<'a> Found<'a> {
    fn text(self) -> Cow<'a, str> {
        match self {
            Found::Text(text) => text,
            Found::Other(json) => Cow::Borrowed(json),
        }
    }

    fn typed(self) -> MappedValue {
        let json = match self {
            Found::Text(text) => return MappedValue::Text(text.into_owned()),
            Found::Other(json) => json,
        };
        if let Ok(value) = json.parse() {
            return MappedValue::Bool(value);
        }
        if let Ok(n) = json.parse() {
            return MappedValue::Int(n);
        }
        match json.parse() {
            // An integer that is too large would lose digits.
            Ok(n) if f64::is_finite(n) && json.contains(['.', 'e', 'E']) => MappedValue::Float(n),
            _ => MappedValue::Text(json.to_owned()),
        }
    }
}

fn as_it_is(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// The text with characters replaced that a word of a subject may not have.
fn subject_part(text: &str) -> Cow<'_, str> {
    let allowed = |c: char| c.is_alphanumeric() || "-_=+/@:,~#%&!".contains(c);
    if text.is_empty() {
        return Cow::Borrowed("_");
    }
    if text.chars().all(allowed) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if allowed(c) { c } else { '_' }).collect())
}

fn header_part(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        return Cow::Owned(text.replace(char::is_control, " "));
    }
    Cow::Borrowed(text)
}

/// The longest prefix within the limit.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether messages can be published to this subject.
pub(crate) fn is_subject(text: &str) -> bool {
    let words = text.split('.').all(|word| !word.is_empty() && word != "*" && word != ">");
    words && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn check_subject(template: &Template) -> Result<(), String> {
    match template.with(|_| Some(Cow::Borrowed("x"))) {
        Some(subject) if is_subject(&subject) => Ok(()),
        _ => Err("its words, between dots, are never empty, * or >, and it has no spaces".to_owned()),
    }
}

/// A time in UTC, with microseconds.
pub(crate) fn rfc3339(micros: u64) -> String {
    let time = i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok());
    format!("{:.6}", time.unwrap_or(Timestamp::MAX))
}

/// A time, in microseconds since 1970: RFC 3339, or a number whose size tells its unit.
fn micros_of(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return u64::try_from(time.as_microsecond()).ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if ![whole, fraction].into_iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    // The ranges of times in these units do not overlap.
    let unit = match whole {
        0..FIRST_SECOND => return None,
        FIRST_SECOND..100_000_000_000 => 1_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1,
        _ => return Some(whole / 1_000),
    };
    // Pad the fraction to microseconds.
    let digits = format!("{fraction:0<6.6}").parse::<u64>().ok()?;
    whole.checked_mul(unit)?.checked_add(digits * unit / 1_000_000)
}

/// OpenTelemetry's number for a severity, from a name that loggers use, or a number of syslog (0 to
/// 7) or pino (10 to 60).
fn severity_of(text: &str) -> Option<u8> {
    Some(match &*text.trim().to_ascii_lowercase() {
        "trace" | "finest" | "finer" | "verbose" | "silly" | "10" => 1,
        "debug" | "fine" | "dbg" | "20" | "7" => 5,
        "info" | "information" | "informational" | "log" | "config" | "default" | "30" | "6" => 9,
        "notice" | "5" => 10,
        "warning" | "warn" | "40" | "4" => 13,
        "error" | "err" | "severe" | "50" | "3" => 17,
        "critical" | "crit" | "2" => 21,
        "alert" | "1" => 22,
        "fatal" | "panic" | "dpanic" | "60" => 21,
        "emergency" | "emerg" | "0" => 24,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(entries: &[(&str, &str)]) -> Mapping {
        let mut mapping = Mapping::new();
        for (key, template) in entries {
            mapping.set(key, template).unwrap();
        }
        mapping
    }

    fn key(template: &str, body: &str) -> Option<String> {
        mapping(&[("key", template)]).apply(body.as_bytes()).key
    }

    #[test]
    fn templates_find_members_however_deep() {
        let body = r#"{"a":"x","n":1.50,"big":123456789012345678901234567890,"b":true,"o":{"p":{"q":"deep"},"l":[1,{"m":"item"}]},
            "dot.ted":"longest","dot":{"ted":"not this"},"o.p":{"r":"half"},"null":null,"empty":"","esc":"\u00fc\"","a/b":{"~":"pointer"},
            "twice":1,"twice":2,"half":"\ud800"}"#;
        for (template, expected) in [
            ("{a}", Some("x")),
            ("-{a}-{n}", Some("-x-1.50")),
            ("{big}", Some("123456789012345678901234567890")),
            ("{b}", Some("true")),
            ("{o.p.q}", Some("deep")),
            ("{o.p.r}", Some("half")),
            ("{o.l.0}{o.l.1.m}", Some("1item")),
            ("{/o/l/1/m}", Some("item")),
            ("{/a~1b/~0}", Some("pointer")),
            ("{dot.ted}", Some("longest")),
            ("{o.p}", Some(r#"{"r":"half"}"#)),
            ("{esc}", Some("ü\"")),
            ("{twice}", Some("2")),
            ("{half}", Some(r#""\ud800""#)),
            ("{{a}}", Some("{a}")),
            ("{{{a}}}", Some("{x}")),
            ("{none}", None),
            ("x{none}", None),
            ("{null}", None),
            ("{empty}", None),
            ("{o.l.2}", None),
            ("{o.l.x}", None),
            ("{a.b}", None),
            ("{none|other}", Some("other")),
            ("{empty|other}", Some("other")),
            ("{none|}x", Some("x")),
            ("{none|}", None),
            ("text", Some("text")),
        ] {
            assert_eq!(key(template, body).as_deref(), expected, "{template}");
        }
        assert_eq!(key("{1}", r#"["a","b"]"#).as_deref(), Some("b"));
        for body in ["", "no JSON", "{", "{\"a\":1} x", "1e999"] {
            assert_eq!(key("{a|none}", body).as_deref(), Some("none"), "{body}");
        }
        // Neither deep nesting nor huge numbers do harm.
        let deep = format!("{{\"a\":1,\"n\":1e999,\"d\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(key("{a}", &deep).as_deref(), Some("1"));
    }

    #[test]
    fn mistakes_are_reported() {
        for (key, template, says) in [
            ("key", "{a", "a { has no } after it; write a literal brace as {{"),
            ("key", "a}", "a } has no { before it; write a literal brace as }}"),
            ("key", "{}", "{} does not name a member"),
            ("key", "{|a}", "{|a} does not name a member"),
            ("key", "{a{b}", "{a{b} does not name a member"),
            ("key", "", "the template is empty"),
            ("kye", "{a}", "\"kye\" is not known: subject, key, "),
            ("header.", "{a}", "header.: a name is missing"),
            ("header.a b", "{a}", "\"a b\" is not the name of a header"),
            ("subject", "a..{b}", "never empty"),
            ("subject", "a.>", "never empty"),
            ("subject", "a b", "no spaces"),
            ("subject", ".{a}", "never empty"),
        ] {
            let error = Mapping::new().set(key, template).unwrap_err();
            assert!(error.contains(says), "{key}={template}: {error}");
        }
        let mut twice = mapping(&[("key", "{a}")]);
        assert_eq!(twice.set("key", "{b}").unwrap_err(), "key is mapped twice");
        let error = twice.only(&[MappingKind::Subject, MappingKind::Header]).unwrap_err();
        assert_eq!(error, "it cannot use key, which is mapped; it can use subject, header.NAME");
        assert!(twice.only(&[MappingKind::Key]).is_ok());
    }

    #[test]
    fn what_is_not_allowed_is_replaced() {
        let mapping = mapping(&[("subject", "a.{x|}.{y}"), ("header.H", "{y}"), ("label.l", "{y}")]);
        let mapped = mapping.apply(r#"{"x":"1.2 *>$","y":"ü\r\nX: 1\u0000"}"#.as_bytes());
        assert_eq!(mapped.subject.as_deref(), Some("a.1_2____.ü__X:_1_"));
        assert_eq!(mapped.headers, [("H".to_owned(), "ü  X: 1".to_owned())]);
        assert_eq!(mapped.labels, [("l".to_owned(), "ü\r\nX: 1\0".to_owned())]);
        let long = format!(r#"{{"y":"{}"}}"#, "ü".repeat(2000));
        let mapped = mapping.apply(long.as_bytes());
        assert_eq!((mapped.subject, mapped.headers[0].1.len(), mapped.labels[0].1.len()), (None, 1024, 1024));
        let mut literal = Mapping::new();
        literal.set("header.H", "a\r\nb {y}\n").unwrap();
        assert_eq!(literal.apply(br#"{"y":1}"#).headers[0].1, "a  b 1");
        // An empty default is not a word.
        assert_eq!(mapping.apply(br#"{"y":1}"#).subject.as_deref(), Some("a._.1"));
    }

    /// Texts of what matters to templates and destinations: braces, dots, wildcards, blanks,
    /// controls, characters of several bytes.
    const PIECES: &str = "[a-c0-2.{}|*> /~$\"\\\\é\u{85}\u{feff}\\x00-\\x20\\x7f]{0,12}";
    const KEYS: [&str; 8] =
        ["subject", "key", "header.H", "label.l", "attribute.a", "timestamp", "severity", "nothing"];

    proptest::proptest! {
        #[test]
        fn whatever_templates_and_messages_are_what_is_sent_is_allowed(
            template in PIECES,
            value in proptest::prop_oneof![PIECES, "\\PC{0,8}", "[0-9.eE:TZ+-]{0,24}", "[a-zé\\n]{1000,1100}"],
            form in 0..3,
        ) {
            let body = match form {
                0 => value,
                1 => serde_json::json!([value, [value]]).to_string(),
                _ => serde_json::json!({ "a": value, "b": { "c": [value], "": value } }).to_string(),
            };
            for key in KEYS {
                let mut mapping = Mapping::new();
                if let Err(why) = mapping.set(key, &template) {
                    assert!(!why.is_empty() && mapping.is_empty());
                    continue;
                }
                assert_ne!(key, "nothing");
                let mapped = mapping.apply(body.as_bytes());
                // Exactly the mapped fields have the requested kind.
                for (is, kind) in [
                    (mapped.subject.is_some(), "subject"),
                    (mapped.key.is_some(), "key"),
                    (!mapped.headers.is_empty(), "header.H"),
                    (!mapped.labels.is_empty(), "label.l"),
                    (!mapped.attributes.is_empty(), "attribute.a"),
                    (mapped.micros.is_some(), "timestamp"),
                    (mapped.severity.is_some(), "severity"),
                ] {
                    assert!(!is || kind == key, "{key}={template:?} gives a {kind}");
                }
                if let Some(subject) = &mapped.subject {
                    assert!(is_subject(subject) && subject.len() <= LONGEST_VALUE, "{template:?}: {subject:?}");
                    // A message adds no word, so that the stream's pattern takes it.
                    let pattern = mapping.subjects().unwrap();
                    let (words, stars): (Vec<&str>, Vec<&str>) = (subject.split('.').collect(), pattern.split('.').collect());
                    assert_eq!(words.len(), stars.len(), "{pattern:?} {subject:?}");
                    assert!(words.iter().zip(&stars).all(|(word, star)| *star == "*" || word == star), "{pattern:?} {subject:?}");
                }
                for (name, value) in &mapped.headers {
                    assert_eq!(name, "H");
                    assert!(!value.contains(char::is_control) && !value.is_empty() && value == value.trim(), "{value:?}");
                    assert!(value.len() <= LONGEST_VALUE, "{}", value.len());
                }
                for (_, value) in &mapped.labels {
                    assert!(!value.is_empty() && value.len() <= LONGEST_VALUE, "{value:?}");
                }
                assert!(mapped.key.as_ref().is_none_or(|key| !key.is_empty()));
                assert!(mapped.micros.is_none_or(|micros| micros >= FIRST_SECOND), "{template:?} {body:?} {mapped:?}");
                // It can be shown.
                assert_eq!(mapped.to_string().is_empty(), mapped == Mapped::default());
            }
        }

        #[test]
        fn a_text_with_its_braces_doubled_is_the_text(text in PIECES) {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            if !text.is_empty() {
                assert_eq!(key(&doubled, "{}"), Some(text));
            }
        }

        #[test]
        fn a_member_is_found_by_its_name_and_by_its_pointer(name in "[a-c.~/ é]{1,6}", value in PIECES) {
            let body = serde_json::json!({ name.as_str(): value.as_str(), "other": 1 }).to_string();
            let expected = Some(value).filter(|value| !value.is_empty());
            if !name.starts_with('/') {
                assert_eq!(key(&format!("{{{name}}}"), &body), expected);
            }
            let pointer = name.replace('~', "~0").replace('/', "~1");
            assert_eq!(key(&format!("{{/{pointer}}}"), &body), expected);
            assert_eq!(key(&format!("{{/{pointer}/{pointer}}}"), &body), None);
        }

        #[test]
        fn keys_that_are_not_known_are_refused_by_name(key in "[a-z.]{0,12}") {
            let known = ["subject", "key", "timestamp", "severity"].contains(&key.as_str())
                || ["header.", "attribute.", "label."].iter().any(|kind| key.starts_with(kind) && key.len() > kind.len());
            match Mapping::new().set(&key, "{a}") {
                Ok(()) => assert!(known, "{key}"),
                Err(why) => assert!(!known && why.contains(&key), "{key}: {why}"),
            }
        }
    }

    #[test]
    fn attributes_have_their_types() {
        let of = |value: &str| {
            let body = format!("{{\"a\":{value}}}");
            mapping(&[("attribute.x", "{a}")]).apply(body.as_bytes()).attributes.pop().map(|(_, value)| value)
        };
        assert_eq!(of("7"), Some(MappedValue::Int(7)));
        assert_eq!(of("1.5e1"), Some(MappedValue::Float(15.0)));
        assert_eq!(of("true"), Some(MappedValue::Bool(true)));
        assert_eq!(of("\"7\""), Some(MappedValue::Text("7".to_owned())));
        assert_eq!(of("[1, 2]"), Some(MappedValue::Text("[1, 2]".to_owned())));
        assert_eq!(of("18446744073709551616"), Some(MappedValue::Text("18446744073709551616".to_owned())));
        assert_eq!(of("1e999"), Some(MappedValue::Text("1e999".to_owned())));
        assert_eq!(of("null"), None);
        let text = mapping(&[("attribute.x", "n={a}")]).apply(b"{\"a\":7}");
        assert_eq!(text.attributes, [("x".to_owned(), MappedValue::Text("n=7".to_owned()))]);
    }

    #[test]
    fn times_and_severities_of_all_kinds() {
        for text in [
            "2023-11-14T22:13:20.123456Z",
            "2023-11-14T23:13:20.123456+01:00",
            "1700000000.123456",
            "1700000000.1234569",
            " 1700000000123456 ",
            "1700000000123.456",
            "1700000000123456789",
        ] {
            assert_eq!(micros_of(text), Some(1_700_000_000_123_456), "{text}");
        }
        assert_eq!(micros_of("1700000000"), Some(1_700_000_000_000_000));
        assert_eq!(micros_of("1700000000.5"), Some(1_700_000_000_500_000));
        for text in [
            "",
            "12",
            "yesterday",
            "1.7e9",
            "-1700000000",
            "1969-12-31T23:59:59Z",
            "1700000000.",
            "99999999999999999999",
        ] {
            assert_eq!(micros_of(text), None, "{text}");
        }
        for (text, number) in
            [("WARN", Some(13)), ("3", Some(17)), ("60", Some(21)), ("7", Some(5)), ("loud", None)]
        {
            assert_eq!(severity_of(text), number, "{text}");
        }
        let mapped = mapping(&[("timestamp", "{t}"), ("severity", "{l}")]).apply(br#"{"t":12,"l":"loud"}"#);
        assert_eq!((mapped.micros, mapped.severity), (None, Some(("loud".to_owned(), None))));
    }

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(rfc3339(1_709_251_199_999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(rfc3339(4_294_967_295_000_000), "2106-02-07T06:28:15.000000Z");
    }
}
