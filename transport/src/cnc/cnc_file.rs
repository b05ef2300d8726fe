//! `cnc.dat`, mapped: made by the driver, opened by clients and tools.

use super::layout::{
    CLIENT_LIVENESS_TIMEOUT_OFFSET, CNC_VERSION, COUNTER_METADATA_LENGTH, COUNTER_METADATA_LENGTH_OFFSET,
    COUNTER_VALUE_LENGTH, COUNTER_VALUES_LENGTH_OFFSET, ERROR_LOG_LENGTH_OFFSET, HEADER_LENGTH, MINOR_MIN,
    PAGE_SIZE_DEFAULT, PAGE_SIZE_OFFSET, PID_OFFSET, START_TIMESTAMP_OFFSET, SectionLengths, Sections,
    TO_CLIENTS_LENGTH_OFFSET, TO_DRIVER_LENGTH_OFFSET, VERSION_OFFSET, file_length, major, minor,
};
use crate::counters::CountersReader;
use crate::memory::{AtomicBuffer, Region, View};
use crate::ring::{BroadcastReceiver, ManyToOneRing};
use crate::time::EpochMs;

/// Why a CnC file can not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CncError {
    /// The driver has not published it yet.
    #[error("the CnC file is not ready: its version is still 0")]
    NotReady,
    /// Another major version, or a minor one that is too old.
    #[error("the CnC file has version {}.{}.{}, not 0.2 or later", major(*.0), minor(*.0), .0 & 0xff)]
    VersionMismatch(i32),
    /// Too short for its header or for the sections that the header names.
    #[error("the CnC file has {length} bytes and needs {needed}")]
    TooShort {
        /// Length of the file.
        length: usize,
        /// Length that is needed.
        needed: usize,
    },
    /// A section length that can not be.
    #[error("the CnC file claims {length} bytes for its {section}")]
    BadLength {
        /// Which section.
        section: &'static str,
        /// What it claims.
        length: i32,
    },
    /// A page size that can not be.
    #[error("the CnC file claims a page size of {0}")]
    BadPageSize(i32),
}

/// What a driver puts into its CnC file. Lengths in bytes, trailers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CncSpec {
    /// Length of the to-driver ring: a power of two plus 768.
    pub to_driver_length: usize,
    /// Length of the to-clients broadcast: a power of two plus 128.
    pub to_clients_length: usize,
    /// Length of the counters' values: a multiple of 128. Their metadata takes four times as much.
    pub counter_values_length: usize,
    /// Length of the error log: a multiple of 8.
    pub error_log_length: usize,
    /// Page size of files: a power of two from 4 KiB to 1 GiB.
    pub page_size: i32,
    /// Time without a keepalive after which a client is given up.
    pub client_liveness_timeout_ns: i64,
    /// Start of the driver.
    pub start: EpochMs,
    /// Process id of the driver.
    pub pid: i64,
}

impl CncSpec {
    /// Length of the file, which must stay within the range of `i32`.
    ///
    /// # Errors
    /// [`CncError::BadLength`] or [`CncError::BadPageSize`] for what a driver must not publish.
    pub fn file_length(&self) -> Result<usize, CncError> {
        let sections = self.sections()?;
        let page_size = checked_page_size(self.page_size)?;
        let length = file_length(sections.end, page_size as usize);
        match i32::try_from(length) {
            Ok(_) => Ok(length),
            Err(_) => Err(CncError::BadLength {
                section: "whole file",
                length: i32::MAX,
            }),
        }
    }

    fn lengths(&self) -> SectionLengths {
        let word = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
        let records = self.counter_values_length / COUNTER_VALUE_LENGTH;
        SectionLengths {
            to_driver: word(self.to_driver_length),
            to_clients: word(self.to_clients_length),
            counter_metadata: word(records.saturating_mul(COUNTER_METADATA_LENGTH)),
            counter_values: word(self.counter_values_length),
            error_log: word(self.error_log_length),
        }
    }

    fn sections(&self) -> Result<Sections, CncError> {
        self.lengths().check().map_err(bad_length)
    }
}

/// A CnC file whose header was checked. Cloning shares the mapping.
#[derive(Clone, Debug)]
pub struct CncFile {
    view: View,
    sections: Sections,
    page_size: i32,
    to_driver: ManyToOneRing<View>,
    counters: CountersReader<View>,
}

