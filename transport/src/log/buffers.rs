//! A log: three terms and the metadata over one region. The driver initialises it, clients open it; both hold the
//! same checked views afterwards.
#![forbid(unsafe_code)]

#[cfg(not(loom))]
use crate::bits::is_power_of_two;
use crate::id::{RegistrationId, SessionId, StreamId, TermId};
use crate::log::descriptor::{FRAME_HEADER_LENGTH, LogError, LogType, max_message_length};
#[cfg(not(loom))]
use crate::log::descriptor::{METADATA_LENGTH, check_mtu, check_page_size, check_term_length, log_length};
use crate::log::frame::{FLAGS_UNFRAGMENTED, TYPE_DATA, length_word, offset_word, stream_word};
use crate::log::metadata::{Metadata, offset, raw_tail};
use crate::log::words::{Term, Words};
#[cfg(not(loom))]
use crate::memory::Region;
use crate::memory::View;
use crate::position::{PARTITION_COUNT, PositionShape, partition_of_term_count};

/// Everything the driver writes into the metadata before it announces a log: the fields marked "init" in spec 9.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogInit {
    /// Registration id of the publication, or id of the image.
    pub registration_id: RegistrationId,
    /// Session of every frame.
    pub session_id: SessionId,
    /// Stream of every frame.
    pub stream_id: StreamId,
    /// First term id of the stream.
    pub initial_term_id: TermId,
    /// Term the publication starts in; the initial one unless the channel names a position.
    pub start_term_id: TermId,
    /// Offset the publication starts at, bytes; 0 unless the channel names a position.
    pub start_term_offset: i32,
    /// Length of a term, bytes.
    pub term_length: i32,
    /// What the file length is a multiple of, bytes.
    pub page_size: i32,
    /// Longest frame, bytes.
    pub mtu_length: i32,
    /// How far publishers may run ahead, bytes; 0 for images.
    pub publication_window_length: i32,
    /// Configured receiver window, bytes; 0 for publications.
    pub receiver_window_length: i32,
    /// Configured socket send buffer, bytes; 0 for none.
    pub socket_sndbuf_length: i32,
    /// Socket send buffer the system gives by default, bytes.
    pub os_default_socket_sndbuf_length: i32,
    /// Largest socket send buffer the system gives, bytes.
    pub os_max_socket_sndbuf_length: i32,
    /// Configured socket receive buffer, bytes; 0 for none.
    pub socket_rcvbuf_length: i32,
    /// Socket receive buffer the system gives by default, bytes.
    pub os_default_socket_rcvbuf_length: i32,
    /// Largest socket receive buffer the system gives, bytes.
    pub os_max_socket_rcvbuf_length: i32,
    /// Most retransmissions at a time as the channel gave it; 0 otherwise.
    pub max_resend: i32,
    /// Entity tag; -1 none, 0 for images.
    pub entity_tag: i64,
    /// Correlation id of what is answered; -1 none, 0 for images.
    pub response_correlation_id: i64,
    /// Linger timeout, ns; 0 for images.
    pub linger_timeout_ns: i64,
    /// Untethered window limit timeout, ns.
    pub untethered_window_limit_timeout_ns: i64,
    /// Untethered resting timeout, ns.
    pub untethered_resting_timeout_ns: i64,
    /// Untethered linger timeout, ns.
    pub untethered_linger_timeout_ns: i64,
    /// Group semantics.
    pub group: bool,
    /// The stream answers another one.
    pub is_response: bool,
    /// Untethered subscribers come back.
    pub rejoin: bool,
    /// Lost frames are asked for again.
    pub reliable: bool,
    /// The file is sparse.
    pub sparse: bool,
    /// The end of the stream is signalled.
    pub signal_eos: bool,
    /// Spies count as a connection.
    pub spies_simulate_connection: bool,
    /// Subscribers are tethered.
    pub tether: bool,
    /// Kind of log.
    pub log_type: LogType,
}

