//! The parts that all comparisons share: the messages, the tally of read messages, and alternating
//! rounds.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::c::Api;

/// Default length of a message, in bytes.
pub const MESSAGE: usize = 100;
/// Bytes before each body in a segment.
pub const HEADER: usize = 16;
/// Bytes of such a message in a segment.
pub const RECORD: usize = MESSAGE + HEADER;

/// The options of the command line.
pub struct Context {
    /// Where files are created.
    pub dir: PathBuf,
    /// Where files are created for measurements of durability.
    pub durable_dir: PathBuf,
    /// Alternating rounds.
    pub rounds: usize,
    /// Whether sizes are small, only to check that everything works.
    pub quick: bool,
    /// The C library.
    pub c: Option<Api>,
    /// Our library with the same interface.
    pub our_c: Option<Api>,
}

impl Context {
    /// The first number, or the second if sizes are to be small.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A directory that is removed with its contents on drop.
    pub fn temp(&self) -> Result<TempDir> {
        Ok(TempDir::with_prefix_in("compare-", &self.dir)?)
    }

    /// Such a directory for measurements of durability.
    pub fn durable_temp(&self) -> Result<TempDir> {
        Ok(TempDir::with_prefix_in("compare-", &self.durable_dir)?)
    }
}

/// Messages to write: the same for every contender.
pub struct Load {
    /// How many.
    pub count: usize,
    /// How many make a batch (1: they are appended one by one).
    pub batch: usize,
    bodies: Vec<Vec<u8>>,
}

impl Load {
    /// `count` messages (rounded up to whole batches) of `len` bytes.
    pub fn new(len: usize, count: usize, batch: usize) -> Self {
        let distinct = ((4 << 20) / len.max(1)).clamp(1, 1000);
        Self {
            count: count.next_multiple_of(batch),
            batch,
            bodies: (0..distinct).map(|n| body(n, len)).collect(),
        }
    }

    /// Default messages, one by one.
    pub fn single(count: usize) -> Self {
        Self::new(MESSAGE, count, 1)
    }

    /// Calls `f` with every message, in order.
    #[inline]
    pub fn each(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = self.count;
        while left > 0 {
            let n = left.min(self.period());
            for i in 0..n {
                take(&self.bodies[i % self.bodies.len()])?;
            }
            left -= n;
        }
        Ok(())
    }

    /// Calls this with every batch, in order.
    pub fn each_batch(&self, mut take: impl FnMut(&[&[u8]]) -> Result<()>) -> Result<()> {
        let batch: Vec<&[u8]> =
            (0..self.batch).map(|i| self.bodies[i % self.bodies.len()].as_slice()).collect();
        for _ in 0..self.count / self.batch {
            take(&batch)?;
        }
        Ok(())
    }

    /// The messages repeat after this many.
    fn period(&self) -> usize {
        if self.batch > 1 { self.batch } else { self.bodies.len() }
    }

    /// The tally that a reader must have at the end.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        let added = self.each(|body| {
            tally.add(body);
            Ok(())
        });
        debug_assert!(added.is_ok());
        tally
    }

    /// Does it, and returns million messages per second.
    pub fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(self.rate(start.elapsed().as_secs_f64()))
    }

    /// Million messages per second if all of them took these seconds.
    pub fn rate(&self, seconds: f64) -> f64 {
        as_f64(self.count) / seconds / 1e6
    }
}

/// A line as a web server may log it, different for each number, of exactly this length.
fn body(number: usize, len: usize) -> Vec<u8> {
    let client = number * 7919 % 251;
    let mut text =
        format!("{number:08} 192.0.2.{client} GET /archive/{number:x}/index.html 200 ").into_bytes();
    while text.len() < len {
        text.extend_from_slice(b"compatible; feed reader/1.0 ");
    }
    text.truncate(len);
    text
}

/// A tally of read messages: their number, their bytes, and a checksum of their first and last
/// bytes in order. (A checksum over every byte would cost more than the measured reading.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    sum: u64,
    /// Of all bytes that were [looked at](Self::look_at).
    whole: u64,
}

impl Tally {
    /// Counts a message.
    #[inline]
    pub fn add(&mut self, body: &[u8]) {
        self.messages += 1;
        self.bytes += body.len() as u64;
        let ends = match (body.first_chunk::<8>(), body.last_chunk::<8>()) {
            (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last),
            _ => body.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        self.sum = self.sum.rotate_left(1).wrapping_add(ends);
    }

    /// Looks at every byte of a message that was counted.
    #[inline]
    pub fn look_at(&mut self, body: &[u8]) {
        let (words, rest) = body.as_chunks::<8>();
        let words = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        self.whole =
            rest.iter().fold(self.whole.wrapping_add(words), |sum, &byte| sum.wrapping_add(byte.into()));
    }

    /// Checks that everything was read, and nothing else.
    pub fn check(&self, expected: &Self, who: &str) -> Result<()> {
        ensure!(self == expected, "{who} read {self:?} instead of {expected:?}");
        Ok(())
    }
}

/// Work in a directory, which returns a figure.
type Run<'a> = Box<dyn FnMut(&Path) -> Result<f64> + 'a>;

/// One of the contenders for the same work.
pub struct Contender<'a> {
    /// Its name.
    pub name: String,
    run: Run<'a>,
}

impl<'a> Contender<'a> {
    /// Does the work in a new directory that is removed afterwards, and returns its figure.
    pub fn new(name: impl Into<String>, run: impl FnMut(&Path) -> Result<f64> + 'a) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// The figures of several rounds.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The contender's name.
    pub name: String,
    /// The figures, in order of size.
    values: Vec<f64>,
}

impl Sample {
    /// Figures of one contender.
    pub fn new(name: impl Into<String>, mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { name: name.into(), values }
    }

    /// The median.
    pub fn median(&self) -> f64 {
        match (self.values.len(), self.values.len() / 2) {
            (0, _) => f64::NAN,
            (n, half) if n % 2 == 0 => f64::midpoint(self.values[half - 1], self.values[half]),
            (_, half) => self.values[half],
        }
    }

    /// The smallest and the largest figure.
    pub fn range(&self) -> (f64, f64) {
        (self.values.first().copied().unwrap_or(f64::NAN), self.values.last().copied().unwrap_or(f64::NAN))
    }
}

/// Runs all contenders in turn, round after round; each round begins with a different one.
pub fn alternate(
    temp: impl Fn() -> Result<TempDir>,
    rounds: usize,
    contenders: &mut [Contender<'_>],
) -> Result<Vec<Sample>> {
    let mut values = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let which = (round + turn) % contenders.len();
            let dir = temp()?;
            values[which].push((contenders[which].run)(dir.path())?);
        }
    }
    Ok(contenders.iter().zip(values).map(|(who, values)| Sample::new(who.name.clone(), values)).collect())
}

/// The sample of that name.
pub fn find<'a>(samples: &'a [Sample], name: &str) -> Option<&'a Sample> {
    samples.iter().find(|sample| sample.name == name)
}

/// A count as a floating point number.
#[allow(clippy::cast_precision_loss)]
pub fn as_f64(count: usize) -> f64 {
    count as f64
}