impl CncFile {
    /// Writes the header into a fresh region of zeros, except the version: nobody uses the file before
    /// [`Self::publish_version`].
    ///
    /// # Errors
    /// For lengths that a driver must not publish, and for a region shorter than [`CncSpec::file_length`].
    pub fn create(region: &Region, spec: &CncSpec) -> Result<Self, CncError> {
        let needed = spec.file_length()?;
        if region.len() < needed {
            return Err(CncError::TooShort {
                length: region.len(),
                needed,
            });
        }
        let view = region.as_view();
        let lengths = spec.lengths();
        for (offset, length) in [
            (TO_DRIVER_LENGTH_OFFSET, lengths.to_driver),
            (TO_CLIENTS_LENGTH_OFFSET, lengths.to_clients),
            (COUNTER_METADATA_LENGTH_OFFSET, lengths.counter_metadata),
            (COUNTER_VALUES_LENGTH_OFFSET, lengths.counter_values),
            (ERROR_LOG_LENGTH_OFFSET, lengths.error_log),
            (PAGE_SIZE_OFFSET, spec.page_size),
        ] {
            view.store_relaxed_i32(offset, length);
        }
        view.store_relaxed_i64(CLIENT_LIVENESS_TIMEOUT_OFFSET, spec.client_liveness_timeout_ns);
        view.store_relaxed_i64(START_TIMESTAMP_OFFSET, spec.start.0);
        view.store_relaxed_i64(PID_OFFSET, spec.pid);
        Self::over(view, spec.sections()?, spec.page_size)
    }

    /// Lets clients in. Comes after everything else, the first heartbeat included (spec 1.6).
    pub fn publish_version(&self) {
        // SYNC cnc-version: header and sections are complete once the version is not 0.
        self.view.store_release_i32(VERSION_OFFSET, CNC_VERSION);
    }

    /// Opens what a driver published: major version 0, minor version 2 or later.
    ///
    /// # Errors
    /// [`CncError::NotReady`] is worth a retry; everything else is final for this file.
    pub fn open(region: &Region) -> Result<Self, CncError> {
        let version = published_version(region)?;
        if version == 0 {
            return Err(CncError::NotReady);
        }
        if major(version) != 0 || minor(version) < MINOR_MIN {
            return Err(CncError::VersionMismatch(version));
        }
        Self::open_sections(region)
    }

    /// Opens a file of any version that shares our layout of the header; for the activity test, which asks for the
    /// major version only.
    pub(crate) fn open_sections(region: &Region) -> Result<Self, CncError> {
        let length = region.len();
        if length <= HEADER_LENGTH {
            return Err(CncError::TooShort {
                length,
                needed: HEADER_LENGTH + 1,
            });
        }
        let view = region.as_view();
        let sections = SectionLengths {
            to_driver: view.load_relaxed_i32(TO_DRIVER_LENGTH_OFFSET),
            to_clients: view.load_relaxed_i32(TO_CLIENTS_LENGTH_OFFSET),
            counter_metadata: view.load_relaxed_i32(COUNTER_METADATA_LENGTH_OFFSET),
            counter_values: view.load_relaxed_i32(COUNTER_VALUES_LENGTH_OFFSET),
            error_log: view.load_relaxed_i32(ERROR_LOG_LENGTH_OFFSET),
        }
        .check()
        .map_err(bad_length)?;
        if sections.end > length {
            return Err(CncError::TooShort {
                length,
                needed: sections.end,
            });
        }
        let page_size = match view.load_relaxed_i32(PAGE_SIZE_OFFSET) {
            0 => PAGE_SIZE_DEFAULT,
            size => checked_page_size(size)?,
        };
        Self::over(view, sections, page_size)
    }

    /// The structures over sections that lie inside the view. Each has limits of its own on top of the layout's.
    fn over(view: View, sections: Sections, page_size: i32) -> Result<Self, CncError> {
        let section = |(offset, length)| view.slice(offset, length);
        let refused = |section, (_, length): (usize, usize)| CncError::BadLength {
            section,
            length: i32::try_from(length).unwrap_or(i32::MAX),
        };
        let to_driver = ManyToOneRing::new(section(sections.to_driver))
            .map_err(|_| refused("to-driver ring", sections.to_driver))?;
        BroadcastReceiver::new(section(sections.to_clients))
            .map_err(|_| refused("to-clients broadcast", sections.to_clients))?;
        let counters = CountersReader::new(
            section(sections.counter_metadata),
            section(sections.counter_values),
        )
        .map_err(|_| refused("counter values", sections.counter_values))?;
        Ok(Self {
            view,
            sections,
            page_size,
            to_driver,
            counters,
        })
    }

    /// The version word; 0 before it is published.
    #[must_use]
    pub fn version(&self) -> i32 {
        // SYNC cnc-version: header and sections are complete.
        self.view.load_acquire_i32(VERSION_OFFSET)
    }

    /// The to-driver ring's bytes, trailer included.
    #[must_use]
    pub fn to_driver(&self) -> View {
        self.section(self.sections.to_driver)
    }

    /// The to-driver ring.
    #[must_use]
    pub fn to_driver_ring(&self) -> &ManyToOneRing<View> {
        &self.to_driver
    }

    /// All counters, for reading.
    #[must_use]
    pub fn counters(&self) -> &CountersReader<View> {
        &self.counters
    }

