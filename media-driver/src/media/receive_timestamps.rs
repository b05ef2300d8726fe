//! Times that the receiver writes into the messages it takes in (wire spec 8.6). They are written into a copy of the
//! datagram: once a frame is in the log, readers may see it.
#![forbid(unsafe_code)]

use fulmar::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use fulmar::log::frame::FLAG_BEGIN;
use fulmar::uri::params::TimestampOffset;
use fulmar::wire::DataHeader;

const RESERVED_VALUE_OFFSET: usize = 24;
const TIMESTAMP_LENGTH: usize = 8;

/// Where times go; nothing is written where `None` stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveTimestamps {
    /// When the datagram reached the machine, into its first frame.
    pub media: Option<TimestampOffset>,
    /// When the receiver took the datagram, into each frame.
    pub channel: Option<TimestampOffset>,
}

impl ReceiveTimestamps {
    /// Whether anything is written at all.
    #[inline]
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.media.is_some() || self.channel.is_some()
    }

    /// Writes the times, nanoseconds since 1970, into the frames of a datagram that begin a message. Frames that are
    /// not whole, or too short for the offset, are left as they are.
    pub fn stamp(&self, datagram: &mut [u8], media_ns: Option<i64>, channel_ns: i64) {
        let mut at = 0;
        let mut is_first = true;
        while let Some(frame) = datagram.get_mut(at..) {
            let Some(header) = DataHeader::parse(frame) else {
                return;
            };
            let Ok(length) = usize::try_from(header.frame_length) else {
                return;
            };
            if length < FRAME_HEADER_LENGTH || length > frame.len() || header.is_padding() {
                return;
            }
            let frame = &mut frame[..length];
            if header.flags & FLAG_BEGIN != 0 {
                if let (true, Some(offset), Some(time)) = (is_first, self.media, media_ns) {
                    write(frame, offset, time);
                }
                if let Some(offset) = self.channel {
                    write(frame, offset, channel_ns);
                }
            }
            is_first = false;
            at += length.next_multiple_of(FRAME_ALIGNMENT);
        }
    }
}

fn write(frame: &mut [u8], offset: TimestampOffset, time: i64) {
    let at = match offset {
        TimestampOffset::Reserved => RESERVED_VALUE_OFFSET,
        TimestampOffset::Payload(offset) => match usize::try_from(offset) {
            Ok(offset) => FRAME_HEADER_LENGTH + offset,
            Err(_) => return,
        },
    };
    if let Some(place) = frame.get_mut(at..at + TIMESTAMP_LENGTH) {
        place.copy_from_slice(&time.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use fulmar::id::{SessionId, StreamId, TermId};
    use fulmar::wire::FrameType;

    use super::*;

    fn frame(flags: u8, payload: usize) -> Vec<u8> {
        let header = DataHeader {
            frame_length: (32 + payload) as i32,
            version: 0,
            flags,
            frame_type: FrameType::DATA,
            term_offset: 0,
            session_id: SessionId(1),
            stream_id: StreamId(2),
            term_id: TermId(3),
            reserved_value: 0,
        };
        let mut bytes = header.encode().to_vec();
        bytes.resize((32 + payload).next_multiple_of(32), 0);
        bytes
    }

    fn time_at(bytes: &[u8], at: usize) -> i64 {
        i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_media_time_goes_into_the_first_frame_and_the_channel_time_into_each() {
        let mut datagram = [frame(0xC0, 32), frame(0xC0, 32)].concat();
        ReceiveTimestamps {
            media: Some(TimestampOffset::Reserved),
            channel: Some(TimestampOffset::Payload(8)),
        }
        .stamp(&mut datagram, Some(7), 9);
        assert_eq!((time_at(&datagram, 24), time_at(&datagram, 40)), (7, 9));
        assert_eq!((time_at(&datagram, 64 + 24), time_at(&datagram, 64 + 40)), (0, 9));
    }

    #[test]
    fn frames_that_do_not_begin_a_message_or_are_too_short_are_left_alone() {
        let stamps = ReceiveTimestamps {
            media: None,
            channel: Some(TimestampOffset::Payload(25)),
        };
        let unchanged = [frame(0x40, 40), frame(0xC0, 32)].concat();
        let mut datagram = unchanged.clone();
        stamps.stamp(&mut datagram, None, 9);
        assert_eq!(datagram, unchanged);
        let mut datagram = frame(0xC0, 33);
        stamps.stamp(&mut datagram, None, 9);
        assert_eq!(time_at(&datagram, 32 + 25), 9);
    }

    #[test]
    fn hostile_lengths_end_the_walk() {
        let stamps = ReceiveTimestamps {
            media: Some(TimestampOffset::Payload(i32::MAX)),
            channel: Some(TimestampOffset::Payload(-1)),
        };
        for length in [i32::MIN, -1, 0, 31, 65, i32::MAX] {
            let mut datagram = frame(0xC0, 32);
            datagram[..4].copy_from_slice(&length.to_le_bytes());
            let unchanged = datagram.clone();
            stamps.stamp(&mut datagram, Some(1), 2);
            assert_eq!(datagram, unchanged);
        }
        stamps.stamp(&mut [0; 31], Some(1), 2);
        let mut whole = frame(0xC0, 32);
        stamps.stamp(&mut whole, Some(1), 2);
        assert_eq!(whole, frame(0xC0, 32));
    }
}
