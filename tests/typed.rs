//! Values as messages: reading returns the appended values, and a message that cannot be decoded is
//! an error that names it.

use std::collections::BTreeMap;

use jlog_core::asynchronous::{AsyncReader, AsyncWriter};
use jlog_core::typed::{Encoding, Json, Postcard, TypedError};
use jlog_core::{Error, Jlog, LogId, Start, Wait};
use serde::{Deserialize, Serialize};

use testkit::feeds::{bodies, new_path, read_all};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order<'a> {
    customer: &'a str,
    cents: u64,
    notes: Vec<Option<i32>>,
}

fn orders() -> Vec<Order<'static>> {
    vec![
        Order { customer: "Ada", cents: 1250, notes: vec![Some(-1), None] },
        Order { customer: "Çelik ✓", cents: u64::MAX, notes: vec![] },
        Order { customer: "", cents: 0, notes: vec![Some(i32::MIN); 300] },
    ]
}

/// Appends values and reads the same ones, in batches and one by one, with blocking and async
/// calls.
fn there_and_back(encoding: &impl Encoding) {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    log.subscribe("two", Start::Beginning).unwrap();
    let orders = orders();
    {
        let writer = log.writer().unwrap();
        let placed = encoding.append(&writer, &orders[0]).unwrap();
        assert_eq!(placed.id(), Some(LogId::new(0, 1)));
        assert_eq!(encoding.append_batch(&writer, &orders[1..]).unwrap().len(), 2);
        assert!(encoding.append_batch::<Order<'_>>(&writer, []).unwrap().is_empty());
    }
    let mut reader = log.reader("one").unwrap();
    let batch = reader.next_batch(Wait::No).unwrap().unwrap();
    let got: Vec<Order<'_>> = batch.iter().map(|message| encoding.read(&message).unwrap()).collect();
    assert_eq!(got, orders);

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let writer = AsyncWriter::open(&log).await.unwrap();
        writer.append_durable(encoding.encode(&orders[0]).unwrap()).await.unwrap();
        let mut reader = AsyncReader::open(&log, "two").await.unwrap();
        let mut seen = 0;
        while seen < 4 {
            for message in &reader.next_batch().await.unwrap().unwrap() {
                assert_eq!(encoding.read::<Order<'_>>(&message).unwrap(), orders[seen % 3]);
                seen += 1;
            }
        }
    });
}

#[test]
fn values_come_back_as_they_were() {
    there_and_back(&Json);
    there_and_back(&Postcard);
}

#[test]
fn json_is_what_other_programs_read() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    Json.append(&log.writer().unwrap(), &orders()[0]).unwrap();
    assert_eq!(bodies(&read_all(&log)), [r#"{"customer":"Ada","cents":1250,"notes":[-1,null]}"#.as_bytes()]);
}

#[test]
fn what_is_no_such_value_is_an_error_that_names_the_message_and_no_other() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let postcard = Postcard.encode(&7u32).unwrap();
    let longer = [&postcard[..], b"more"].concat();
    let hostile = [0xff; 11];
    writer.append_batch(&[&b"7"[..], b"7 7", b"\"seven\"", b"", &[0xff]]).unwrap();
    writer.append_batch(&[&postcard[..], &longer, b"", &hostile]).unwrap();
    let mut reader = log.reader("one").unwrap();
    let batch = reader.next_batch(Wait::No).unwrap().unwrap();
    for (n, message) in batch.iter().enumerate() {
        let read = if n < 5 { Json.read::<u32>(&message) } else { Postcard.read::<u32>(&message) };
        if n == 0 || n == 5 {
            assert_eq!(read.unwrap(), 7);
            continue;
        }
        let error = read.unwrap_err();
        assert!(matches!(error, TypedError::Decode { id, .. } if id == message.id()), "{error:?}");
        let encoding = if n < 5 { "JSON" } else { "postcard" };
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("message 00000000:0000000{} is not a u32 in {encoding}: ", n + 1)),
            "{text}"
        );
        assert!(text.ends_with("; read it as another type, or commit past it"), "{text}");
    }
    // No memory is reserved for a length that exceeds the body.
    assert!(matches!(
        Postcard.read::<Vec<u64>>(&batch.iter().nth(8).unwrap()),
        Err(TypedError::Decode { .. })
    ));
}

#[test]
fn nothing_of_a_batch_is_appended_if_one_value_cannot_be_encoded() {
    let (_dir, path) = new_path();
    let log = Jlog::create(&path).unwrap();
    log.subscribe("one", Start::Beginning).unwrap();
    let writer = log.writer().unwrap();
    let good: BTreeMap<Vec<u8>, u8> = BTreeMap::new();
    let bad = BTreeMap::from([(vec![1, 2], 3)]);
    let error = Json.append_batch(&writer, [&good, &bad]).unwrap_err();
    assert!(matches!(error, TypedError::Encode { index: 1, encoding: "JSON", .. }), "{error:?}");
    assert!(error.to_string().starts_with("value 1 (a "), "{error}");
    assert!(matches!(Json.append(&writer, &bad), Err(TypedError::Encode { index: 0, .. })));
    assert_eq!(writer.accepted(), 0);
    assert!(read_all(&log).is_empty());

    // An error of the writer is reported as such.
    std::fs::remove_dir_all(&path).unwrap();
    let error = Json.append(&writer, &"gone").unwrap_err();
    assert!(matches!(error, TypedError::Append(Error::Replaced { .. } | Error::Io { .. })), "{error:?}");
}
