//! Where things are in `cnc.dat` (shared-memory spec 2).
//!
//! ```text
//!   0 i32 version, stored last     24 i64 client liveness timeout, ns      48 i32 page size
//!   4 i32 to-driver length         32 i64 driver start, epoch ms           52 zero
//!   8 i32 to-clients length        40 i64 driver pid                      128 sections, one after the other:
//!  12 i32 counters metadata length                                            to-driver ring, to-clients broadcast,
//!  16 i32 counters values length                                              counters metadata, counters values,
//!  20 i32 error log length                                                    error log
//! ```

use crate::bits::{align, is_power_of_two};
use crate::ring::{broadcast_tx, mpsc_ring};

/// Name of the file in the driver's directory.
pub const FILE_NAME: &str = "cnc.dat";
/// The version that a driver publishes: 0.2.0.
pub const CNC_VERSION: i32 = semantic_version(0, 2, 0);
/// The lowest minor version that has everything we rely on.
pub const MINOR_MIN: i32 = 2;

/// Offset of the version.
pub const VERSION_OFFSET: usize = 0;
/// Offset of the length of the to-driver ring, trailer included.
pub const TO_DRIVER_LENGTH_OFFSET: usize = 4;
/// Offset of the length of the to-clients broadcast, trailer included.
pub const TO_CLIENTS_LENGTH_OFFSET: usize = 8;
/// Offset of the length of the counters' metadata.
pub const COUNTER_METADATA_LENGTH_OFFSET: usize = 12;
/// Offset of the length of the counters' values.
pub const COUNTER_VALUES_LENGTH_OFFSET: usize = 16;
/// Offset of the length of the error log.
pub const ERROR_LOG_LENGTH_OFFSET: usize = 20;
/// Offset of the client liveness timeout, nanoseconds.
pub const CLIENT_LIVENESS_TIMEOUT_OFFSET: usize = 24;
/// Offset of the driver's start time, epoch milliseconds.
pub const START_TIMESTAMP_OFFSET: usize = 32;
/// Offset of the driver's process id.
pub const PID_OFFSET: usize = 40;
/// Offset of the page size of log files.
pub const PAGE_SIZE_OFFSET: usize = 48;
/// Length of the header.
pub const HEADER_LENGTH: usize = 128;
/// What a page size of 0 means: the driver is older than the field.
pub const PAGE_SIZE_DEFAULT: i32 = 4096;

/// Length of the metadata of one counter.
pub const COUNTER_METADATA_LENGTH: usize = 512;
/// Length of the value of one counter.
pub const COUNTER_VALUE_LENGTH: usize = 128;

const _: () = assert!(PAGE_SIZE_OFFSET + 4 <= HEADER_LENGTH);

/// A semantic version as one word.
#[must_use]
pub const fn semantic_version(major: i32, minor: i32, patch: i32) -> i32 {
    (major << 16) | (minor << 8) | patch
}

/// Major part of a version word.
#[must_use]
pub const fn major(version: i32) -> i32 {
    version >> 16
}

/// Minor part of a version word.
#[must_use]
pub const fn minor(version: i32) -> i32 {
    (version >> 8) & 0xff
}

/// Lengths of the five sections, in bytes, as they stand in the header: unchecked until [`Self::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionLengths {
    /// To-driver ring, trailer included.
    pub to_driver: i32,
    /// To-clients broadcast, trailer included.
    pub to_clients: i32,
    /// Metadata of the counters.
    pub counter_metadata: i32,
    /// Values of the counters.
    pub counter_values: i32,
    /// Error log.
    pub error_log: i32,
}

/// Where the sections are: offset and length of each, all multiples of 8 and inside a file of `end` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections {
    /// To-driver ring.
    pub to_driver: (usize, usize),
    /// To-clients broadcast.
    pub to_clients: (usize, usize),
    /// Metadata of the counters.
    pub counter_metadata: (usize, usize),
    /// Values of the counters.
    pub counter_values: (usize, usize),
    /// Error log.
    pub error_log: (usize, usize),
    /// End of the last section.
    pub end: usize,
}

