//! Words under the control of loom, shared by clones, on which one ordering can be weakened: a model that still holds
//! on a weakened buffer proves nothing, so each has a twin that must fail.
//!
//! loom looks for another interleaving only where two threads touch the same word one right after the other: a load by
//! a thread itself between another's load and its own exchange hides the race. Therefore every access here first
//! stores to one gate that all threads share and nobody loads: it orders nothing, but lets loom switch at each access.

use std::cell::RefCell;

use fulmar::memory::{AtomicBuffer, LoomWords};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};

/// What a twin gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test file uses its own part")]
pub(crate) enum Weakness {
    /// Nothing: the model holds.
    None,
    /// Release stores of the word at this offset are relaxed.
    RelaxedStore(usize),
    /// Acquire loads of 4 bytes are relaxed.
    RelaxedLoadsOfHalves,
    /// Acquire loads of the word at this offset are relaxed.
    RelaxedLoad(usize),
    /// A compare-exchange of the word at this offset is a relaxed load and a relaxed store.
    TornExchange(usize),
    /// A store of the first word takes effect only with the next store of the second.
    Late {
        /// Offset of the word that is stored too late.
        word: usize,
        /// Offset of the word whose store it waits for.
        until: usize,
    },
    /// A store of this half word with this value takes effect only with the next store of the second.
    LateHalf {
        /// Offset of the half word that is stored too late.
        half: usize,
        /// The value.
        value: i32,
        /// Offset of the word whose store it waits for.
        until: usize,
    },
    /// Zeros take effect only with the next store of this word.
    LateZeros {
        /// Offset of the word.
        until: usize,
    },
}

/// A buffer whose payload moves in words, so that models stay small. Clones share the words.
#[derive(Debug)]
pub(crate) struct ModelWords {
    words: Arc<LoomWords>,
    gate: Arc<AtomicUsize>,
    weakness: Weakness,
    /// `[start, end)` of words that are not modelled: stores are dropped and loads give 0.
    ignored: (usize, usize),
    late: RefCell<Vec<(usize, i64)>>,
}

impl Clone for ModelWords {
    fn clone(&self) -> Self {
        Self {
            words: self.words.clone(),
            gate: self.gate.clone(),
            weakness: self.weakness,
            ignored: self.ignored,
            late: RefCell::default(),
        }
    }
}

impl ModelWords {
    pub(crate) fn new(length: usize, weakness: Weakness) -> Self {
        Self::ignoring(length, weakness, (0, 0))
    }

    pub(crate) fn ignoring(length: usize, weakness: Weakness, ignored: (usize, usize)) -> Self {
        Self {
            words: Arc::new(LoomWords::new(length)),
            gate: Arc::new(AtomicUsize::new(0)),
            weakness,
            ignored,
            late: RefCell::default(),
        }
    }

    /// The words, after a point where loom may switch.
    fn words(&self) -> &LoomWords {
        self.gate.store(0, Ordering::Relaxed);
        &self.words
    }

    fn is_ignored(&self, offset: usize) -> bool {
        (self.ignored.0..self.ignored.1).contains(&offset)
    }

    fn is_late(&self, offset: usize) -> bool {
        matches!(self.weakness, Weakness::Late { word, .. } if word == offset)
    }

    /// Lets late stores that waited for this word take effect, just behind its own store.
    fn stored(&self, offset: usize) {
        match self.weakness {
            Weakness::LateHalf { half, value, until } if until == offset => {
                if !self.late.borrow_mut().drain(..).as_slice().is_empty() {
                    self.words().store_relaxed_i32(half, value);
                }
            }
            Weakness::Late { until, .. } | Weakness::LateZeros { until } if until == offset => {
                for (late, value) in self.late.borrow_mut().drain(..) {
                    self.words().store_relaxed_i64(late, value);
                }
            }
            _ => {}
        }
    }
}

impl AtomicBuffer for ModelWords {
    fn capacity(&self) -> usize {
        self.words.capacity()
    }

    fn load_relaxed_i32(&self, offset: usize) -> i32 {
        self.words().load_relaxed_i32(offset)
    }

