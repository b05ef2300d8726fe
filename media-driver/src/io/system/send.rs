//! Sending a batch: sendmmsg, with runs of datagrams in one piece where the system can do that (UDP_SEGMENT).

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use fulmar::log::Payload;
use socket2::Socket;

use super::super::batch::{SendBatch, SendEntry, SendError, SendOutcome};
use super::address::Name;

/// Messages of one system call.
const MESSAGES: usize = 16;

/// Room for one control message with a `u16`, and aligned as one.
const CONTROL_WORDS: usize = 3;

/// Calls that a signal, or the unreachable peer of an earlier datagram, may interrupt before the pass is given up.
const RETRIES: usize = 4;

/// Whether the system knows runs at all.
pub(super) fn has_gso(socket: &Socket) -> bool {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: getsockopt(fd, level, name, value, length) writes at most `length` bytes to `value` and what it wrote to
    // `length`; both live through the call, and the descriptor is open as long as `socket` is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    result == 0
}

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Once more.
    Retry,
    /// No room now: the rest is left over.
    Leave,
    /// The run in front can not go out in one piece.
    Split,
    /// Something to report.
    Fail(SendError),
}

fn judge(errno: i32, front_is_run: bool) -> Verdict {
    match errno {
        // The error of an earlier datagram is told instead of sending this one; then it is forgotten.
        libc::EINTR | libc::ECONNREFUSED => Verdict::Retry,
        libc::EAGAIN | libc::ENOBUFS => Verdict::Leave,
        // The device can not do it, or the segments are longer than what it sends unfragmented.
        libc::EIO | libc::EINVAL | libc::EMSGSIZE if front_is_run => Verdict::Split,
        errno => Verdict::Fail(SendError { errno }),
    }
}

/// Sends until the first datagram that the system does not take. Turns `gso` off when the system refuses a run.
pub(super) fn send(fd: RawFd, gso: &mut bool, batch: &SendBatch<'_>) -> SendOutcome {
    let mut outcome = SendOutcome::default();
    if let [entry] = batch.entries()
        && entry.to.is_none()
        && entry.bytes.len() <= entry.step()
        && send_one(fd, &entry.bytes)
    {
        outcome.datagrams = 1;
        outcome.bytes = entry.bytes.len();
        return outcome;
    }
    let mut cursor = Cursor::default();
    let mut retries = RETRIES;
    loop {
        let mut call = Call::new();
        let mut ahead = cursor;
        while call.count < MESSAGES
            && let Some(piece) = ahead.next(batch.entries(), *gso)
        {
            call.add(&piece);
        }
        if call.count == 0 {
            return outcome;
        }
        match call.send(fd) {
            Ok(taken) => {
                // A call that took nothing and says so without an error would be repeated for ever.
                if taken == 0 {
                    return outcome;
                }
                for _ in 0..taken {
                    if let Some(piece) = cursor.next(batch.entries(), *gso) {
                        outcome.datagrams += piece.datagrams();
                        outcome.bytes += piece.bytes.len();
                    }
                }
            }
            Err(errno) => {
                let front = cursor.clone_next(batch.entries(), *gso);
                match judge(errno, front.is_some_and(|piece| piece.segment_length.is_some())) {
                    Verdict::Retry if retries > 0 => retries -= 1,
                    Verdict::Retry | Verdict::Leave => return outcome,
                    Verdict::Split => *gso = false,
                    Verdict::Fail(error) => {
                        outcome.error = Some(error);
                        return outcome;
                    }
                }
            }
        }
    }
}

