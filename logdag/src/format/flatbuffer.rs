//! A line as a FlatBuffer: the table LogLine of `schema/logline.fbs`.

use std::cell::RefCell;

use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, VOffsetT, WIPOffset};

use crate::record::Record;
use crate::value::Value;

/// The offset of the field with this id in a table's list of fields, after two lengths of two
/// bytes.
const fn field(id: VOffsetT) -> VOffsetT {
    4 + 2 * id
}

/// Numbers of the union's types.
const LONG: u8 = 1;
const ULONG: u8 = 2;
const DOUBLE: u8 = 3;
const STRING: u8 = 4;
const UUID: u8 = 5;

type Table = WIPOffset<TableFinishedWIPOffset>;

thread_local! {
    static BUILDER: RefCell<FlatBufferBuilder<'static>> = RefCell::new(FlatBufferBuilder::new());
}

/// Appends the line to `out`; with `sized`, after its length (4 bytes, little endian), so that
/// lines can follow each other.
pub(super) fn line(record: &Record<'_>, sized: bool, out: &mut Vec<u8>) {
    let write = |builder: &mut FlatBufferBuilder<'_>, out: &mut Vec<u8>| {
        build(builder, record);
        let data = builder.finished_data();
        if sized {
            // No builder makes more than 2 GiB.
            out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(data);
    };
    let built = BUILDER.try_with(|builder| match builder.try_borrow_mut() {
        Ok(mut builder) => {
            builder.reset();
            write(&mut builder, out);
            true
        }
        Err(_) => false,
    });
    if !built.unwrap_or(false) {
        write(&mut FlatBufferBuilder::new(), out);
    }
}

fn build(builder: &mut FlatBufferBuilder<'_>, record: &Record<'_>) {
    // The objects that a table refers to come before it.
    let pairs: Vec<Table> = record.keys.iter().map(|(key, value)| pair(builder, key, value)).collect();
    let pairs = (!pairs.is_empty()).then(|| builder.create_vector(&pairs));
    let texts = [record.location.file, record.thread_name(), record.facility, record.message()]
        .map(|text| builder.create_string(text));
    let start = builder.start_table();
    builder.push_slot(field(0), record.micros(), 0);
    for (id, text) in (3..).zip(texts) {
        builder.push_slot_always(field(id), text);
    }
    if let Some(pairs) = pairs {
        builder.push_slot_always(field(7), pairs);
    }
    builder.push_slot(field(1), record.thread_id(), 0);
    builder.push_slot(field(2), record.location.line, 0);
    let root = builder.end_table(start);
    builder.finish(root, None);
}

fn pair(builder: &mut FlatBufferBuilder<'_>, key: &str, value: &Value<'_>) -> Table {
    let key = builder.create_string(key);
    let string = |builder: &mut FlatBufferBuilder<'_>, text: &str| {
        let text = builder.create_string(text);
        (STRING, one(builder, |b| b.push_slot_always(field(0), text)))
    };
    let (kind, value) = match *value {
        Value::I64(n) => (LONG, one(builder, |b| b.push_slot(field(0), n, 0))),
        Value::U64(n) => (ULONG, one(builder, |b| b.push_slot(field(0), n, 0))),
        // Always present: a missing value is read as 0.0, also if it is -0.0.
        Value::F64(n) => (DOUBLE, one(builder, |b| b.push_slot_always(field(0), n))),
        Value::Json(json) if json.as_str() == "-0" => {
            (DOUBLE, one(builder, |b| b.push_slot_always(field(0), -0.0_f64)))
        }
        Value::Str(text) => string(builder, text),
        // The table has no types for these.
        Value::Bool(_) | Value::Null | Value::Json(_) => string(builder, &value.to_string()),
        Value::Uuid(bytes) => {
            let bytes = builder.create_vector(&bytes);
            (UUID, one(builder, |b| b.push_slot_always(field(0), bytes)))
        }
    };
    let start = builder.start_table();
    builder.push_slot_always(field(0), key);
    builder.push_slot_always(field(2), value);
    builder.push_slot(field(1), kind, 0);
    builder.end_table(start)
}

/// A table of one field.
fn one<'b>(builder: &mut FlatBufferBuilder<'b>, field: impl FnOnce(&mut FlatBufferBuilder<'b>)) -> Table {
    let start = builder.start_table();
    field(builder);
    builder.end_table(start)
}
