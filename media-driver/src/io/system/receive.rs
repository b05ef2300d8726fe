//! Receiving a batch: recvmmsg, or recvmsg for one datagram, with runs of datagrams that the system joined (UDP_GRO) and arrival times.

use core::mem::MaybeUninit;
use std::io;
use std::os::fd::RawFd;

use socket2::Socket;

use super::super::receive::{Filled, ReceiveBatch, ReceiveError, ReceiveOutcome};
use super::address::Name;
use super::set_option;

/// Messages of one system call.
const MESSAGES: usize = ReceiveBatch::CAPACITY_MAX;

/// Room for the control messages we ask for, twice over.
pub(super) const CONTROL_WORDS: usize = 16;

/// Calls that a signal, or the unreachable peer of an earlier send, may interrupt before the pass is given up.
const RETRIES: usize = 4;

/// Asks the system to join datagrams; whether it will.
pub(super) fn enable_gro(socket: &Socket) -> bool {
    let on: libc::c_int = 1;
    set_option(socket, libc::SOL_UDP, libc::UDP_GRO, on).is_ok()
}

/// What a receive found.
pub(super) enum Received {
    /// The socket is empty.
    Nothing,
    /// Datagrams, an error, or nothing for another reason.
    Some(ReceiveOutcome),
}

/// How much one call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// One message, by the cheapest call: what follows is left to the next one, and the outcome says that more may wait.
    One,
    /// As many messages as the batch has buffers.
    All,
}

/// Takes what has come in.
pub(super) fn receive(fd: RawFd, into: &mut ReceiveBatch, share: Share) -> Received {
    into.clear();
    let mut call = Call::new();
    let most = match share {
        Share::One => 1,
        Share::All => MESSAGES,
    };
    for buffer in into.buffers_mut().take(most) {
        call.add(buffer);
    }
    for _ in 0..=RETRIES {
        let received = match share {
            Share::One => call.receive_one(fd),
            Share::All => call.receive(fd),
        };
        match received {
            Ok(count) => return Received::Some(hand_over(&call, count, share, into)),
            // The second is the error of an earlier send, told here, and forgotten then.
            Err(libc::EINTR | libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH) => {}
            Err(libc::EAGAIN) => return Received::Nothing,
            Err(errno) => {
                return Received::Some(ReceiveOutcome {
                    error: Some(ReceiveError { errno }),
                    ..ReceiveOutcome::default()
                });
            }
        }
    }
    Received::Some(ReceiveOutcome::default())
}

fn hand_over(call: &Call, count: usize, share: Share, into: &mut ReceiveBatch) -> ReceiveOutcome {
    let mut outcome = ReceiveOutcome {
        is_full: share == Share::One || count == into.capacity(),
        ..ReceiveOutcome::default()
    };
    for index in 0..count {
        let filled = call.filled(index);
        outcome.datagrams += filled.datagrams();
        outcome.bytes += filled.length;
        into.push(filled);
    }
    outcome
}

/// The arguments of one system call. What lies behind `count` is uninitialised.
struct Call {
    headers: [MaybeUninit<libc::mmsghdr>; MESSAGES],
    vectors: [MaybeUninit<libc::iovec>; MESSAGES],
    names: [MaybeUninit<Name>; MESSAGES],
    controls: [MaybeUninit<[u64; CONTROL_WORDS]>; MESSAGES],
    count: usize,
}

impl Call {
    fn new() -> Self {
        Self {
            headers: [const { MaybeUninit::uninit() }; MESSAGES],
            vectors: [const { MaybeUninit::uninit() }; MESSAGES],
            names: [const { MaybeUninit::uninit() }; MESSAGES],
            controls: [const { MaybeUninit::uninit() }; MESSAGES],
            count: 0,
        }
    }

