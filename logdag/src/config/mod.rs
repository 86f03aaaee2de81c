//! A graph from a configuration in XML, or in TOML.
//!
//! In XML, streams are the `<log>` elements anywhere under `<logs>`. Attributes are inherited from
//! the nearest ancestor that has them; `<outlet>` children of a stream and of all its ancestors are
//! its outlets; `<config>` children are merged from the top down. A value of the form
//! `ENV:default:{KEY}` is the variable, or the default. `<include file="f"/>` includes the contents
//! of another file's root; with `snippet="true"`, the contents of a file without a root. As in
//! libmtev, the `<include>` is an element around the included content: the outlets of an included
//! file apply to the streams in it, and so do attributes of the `<include>`. The name may be a
//! shell pattern, such as `conf.d/*.xml` or `{web,db}.xml`: then all matching files are included,
//! in the order of their names.
//!
//! Sizes (`rotate_bytes`, `retain_bytes`, `max_line`, `queue_bytes`, and the jlog's `segment_size`
//! and `precommit`) are bytes, or have a unit: `10MB`, `10MiB`. Durations (`rotate_seconds`,
//! `retain_seconds`, `dedup_seconds`) are seconds, or have one: `90s`, `12h`, `7d`. A value of 0
//! for `rotate_bytes` or `rotate_seconds` turns off an inherited rotation, as does `off` for
//! `rotate_at`. [`RotateAt`](crate::RotateAt), [`Zone`](crate::Zone),
//! [`RotatedName`](crate::RotatedName) and [`Compression`](crate::Compression) describe
//! `rotate_at`, `rotate_zone`, `rotate_name` and `compress`. `make_dirs` makes the missing
//! directories of a file or a jlog.
//!
//! `<metric name="requests" labels="status" filter="…"/>` counts the lines of the streams that it
//! is in, as an outlet to a stream `metric/requests` with a [`Metric`](crate::Metric) would.
//! `type="histogram"` with `value="KEY"` makes a histogram of a number. [`Metric`](crate::Metric)
//! describes `buckets`, `scale`, `labels`, `max_series` and `help`; `filter`, `min_level`, `limit`
//! and `sample` work as on an outlet. In TOML it is a table, or a list of tables, `metric`.
//!
//! With `<http address="127.0.0.1:8465"/>`, below the root or in `<logs>`, the command serves HTTP
//! ([`Http`]).
//!
//! A mistake is an error. Something that libmtev accepts although it means nothing, such as an
//! element `<oulet>`, is a warning ([`Config::warnings`]); `logdag check --strict` refuses it.
//!
//! TOML has the same model: the file corresponds to `<logs>` in XML. Keys with a string, a number
//! or a boolean are attributes; `[[log]]` is a stream, `outlet` a list of names or of tables with
//! `name` and `filter`, `config` a table, `include` a list of files or of tables with `file` and
//! attributes. Every other table is a group, whose attributes and outlets the streams in it
//! inherit. The top level of an included TOML file applies to the streams in that file. Unknown
//! keys are errors. A file whose name ends in `.toml` is TOML; everything else is XML.
//!
//! ```toml
//! timestamps = true
//!
//! [[log]]
//! name = "logfile"
//! type = "file"
//! path = "/var/log/app.log"
//! rotate_bytes = 10_000_000
//! retain_count = 5
//!
//! [components]
//! outlet = ["stderr", { name = "logfile", filter = "status >= 500" }]
//!
//! [[components.log]]
//! name = "http/access"
//! ```
mod checked;
mod element;
mod error;
mod files;
mod include;
mod read;
mod rotation;
mod streams;
#[cfg(feature = "toml")]
mod toml;
mod value;
#[cfg(not(all(feature = "toml", feature = "xml")))]
mod without;
mod written;
#[cfg(feature = "xml")]
mod xml;

pub use checked::{Config, Http};
pub use error::ConfigError;
#[cfg(not(feature = "toml"))]
use without::toml;
#[cfg(not(feature = "xml"))]
use without::xml;
pub use written::to_toml;

#[cfg(test)]
mod tests;
