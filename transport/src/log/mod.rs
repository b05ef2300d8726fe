//! Log buffers.
