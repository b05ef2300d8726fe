//! Where regions live.
