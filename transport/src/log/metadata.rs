//! The metadata page at the end of a log (shared-memory spec 9.2): each field by name, each offset derived once.
#![forbid(unsafe_code)]

use crate::log::descriptor::{FRAME_HEADER_LENGTH, LogError, LogType};
use crate::log::words::{Fields, Words};
use crate::position::{PositionShape, partition_of_term_count};

/// Offsets of the fields, bytes from the start of the metadata.
pub mod offset {
    /// Tail counters, one i64 per partition.
    pub const TAILS: usize = 0;
    /// i32.
    pub const ACTIVE_TERM_COUNT: usize = TAILS + 3 * 8;
    /// i64; starts the second pair of cache lines.
    pub const END_OF_STREAM_POSITION: usize = 128;
    /// i32.
    pub const IS_CONNECTED: usize = END_OF_STREAM_POSITION + 8;
    /// i32.
    pub const ACTIVE_TRANSPORT_COUNT: usize = IS_CONNECTED + 4;
    /// i64; starts the third pair of cache lines.
    pub const CORRELATION_ID: usize = 256;
    /// i32.
    pub const INITIAL_TERM_ID: usize = CORRELATION_ID + 8;
    /// i32.
    pub const DEFAULT_FRAME_HEADER_LENGTH: usize = INITIAL_TERM_ID + 4;
    /// i32.
    pub const MTU_LENGTH: usize = DEFAULT_FRAME_HEADER_LENGTH + 4;
    /// i32.
    pub const TERM_LENGTH: usize = MTU_LENGTH + 4;
    /// i32.
    pub const PAGE_SIZE: usize = TERM_LENGTH + 4;
    /// i32.
    pub const PUBLICATION_WINDOW_LENGTH: usize = PAGE_SIZE + 4;
    /// i32.
    pub const RECEIVER_WINDOW_LENGTH: usize = PUBLICATION_WINDOW_LENGTH + 4;
    /// i32.
    pub const SOCKET_SNDBUF_LENGTH: usize = RECEIVER_WINDOW_LENGTH + 4;
    /// i32.
    pub const OS_DEFAULT_SOCKET_SNDBUF_LENGTH: usize = SOCKET_SNDBUF_LENGTH + 4;
    /// i32.
    pub const OS_MAX_SOCKET_SNDBUF_LENGTH: usize = OS_DEFAULT_SOCKET_SNDBUF_LENGTH + 4;
    /// i32.
    pub const SOCKET_RCVBUF_LENGTH: usize = OS_MAX_SOCKET_SNDBUF_LENGTH + 4;
    /// i32.
    pub const OS_DEFAULT_SOCKET_RCVBUF_LENGTH: usize = SOCKET_RCVBUF_LENGTH + 4;
    /// i32.
    pub const OS_MAX_SOCKET_RCVBUF_LENGTH: usize = OS_DEFAULT_SOCKET_RCVBUF_LENGTH + 4;
    /// i32.
    pub const MAX_RESEND: usize = OS_MAX_SOCKET_RCVBUF_LENGTH + 4;
    /// 128 bytes, of which 32 are used.
    pub const DEFAULT_FRAME_HEADER: usize = MAX_RESEND + 4;
    /// i64.
    pub const ENTITY_TAG: usize = DEFAULT_FRAME_HEADER + 128;
    /// i64.
    pub const RESPONSE_CORRELATION_ID: usize = ENTITY_TAG + 8;
    /// i64.
    pub const LINGER_TIMEOUT_NS: usize = RESPONSE_CORRELATION_ID + 8;
    /// i64.
    pub const UNTETHERED_WINDOW_LIMIT_TIMEOUT_NS: usize = LINGER_TIMEOUT_NS + 8;
    /// i64.
    pub const UNTETHERED_RESTING_TIMEOUT_NS: usize = UNTETHERED_WINDOW_LIMIT_TIMEOUT_NS + 8;
    /// Eight bytes of flags: group, is response, rejoin, reliable, sparse, signal EOS, spies simulate connection,
    /// tether.
    pub const FLAGS: usize = UNTETHERED_RESTING_TIMEOUT_NS + 8;
    /// u8; shares an i32 with the log type and two zero bytes.
    pub const IS_PUBLICATION_REVOKED: usize = FLAGS + 8;
    /// u8.
    pub const LOG_TYPE: usize = IS_PUBLICATION_REVOKED + 1;
    /// i64, only 4-byte aligned.
    pub const UNTETHERED_LINGER_TIMEOUT_NS: usize = IS_PUBLICATION_REVOKED + 4;
    /// End of the fields; the rest of the metadata is zero.
    pub const FIELDS_END: usize = UNTETHERED_LINGER_TIMEOUT_NS + 8;

