//! A counter that tells a position of a stream.
#![forbid(unsafe_code)]

use fulmar::counters::Counter;
use fulmar::id::CounterId;

/// A counter of a publication or an image.
#[derive(Debug)]
pub struct PositionCounter {
    /// For answers and for freeing.
    pub id: CounterId,
    /// Its value.
    pub value: Counter,
}
