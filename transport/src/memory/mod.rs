//! Who owns bytes and who looks at them.
//!
//! A [`Region`] owns bytes: a mapped file or zeroed heap. A [`View`] is a bounds-checked window on a region and
//! keeps it alive. Shared-memory algorithms are generic over [`AtomicBuffer`], so that the same code runs on a
//! `View` and, under loom, on `LoomWords`.
//!
//! Another process may write any byte of a mapped region at any time. Therefore no reference to region bytes is
//! ever formed: words are read and written as atomics, payload is copied with raw pointers, and whatever was read
//! is a number to be checked, never a pointer or an index to be trusted.

pub mod buffer;
pub(crate) mod copy;
pub mod guard;
pub mod handoff;
#[cfg(loom)]
pub mod loom_words;
pub mod mapped;
pub mod region;

pub use buffer::{AtomicBuffer, View};
pub use handoff::{Handed, Handoff};
#[cfg(loom)]
pub use loom_words::LoomWords;
pub use region::Region;
pub(crate) use region::RegionWatch;