    // What publishers move with every message lies in one line, apart from what the driver says and from what never
    // changes.
    const _: () = assert!(TAILS == 0 && ACTIVE_TERM_COUNT + 4 <= 64);
    const _: () = assert!(END_OF_STREAM_POSITION == 128 && CORRELATION_ID == 256);
    const _: () = assert!(MAX_RESEND == 316);
    const _: () = assert!(ENTITY_TAG == 448);
    const _: () = assert!(FLAGS == 488);
    const _: () = assert!(UNTETHERED_LINGER_TIMEOUT_NS == 500);
    const _: () = assert!(FIELDS_END == 508);
}

const _: () = assert!(offset::FIELDS_END <= Fields::LENGTH);

/// One of the eight flag bytes, by its index from [`offset::FLAGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum MetadataFlag {
    /// Group semantics.
    Group = 0,
    /// The stream answers another one.
    IsResponse = 1,
    /// Untethered subscribers come back.
    Rejoin = 2,
    /// Lost frames are asked for again.
    Reliable = 3,
    /// The file is sparse.
    Sparse = 4,
    /// The end of the stream is signalled.
    SignalEos = 5,
    /// Spies count as a connection.
    SpiesSimulateConnection = 6,
    /// Subscribers are tethered.
    Tether = 7,
}

/// Named accessors of the metadata of one log.
#[derive(Clone, Debug)]
pub struct Metadata<B> {
    fields: Fields<B>,
}

impl<B: Words> Metadata<B> {
    /// Takes a buffer as metadata.
    ///
    /// # Errors
    /// [`LogError::TooShort`] unless all fields fit.
    pub fn new(buffer: B) -> Result<Metadata<B>, LogError> {
        let actual = buffer.capacity() as u64;
        let fields = Fields::new(buffer).ok_or(LogError::TooShort {
            needed: Fields::LENGTH as u64,
            actual,
        })?;
        Ok(Metadata { fields })
    }

    /// The buffer itself.
    #[inline(always)]
    pub fn buffer(&self) -> &B {
        self.fields.buffer()
    }

    #[inline(always)]
    fn tail_offset(partition: usize) -> usize {
        // A mask instead of a remainder: partition 3 does not exist, and would be an unused word.
        offset::TAILS + (partition & 3) * 8
    }

    /// The raw tail of a partition: term id in the high half, offset in the low half.
    #[inline(always)]
    pub fn tail_acquire(&self, partition: usize) -> i64 {
        // SYNC tail: the terms before this tail were rotated in before it.
        self.fields.load_acquire(Self::tail_offset(partition))
    }

    /// Stores the raw tail of a partition; for exclusive publications and the driver.
    #[inline(always)]
    pub fn tail_release(&self, partition: usize, raw: i64) {
        // SYNC tail: what was appended before is complete for who sees this tail.
        self.fields.store_release(Self::tail_offset(partition), raw);
    }

    /// Stores the raw tail of a partition without ordering: a later release store publishes it.
    #[inline]
    pub fn tail_relaxed_store(&self, partition: usize, raw: i64) {
        self.fields.store_relaxed(Self::tail_offset(partition), raw);
    }

    /// Raises the tail of a partition and returns what it was.
    #[inline(always)]
    pub fn tail_fetch_add(&self, partition: usize, length: i64) -> i64 {
        self.fields.fetch_add(Self::tail_offset(partition), length)
    }

    /// Compare-exchange of the tail of a partition.
    ///
    /// # Errors
    /// The raw tail that was there.
    #[inline]
    pub fn tail_cas(&self, partition: usize, current: i64, new: i64) -> Result<i64, i64> {
        self.buffer()
            .compare_exchange_i64(Self::tail_offset(partition), current, new)
    }

    /// Terms since the initial one.
    #[inline(always)]
    pub fn active_term_count_acquire(&self) -> i32 {
        // SYNC active-term-count: the tail of that term was set before the count.
        self.buffer().load_acquire_i32(offset::ACTIVE_TERM_COUNT)
    }

    /// Stores the active term count; for exclusive publications and the driver.
    #[inline]
    pub fn active_term_count_release(&self, count: i32) {
        // SYNC active-term-count: the tail of the new term was set before.
        self.buffer().store_release_i32(offset::ACTIVE_TERM_COUNT, count);
    }

    /// Compare-exchange of the active term count.
    ///
    /// # Errors
    /// The count that was there.
    #[inline]
    pub fn active_term_count_cas(&self, current: i32, new: i32) -> Result<i32, i32> {
        self.buffer()
            .compare_exchange_i32(offset::ACTIVE_TERM_COUNT, current, new)
    }

