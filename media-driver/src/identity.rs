//! Who this driver says it is, in the labels and values that tools read.
#![forbid(unsafe_code)]

/// The Aeron version whose behaviour clients meet here, as a semantic version word.
pub(crate) const AERON_VERSION: i32 = (1 << 16) | (53 << 8);

/// The product's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Stands where other drivers name the commit they were built from.
pub(crate) const COMMIT: &str = "fulmar";
