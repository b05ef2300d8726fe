//! Benchmarks of Fulmar.