    /// Where the stream ends; `i64::MAX` until known.
    #[inline]
    pub fn end_of_stream_position(&self) -> i64 {
        // SYNC end-of-stream: acquire; the frames before it are committed.
        self.buffer().load_acquire_i64(offset::END_OF_STREAM_POSITION)
    }

    /// Says where the stream ends; driver only.
    pub fn set_end_of_stream_position(&self, position: i64) {
        // SYNC end-of-stream: release.
        self.buffer()
            .store_release_i64(offset::END_OF_STREAM_POSITION, position);
    }

    /// Whether somebody consumes the stream.
    #[inline]
    pub fn is_connected(&self) -> bool {
        // SYNC connected: acquire; an independent fact, ordered so that it is not read ahead of the limit.
        self.buffer().load_acquire_i32(offset::IS_CONNECTED) == 1
    }

    /// Says whether somebody consumes the stream; driver only.
    pub fn set_connected(&self, connected: bool) {
        // SYNC connected: release; the limit that goes with it was stored before.
        self.buffer()
            .store_release_i32(offset::IS_CONNECTED, i32::from(connected));
    }

    /// Sources of an image.
    #[inline]
    pub fn active_transport_count(&self) -> i32 {
        self.buffer().load_acquire_i32(offset::ACTIVE_TRANSPORT_COUNT)
    }

    /// Says how many sources an image has; driver only.
    pub fn set_active_transport_count(&self, count: i32) {
        self.buffer()
            .store_release_i32(offset::ACTIVE_TRANSPORT_COUNT, count);
    }

    /// Whether the publication was revoked: cut off with unread data.
    #[inline]
    pub fn is_revoked(&self) -> bool {
        // SYNC revoked: acquire.
        self.buffer().load_acquire_i32(offset::IS_PUBLICATION_REVOKED) & 0xff != 0
    }

    /// Marks the publication revoked; driver only.
    pub fn set_revoked(&self) {
        // The driver is the only writer of the byte and of its three neighbours.
        // SYNC revoked: release; the end of the stream was stored before.
        let word = self.buffer().load_relaxed_i32(offset::IS_PUBLICATION_REVOKED);
        self.buffer()
            .store_release_i32(offset::IS_PUBLICATION_REVOKED, (word & !0xff) | 1);
    }

    /// Registration id of the publication, or id of the image.
    pub fn correlation_id(&self) -> i64 {
        self.buffer().load_relaxed_i64(offset::CORRELATION_ID)
    }

