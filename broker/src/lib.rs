//! The broker of Fulmar: a durable, partitioned log with a native door and a Kafka door.
//!
//! This package holds no code yet. Its place in the picture is described in ARCHITECTURE.md: it is a client of
//! the transport like any other and never imports the media driver.
#![forbid(unsafe_code)]
