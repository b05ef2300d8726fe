//! One line of text for a datagram, for people and tools. Never on the data path.
#![forbid(unsafe_code)]

use core::fmt::Write;

use crate::bits::align;
use crate::log::descriptor::{FRAME_ALIGNMENT, FRAME_HEADER_LENGTH};
use crate::wire::data::{DataHeader, is_heartbeat};
use crate::wire::frame::{FrameKind, FrameType, classify};
use crate::wire::resolution::EntryIter;
use crate::wire::{ErrorFrame, Nak, ResponseSetup, Rttm, Setup, StatusMessage, WireError};

/// Frames of a datagram that are named one by one; the rest is counted.
const FRAMES_MAX: usize = 8;

/// Describes a datagram in one line without line breaks, whatever it holds.
#[must_use]
pub fn line(datagram: &[u8]) -> String {
    let described = classify(datagram).and_then(|kind| match kind {
        FrameKind::Data => Ok(data(datagram)),
        FrameKind::Nak => Nak::parse(datagram).map(|nak| {
            format!(
                "NAK session={} stream={} term={} offset={} length={}",
                nak.session_id, nak.stream_id, nak.term_id, nak.term_offset, nak.length
            )
        }),
        FrameKind::StatusMessage => StatusMessage::parse(datagram).map(|sm| status_message(&sm)),
        FrameKind::Error => ErrorFrame::parse(datagram).map(|error| error_frame(&error)),
        FrameKind::Setup => Setup::parse(datagram).map(|setup| {
            format!(
                "SETUP flags={:#04x} session={} stream={} initial={} active={} offset={} term-length={} mtu={} ttl={}",
                setup.flags,
                setup.session_id,
                setup.stream_id,
                setup.initial_term_id,
                setup.active_term_id,
                setup.term_offset,
                setup.term_length,
                setup.mtu,
                setup.ttl
            )
        }),
        FrameKind::Rttm => Rttm::parse(datagram).map(|rttm| {
            format!(
                "RTTM {} session={} stream={} echo={} delta={} receiver={}",
                if rttm.is_request() { "request" } else { "answer" },
                rttm.session_id,
                rttm.stream_id,
                rttm.echo_timestamp,
                rttm.reception_delta,
                rttm.receiver_id
            )
        }),
        FrameKind::Resolution => resolution(datagram),
        FrameKind::ResponseSetup => ResponseSetup::parse(datagram).map(|setup| {
            format!(
                "RSP_SETUP session={} stream={} response-session={}",
                setup.session_id, setup.stream_id, setup.response_session_id
            )
        }),
    });
    described.unwrap_or_else(|error| format!("invalid ({error}), {} bytes", datagram.len()))
}

fn data(datagram: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    let mut frames = 0;
    while let Some(header) = datagram.get(at..).and_then(DataHeader::parse) {
        if frames == 0 {
            let _ = write!(
                text,
                "{} session={} stream={} term={} offset={}",
                name(&header, datagram),
                header.session_id,
                header.stream_id,
                header.term_id,
                header.term_offset
            );
        } else if frames < FRAMES_MAX {
            let _ = write!(text, ", {} offset={}", header.frame_type, header.term_offset);
        }
        if frames < FRAMES_MAX {
            let _ = write!(
                text,
                " length={} flags={:#04x}",
                header.frame_length, header.flags
            );
        }
        frames += 1;
        let length = usize::try_from(header.frame_length).unwrap_or(0);
        // Goes on by a header at least, so that the walk ends.
        at += align(length.max(FRAME_HEADER_LENGTH), FRAME_ALIGNMENT);
    }
    if frames > FRAMES_MAX {
        let _ = write!(text, ", {} more", frames - FRAMES_MAX);
    }
    text
}

fn name(header: &DataHeader, datagram: &[u8]) -> &'static str {
    match header.frame_type {
        _ if is_heartbeat(datagram) => "HEARTBEAT",
        FrameType::PAD => "PAD",
        _ => "DATA",
    }
}

fn status_message(sm: &StatusMessage) -> String {
    let mut text = format!(
        "SM flags={:#04x} session={} stream={} term={} offset={} window={} receiver={}",
        sm.flags, sm.session_id, sm.stream_id, sm.term_id, sm.term_offset, sm.window, sm.receiver_id
    );
    if let Some(tag) = sm.group_tag {
        let _ = write!(text, " tag={tag}");
    }
    if sm.has_bad_tag_length {
        text.push_str(" bad-tag");
    }
    text
}

fn error_frame(error: &ErrorFrame<'_>) -> String {
    let mut text = format!(
        "ERR session={} stream={} receiver={} code={}",
        error.session_id, error.stream_id, error.receiver_id, error.error_code
    );
    if let Some(tag) = error.group_tag {
        let _ = write!(text, " tag={tag}");
    }
    let _ = write!(text, " text=\"{}\"", error.text.escape_ascii());
    text
}

fn resolution(datagram: &[u8]) -> Result<String, WireError> {
    let mut text = String::from("RES");
    for (index, entry) in EntryIter::parse(datagram)?.enumerate() {
        let separator = if index == 0 { "" } else { "," };
        match entry {
            Ok(entry) => {
                let _ = write!(
                    text,
                    "{separator} {}\"{}\" {} port={} age={}ms",
                    if entry.is_self { "self " } else { "" },
                    entry.name.escape_ascii(),
                    entry.address,
                    entry.port,
                    entry.age_ms
                );
            }
            Err(error) => {
                let _ = write!(text, "{separator} invalid ({error})");
            }
        }
    }
    Ok(text)
}
