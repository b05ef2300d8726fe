//! The client: what applications use.