impl LogInit {
    /// An IPC publication with the driver's default settings, starting at position 0; the caller changes what differs.
    #[must_use]
    pub fn ipc_default(
        registration_id: RegistrationId,
        session_id: SessionId,
        stream_id: StreamId,
        initial_term_id: TermId,
        term_length: i32,
    ) -> LogInit {
        LogInit {
            registration_id,
            session_id,
            stream_id,
            initial_term_id,
            start_term_id: initial_term_id,
            start_term_offset: 0,
            term_length,
            page_size: 4096,
            mtu_length: 1408,
            publication_window_length: term_length / 2,
            receiver_window_length: 0,
            socket_sndbuf_length: 0,
            os_default_socket_sndbuf_length: 0,
            os_max_socket_sndbuf_length: 0,
            socket_rcvbuf_length: 0,
            os_default_socket_rcvbuf_length: 0,
            os_max_socket_rcvbuf_length: 0,
            max_resend: 0,
            entity_tag: -1,
            response_correlation_id: -1,
            linger_timeout_ns: 5_000_000_000,
            untethered_window_limit_timeout_ns: 5_000_000_000,
            untethered_resting_timeout_ns: 10_000_000_000,
            untethered_linger_timeout_ns: 5_000_000_000,
            group: false,
            is_response: false,
            rejoin: false,
            reliable: false,
            sparse: true,
            signal_eos: true,
            spies_simulate_connection: false,
            tether: false,
            log_type: LogType::Concurrent,
        }
    }

    fn flags(&self) -> i64 {
        let flags = [
            self.group,
            self.is_response,
            self.rejoin,
            self.reliable,
            self.sparse,
            self.signal_eos,
            self.spies_simulate_connection,
            self.tether,
        ];
        i64::from_le_bytes(flags.map(u8::from))
    }

    /// Writes all fields; the last store has release order. The caller has checked the numbers.
    pub fn write_to<B: Words>(&self, metadata: &Metadata<B>) {
        let buffer = metadata.buffer();
        if self.log_type != LogType::Image {
            let count = self.start_term_id.0.wrapping_sub(self.initial_term_id.0);
            let active = partition_of_term_count(count);
            metadata.tail_relaxed_store(active, raw_tail(self.start_term_id, self.start_term_offset));
            // The stale term ids are what a rotation into these partitions expects to find (spec 9.5, 10.4).
            for ahead in 1..PARTITION_COUNT as i32 {
                let stale = self
                    .start_term_id
                    .0
                    .wrapping_add(ahead)
                    .wrapping_sub(PARTITION_COUNT as i32);
                metadata.tail_relaxed_store(
                    (active + ahead as usize) % PARTITION_COUNT,
                    raw_tail(TermId(stale), 0),
                );
            }
            buffer.store_relaxed_i32(offset::ACTIVE_TERM_COUNT, count);
        }
        buffer.store_relaxed_i64(offset::END_OF_STREAM_POSITION, i64::MAX);
        buffer.store_relaxed_i32(offset::IS_CONNECTED, 0);
        buffer.store_relaxed_i32(offset::ACTIVE_TRANSPORT_COUNT, 0);
        buffer.store_relaxed_i64(offset::CORRELATION_ID, self.registration_id.0);
        for (at, value) in [
            (offset::INITIAL_TERM_ID, self.initial_term_id.0),
            (offset::DEFAULT_FRAME_HEADER_LENGTH, FRAME_HEADER_LENGTH as i32),
            (offset::MTU_LENGTH, self.mtu_length),
            (offset::PAGE_SIZE, self.page_size),
            (offset::PUBLICATION_WINDOW_LENGTH, self.publication_window_length),
            (offset::RECEIVER_WINDOW_LENGTH, self.receiver_window_length),
            (offset::SOCKET_SNDBUF_LENGTH, self.socket_sndbuf_length),
            (
                offset::OS_DEFAULT_SOCKET_SNDBUF_LENGTH,
                self.os_default_socket_sndbuf_length,
            ),
            (
                offset::OS_MAX_SOCKET_SNDBUF_LENGTH,
                self.os_max_socket_sndbuf_length,
            ),
            (offset::SOCKET_RCVBUF_LENGTH, self.socket_rcvbuf_length),
            (
                offset::OS_DEFAULT_SOCKET_RCVBUF_LENGTH,
                self.os_default_socket_rcvbuf_length,
            ),
            (
                offset::OS_MAX_SOCKET_RCVBUF_LENGTH,
                self.os_max_socket_rcvbuf_length,
            ),
            (offset::MAX_RESEND, self.max_resend),
            (
                offset::IS_PUBLICATION_REVOKED,
                i32::from(self.log_type as u8) << 8,
            ),
            (
                offset::UNTETHERED_LINGER_TIMEOUT_NS,
                self.untethered_linger_timeout_ns as i32,
            ),
            (
                offset::UNTETHERED_LINGER_TIMEOUT_NS + 4,
                (self.untethered_linger_timeout_ns >> 32) as i32,
            ),
        ] {
            buffer.store_relaxed_i32(at, value);
        }
        let header = offset::DEFAULT_FRAME_HEADER;
        for (at, value) in [
            (header, length_word(0, FLAGS_UNFRAGMENTED, TYPE_DATA)),
            (header + 8, offset_word(0, self.session_id)),
            (header + 16, stream_word(self.stream_id, self.initial_term_id)),
            (header + 24, 0),
            (offset::ENTITY_TAG, self.entity_tag),
            (offset::RESPONSE_CORRELATION_ID, self.response_correlation_id),
            (offset::LINGER_TIMEOUT_NS, self.linger_timeout_ns),
            (
                offset::UNTETHERED_WINDOW_LIMIT_TIMEOUT_NS,
                self.untethered_window_limit_timeout_ns,
            ),
            (
                offset::UNTETHERED_RESTING_TIMEOUT_NS,
                self.untethered_resting_timeout_ns,
            ),
            (offset::FLAGS, self.flags()),
        ] {
            buffer.store_relaxed_i64(at, value);
        }
        // SYNC log-ready: everything above is there for who sees the term length.
        buffer.store_release_i32(offset::TERM_LENGTH, self.term_length);
    }

