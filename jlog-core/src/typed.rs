//! Values as messages, with serde (feature `typed`). The body of a message is the value encoded as
//! [`Json`] or [`Postcard`]. Nothing else in the feed changes, and other programs read the same
//! bytes.
//!
//! ```
//! use jlog_core::typed::{Encoding, Json};
//! use jlog_core::{Jlog, Start, Wait};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     customer: String,
//!     cents: u64,
//! }
//!
//! # let dir = tempfile::tempdir()?; let path = dir.path().join("feed");
//! let log = Jlog::create_or_open(&path)?;
//! log.ensure_subscriber("billing", Start::Beginning)?;
//! Json.append(&log.writer()?, &Order { customer: "Ada".to_owned(), cents: 1250 })?;
//!
//! let mut reader = log.reader("billing")?;
//! while let Some(batch) = reader.next_batch(Wait::No)? {
//!     for message in &batch {
//!         match Json.read::<Order>(&message) {
//!             Ok(order) => println!("{}: {} owes {}", message.id(), order.customer, order.cents),
//!             Err(error) => eprintln!("{error}"), // names the message; later ones can be read
//!         }
//!     }
//!     let last = batch.last_id();
//!     reader.commit(last)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`encode`](Encoding::encode) returns the body for other uses, such as an `AsyncWriter`.

use serde_core::{Deserialize, Serialize};

use crate::{Appended, AppendedBatch, LogId, Message, OwnedMessage, Writer};

/// Why a value was not appended, or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The encoding cannot represent the value, such as a map in JSON whose keys are not strings.
    /// Nothing was appended.
    #[error("value {index} (a {value}) cannot be written as {encoding}: {source}")]
    Encode {
        /// The index of the value among those to be appended together, from 0.
        index: usize,
        /// Its type.
        value: &'static str,
        /// The encoding's name.
        encoding: &'static str,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The message's body is not a value of this type.
    #[error(
        "message {id} is not a {value} in {encoding}: {source}; read it as another type, or commit past it"
    )]
    Decode {
        /// The message.
        id: LogId,
        /// The requested type.
        value: &'static str,
        /// The encoding's name.
        encoding: &'static str,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The values could not be appended.
    #[error(transparent)]
    Append(#[from] crate::Error),
}

/// A message that was read: a [`Message`] or an [`OwnedMessage`].
pub trait Received<'m>: sealed::Sealed {
    /// Its id.
    fn id(&self) -> LogId;
    /// Its body.
    fn body(&self) -> &'m [u8];
}

impl<'m> Received<'m> for &Message<'m> {
    fn id(&self) -> LogId {
        Message::id(self)
    }

    fn body(&self) -> &'m [u8] {
        Message::body(self)
    }
}

impl<'m> Received<'m> for &'m OwnedMessage {
    fn id(&self) -> LogId {
        OwnedMessage::id(self)
    }

    fn body(&self) -> &'m [u8] {
        OwnedMessage::body(self)
    }
}

/// How values become bodies, and back.
pub trait Encoding: sealed::Encode {
    /// The body of a message that has this value.
    ///
    /// # Errors
    /// [`TypedError::Encode`].
    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, TypedError> {
        self.encode_one(0, value)
    }

    /// Appends a value as [`Writer::append`] does.
    ///
    /// # Errors
    /// [`TypedError::Encode`], [`TypedError::Append`].
    fn append<T: Serialize + ?Sized>(&self, writer: &Writer, value: &T) -> Result<Appended, TypedError> {
        Ok(writer.append(self.encode(value)?)?)
    }

    /// Appends values as [`Writer::append_batch`] does. All of them are encoded first, which needs
    /// memory for all bodies, and none is appended if one cannot be encoded.
    ///
    /// # Errors
    /// As [`append`](Encoding::append).
    fn append_batch<'v, T: Serialize + ?Sized + 'v>(
        &self,
        writer: &Writer,
        values: impl IntoIterator<Item = &'v T>,
    ) -> Result<AppendedBatch, TypedError> {
        let bodies = values.into_iter().enumerate().map(|(index, value)| self.encode_one(index, value));
        Ok(writer.append_batch(&bodies.collect::<Result<Vec<_>, _>>()?)?)
    }

    /// The value of a message. Strings and bytes may be borrowed from it.
    ///
    /// # Errors
    /// [`TypedError::Decode`], also if bytes follow the value.
    fn read<'m, T: Deserialize<'m>>(&self, message: impl Received<'m>) -> Result<T, TypedError> {
        self.decode_body(message.body()).map_err(|source| TypedError::Decode {
            id: message.id(),
            value: std::any::type_name::<T>(),
            encoding: Self::NAME,
            source,
        })
    }
}

/// JSON, without white space: for programs in any language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

/// [postcard](https://docs.rs/postcard): small and fast, for Rust programs that have the same
/// types. The body does not describe the value's fields: bytes of another type may be read as a
/// value that nobody wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

impl Encoding for Json {}
impl Encoding for Postcard {}

mod sealed {
    use serde_core::{Deserialize, Serialize};

    use super::{Json, Postcard, TypedError};
    use crate::plural::counted;
    use crate::{Message, OwnedMessage};

    type Source = Box<dyn std::error::Error + Send + Sync>;

    pub trait Sealed {}
    impl Sealed for &Message<'_> {}
    impl Sealed for &OwnedMessage {}

    pub trait Encode {
        const NAME: &'static str;

        fn encode_body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, Source>;
        fn decode_body<'m, T: Deserialize<'m>>(&self, body: &'m [u8]) -> Result<T, Source>;

        fn encode_one<T: Serialize + ?Sized>(&self, index: usize, value: &T) -> Result<Vec<u8>, TypedError> {
            self.encode_body(value).map_err(|source| TypedError::Encode {
                index,
                value: std::any::type_name::<T>(),
                encoding: Self::NAME,
                source,
            })
        }
    }

    impl Encode for Json {
        const NAME: &'static str = "JSON";

        fn encode_body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, Source> {
            Ok(serde_json::to_vec(value)?)
        }

        fn decode_body<'m, T: Deserialize<'m>>(&self, body: &'m [u8]) -> Result<T, Source> {
            Ok(serde_json::from_slice(body)?)
        }
    }

    impl Encode for Postcard {
        const NAME: &'static str = "postcard";

        fn encode_body<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, Source> {
            Ok(postcard::to_allocvec(value)?)
        }

        fn decode_body<'m, T: Deserialize<'m>>(&self, body: &'m [u8]) -> Result<T, Source> {
            match postcard::take_from_bytes(body)? {
                (value, []) => Ok(value),
                (_, rest) => Err(format!("{} after the value", counted(rest.len() as u64, "byte")).into()),
            }
        }
    }
}