/// One datagram on a connected socket, the usual case of a stream that is not in a hurry, by the cheapest call there is.
/// `false` if it did not go out: the general way finds out why.
fn send_one(fd: RawFd, bytes: &Payload<'_>) -> bool {
    // SAFETY: send(fd, buffer, length, flags) reads `length` bytes, which the payload keeps readable for the call; the
    // kernel does not care if another process changes them meanwhile.
    let result = unsafe {
        libc::send(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(result) == Ok(bytes.len())
}

/// How far a batch has been taken apart: the entry, and the bytes of it that are done.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    entry: usize,
    at: usize,
}

impl Cursor {
    /// The next message: a run of as many datagrams as one message may hold, or a single one.
    fn next<'a>(&mut self, entries: &[SendEntry<'a>], gso: bool) -> Option<SendEntry<'a>> {
        let entry = entries.get(self.entry)?;
        let (length, step) = (entry.bytes.len(), entry.step());
        let left = length.saturating_sub(self.at);
        let run = if gso && step > 0 && step < left {
            let most = SendBatch::SEGMENTS_MAX.min(SendBatch::RUN_LENGTH_MAX / step);
            left.min(most * step)
        } else {
            left.min(step)
        };
        // A step so long that not even two fit a message is sent singly.
        let run = if run == 0 { left.min(step) } else { run };
        let piece = SendEntry {
            bytes: entry
                .bytes
                .slice(self.at, run)
                .unwrap_or(Payload::from_slice(&[])),
            segment_length: entry.segment_length.filter(|_| run > step),
            to: entry.to,
        };
        self.at += run;
        if self.at >= length {
            *self = Self {
                entry: self.entry + 1,
                at: 0,
            };
        }
        Some(piece)
    }

    fn clone_next<'a>(&self, entries: &[SendEntry<'a>], gso: bool) -> Option<SendEntry<'a>> {
        let mut ahead = *self;
        ahead.next(entries, gso)
    }
}

/// The arguments of one system call. Everything behind `count` is uninitialised; what is in front of it points into
/// the arrays of this same value, so it must not be moved between `add` and `send`: both go through `&mut self`, and
/// the addresses are only written in `send`.
struct Call {
    headers: [MaybeUninit<libc::mmsghdr>; MESSAGES],
    vectors: [MaybeUninit<libc::iovec>; MESSAGES],
    names: [MaybeUninit<Name>; MESSAGES],
    name_lengths: [libc::socklen_t; MESSAGES],
    controls: [[u64; CONTROL_WORDS]; MESSAGES],
    /// 0: no control message.
    segments: [u16; MESSAGES],
    count: usize,
}

impl Call {
    fn new() -> Self {
        Self {
            headers: [const { MaybeUninit::uninit() }; MESSAGES],
            vectors: [const { MaybeUninit::uninit() }; MESSAGES],
            names: [const { MaybeUninit::uninit() }; MESSAGES],
            name_lengths: [0; MESSAGES],
            controls: [[0; CONTROL_WORDS]; MESSAGES],
            segments: [0; MESSAGES],
            count: 0,
        }
    }

    /// Adds a message; there must be room.
    fn add(&mut self, piece: &SendEntry<'_>) {
        let index = self.count;
        self.vectors[index].write(libc::iovec {
            iov_base: piece.bytes.as_ptr().cast_mut().cast(),
            iov_len: piece.bytes.len(),
        });
        if let Some(to) = piece.to {
            let (name, length) = Name::encode(to);
            self.names[index].write(name);
            self.name_lengths[index] = length;
        }
        self.segments[index] = piece.segment_length.unwrap_or(0);
        self.count += 1;
    }