    #[cfg(not(loom))]
    fn check(&self) -> Result<(), LogError> {
        check_term_length(self.term_length)?;
        check_page_size(self.page_size)?;
        check_mtu(self.mtu_length)?;
        let count = self.start_term_id.0.wrapping_sub(self.initial_term_id.0);
        let offset_fits = (0..=self.term_length).contains(&self.start_term_offset)
            && self.start_term_offset % FRAME_HEADER_LENGTH as i32 == 0;
        if count < 0 || !offset_fits {
            return Err(LogError::StartPosition {
                term_id: self.start_term_id.0,
                term_offset: self.start_term_offset,
            });
        }
        Ok(())
    }
}

/// Checked views on the terms and the metadata of one log. Cloning shares the region.
#[derive(Clone, Debug)]
pub struct LogBuffers<B = View> {
    terms: [Term<B>; PARTITION_COUNT],
    metadata: Metadata<B>,
    shape: PositionShape,
    mtu_length: i32,
    session_id: SessionId,
    stream_id: StreamId,
    registration_id: RegistrationId,
}

impl<B: Words> LogBuffers<B> {
    /// Puts a log together from its parts; the constant fields are read from the metadata. Models use it with terms
    /// far shorter than a file would have.
    ///
    /// # Errors
    /// [`LogError`] for terms that differ from the term length in the metadata or can not hold a frame, and for an
    /// MTU that is no multiple of 32 above 32 and up to the term length.
    pub fn from_parts(terms: [B; PARTITION_COUNT], metadata: B) -> Result<LogBuffers<B>, LogError> {
        let metadata = Metadata::new(metadata)?;
        // SYNC log-ready: the other fields were written before the term length.
        let term_length = metadata.term_length();
        let mtu_length = metadata.mtu_length();
        if mtu_length <= FRAME_HEADER_LENGTH as i32
            || mtu_length % FRAME_HEADER_LENGTH as i32 != 0
            || mtu_length > term_length
        {
            return Err(LogError::Mtu(i64::from(mtu_length)));
        }
        let header_length = metadata.default_frame_header_length();
        if header_length != FRAME_HEADER_LENGTH as i32 {
            return Err(LogError::HeaderLength(header_length));
        }
        let wrong_length = LogError::TermLength(i64::from(term_length));
        let [first, second, third] = terms.map(|buffer| {
            Term::new(buffer)
                .filter(|term| term.length() as i64 == i64::from(term_length))
                .ok_or(wrong_length)
        });
        Ok(LogBuffers {
            terms: [first?, second?, third?],
            shape: PositionShape::new(term_length, TermId(metadata.initial_term_id())),
            mtu_length,
            session_id: SessionId(metadata.default_session_id()),
            stream_id: StreamId(metadata.default_stream_id()),
            registration_id: RegistrationId(metadata.correlation_id()),
            metadata,
        })
    }
}

