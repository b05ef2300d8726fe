//! A claimed message: a place in the stream, and private memory to fill (shared-memory spec 10.2, try claim).
//!
//! The payload is staged in private memory and copied when it is committed, so that a claim that the driver took
//! back meanwhile can not overwrite what others have put in its place.
#![forbid(unsafe_code)]

use core::ops::{Deref, DerefMut};

use super::error::CommitError;
use crate::log::{Claimed, FrameFields};

/// Set in the state of claims on publications to the network. Such a state equals none that a publication is in, so
/// that their commits take the way of claims that came too late and part from them there: claims on IPC publications
/// pay nothing for the difference.
pub(super) const TO_NETWORK: u64 = 1 << 62;

/// What a publication does with its claims.
pub(super) trait Claimant {
    /// Writes the payload and publishes it.
    fn commit(
        &self,
        claimed: &Claimed,
        state: u64,
        staged: &[u8],
        fields: FrameFields,
    ) -> Result<i64, CommitError>;

    /// Turns the place into padding.
    fn abort(&self, claimed: &Claimed, state: u64);

    /// Takes the private memory back for the next claim.
    fn give_back(&self, staging: Vec<u8>);
}

/// A reserved place in a stream. Fill it, then [`Claim::commit`]; dropping it aborts.
#[must_use = "a claim that is dropped is aborted"]
pub struct Claim<'a> {
    claimant: &'a dyn Claimant,
    claimed: Claimed,
    /// The attachment the claim was made under.
    state: u64,
    staging: Vec<u8>,
    length: usize,
    fields: FrameFields,
    done: bool,
}

impl<'a> Claim<'a> {
    #[inline]
    pub(super) fn new(
        claimant: &'a dyn Claimant,
        claimed: Claimed,
        state: u64,
        mut staging: Vec<u8>,
        length: usize,
    ) -> Self {
        if staging.len() < length {
            staging.resize(length, 0);
        }
        if let Some(bytes) = staging.get_mut(..length) {
            bytes.fill(0);
        }
        Claim {
            claimant,
            claimed,
            state,
            staging,
            length,
            fields: FrameFields::default(),
            done: false,
        }
    }

    /// The payload as staged so far.
    #[inline]
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.staging.get(..self.length).unwrap_or_default()
    }

    /// The payload to fill, all zero at first; private memory until the commit.
    #[inline]
    #[must_use]
    pub fn buffer_mut(&mut self) -> &mut [u8] {
        self.staging.get_mut(..self.length).unwrap_or_default()
    }

    /// The stream position after this message, once committed.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.claimed.position()
    }

    /// Sets the reserved value of the frame.
    pub fn set_reserved_value(&mut self, value: i64) {
        self.fields.reserved_value = value;
    }

    /// Sets the flags of the frame: 0xC0 (a whole message) unless set.
    pub fn set_flags(&mut self, flags: u8) {
        self.fields.flags = flags;
    }

    /// Sets the type of the frame: 1 (data) unless set. Type 0 is padding, which readers skip.
    pub fn set_type(&mut self, frame_type: u16) {
        self.fields.frame_type = frame_type;
    }

    /// Publishes the message; returns the stream position after it.
    ///
    /// # Errors
    /// [`CommitError`], with nothing published.
    #[inline]
    pub fn commit(mut self) -> Result<i64, CommitError> {
        self.done = true;
        let staged = self.staging.get(..self.length).unwrap_or_default();
        self.claimant
            .commit(&self.claimed, self.state, staged, self.fields)
    }

    /// Gives the place up; readers skip it.
    pub fn abort(self) {}
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.done {
            self.claimant.abort(&self.claimed, self.state);
        }
        self.claimant.give_back(core::mem::take(&mut self.staging));
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.buffer()
    }
}

impl DerefMut for Claim<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer_mut()
    }
}

impl core::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Claim")
            .field("length", &self.length)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
