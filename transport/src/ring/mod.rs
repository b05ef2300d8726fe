//! Rings and broadcast.
