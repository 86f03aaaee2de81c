//! Where the lines of a stream go: the graph below it, computed once for every change of the graph.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filter::Filter;
use crate::format::Flags;
use crate::kept::Kept;
use crate::level::{Level, Threshold};
use crate::record::{Record, now_micros};
use crate::redact::Redaction;
use crate::slot::{Slot, TextHook};

/// A hook for lines; it stops a line by returning `false`.
pub(crate) type RecordHook = Arc<dyn Fn(&Record<'_>) -> bool + Send + Sync>;

/// The hooks that lines are passed to.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) record: Vec<RecordHook>,
    pub(crate) text: Vec<TextHook>,
}

/// A list of steps that is walked for every line.
pub(crate) struct Route {
    /// The name of the stream.
    pub(crate) facility: Arc<str>,
    pub(crate) steps: Vec<Step>,
    hooks: Arc<Hooks>,
    /// Edges with filters, by stream and place: each is evaluated once for a line, however many
    /// paths include it.
    edges: Vec<(String, usize)>,
    /// The minimum level of its stream.
    takes: Threshold,
}

pub(crate) enum Step {
    Deliver {
        slot: Arc<Slot>,
        flags: Flags,
        /// What is removed from the line first.
        redaction: Option<Arc<Redaction>>,
    },
    /// Counts the lines that reach a stream.
    Count(Arc<AtomicU64>),
    /// A line that does not pass continues at `behind`.
    Filter { filter: Arc<Filter>, edge: usize, behind: usize, passes: Option<Arc<Passes>> },
    /// The line is kept until the speculation is decided.
    Keep(Arc<Kept>),
}

/// How many lines came to an outlet's filter, and how many of them did not pass.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    lines: AtomicU64,
    filtered: AtomicU64,
}

impl Passes {
    fn note(&self, passes: bool) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        if !passes {
            self.filtered.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Both numbers; the second is never greater than the first.
    pub(crate) fn get(&self) -> (u64, u64) {
        let filtered = self.filtered.load(Ordering::Relaxed);
        (self.lines.load(Ordering::Relaxed).max(filtered), filtered)
    }
}

/// Whether a line passes a filter; counts it on request.
fn evaluate(filter: &Filter, passes: Option<&Arc<Passes>>, record: &Record<'_>) -> bool {
    let passed = filter.passes(record);
    if let Some(passes) = passes {
        passes.note(passed);
    }
    passed
}

impl Route {
    /// A route that leads nowhere yet.
    pub(crate) fn new(facility: Arc<str>, hooks: Arc<Hooks>) -> Self {
        Self { facility, steps: Vec::new(), hooks, edges: Vec::new(), takes: Threshold::ALL }
    }

    /// Sets the minimum level of its stream.
    pub(crate) fn takes(&mut self, least: Threshold) {
        self.takes = least;
    }

    /// Less serious lines reach no sink.
    pub(crate) fn threshold(&self) -> Threshold {
        self.takes.max(Self::least_of(&self.steps, 0..self.steps.len()))
    }

    /// The same for some of the steps. Filters come before the steps that they apply to.
    fn least_of(steps: &[Step], within: Range<usize>) -> Threshold {
        let mut least = Threshold::NOTHING;
        let mut at = within.start;
        while at < within.end {
            at = match &steps[at] {
                Step::Deliver { .. } | Step::Keep(_) => return Threshold::ALL,
                Step::Count(_) => at + 1,
                Step::Filter { filter, behind, .. } => {
                    let inside = Self::least_of(steps, at + 1..*behind);
                    least = least.min(filter.threshold().max(inside));
                    *behind
                }
            };
        }
        least
    }

    /// The number of an edge with a filter.
    pub(crate) fn edge(&mut self, stream: &str, place: usize) -> usize {
        let found = self.edges.iter().position(|(name, at)| name == stream && *at == place);
        found.unwrap_or_else(|| {
            self.edges.push((stream.to_owned(), place));
            self.edges.len() - 1
        })
    }

    pub(crate) fn run(&self, record: &Record<'_>) {
        if !self.hooks.record.iter().all(|hook| hook(record)) {
            return;
        }
        match &self.steps[..] {
            [Step::Deliver { slot, flags, redaction: None }] => {
                slot.deliver(record, *flags, &self.hooks.text)
            }
            steps => self.walk(steps, 0, record),
        }
    }

    /// Takes a line through the steps, starting at `from`.
    fn walk(&self, steps: &[Step], from: usize, record: &Record<'_>) {
        // The results of the filters of the first 64 edges, and of more.
        let (mut asked, mut passed) = (0u64, 0u64);
        let mut more: Vec<Option<bool>> = vec![None; self.edges.len().saturating_sub(64)];
        let mut at = from;
        while let Some(step) = steps.get(at) {
            at += 1;
            match step {
                Step::Deliver { slot, flags, redaction } => match redaction {
                    None => slot.deliver(record, *flags, &self.hooks.text),
                    Some(redaction) => {
                        redaction.apply(record, |record| slot.deliver(record, *flags, &self.hooks.text));
                    }
                },
                Step::Keep(kept) => kept.keep(record),
                Step::Count(lines) => {
                    lines.fetch_add(1, Ordering::Relaxed);
                }
                Step::Filter { filter, edge, behind, passes } => {
                    let evaluate = || evaluate(filter, passes.as_ref(), record);
                    let passed_here =
                        match (1u64.checked_shl(u32::try_from(*edge).unwrap_or(64)), edge.checked_sub(64)) {
                            (Some(bit), None) => {
                                if asked & bit == 0 {
                                    asked |= bit;
                                    passed |= if evaluate() { bit } else { 0 };
                                }
                                passed & bit != 0
                            }
                            (_, at) => match at.and_then(|at| more.get_mut(at)) {
                                Some(known) => *known.get_or_insert_with(evaluate),
                                None => evaluate(),
                            },
                        };
                    if !passed_here {
                        at = *behind;
                    } else if let Some(left_out) = filter.unreported() {
                        let text = left_out.to_string();
                        let mut report = Record::new(now_micros(), &self.facility, &text);
                        report.level = Level::Warn;
                        self.walk(&steps[..*behind], at, &report);
                    }
                }
            }
        }
    }
}