#[cfg(not(loom))]
impl LogBuffers<View> {
    /// Writes the metadata of a new log into a fresh, zeroed region and opens it; driver only.
    ///
    /// # Errors
    /// [`LogError`] for numbers outside the limits and for a region of another length than [`log_length`] says.
    pub fn initialise(region: Region, init: &LogInit) -> Result<LogBuffers, LogError> {
        init.check()?;
        let needed = log_length(init.term_length, init.page_size);
        if region.len() as u64 != needed {
            return Err(LogError::TooShort {
                needed,
                actual: region.len() as u64,
            });
        }
        init.write_to(&Metadata::new(metadata_of(&region)?)?);
        LogBuffers::open(region)
    }

    /// Opens a log that a driver has announced. Nothing in it is trusted: what does not fit is an error.
    ///
    /// # Errors
    /// [`LogError`] naming the field and its value.
    pub fn open(region: Region) -> Result<LogBuffers, LogError> {
        let metadata = metadata_of(&region)?;
        let fields = Metadata::new(metadata.clone())?;
        let term_length = fields.term_length();
        check_term_length(term_length)?;
        let page_size = fields.page_size();
        check_page_size(page_size)?;
        check_mtu(fields.mtu_length())?;
        let length = term_length as usize;
        debug_assert!(is_power_of_two(length as i64));
        let needed = (PARTITION_COUNT * length + METADATA_LENGTH) as u64;
        if (region.len() as u64) < needed {
            return Err(LogError::TooShort {
                needed,
                actual: region.len() as u64,
            });
        }
        let terms = [0, 1, 2].map(|index| region.view(index * length, length));
        LogBuffers::from_parts(terms, metadata)
    }

    /// The region behind the log.
    #[must_use]
    pub fn region(&self) -> &Region {
        self.terms[0].region()
    }
}

#[cfg(not(loom))]
fn metadata_of(region: &Region) -> Result<View, LogError> {
    let length = region.len();
    if length < METADATA_LENGTH {
        return Err(LogError::TooShort {
            needed: METADATA_LENGTH as u64,
            actual: length as u64,
        });
    }
    if !length.is_multiple_of(8) {
        return Err(LogError::Misaligned(length as u64));
    }
    Ok(region.view(length - METADATA_LENGTH, METADATA_LENGTH))
}

impl<B> LogBuffers<B> {
    /// A term by its partition index: 0, 1 or 2.
    #[inline(always)]
    pub fn term(&self, index: usize) -> &Term<B> {
        &self.terms[index]
    }

    /// The metadata.
    #[inline(always)]
    pub fn metadata(&self) -> &Metadata<B> {
        &self.metadata
    }

    /// Position arithmetic of the log.
    #[inline(always)]
    pub fn shape(&self) -> PositionShape {
        self.shape
    }

    /// Length of a term, bytes.
    #[inline(always)]
    pub fn term_length(&self) -> i32 {
        self.shape.term_length()
    }

    /// Longest frame, bytes.
    #[inline]
    pub fn mtu_length(&self) -> i32 {
        self.mtu_length
    }

    /// Longest payload of one frame, bytes.
    #[inline]
    pub fn max_payload_length(&self) -> usize {
        self.mtu_length as usize - FRAME_HEADER_LENGTH
    }

    /// Longest message, bytes.
    #[inline]
    pub fn max_message_length(&self) -> usize {
        max_message_length(self.term_length())
    }

    /// Session of every frame.
    #[inline]
    pub fn session_id(&self) -> SessionId {
        self.session_id
    }

    /// Stream of every frame.
    #[inline]
    pub fn stream_id(&self) -> StreamId {
        self.stream_id
    }

    /// Registration id of the publication, or id of the image.
    #[inline]
    pub fn registration_id(&self) -> RegistrationId {
        self.registration_id
    }
}