    /// Adds a buffer, which the caller leaves alone until [`Self::receive`] is over.
    fn add(&mut self, buffer: &mut [u8]) {
        if let Some(vector) = self.vectors.get_mut(self.count) {
            vector.write(libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            });
            self.count += 1;
        }
    }

    /// The header of a message that was added. Borrows nothing but the message's own parts: those of others, which their
    /// headers point to, stay as they are.
    #[inline]
    fn header(
        vector: &mut MaybeUninit<libc::iovec>,
        name: &mut MaybeUninit<Name>,
        control: &mut MaybeUninit<[u64; CONTROL_WORDS]>,
    ) -> libc::mmsghdr {
        // SAFETY: all-zero bytes are a message header without name, data and control.
        let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
        header.msg_iov = vector.as_mut_ptr();
        header.msg_iovlen = 1;
        header.msg_name = name.as_mut_ptr().cast();
        header.msg_namelen = Name::LENGTH;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_WORDS * size_of::<u64>();
        libc::mmsghdr {
            msg_hdr: header,
            msg_len: 0,
        }
    }

    /// One recvmsg, for the first message; 1, or the error.
    fn receive_one(&mut self, fd: RawFd) -> Result<usize, i32> {
        if self.count == 0 {
            return Ok(0);
        }
        let header = Self::header(&mut self.vectors[0], &mut self.names[0], &mut self.controls[0]);
        let message = self.headers[0].write(header);
        // SAFETY: recvmsg(fd, msg, flags) uses one header, just initialised. Name, vector and control point into `self`,
        // which is exclusively borrowed for the whole call, or into a buffer of the batch, which the caller holds
        // exclusively and does not touch meanwhile; all with their true lengths.
        let result = unsafe { libc::recvmsg(fd, &raw mut message.msg_hdr, libc::MSG_DONTWAIT) };
        match u32::try_from(result) {
            Ok(length) => {
                message.msg_len = length;
                Ok(1)
            }
            Err(_) => Err(last_errno()),
        }
    }

    /// One recvmmsg; the number of messages received, or the error.
    fn receive(&mut self, fd: RawFd) -> Result<usize, i32> {
        for index in 0..self.count {
            let (vector, name) = (&mut self.vectors[index], &mut self.names[index]);
            let header = Self::header(vector, name, &mut self.controls[index]);
            self.headers[index].write(header);
        }
        // SAFETY: recvmmsg(fd, msgvec, vlen, flags, timeout) uses the first `vlen` headers, just initialised. Name,
        // vector and control of each point into `self`, which is exclusively borrowed for the whole call, or into the
        // buffers of the batch, which the caller holds exclusively and does not touch meanwhile; all with their true
        // lengths. A null timeout means none.
        let result = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr().cast(),
                self.count as libc::c_uint,
                libc::MSG_DONTWAIT,
                core::ptr::null_mut(),
            )
        };
        usize::try_from(result)
            .map(|count| count.min(self.count))
            .map_err(|_| last_errno())
    }

    /// What a message brought. `index` is below the count that the last call returned.
    fn filled(&self, index: usize) -> Filled {
        // SAFETY: `receive` or `receive_one` initialised the header before the call that received it.
        let message = unsafe { self.headers[index].assume_init_ref() };
        let header = &message.msg_hdr;
        // SAFETY: the kernel wrote the first `msg_namelen` bytes of the name; it says more than the room it was given
        // if the address was cut, hence the minimum.
        let from = unsafe { Name::decode(self.names[index].as_ptr(), header.msg_namelen.min(Name::LENGTH)) };
        let mut filled = Filled {
            length: message.msg_len as usize,
            from: from.unwrap_or(Filled::EMPTY.from),
            ..Filled::EMPTY
        };
        read_control(header, &mut filled);
        let is_cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        if is_cut || from.is_none() {
            // A part of a datagram, a run whose pieces are unknown, or nobody to answer to: the wire's first check
            // counts an empty datagram as invalid.
            filled.length = 0;
            filled.segment_length = None;
        }
        filled
    }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub(super) fn read_control(header: &libc::msghdr, filled: &mut Filled) {
    // SAFETY: the kernel wrote `msg_controllen` bytes of well-formed control messages to `msg_control`, which points
    // to 8-byte aligned room of this size; the macros do not leave it.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: a message that is not null lies inside the control room, header and data, and is aligned.
        let (level, kind, length) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        // SAFETY: computes on the pointer only.
        let data = unsafe { libc::CMSG_DATA(message) };
        // SAFETY: CMSG_LEN computes on lengths only.
        let header_length = unsafe { libc::CMSG_LEN(0) } as usize;
        let data_length = length.saturating_sub(header_length);
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) if data_length >= size_of::<libc::c_int>() => {
                // SAFETY: the data is as long as an int, as just checked.
                let step = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                filled.segment_length = usize::try_from(step).ok().filter(|step| *step > 0);
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) if data_length >= size_of::<libc::timespec>() => {
                // SAFETY: the data is as long as a timespec, as just checked.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                filled.timestamp = time
                    .tv_sec
                    .checked_mul(1_000_000_000)
                    .and_then(|nanos| nanos.checked_add(time.tv_nsec));
            }
            _ => {}
        }
        // SAFETY: as for the first one.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
}
