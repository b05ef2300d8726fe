//! Hard bounds of settings, and the relations between them that hold by construction.

use fulmar::bits::is_power_of_two;
use fulmar::uri::params;

/// One kibibyte, bytes.
pub const KIB: i64 = 1024;
/// One mebibyte, bytes.
pub const MIB: i64 = 1024 * KIB;
/// One gibibyte, bytes.
pub const GIB: i64 = 1024 * MIB;

/// Least 32-bit number, as the kinds of settings count.
pub const I32_MIN: i64 = -I32_MAX - 1;
/// Greatest 32-bit number, as the kinds of settings count.
pub const I32_MAX: i64 = 0x7fff_ffff;

/// One microsecond, nanoseconds.
pub const MICROSECOND: i64 = 1_000;
/// One millisecond, nanoseconds.
pub const MILLISECOND: i64 = 1_000_000;
/// One second, nanoseconds.
pub const SECOND: i64 = 1_000_000_000;
/// The longest duration a setting may have: a century, far from the end of the clock's range, so that
/// `now + duration` never wraps.
pub const DURATION_MAX: i64 = 100 * 365 * 24 * 3600 * SECOND;

/// Shortest term, bytes (spec 0.3).
pub const TERM_LENGTH_MIN: i64 = params::TERM_MIN_LENGTH;
/// Longest term, bytes (spec 0.3).
pub const TERM_LENGTH_MAX: i64 = params::TERM_MAX_LENGTH;
/// Smallest file page, bytes (spec 0.3).
pub const PAGE_SIZE_MIN: i64 = 4 * KIB;
/// Largest file page, bytes (spec 0.3).
pub const PAGE_SIZE_MAX: i64 = GIB;
/// Alignment of frames in a term, bytes (spec 0.3).
pub const FRAME_ALIGNMENT: i64 = 32;
/// Shortest MTU, bytes: the frame header and one more unit of alignment (spec 13.3).
pub const MTU_MIN: i64 = params::MTU_MIN_LENGTH;
/// Longest MTU, bytes: the largest UDP payload, aligned down (spec 13.3).
pub const MTU_MAX: i64 = params::MTU_MAX_LENGTH;
/// Most retransmit actions of a group publication (wire-protocol 8.3).
pub const MAX_RESEND_MAX: i64 = params::MAX_RESEND_MAX;

/// Trailer of the to-driver ring, bytes (spec 0.3).
pub const RING_TRAILER: i64 = 768;
/// Trailer of the to-clients broadcast buffer, bytes (spec 0.3).
pub const BROADCAST_TRAILER: i64 = 128;
/// Least and default length of the to-driver ring with its trailer, bytes (spec 1.2).
pub const CONDUCTOR_BUFFER_MIN: i64 = MIB + RING_TRAILER;
/// Least and default length of the to-clients buffer with its trailer, bytes (spec 1.2).
pub const CLIENTS_BUFFER_MIN: i64 = MIB + BROADCAST_TRAILER;
/// Least length of the counter values, bytes (spec 1.2).
pub const COUNTERS_BUFFER_MIN: i64 = MIB;
/// Greatest length of the counter values, bytes (spec 1.2).
pub const COUNTERS_BUFFER_MAX: i64 = 500 * MIB;
/// Counter metadata take this many times the length of the values (spec 2.2).
pub const COUNTERS_METADATA_FACTOR: i64 = 4;
/// Least and default length of the error log, bytes (spec 1.2).
pub const ERROR_BUFFER_MIN: i64 = 4 * MIB;
/// Sections of the CnC file stay aligned to this, bytes (spec 2.2).
pub const SECTION_ALIGNMENT: i64 = 128;
/// Header of the CnC file, bytes (spec 2.1).
pub const CNC_HEADER_LENGTH: i64 = 128;

/// Clients send a keepalive this often, ns (spec 1.2); the liveness timeout the driver publishes has to be longer.
pub const CLIENT_KEEPALIVE_INTERVAL: i64 = 500 * MILLISECOND;

/// Longest directory name, bytes: the longest path (4095) less the longest name of a log in it.
pub const DIRECTORY_NAME_MAX: usize = 4095 - "/publications/-9223372036854775808.logbuffer".len();
/// Longest text of any other setting, bytes.
pub const TEXT_MAX: usize = 4095;

const _: () = assert!(is_power_of_two(TERM_LENGTH_MIN));
const _: () = assert!(is_power_of_two(TERM_LENGTH_MAX));
const _: () = assert!(is_power_of_two(CONDUCTOR_BUFFER_MIN - RING_TRAILER));
const _: () = assert!(is_power_of_two(CLIENTS_BUFFER_MIN - BROADCAST_TRAILER));
const _: () = assert!(MTU_MAX % FRAME_ALIGNMENT == 0);
const _: () = assert!(ERROR_BUFFER_MIN % SECTION_ALIGNMENT == 0);
const _: () = assert!(MTU_MIN % FRAME_ALIGNMENT == 0);
const _: () = assert!(MTU_MAX < TERM_LENGTH_MIN);
const _: () = assert!(TERM_LENGTH_MAX <= I32_MAX);
