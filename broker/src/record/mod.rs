//! Record batches, format 2: what producers send, files hold and consumers get, byte for byte (kafka gateway, section 3).
//!
//! - [`header`]: the 61 bytes in front, decoded.
//! - [`batch`]: a batch as a view over bytes, checked; runs of batches; the fields that the broker writes.
//! - [`records`]: the records of an uncompressed batch.
//! - [`builder`]: making batches.
//! - [`control`]: the end of a transaction.
//! - [`validate`]: what a batch from a producer must be like, and the error for each thing that it is not.
//! - [`varint`]: the numbers inside records.
//!
//! Everything here takes bytes and gives values: nothing is read from a clock or a file. Bytes are hostile until checked: no
//! input panics, no count or length in it is believed before the bytes that it speaks of are there, nothing is allocated for it.
//! Compressed records are never looked into, and formats 0 and 1 are refused.
#![forbid(unsafe_code)]

pub mod batch;
pub mod builder;
pub mod control;
pub mod header;
pub mod records;
pub mod validate;
pub mod varint;

pub use batch::{BatchMut, BatchView, Batches};
pub use builder::{BatchBuilder, NewRecord, Producer};
pub use header::{Attributes, BatchError, BatchHeader, Codec, TimestampType};
pub use records::{Record, RecordError, Records};