    fn load_acquire_i32(&self, offset: usize) -> i32 {
        if self.weakness == Weakness::RelaxedLoadsOfHalves {
            return self.words().load_relaxed_i32(offset);
        }
        self.words().load_acquire_i32(offset)
    }

    fn store_relaxed_i32(&self, offset: usize, value: i32) {
        self.words().store_relaxed_i32(offset, value);
        self.stored(offset);
    }

    fn store_release_i32(&self, offset: usize, value: i32) {
        if let Weakness::LateHalf {
            half, value: late, ..
        } = self.weakness
            && (half, late) == (offset, value)
        {
            self.late.borrow_mut().push((offset, 0));
            return;
        }
        if self.weakness == Weakness::RelaxedStore(offset) {
            self.words().store_relaxed_i32(offset, value);
        } else {
            self.words().store_release_i32(offset, value);
        }
        self.stored(offset);
    }

    fn compare_exchange_i32(&self, offset: usize, current: i32, new: i32) -> Result<i32, i32> {
        self.words().compare_exchange_i32(offset, current, new)
    }

    fn fetch_add_i32(&self, offset: usize, delta: i32) -> i32 {
        self.words().fetch_add_i32(offset, delta)
    }

    fn load_relaxed_i64(&self, offset: usize) -> i64 {
        if self.is_ignored(offset) {
            return 0;
        }
        self.words().load_relaxed_i64(offset)
    }

    fn load_acquire_i64(&self, offset: usize) -> i64 {
        if self.weakness == Weakness::RelaxedLoad(offset) {
            return self.words().load_relaxed_i64(offset);
        }
        self.words().load_acquire_i64(offset)
    }

    fn store_relaxed_i64(&self, offset: usize, value: i64) {
        if self.is_ignored(offset) {
            return;
        }
        self.words().store_relaxed_i64(offset, value);
        self.stored(offset);
    }

    fn store_release_i64(&self, offset: usize, value: i64) {
        if self.is_late(offset) {
            self.late.borrow_mut().push((offset, value));
            return;
        }
        if self.weakness == Weakness::RelaxedStore(offset) {
            self.words().store_relaxed_i64(offset, value);
        } else {
            self.words().store_release_i64(offset, value);
        }
        self.stored(offset);
    }

    fn compare_exchange_i64(&self, offset: usize, current: i64, new: i64) -> Result<i64, i64> {
        if self.weakness == Weakness::TornExchange(offset) {
            let old = self.words().load_relaxed_i64(offset);
            if old != current {
                return Err(old);
            }
            self.words().store_relaxed_i64(offset, new);
            return Ok(old);
        }
        self.words().compare_exchange_i64(offset, current, new)
    }

    fn fetch_add_i64(&self, offset: usize, delta: i64) -> i64 {
        self.words().fetch_add_i64(offset, delta)
    }

    fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            if let (true, Some((word, behind))) = (at.is_multiple_of(8), rest.split_first_chunk()) {
                self.store_relaxed_i64(at, i64::from_le_bytes(*word));
                (at, rest) = (at + 8, behind);
            } else {
                let (half, behind) = rest.split_first_chunk().expect("models move half words");
                self.store_relaxed_i32(at, i32::from_le_bytes(*half));
                (at, rest) = (at + 4, behind);
            }
        }
    }

    fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            if at.is_multiple_of(8) && rest.len() >= 8 {
                let (word, behind) = rest.split_at_mut(8);
                word.copy_from_slice(&self.load_relaxed_i64(at).to_le_bytes());
                (at, rest) = (at + 8, behind);
            } else {
                let (half, behind) = rest.split_at_mut(4);
                half.copy_from_slice(&self.load_relaxed_i32(at).to_le_bytes());
                (at, rest) = (at + 4, behind);
            }
        }
    }

    fn zero(&self, offset: usize, length: usize) {
        for at in (offset..offset + length).step_by(8) {
            if matches!(self.weakness, Weakness::LateZeros { .. }) {
                self.late.borrow_mut().push((at, 0));
            } else {
                self.store_relaxed_i64(at, 0);
            }
        }
    }
}

/// Explores every interleaving with at most this many preemptions.
pub(crate) fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}