    /// First term id of the stream.
    pub fn initial_term_id(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::INITIAL_TERM_ID)
    }

    /// Length of the default frame header, bytes; 32.
    pub fn default_frame_header_length(&self) -> i32 {
        self.buffer()
            .load_relaxed_i32(offset::DEFAULT_FRAME_HEADER_LENGTH)
    }

    /// Longest frame, bytes.
    pub fn mtu_length(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::MTU_LENGTH)
    }

    /// Length of a term, bytes.
    pub fn term_length(&self) -> i32 {
        self.buffer().load_acquire_i32(offset::TERM_LENGTH)
    }

    /// Page size the file length is a multiple of, bytes.
    pub fn page_size(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::PAGE_SIZE)
    }

    /// How far publishers may run ahead, bytes; 0 for images.
    pub fn publication_window_length(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::PUBLICATION_WINDOW_LENGTH)
    }

    /// How far senders may run ahead, bytes; 0 for publications.
    pub fn receiver_window_length(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::RECEIVER_WINDOW_LENGTH)
    }

    /// Configured socket send buffer, bytes; 0 when none.
    pub fn socket_sndbuf_length(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::SOCKET_SNDBUF_LENGTH)
    }

    /// Socket send buffer the system gives by default, bytes.
    pub fn os_default_socket_sndbuf_length(&self) -> i32 {
        self.buffer()
            .load_relaxed_i32(offset::OS_DEFAULT_SOCKET_SNDBUF_LENGTH)
    }

    /// Largest socket send buffer the system gives, bytes.
    pub fn os_max_socket_sndbuf_length(&self) -> i32 {
        self.buffer()
            .load_relaxed_i32(offset::OS_MAX_SOCKET_SNDBUF_LENGTH)
    }

    /// Configured socket receive buffer, bytes; 0 when none.
    pub fn socket_rcvbuf_length(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::SOCKET_RCVBUF_LENGTH)
    }

    /// Socket receive buffer the system gives by default, bytes.
    pub fn os_default_socket_rcvbuf_length(&self) -> i32 {
        self.buffer()
            .load_relaxed_i32(offset::OS_DEFAULT_SOCKET_RCVBUF_LENGTH)
    }

    /// Largest socket receive buffer the system gives, bytes.
    pub fn os_max_socket_rcvbuf_length(&self) -> i32 {
        self.buffer()
            .load_relaxed_i32(offset::OS_MAX_SOCKET_RCVBUF_LENGTH)
    }

    /// Most retransmissions at a time as the channel gave it; 0 when it did not.
    pub fn max_resend(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::MAX_RESEND)
    }

    /// The default frame header, 32 bytes.
    pub fn default_frame_header(&self) -> [u8; FRAME_HEADER_LENGTH] {
        let mut header = [0; FRAME_HEADER_LENGTH];
        self.buffer().copy_out(offset::DEFAULT_FRAME_HEADER, &mut header);
        header
    }

    /// Session id of the default frame header.
    pub fn default_session_id(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::DEFAULT_FRAME_HEADER + 12)
    }

    /// Stream id of the default frame header.
    pub fn default_stream_id(&self) -> i32 {
        self.buffer().load_relaxed_i32(offset::DEFAULT_FRAME_HEADER + 16)
    }

    /// Entity tag; -1 none, 0 for images.
    pub fn entity_tag(&self) -> i64 {
        self.buffer().load_relaxed_i64(offset::ENTITY_TAG)
    }

    /// Correlation id of what is answered; -1 none.
    pub fn response_correlation_id(&self) -> i64 {
        self.buffer().load_relaxed_i64(offset::RESPONSE_CORRELATION_ID)
    }

    /// How long a drained publication lingers, ns.
    pub fn linger_timeout_ns(&self) -> i64 {
        self.buffer().load_relaxed_i64(offset::LINGER_TIMEOUT_NS)
    }

    /// How long an untethered subscriber may fall behind, ns.
    pub fn untethered_window_limit_timeout_ns(&self) -> i64 {
        self.buffer()
            .load_relaxed_i64(offset::UNTETHERED_WINDOW_LIMIT_TIMEOUT_NS)
    }

    /// How long a lost untethered subscriber rests, ns.
    pub fn untethered_resting_timeout_ns(&self) -> i64 {
        self.buffer()
            .load_relaxed_i64(offset::UNTETHERED_RESTING_TIMEOUT_NS)
    }

    /// How long a lost untethered subscriber still counts, ns.
    pub fn untethered_linger_timeout_ns(&self) -> i64 {
        // Only 4-byte aligned, hence in two halves; written once before the log is announced.
        let low = self
            .buffer()
            .load_relaxed_i32(offset::UNTETHERED_LINGER_TIMEOUT_NS);
        let high = self
            .buffer()
            .load_relaxed_i32(offset::UNTETHERED_LINGER_TIMEOUT_NS + 4);
        i64::from(low as u32) | (i64::from(high) << 32)
    }

    /// One of the eight flags.
    pub fn flag(&self, flag: MetadataFlag) -> bool {
        let flags = self.buffer().load_relaxed_i64(offset::FLAGS) as u64;
        (flags >> (flag as usize * 8)) & 0xff != 0
    }

    /// What kind of log this is; `None` for a value the protocol does not have.
    pub fn log_type(&self) -> Option<LogType> {
        let word = self.buffer().load_relaxed_i32(offset::IS_PUBLICATION_REVOKED) as u32;
        LogType::from_raw((word >> 8) as u8)
    }
}

/// How far the publishers of a log have come, from the tail of the active term, clipped to its end (spec 10.8).
#[inline]
pub fn producer_position<B: Words>(metadata: &Metadata<B>, shape: PositionShape) -> i64 {
    let partition = partition_of_term_count(metadata.active_term_count_acquire());
    raw_tail_position(metadata.tail_acquire(partition), shape)
}

/// The position a raw tail stands for, clipped to the end of its term.
#[inline]
#[must_use]
pub const fn raw_tail_position(raw: i64, shape: PositionShape) -> i64 {
    shape.position(raw_tail_term_id(raw), raw_tail_offset(raw, shape.term_length()))
}

/// The term id of a raw tail.
#[inline]
#[must_use]
pub const fn raw_tail_term_id(raw: i64) -> crate::id::TermId {
    crate::id::TermId((raw >> 32) as i32)
}

/// The offset of a raw tail, clipped to the end of its term: publishers may have run over it.
#[inline]
#[must_use]
pub const fn raw_tail_offset(raw: i64, term_length: i32) -> i32 {
    let low = raw as u32;
    if low > term_length as u32 {
        term_length
    } else {
        low as i32
    }
}

/// The raw tail at an offset of a term.
#[inline]
#[must_use]
pub const fn raw_tail(term_id: crate::id::TermId, offset: i32) -> i64 {
    ((term_id.0 as i64) << 32) + offset as i64
}