    /// The to-clients broadcast, trailer included.
    #[must_use]
    pub fn to_clients(&self) -> View {
        self.section(self.sections.to_clients)
    }

    /// Metadata of the counters.
    #[must_use]
    pub fn counter_metadata(&self) -> View {
        self.section(self.sections.counter_metadata)
    }

    /// Values of the counters.
    #[must_use]
    pub fn counter_values(&self) -> View {
        self.section(self.sections.counter_values)
    }

    /// The distinct error log.
    #[must_use]
    pub fn error_log(&self) -> View {
        self.section(self.sections.error_log)
    }

    /// The driver's last heartbeat, epoch milliseconds; -1 after a clean stop, 0 before the first.
    #[must_use]
    pub fn driver_heartbeat(&self) -> EpochMs {
        self.to_driver.consumer_heartbeat()
    }

    /// Stores the driver's heartbeat; -1 says that it stopped in order.
    pub fn set_driver_heartbeat(&self, heartbeat: EpochMs) {
        self.to_driver.set_consumer_heartbeat(heartbeat);
    }

    /// Time without a keepalive after which the driver gives a client up, nanoseconds; whatever the file says.
    #[must_use]
    pub fn client_liveness_timeout_ns(&self) -> i64 {
        self.view.load_relaxed_i64(CLIENT_LIVENESS_TIMEOUT_OFFSET)
    }

    /// Start of the driver; tells one run from the next.
    #[must_use]
    pub fn start_timestamp(&self) -> EpochMs {
        EpochMs(self.view.load_relaxed_i64(START_TIMESTAMP_OFFSET))
    }

    /// Process id of the driver, as it wrote it.
    #[must_use]
    pub fn pid(&self) -> i64 {
        self.view.load_relaxed_i64(PID_OFFSET)
    }

    /// Page size of the driver's files: a power of two from 4 KiB to 1 GiB.
    #[must_use]
    pub fn page_size(&self) -> i32 {
        self.page_size
    }

    /// Length of the file.
    #[must_use]
    pub fn file_length(&self) -> usize {
        self.view.region().len()
    }

    /// The region, to ask whether it was damaged.
    #[must_use]
    pub fn region(&self) -> &Region {
        self.view.region()
    }

    fn section(&self, (offset, length): (usize, usize)) -> View {
        self.view.slice(offset, length)
    }
}

/// The version word of a file that may hold anything; 0 means that it is not published.
///
/// # Errors
/// [`CncError::TooShort`] if it has no complete header.
pub fn published_version(region: &Region) -> Result<i32, CncError> {
    let length = region.len();
    if length <= HEADER_LENGTH {
        return Err(CncError::TooShort {
            length,
            needed: HEADER_LENGTH + 1,
        });
    }
    // SYNC cnc-version: header and sections are complete if it is not 0.
    Ok(region.as_view().load_acquire_i32(VERSION_OFFSET))
}

/// Process id and start time in the header of a file that may hold anything but has a complete header.
pub fn header_identity(region: &Region) -> (i64, EpochMs) {
    let view = region.as_view();
    (
        view.load_relaxed_i64(PID_OFFSET),
        EpochMs(view.load_relaxed_i64(START_TIMESTAMP_OFFSET)),
    )
}

fn checked_page_size(page_size: i32) -> Result<i32, CncError> {
    if page_size.count_ones() == 1 && (4096..=1 << 30).contains(&page_size) {
        Ok(page_size)
    } else {
        Err(CncError::BadPageSize(page_size))
    }
}

