//! Makes Aeron's C library linkable under the feature `peer`.
include!("peer/link.rs");