impl SectionLengths {
    /// The sections, or the name of the first one whose length can not be: the rings are a power of two plus their
    /// trailer, the counters whole records with as many values as metadata, the error log whole 8-byte words.
    ///
    /// # Errors
    /// Name and length of that section.
    pub fn check(&self) -> Result<Sections, (&'static str, i32)> {
        let ring = |name, length: i32, trailer: usize| {
            let capacity = i64::from(length) - trailer as i64;
            if is_power_of_two(capacity) {
                Ok(length as usize)
            } else {
                Err((name, length))
            }
        };
        let records = |name, length: i32, record: usize| {
            usize::try_from(length)
                .ok()
                .filter(|bytes| bytes.is_multiple_of(record))
                .ok_or((name, length))
        };
        let to_driver = ring("to-driver ring", self.to_driver, mpsc_ring::TRAILER_LENGTH)?;
        let to_clients = ring(
            "to-clients broadcast",
            self.to_clients,
            broadcast_tx::TRAILER_LENGTH,
        )?;
        let values = records("counter values", self.counter_values, COUNTER_VALUE_LENGTH)?;
        let metadata = records("counter metadata", self.counter_metadata, COUNTER_METADATA_LENGTH)?;
        if metadata / COUNTER_METADATA_LENGTH != values / COUNTER_VALUE_LENGTH || values == 0 {
            return Err(("counter metadata", self.counter_metadata));
        }
        let error_log = records("error log", self.error_log, 8)?;
        let mut end = HEADER_LENGTH;
        let mut place = |length| {
            let section = (end, length);
            end += length;
            section
        };
        Ok(Sections {
            to_driver: place(to_driver),
            to_clients: place(to_clients),
            counter_metadata: place(metadata),
            counter_values: place(values),
            error_log: place(error_log),
            end,
        })
    }
}

/// Length of a file whose last section ends at `end`.
#[must_use]
pub const fn file_length(end: usize, page_size: usize) -> usize {
    align(end, page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: SectionLengths = SectionLengths {
        to_driver: (1 << 20) + 768,
        to_clients: (1 << 20) + 128,
        counter_metadata: 32 << 20,
        counter_values: 8 << 20,
        error_log: 4 << 20,
    };

    #[test]
    fn the_default_sections_follow_each_other_on_cache_lines() {
        let sections = DEFAULT.check().unwrap();
        assert_eq!(sections.to_driver, (128, 1_049_344));
        assert_eq!(sections.to_clients, (1_049_472, 1_048_704));
        assert_eq!(sections.counter_metadata, (2_098_176, 32 << 20));
        assert_eq!(sections.counter_values, (35_652_608, 8 << 20));
        assert_eq!(sections.error_log, (44_041_216, 4 << 20));
        assert_eq!(sections.end, 48_235_520);
        assert_eq!(file_length(sections.end, 4096), 48_238_592);
    }

    #[test]
    fn lengths_that_can_not_be_are_named() {
        type Change = fn(&mut SectionLengths);
        let changes: [(Change, &str); 8] = [
            (|l| l.to_driver = 0, "to-driver ring"),
            (|l| l.to_driver = i32::MIN, "to-driver ring"),
            (|l| l.to_driver += 8, "to-driver ring"),
            (|l| l.to_clients = 128, "to-clients broadcast"),
            (|l| l.counter_values = -128, "counter values"),
            (|l| l.counter_values = 0, "counter metadata"),
            (|l| l.counter_metadata -= 512, "counter metadata"),
            (|l| l.error_log = 12, "error log"),
        ];
        for (change, name) in changes {
            let mut lengths = DEFAULT;
            change(&mut lengths);
            assert_eq!(lengths.check().unwrap_err().0, name, "{lengths:?}");
        }
    }

    #[test]
    fn the_version_word_is_512() {
        assert_eq!(CNC_VERSION, 512);
        assert_eq!((major(CNC_VERSION), minor(CNC_VERSION)), (0, 2));
        assert_eq!(major(semantic_version(1, 0, 0)), 1);
        assert!(major(-1) < 0);
    }
}
