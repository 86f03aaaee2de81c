//! raft-engine: one process; syncs a file when it is full, or each write.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::work::Load;

/// Entries have to be protocol buffer messages that contain an index. This one, from the protobuf
/// crate, has a number and bytes.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = UninterpretedOption;

    fn index(entry: &UninterpretedOption) -> u64 {
        entry.get_positive_int_value()
    }
}

/// Appends the load to one group of a new engine, in batches if it has any; million messages per
/// second.
pub fn append(path: &Path, load: &Load) -> Result<f64> {
    let config = Config {
        dir: path.to_str().context("the directory's name is not UTF-8")?.to_owned(),
        target_file_size: ReadableSize::mb(4),
        batch_compression_threshold: ReadableSize::kb(0),
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let mut batch = LogBatch::with_capacity(load.batch);
    let mut index = 0;
    let rate = load.timed(|| {
        let mut entries = vec![UninterpretedOption::new(); load.batch];
        let mut write = |bodies: &[&[u8]]| -> Result<()> {
            for (entry, body) in entries.iter_mut().zip(bodies) {
                index += 1;
                entry.set_positive_int_value(index);
                let bytes = entry.mut_string_value();
                bytes.clear();
                bytes.extend_from_slice(body);
            }
            batch.add_entries::<Entries>(1, &entries)?;
            engine.write(&mut batch, false)?;
            Ok(())
        };
        if load.batch > 1 {
            load.each_batch(write)?
        } else {
            load.each(|body| write(&[body]))?
        }
        Ok(engine.sync()?)
    })?;
    ensure!(engine.last_index(1) == Some(load.count as u64), "raft-engine lost messages");
    Ok(rate)
}
