//! Makes Aeron's C library linkable under the feature `peer`.
include!("../tools/peer/link.rs");
