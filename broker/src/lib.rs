//! The broker of Fulmar: a durable, partitioned log with a native door and a Kafka door.
//!
//! Its place in the picture is described in ARCHITECTURE.md: it is a client of the transport like any other and never imports
//! the media driver. Layers, bottom up; a module imports only modules of lower layers:
//!
//! 0. [`id`]: numbers and names.
//! 1. [`record`]: batches of records, as they are sent, stored and served. [`storage`]: files, the only place that knows of a
//!    file system.
//! 2. [`partition`]: what is known of a partition.
//! 3. [`group`]: consumer groups.
#![deny(unsafe_code)]

pub mod group;
pub mod id;
pub mod partition;
pub mod record;
pub mod storage;
