//! Outlets, and the metrics that lines are counted in.

use std::collections::HashMap;

use super::known::{METRIC_ATTRIBUTES, OUTLET_ATTRIBUTES};
use super::{Chain, Reader};
use crate::config::element::Element;
use crate::config::error::Result;
use crate::config::value::Given;
use crate::filter::{Filter, Limit};
use crate::level::Level;
use crate::options::{StreamConfig, StreamOptions};
use crate::sink::{METRIC_KEYS, SinkSpec};

impl<'a> Reader<'a> {
    /// The outlets of a stream. As in libmtev, an outlet that is given twice counts once, with the
    /// first filter.
    pub(super) fn outlets(&mut self, chain: Chain<'_, 'a>) -> Vec<(String, Option<Filter>)> {
        let mut outlets: Vec<(String, Option<Filter>)> = Vec::new();
        let mut known: HashMap<&str, (usize, usize)> = HashMap::new();
        let all =
            chain.iter().enumerate().flat_map(|(of, above)| above.outlets.iter().map(move |one| (of, one)));
        for (of, (name, filter, place)) in all {
            let (first_of, at) = *known.entry(name).or_insert((of, outlets.len()));
            match outlets.get(at) {
                None => outlets.push((name.clone(), filter.clone())),
                Some((_, first)) if first != filter => {
                    let counts = match first {
                        Some(first) => format!("with the filter {:?}, which takes precedence", first.text()),
                        None => "without a filter".to_owned(),
                    };
                    let is = if first_of == of { "given" } else { "inherited" };
                    self.warn(place, format!("an outlet to {name:?} is {is} already, {counts}"));
                }
                Some(_) => {}
            }
        }
        outlets
    }

    pub(super) fn outlet(outlet: &Element) -> Result<(String, Option<Filter>)> {
        for (name, _, place) in &outlet.attributes {
            if !OUTLET_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &outlet.shown(), OUTLET_ATTRIBUTES));
            }
        }
        let Some((name, _)) = outlet.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(outlet.place.error("an outlet without a name: expected <outlet name=\"…\"/>"));
        };
        Ok((name.to_owned(), Self::filter(outlet)?))
    }

    /// Makes the stream of a metric, and returns it with the filter in front of it.
    pub(super) fn metric(&mut self, metric: &'a Element) -> Result<(String, Option<Filter>)> {
        for (name, _, place) in &metric.attributes {
            if !METRIC_ATTRIBUTES.contains(&&**name) {
                return Err(place.unknown("attribute", name, &metric.shown(), METRIC_ATTRIBUTES));
            }
        }
        let Some((path, place)) = metric.attribute("name").filter(|(name, _)| !name.is_empty()) else {
            return Err(metric.place.error("a metric without a name: expected <metric name=\"…\"/>"));
        };
        let filter = Self::filter(metric)?;
        let name = format!("metric/{path}");
        // A metric above several <logs> is read several times.
        if self.metrics.insert(std::ptr::from_ref(metric)) {
            let mut sink = SinkSpec { stream: name.clone(), ..SinkSpec::new("metric", path) };
            for (attribute, text, _) in &metric.attributes {
                let key = if attribute == "type" { "kind" } else { attribute };
                if METRIC_KEYS.contains(&key) {
                    sink.config.insert(key.to_owned(), text.clone());
                }
            }
            crate::sink::check(&sink).map_err(|why| metric.place.error(why))?;
            if !self.names.insert(name.clone()) {
                return Err(place.error(format!("there is a log {name:?} already")));
            }
            let options = StreamOptions { sink: Some(sink), ..StreamOptions::default() };
            self.streams.push(StreamConfig { name: name.clone(), options, outlets: Vec::new() });
            self.places.push(metric.place.clone());
        }
        Ok((name, filter))
    }

    /// The filter of an outlet, including its minimum level, sample and limit.
    pub(super) fn filter(outlet: &Element) -> Result<Option<Filter>> {
        let filter = match outlet.attribute("filter") {
            None => None,
            Some((text, place)) => {
                let at = |e: crate::FilterError| {
                    let place = place.inside(e.column - 1);
                    place.error(format!("the filter, at column {}: expected {}", e.column, e.expected))
                };
                Some(Filter::parse(text).map_err(at)?)
            }
        };
        let min_level = Given::find(outlet, "min_level").map(|given| {
            Level::from_name(given.text).ok_or_else(|| given.expected("trace, debug, info, warn or error"))
        });
        let filter = match (filter, min_level.transpose()?) {
            (Some(filter), Some(level)) => Some(filter.with_min_level(level)),
            (None, Some(level)) => Some(Filter::min_level(level)),
            (filter, None) => filter,
        };
        let sample = Given::find(outlet, "sample").map(|given| {
            let number = given.text.trim().strip_prefix("1/").and_then(|n| n.trim().parse().ok());
            number.ok_or_else(|| given.expected("1/N for one of N lines, 1/10 for example"))
        });
        let limit = Given::find(outlet, "limit").map(|given| {
            given.text.parse::<Limit>().map_err(|_| given.expected("lines in a time: 100/s, 1000/min or 5/h"))
        });
        let filter = match sample.transpose()? {
            Some(one_of) => Some(filter.unwrap_or_else(Filter::all).with_sample(one_of)),
            None => filter,
        };
        let filter = match limit.transpose()? {
            Some(limit) => Some(filter.unwrap_or_else(Filter::all).with_limit(limit)),
            None => filter,
        };
        Ok(filter)
    }
}
