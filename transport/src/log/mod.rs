//! Log buffers: the three terms and the metadata page through which publishers hand frames to subscribers
//! (shared-memory spec 9, 10, 11, 13.9, 13.10).
//!
//! ```text
//!   0           L           2L          3L        length - 4096
//!   +-----------+-----------+-----------+---------+----------+
//!   | term 0    | term 1    | term 2    | padding | metadata |
//!   +-----------+-----------+-----------+---------+----------+
//! ```
//!
//! A publisher reserves a range of the active term by raising its *tail*, writes frames into it and *commits* each by
//! storing its positive length last. Readers follow the lengths and stop at the first that is not positive. When a
//! term is full the rest is *padded* and the log *rotates* to the next term, whose bytes the driver has *cleaned*
//! behind the slowest reader. A range that a dead publisher left open is *unblocked*: turned into padding.
//!
//! - [`append`], [`claim`], [`rotate`]: the publishing side; [`payload`]: what is appended.
//! - [`read`], [`block`]: the reading side; [`frame`]: what is read.
//! - [`mod@clean`], [`mod@unblock`]: what the driver does behind and between them.
//! - [`scan`]: what a sender puts into datagrams; [`rebuild`], [`gap`], [`gap_fill`]: how a receiver gets them back
//!   into a log.
//! - [`buffers`], [`metadata`], [`descriptor`]: the file and its limits; [`words`]: access without repeated checks.

pub mod append;
pub mod block;
pub mod buffers;
pub mod claim;
pub mod clean;
pub mod descriptor;
pub mod frame;
pub mod gap;
pub mod gap_fill;
pub mod metadata;
pub mod payload;
pub mod read;
pub mod rebuild;
pub mod rotate;
pub mod scan;
pub mod unblock;
pub mod words;

pub use append::{
    AppendOutcome, AppendWindow, BatchOutcome, BlockOutcome, ConcurrentAppender, ExclusiveAppender, NoWindow,
};
pub use block::{Block, scan_block};
pub use buffers::{LogBuffers, LogInit};
pub use claim::{Claimed, CommitError, FrameFields};
pub use clean::clean;
pub use descriptor::{LogError, LogType};
pub use frame::{FrameView, Payload};
pub use gap::{Gap, GapScan, for_each_gap, scan_gap};
pub use metadata::{Metadata, producer_position};
pub use payload::{NoReservedValue, ReservedValue, Source};
pub use read::{Action, ReadResult, scan_fragments};
pub use scan::{Run, Scan, run_of_equal, scan_datagram, starts_frame};
pub use unblock::{PadRange, Sweep, Unblock, pad_range, sweep, unblock, unblock_guarded, unblock_to};
pub use words::{HeaderWord, Slot, Term, Words};