fn bad_length((section, length): (&'static str, i32)) -> CncError {
    CncError::BadLength { section, length }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The smallest sections that are useful in tests.
    pub(crate) fn small_spec() -> CncSpec {
        CncSpec {
            to_driver_length: 4096 + 768,
            to_clients_length: 4096 + 128,
            counter_values_length: 64 * 128,
            error_log_length: 4096,
            page_size: 4096,
            client_liveness_timeout_ns: 10_000_000_000,
            start: EpochMs(1_700_000_000_000),
            pid: 4321,
        }
    }

    fn created() -> (Region, CncFile) {
        let spec = small_spec();
        let region = Region::heap(spec.file_length().unwrap());
        let cnc = CncFile::create(&region, &spec).unwrap();
        (region, cnc)
    }

    #[test]
    fn the_header_stands_byte_for_byte_where_the_specification_says() {
        let (region, cnc) = created();
        cnc.publish_version();
        let mut header = [0u8; 128];
        region.as_view().copy_out(0, &mut header);
        let mut expected = [0u8; 128];
        expected[0..4].copy_from_slice(&512i32.to_le_bytes());
        expected[4..8].copy_from_slice(&4864i32.to_le_bytes());
        expected[8..12].copy_from_slice(&4224i32.to_le_bytes());
        expected[12..16].copy_from_slice(&32768i32.to_le_bytes());
        expected[16..20].copy_from_slice(&8192i32.to_le_bytes());
        expected[20..24].copy_from_slice(&4096i32.to_le_bytes());
        expected[24..32].copy_from_slice(&10_000_000_000i64.to_le_bytes());
        expected[32..40].copy_from_slice(&1_700_000_000_000i64.to_le_bytes());
        expected[40..48].copy_from_slice(&4321i64.to_le_bytes());
        expected[48..52].copy_from_slice(&4096i32.to_le_bytes());
        assert_eq!(header, expected);
    }

    #[test]
    fn nobody_gets_in_before_the_version_is_published() {
        let (region, cnc) = created();
        assert_eq!(CncFile::open(&region).unwrap_err(), CncError::NotReady);
        cnc.set_driver_heartbeat(EpochMs(77));
        cnc.publish_version();
        let opened = CncFile::open(&region).unwrap();
        assert_eq!(opened.driver_heartbeat(), EpochMs(77));
        assert_eq!(region.as_view().load_relaxed_i64(128 + 4096 + 640), 77);
        assert_eq!(opened.pid(), 4321);
        assert_eq!(opened.start_timestamp(), small_spec().start);
        assert_eq!(opened.client_liveness_timeout_ns(), 10_000_000_000);
        assert_eq!(opened.page_size(), 4096);
        assert_eq!(opened.to_driver().capacity(), 4864);
        assert_eq!(opened.to_clients().capacity(), 4224);
        assert_eq!(opened.counter_metadata().capacity(), 32768);
        assert_eq!(opened.counter_values().capacity(), 8192);
        assert_eq!(opened.error_log().capacity(), 4096);
    }

    #[test]
    fn versions_are_accepted_by_major_and_minimal_minor() {
        let (region, _) = created();
        let view = region.as_view();
        for (version, accepted) in [
            (512, true),
            (512 + 7, true),
            (768, true),
            (256, false),
            (1 << 16, false),
            (-1, false),
            (i32::MIN, false),
        ] {
            view.store_relaxed_i32(0, version);
            let result = CncFile::open(&region);
            assert_eq!(result.is_ok(), accepted, "{version}");
            if !accepted {
                assert_eq!(result.unwrap_err(), CncError::VersionMismatch(version));
            }
        }
    }

    #[test]
    fn an_old_driver_without_a_page_size_has_4096() {
        let (region, cnc) = created();
        cnc.publish_version();
        region.as_view().store_relaxed_i32(PAGE_SIZE_OFFSET, 0);
        assert_eq!(CncFile::open(&region).unwrap().page_size(), 4096);
        region.as_view().store_relaxed_i32(PAGE_SIZE_OFFSET, 5000);
        assert_eq!(CncFile::open(&region).unwrap_err(), CncError::BadPageSize(5000));
    }

    #[test]
    fn a_driver_can_not_make_a_file_that_clients_would_refuse() {
        type Change = fn(&mut CncSpec);
        let changes: [Change; 6] = [
            |spec| spec.to_driver_length = 4096,
            |spec| spec.to_clients_length = 1 << 40,
            |spec| spec.counter_values_length = 100,
            |spec| spec.counter_values_length = 1 << 30,
            |spec| spec.page_size = 0,
            |spec| spec.error_log_length = 4097,
        ];
        for change in changes {
            let mut spec = small_spec();
            change(&mut spec);
            assert!(
                CncFile::create(&Region::heap(1 << 16), &spec).is_err(),
                "{spec:?}"
            );
        }
        assert!(matches!(
            CncFile::create(&Region::heap(4096), &small_spec()),
            Err(CncError::TooShort { .. })
        ));
    }

    #[test]
    fn no_header_leads_outside_the_file() {
        use proptest::prelude::*;
        let file = small_spec().file_length().unwrap();
        proptest!(|(
            words in proptest::collection::vec((0usize..32, prop_oneof![any::<i32>(), Just(4864), Just(-1)]), 0..8),
            length in 1usize..file,
        )| {
            let region = Region::heap(length.next_multiple_of(8));
            if let Ok(cnc) = CncFile::create(&region, &small_spec()) {
                cnc.publish_version();
            }
            let view = region.as_view();
            for (index, word) in words {
                if (index + 1) * 4 <= view.capacity() {
                    view.store_relaxed_i32(index * 4, word);
                }
            }
            if let Ok(cnc) = CncFile::open(&region) {
                let total: usize = [cnc.to_driver(), cnc.to_clients(), cnc.counter_metadata(),
                    cnc.counter_values(), cnc.error_log()].iter().map(AtomicBuffer::capacity).sum();
                prop_assert!(total + HEADER_LENGTH <= region.len());
                let _ = cnc.driver_heartbeat();
            }
        });
    }
}