    /// One sendmmsg; the number of messages taken, or the error of the first one.
    fn send(&mut self, fd: RawFd) -> Result<usize, i32> {
        for index in 0..self.count {
            // SAFETY: all-zero bytes are a message header without name, data and control.
            let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
            header.msg_iov = self.vectors[index].as_mut_ptr();
            header.msg_iovlen = 1;
            if self.name_lengths[index] > 0 {
                header.msg_name = self.names[index].as_mut_ptr().cast();
                header.msg_namelen = self.name_lengths[index];
            }
            if self.segments[index] > 0 {
                let control = &mut self.controls[index];
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = size_of_val(control);
                write_segment(&mut header, self.segments[index]);
            }
            self.headers[index].write(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        // SAFETY: sendmmsg(fd, msgvec, vlen, flags) reads the first `vlen` headers, just initialised, and writes their
        // `msg_len`. Name, vector and control of each point into `self`, which is borrowed for the whole call, with
        // the lengths that were written; the payload is borrowed by the batch of the caller. The kernel copies it
        // before the call ends, and does not care if another process changes it meanwhile.
        let result = unsafe {
            libc::sendmmsg(
                fd,
                self.headers.as_mut_ptr().cast(),
                self.count as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Writes the one control message and its length.
fn write_segment(header: &mut libc::msghdr, segment: u16) {
    const LENGTH: u32 = size_of::<u16>() as u32;
    // SAFETY: CMSG_SPACE and CMSG_LEN compute on lengths only.
    let (space, length) = unsafe { (libc::CMSG_SPACE(LENGTH), libc::CMSG_LEN(LENGTH)) };
    header.msg_controllen = space as usize;
    // SAFETY: `msg_control` points to CONTROL_WORDS * 8 = 24 bytes, 8-byte aligned, which is CMSG_SPACE(2); so the
    // first header is not null, and header and data lie inside.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = length as usize;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(entries: &[SendEntry<'_>], gso: bool) -> Vec<(usize, Option<u16>)> {
        let mut cursor = Cursor::default();
        let mut pieces = Vec::new();
        while let Some(piece) = cursor.next(entries, gso) {
            pieces.push((piece.bytes.len(), piece.segment_length));
        }
        pieces
    }

    #[test]
    fn a_run_is_one_message_with_gso_and_many_without() {
        let bytes = vec![0; 3500];
        let entries = [
            SendEntry::run(Payload::from_slice(&bytes), 1000, None),
            SendEntry::datagram(Payload::from_slice(&bytes[..10]), None),
            SendEntry::datagram(Payload::from_slice(&[]), None),
        ];
        assert_eq!(
            pieces(&entries, true),
            [(3500, Some(1000)), (10, None), (0, None)]
        );
        assert_eq!(
            pieces(&entries, false),
            [
                (1000, None),
                (1000, None),
                (1000, None),
                (500, None),
                (10, None),
                (0, None)
            ]
        );
    }

    #[test]
    fn a_run_is_cut_where_the_system_takes_no_more() {
        let bytes = vec![0; 200_000];
        let run = |length: usize, step| [SendEntry::run(Payload::from_slice(&bytes[..length]), step, None)];
        // 64 segments at most.
        assert_eq!(pieces(&run(6_500, 100), true), [(6_400, Some(100)), (100, None)]);
        // 65,507 bytes at most, whole segments.
        assert_eq!(
            pieces(&run(140_800, 1408), true),
            [(64_768, Some(1408)), (64_768, Some(1408)), (11_264, Some(1408))]
        );
        // Two of these do not fit one message.
        assert_eq!(
            pieces(&run(100_000, 40_000), true),
            [(40_000, None), (40_000, None), (20_000, None)]
        );
        // A run of one is a datagram; so is one with a segment length of nothing.
        assert_eq!(pieces(&run(100, 100), true), [(100, None)]);
        assert_eq!(pieces(&run(100, 0), true), [(100, None)]);
        assert_eq!(pieces(&run(0, 100), true), [(0, None)]);
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        assert_eq!(judge(libc::EINTR, false), Verdict::Retry);
        assert_eq!(judge(libc::ECONNREFUSED, true), Verdict::Retry);
        assert_eq!(judge(libc::EAGAIN, true), Verdict::Leave);
        assert_eq!(judge(libc::ENOBUFS, false), Verdict::Leave);
        for errno in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
            assert_eq!(judge(errno, true), Verdict::Split);
            assert_eq!(judge(errno, false), Verdict::Fail(SendError { errno }));
        }
        let errno = libc::EACCES;
        assert_eq!(judge(errno, true), Verdict::Fail(SendError { errno }));
    }
}
