//! `jlog ship --config`: a file of shipments.
//!
//! Each key of a table `[[ship]]` is an option of the command line, and the same parser reads it:
//! both accept the same values.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::ArgAction;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, Args as _, Command, FromArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::args::ShipmentArgs;
use crate::error::Failure;
use crate::ship::Shipment;
use crate::values;

/// The maximum size of a file of shipments in bytes.
const LONGEST: usize = 1 << 20;

/// Reads a file and checks everything in it, without starting or changing anything.
pub fn read(path: &Path) -> Result<Vec<Shipment>, Failure> {
    let failed = |e| Failure::new(format!("cannot read {}: {e}", path.display()));
    let text = jlog_files::read_text(path, LONGEST).map_err(failed)?;
    File { path, text: &text }.shipments()
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

/// The line numbers of a table and of its keys.
struct Lines {
    table: usize,
    keys: BTreeMap<String, usize>,
}

impl Lines {
    fn of(&self, key: &str) -> usize {
        self.keys.get(key).copied().unwrap_or(self.table)
    }
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }

    fn wrong(&self, line: usize, why: &str) -> Failure {
        Failure::new(format!("{}:{line}: {why}", self.path.display()))
    }

    fn shipments(&self) -> Result<Vec<Shipment>, Failure> {
        let table = DeTable::parse(self.text).map_err(|e| {
            let line = self.line(e.span().map_or(0, |span| span.start));
            self.wrong(line, &e.message().lines().collect::<Vec<_>>().join(", "))
        })?;
        let mut tables = Vec::new();
        for (key, value) in table.get_ref() {
            let line = self.line(key.span().start);
            if key.get_ref() != "ship" {
                let hint = did_you_mean(key.get_ref(), ["ship"]);
                return Err(
                    self.wrong(line, &format!("{} is not known: it is [[ship]]{hint}", key.get_ref()))
                );
            }
            let DeValue::Array(items) = value.get_ref() else {
                return Err(self.wrong(line, "ship is a list of tables: [[ship]], with two brackets"));
            };
            for item in items {
                let DeValue::Table(table) = item.get_ref() else {
                    return Err(self.wrong(line, "ship is a list of tables: [[ship]]"));
                };
                tables.push((self.line(item.span().start), table));
            }
        }
        if tables.is_empty() {
            return Err(Failure::new(format!("{} has no table [[ship]]", self.path.display())));
        }
        let mut all: Vec<Shipment> = Vec::new();
        let mut taken: Vec<(String, PathBuf)> = Vec::new();
        for (line, table) in tables {
            let (name, args, lines) = self.shipment(line, table)?;
            if let Some((other, _)) = taken.iter().find(|(other, _)| *other == name) {
                let why = format!("another shipment is also called {other:?}: give this one a name");
                return Err(self.wrong(lines.of("name"), &why));
            }
            let feed = std::fs::canonicalize(&args.feed).unwrap_or_else(|_| args.feed.clone());
            let same = |other: &&Shipment| other.args.subscriber.0 == args.subscriber.0;
            if let Some(other) =
                all.iter().zip(&taken).filter(|(_, (_, path))| *path == feed).map(|(it, _)| it).find(same)
            {
                let why = format!(
                    "{}another shipment has this feed and this subscriber: each needs a subscriber of its own",
                    other.prefix
                );
                return Err(self.wrong(lines.of("subscriber"), &why));
            }
            let shipment = Shipment::check(format!("{name}: "), args)
                .map_err(|(key, failure)| self.wrong(lines.of(key), &format!("{key}: {}", failure.text())))?;
            all.push(shipment);
            taken.push((name, feed));
        }
        Ok(all)
    }

    fn shipment(&self, line: usize, table: &DeTable<'_>) -> Result<(String, ShipmentArgs, Lines), Failure> {
        let command = command();
        let mut lines = Lines { table: line, keys: BTreeMap::new() };
        let mut name = None;
        let mut options: Vec<OsString> = vec!["ship".into()];
        let mut positions: BTreeMap<usize, OsString> = BTreeMap::new();
        for (key, value) in table {
            let (line, key) = (self.line(key.span().start), &**key.get_ref());
            lines.keys.insert(key.to_owned(), line);
            if key == "name" {
                match value.get_ref() {
                    DeValue::String(text) if !text.is_empty() => name = Some(text.to_string()),
                    _ => return Err(self.wrong(line, "name: expected a string")),
                }
                continue;
            }
            if key == "map" {
                self.map(value, "", &mut options, &mut lines)?;
                continue;
            }
            let Some(argument) = command.get_arguments().find(|argument| key_of(argument) == Some(key))
            else {
                let known = command.get_arguments().filter_map(key_of).chain(["name"]);
                let why = match key {
                    "once" | "dry-run" | "metrics" => {
                        "is for all shipments: give it on the command line".to_owned()
                    }
                    _ => format!("is not known{}", did_you_mean(key, known)),
                };
                return Err(self.wrong(line, &format!("{key} {why}")));
            };
            let one = [value.clone()];
            let items: &[Spanned<DeValue<'_>>] = match value.get_ref() {
                DeValue::Array(items) if matches!(argument.get_action(), ArgAction::Append) => items,
                _ => &one,
            };
            for item in items {
                let line = self.line(item.span().start);
                let Some(text) = scalar(item.get_ref()) else {
                    return Err(
                        self.wrong(line, &format!("{key}: expected a string, a number, true or false"))
                    );
                };
                let value = self.value(argument, key, line, &text)?;
                match argument.get_index() {
                    Some(index) => drop(positions.insert(index, value)),
                    None if matches!(argument.get_action(), ArgAction::SetTrue) => match &*text {
                        "true" => options.push(format!("--{key}").into()),
                        "false" => {}
                        _ => return Err(self.wrong(line, &format!("{key}: expected true or false"))),
                    },
                    None => {
                        let mut option = OsString::from(format!("--{key}="));
                        option.push(value);
                        options.push(option);
                    }
                }
            }
        }
        for key in ["feed", "subscriber", "destination"] {
            if !lines.keys.contains_key(key) {
                return Err(self.wrong(lines.table, &format!("[[ship]] has no {key}")));
            }
        }
        options.push("--".into());
        options.extend(positions.into_values());
        let parsed = command
            .try_get_matches_from(options)
            .and_then(|matches| ShipmentArgs::from_arg_matches(&matches));
        let args = parsed.map_err(|e| self.refused(&e, &lines))?;
        let name = name.unwrap_or_else(|| {
            let feed = args.feed.file_name().unwrap_or(args.feed.as_os_str()).to_string_lossy();
            format!("{feed}/{}", args.subscriber.0)
        });
        Ok((name, args, lines))
    }

    /// A value; a path is relative to the file's directory.
    fn value(&self, argument: &Arg, key: &str, line: usize, text: &str) -> Result<OsString, Failure> {
        let below = |path: &str| self.path.parent().unwrap_or(Path::new("")).join(path).into_os_string();
        if text.contains('\0') {
            return Err(self.wrong(line, &format!("{key}: the value cannot contain a NUL byte")));
        }
        if argument.get_value_parser().type_id() == TypeId::of::<PathBuf>() {
            return Ok(below(text));
        }
        Ok(match text.strip_prefix("jlog:") {
            Some(path) if key == "destination" && !path.is_empty() => {
                let mut destination = OsString::from("jlog:");
                destination.push(below(path));
                destination
            }
            _ => text.into(),
        })
    }

    /// The entries of a mapping. TOML turns a name with dots, such as `header.X-Customer`, into
    /// tables.
    fn map(
        &self,
        value: &Spanned<DeValue<'_>>,
        before: &str,
        options: &mut Vec<OsString>,
        lines: &mut Lines,
    ) -> Result<(), Failure> {
        let line = self.line(value.span().start);
        let DeValue::Table(table) = value.get_ref() else {
            let what = if before.is_empty() {
                "map is a table: [ship.map]".to_owned()
            } else {
                format!("{before}: expected a string")
            };
            return Err(self.wrong(line, &what));
        };
        for (key, value) in table {
            let name = if before.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{before}.{}", key.get_ref())
            };
            let DeValue::String(template) = value.get_ref() else {
                self.map(value, &name, options, lines)?;
                continue;
            };
            let (line, entry) = (self.line(key.span().start), format!("{name}={template}"));
            values::map(&entry).map_err(|why| self.wrong(line, &format!("map: {why}")))?;
            lines.keys.insert(name, line);
            options.push(format!("--map={entry}").into());
        }
        Ok(())
    }

    /// The errors of the command-line parser, reworded for keys.
    fn refused(&self, error: &clap::Error, lines: &Lines) -> Failure {
        let said = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
        let (argument, prior) =
            (key_in(&said(ContextKind::InvalidArg)), key_in(&said(ContextKind::PriorArg)));
        let why = match error.kind() {
            ErrorKind::ArgumentConflict => format!("{argument} and {prior} cannot be used together"),
            ErrorKind::MissingRequiredArgument => {
                return self.wrong(lines.table, &format!("[[ship]] needs {argument}, too"));
            }
            ErrorKind::InvalidValue => {
                let (value, valid) = (said(ContextKind::InvalidValue), said(ContextKind::ValidValue));
                let hint = did_you_mean(&value, valid.split(", "));
                format!("{argument}: {value:?} is not one of {valid}{hint}")
            }
            _ => {
                let source = std::error::Error::source(error).map(ToString::to_string);
                let text =
                    source.unwrap_or_else(|| error.to_string().lines().next().unwrap_or_default().to_owned());
                let text = text.strip_prefix("error: ").unwrap_or(&text);
                if argument.is_empty() { text.to_owned() } else { format!("{argument}: {text}") }
            }
        };
        self.wrong(lines.of(&argument), &why)
    }
}

/// The options that a table can have.
fn command() -> Command {
    let command = Command::new("ship").disable_help_flag(true).disable_version_flag(true);
    // These options are declared as not needed with `--config`.
    let config = Arg::new("config").long("config").hide(true);
    let mut command = ShipmentArgs::augment_args(command).arg(config);
    // Arguments know their positions only after that.
    command.build();
    command
}

/// The name of an option in a file.
fn key_of(argument: &Arg) -> Option<&str> {
    match argument.get_long() {
        Some("config") => None,
        Some(long) => Some(long),
        None => Some(argument.get_id().as_str()),
    }
}

/// The key in an option as the parser shows it: `--rate <N>`, `<FEED>`.
fn key_in(shown: &str) -> String {
    let word = shown.split([' ', '=']).next().unwrap_or_default();
    word.trim_start_matches('-').trim_matches(['<', '>', '[', ']']).to_lowercase()
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.to_string(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

/// `; did you mean …?`, with the nearest of the known names, if one is near.
fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let away = |other: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase());
    let best = known.into_iter().map(|other| (away(other), other)).min();
    match best {
        Some((away, best)) if away <= (name.chars().count() / 3).clamp(1, 3) => {
            format!("; did you mean {best}?")
        }
        _ => String::new(),
    }
}
