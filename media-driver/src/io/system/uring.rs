//! Receiving by `io_uring`: one request that goes on receiving (multishot `recvmsg`) into buffers that were provided
//! before.
//!
//! ```text
//! datagram -> the system notes it in the ring -> a look at the ring, in memory, finds the note -> io_uring_enter copies
//! what has come into provided buffers -> each is exchanged for a buffer of the batch, which is provided in its place
//! ```
//!
//! So an empty socket costs no system call, and nothing is copied but by the system. Whatever the request does, it does in
//! [`Ring::enter`] (`IORING_SETUP_DEFER_TASKRUN`): outside of it, nobody writes to the buffers.

use core::ptr::NonNull;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use fulmar::sync::{Arc, AtomicBool};
use io_uring::types::{BufRingEntry, Fd, RecvMsgOut};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::super::batch::{SendBatch, SendOutcome};
use super::super::network::{IoError, Registration, UdpSocket};
use super::super::receive::{Filled, ReceiveBatch, ReceiveError, ReceiveOutcome};
use super::address::Name;
use super::receive::{CONTROL_WORDS, read_control};
use super::{SystemSocket, warn_once};

/// Requests under way at the same time: one that receives, one that cancels it.
const REQUESTS: u32 = 4;
/// Provided buffers of a socket that mostly receives; a power of two.
const RECEIVER_BUFFERS: u16 = 16;
/// Of one that gets control frames only.
const SENDER_BUFFERS: u16 = 4;
/// The group of the buffers; each ring has one.
const GROUP: u16 = 0;
/// Names the request that receives.
const RECEIVE: u64 = 1;
/// Names the one that cancels it.
const CANCEL: u64 = 2;
/// Calls of one receive that may come to nothing before it is given up: ends of the request, errors of earlier sends.
const RETRIES: usize = 4;
/// Calls after which a cancelled request is given up.
const CANCEL_CALLS: usize = 16;
/// Room for the name of a sender; what follows is aligned.
const NAME_ROOM: usize = 32;
/// Where the datagrams begin: behind four lengths, the name and the control messages.
const START: usize = 16 + NAME_ROOM + CONTROL_WORDS * size_of::<u64>();

const _: () = assert!(START <= ReceiveBatch::HEADROOM);
const _: () = assert!(Name::LENGTH as usize <= NAME_ROOM);
const _: () = assert!(BufferQueue::has_room_for(RECEIVER_BUFFERS));
const _: () = assert!(BufferQueue::has_room_for(SENDER_BUFFERS));

/// Whether this process may do all that a socket needs, on this system.
pub(super) fn probe() -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    let mut ring = Ring::new(SENDER_BUFFERS, None)?;
    ring.arm(socket.as_raw_fd())?;
    let mut batch = ReceiveBatch::new(1);
    let mut outcome = ReceiveOutcome::default();
    ring.take(&mut batch, &mut outcome);
    let result = match outcome.error {
        Some(error) => Err(io::Error::from_raw_os_error(error.errno)),
        None if !ring.is_armed => Err(io::ErrorKind::Unsupported.into()),
        None => Ok(()),
    };
    ring.stop();
    result
}

/// A socket of the system that receives by a ring. The ring is made by the first thread that uses it, and again when
/// another one does. A socket whose ring can not be made receives as other sockets do.
#[derive(Debug)]
pub(super) struct UringSocket {
    /// Closed first: the request lets go of the socket.
    ring: Option<Ring>,
    socket: SystemSocket,
    /// Wakes the thread when something has come.
    event: Option<OwnedFd>,
    waiter: Registration,
    /// Whether the ring was given up.
    is_plain: bool,
    warned: Arc<AtomicBool>,
}

impl UringSocket {
    pub(super) fn new(socket: SystemSocket, warned: Arc<AtomicBool>) -> Self {
        Self {
            ring: None,
            socket,
            event: None,
            waiter: Registration::none(),
            is_plain: false,
            warned,
        }
    }

    fn ring(&mut self) -> io::Result<&mut Ring> {
        if self.ring.is_none() {
            let buffers = if self.socket.is_receiver {
                RECEIVER_BUFFERS
            } else {
                SENDER_BUFFERS
            };
            self.ring = Some(Ring::new(buffers, self.event.as_ref())?);
        }
        self.ring.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn receive_by_ring(&mut self, into: &mut ReceiveBatch) -> io::Result<ReceiveOutcome> {
        let fd = self.socket.fd();
        let mut is_new = self.ring.is_none();
        loop {
            let error = match self.ring()?.receive(fd, into) {
                Ok(outcome) => return Ok(outcome),
                Err(error) => error,
            };
            match error.raw_os_error() {
                // A signal, or no memory right now.
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                    return Ok(ReceiveOutcome {
                        // The request may have ended, and then nothing would wake the thread.
                        is_full: true,
                        ..ReceiveOutcome::default()
                    });
                }
                // Another thread than the one before; nothing was taken from the socket that the ring has not handed
                // over.
                Some(libc::EEXIST) if !is_new => {
                    self.ring = None;
                    is_new = true;
                }
                _ => return Err(error),
            }
        }
    }

    /// [`UdpSocket::register`] with an event, or with the reason why there is none.
    fn register_with(&mut self, waiter: &Registration, event: io::Result<OwnedFd>) -> Result<(), IoError> {
        // A ring that there may be does not know the event.
        self.release();
        self.ring = None;
        self.waiter = waiter.clone();
        match event.and_then(|event| self.wake_by(event)) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(&error),
        }
    }

    fn wake_by(&mut self, event: OwnedFd) -> io::Result<()> {
        self.waiter.add_event(event.as_raw_fd())?;
        self.event = Some(event);
        // At once: the thread may sleep before it receives for the first time.
        let fd = self.socket.fd();
        self.ring()?.arm(fd)
    }

    /// Goes on without a ring.
    ///
    /// # Errors
    /// As [`UdpSocket::register`]: datagrams no longer wake the thread.
    fn give_up(&mut self, error: &io::Error) -> Result<(), IoError> {
        self.ring = None;
        self.event = None;
        self.is_plain = true;
        warn_once(&self.warned, || {
            format!("a socket can not receive by io_uring and does without: {error}")
        });
        let waiter = core::mem::replace(&mut self.waiter, Registration::none());
        self.socket.register(&waiter)
    }
}

impl UdpSocket for UringSocket {
    fn local_address(&self) -> SocketAddr {
        self.socket.local_address()
    }

    fn send(&mut self, batch: &SendBatch<'_>) -> SendOutcome {
        self.socket.send(batch)
    }

    fn receive(&mut self, into: &mut ReceiveBatch) -> ReceiveOutcome {
        if self.is_plain {
            return self.socket.receive(into);
        }
        into.clear();
        match self.receive_by_ring(into) {
            Ok(outcome) => outcome,
            Err(error) => {
                let registered = self.give_up(&error);
                let mut outcome = self.socket.receive(into);
                if let Err(error) = registered {
                    let errno = error.source.raw_os_error().unwrap_or(libc::EIO);
                    outcome.error.get_or_insert(ReceiveError { errno });
                }
                outcome
            }
        }
    }

    fn reconnect(&mut self, to: SocketAddr) -> Result<(), IoError> {
        self.socket.reconnect(to)
    }

    fn register(&mut self, waiter: &Registration) -> Result<(), IoError> {
        if self.is_plain {
            return self.socket.register(waiter);
        }
        if !waiter.is_some() {
            return Ok(());
        }
        self.register_with(waiter, event())
    }

    fn release(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.stop();
        }
    }
}

impl Drop for UringSocket {
    fn drop(&mut self) {
        self.release();
    }
}

/// What a ring rings when something has come. Each time is an event of its own, so nobody reads it.
fn event() -> io::Result<OwnedFd> {
    // SAFETY: eventfd(initial, flags) touches no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One socket's ring.
struct Ring {
    /// Dropped first. Without it nobody can enter the ring any more, and so nobody writes to the buffers.
    uring: IoUring,
    queue: BufferQueue,
    buffers: Buffers,
    /// How much room the names and control messages of datagrams get; the request points to it.
    template: Box<libc::msghdr>,
    /// Whether the request is under way.
    is_armed: bool,
}

// SAFETY: the pointers in it lead to memory that it owns, and the system writes there only while a thread that has it
// exclusively is in `enter`. That only one thread may enter a ring is checked by the system, which refuses others.
unsafe impl Send for Ring {}

impl core::fmt::Debug for Ring {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Ring")
            .field("is_armed", &self.is_armed)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for the calling thread, with so many buffers, a power of two.
    fn new(count: u16, event: Option<&OwnedFd>) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // Each buffer in use has a completion, so that there is always room.
            .setup_cqsize(4 * u32::from(count))
            .dontfork()
            .build(REQUESTS)?;
        // From here on, whatever fails, what the ring is told of is dropped after it.
        let mut ring = Self {
            uring,
            queue: BufferQueue::new(count)?,
            buffers: Buffers::new(count),
            template: Box::new(template()),
            is_armed: false,
        };
        for id in 0..count {
            ring.queue.push(id, &ring.buffers);
        }
        ring.queue.publish();
        let submitter = ring.uring.submitter();
        // SAFETY: the queue is aligned to a page, with room for `count` entries. It and
        // the buffers that its entries name live until the ring is closed: all are fields of `Ring`, the ring first.
        unsafe { submitter.register_buf_ring_with_flags(ring.queue.address(), count, GROUP, 0)? };
        if let Some(event) = event {
            submitter.register_eventfd(event.as_raw_fd())?;
        }
        Ok(ring)
    }

    /// Takes what has come in. The request is under way afterwards, so that what comes next is noticed.
    ///
    /// # Errors
    /// The ring can not be entered; nothing was received then.
    fn receive(&mut self, fd: RawFd, into: &mut ReceiveBatch) -> io::Result<ReceiveOutcome> {
        let mut outcome = ReceiveOutcome::default();
        for _ in 0..RETRIES {
            self.take(into, &mut outcome);
            if !into.is_empty() || outcome.error.is_some() {
                break;
            }
            if !self.is_armed {
                self.arm(fd)?;
            } else if self.uring.submission().taskrun() {
                self.enter(0, 0)?;
            } else {
                return Ok(outcome);
            }
        }
        if !self.is_armed {
            // A failure comes again with the next receive, which has nothing to lose.
            let _ = self.arm(fd);
        }
        // A request that was started again has taken what was there; where it could not be, nothing would wake the thread.
        outcome.is_full = into.is_full() || !self.is_armed || !self.uring.completion().is_empty();
        Ok(outcome)
    }

    /// Starts the request.
    fn arm(&mut self, fd: RawFd) -> io::Result<()> {
        let request = opcode::RecvMsgMulti::new(Fd(fd), &raw const *self.template, GROUP)
            .build()
            .user_data(RECEIVE);
        self.push(&request)?;
        // Before the system says how it went: what it says last counts.
        self.is_armed = true;
        let entered = self.enter(1, 0);
        if entered.is_err() {
            self.is_armed = self.uring.submission().is_empty();
        }
        entered
    }

    fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        let mut submission = self.uring.submission();
        if !submission.is_empty() {
            // Left over by a call that failed: the same request, of the same socket.
            return Ok(());
        }
        // SAFETY: what the request points to is the header of `template`, which lives until the ring is closed. The data
        // goes to provided buffers, of which the same holds. A request that cancels points to nothing.
        unsafe { submission.push(request) }.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))
    }

    /// Hands requests over and lets the system do what is due, which is when it writes to buffers.
    fn enter(&mut self, requests: u32, completions: u32) -> io::Result<()> {
        const GET_EVENTS: u32 = 1;
        // SAFETY: io_uring_enter without an argument; the requests were checked by `push`.
        unsafe {
            self.uring
                .submitter()
                .enter::<libc::sigset_t>(requests, completions, GET_EVENTS, None)?;
        }
        Ok(())
    }

    /// Hands over what the system has put into buffers, as much as there is room for.
    fn take(&mut self, into: &mut ReceiveBatch, outcome: &mut ReceiveOutcome) {
        let Self {
            uring,
            queue,
            buffers,
            template,
            is_armed,
        } = self;
        let mut completions = uring.completion();
        while !into.is_full()
            && let Some(completion) = completions.next()
        {
            if completion.user_data() != RECEIVE {
                continue;
            }
            let flags = completion.flags();
            // It ends for want of buffers, with an error, and after an empty datagram.
            *is_armed &= cqueue::more(flags);
            let result = completion.result();
            if let Some(id) = cqueue::buffer_select(flags) {
                if result >= 0 {
                    let filled = buffers.hand_over(id, template, into);
                    outcome.datagrams += filled.map_or(0, |filled| filled.datagrams());
                    outcome.bytes += filled.map_or(0, |filled| filled.length);
                }
                queue.push(id, buffers);
            } else if let Some(errno) = judge(result) {
                outcome.error = Some(ReceiveError { errno });
            }
        }
        drop(completions);
        queue.publish();
    }

    /// Ends the request, so that the system lets go of the socket at once; what it has brought is dropped. Does nothing
    /// on another thread than the one that started it: the system then does so when the ring is closed, a moment later.
    fn stop(&mut self) {
        if !self.is_armed {
            return;
        }
        let request = opcode::AsyncCancel::new(RECEIVE).build().user_data(CANCEL);
        if self.push(&request).and_then(|()| self.enter(1, 1)).is_err() {
            return;
        }
        for _ in 0..CANCEL_CALLS {
            for completion in self.uring.completion() {
                if completion.user_data() != RECEIVE {
                    continue;
                }
                self.is_armed &= cqueue::more(completion.flags());
                if let Some(id) = cqueue::buffer_select(completion.flags()) {
                    self.queue.push(id, &self.buffers);
                }
            }
            self.queue.publish();
            if !self.is_armed || self.enter(0, 0).is_err() {
                return;
            }
        }
    }
}

/// The error that is worth a report, of a completion without a buffer.
fn judge(result: i32) -> Option<i32> {
    match -result {
        // Buffers come back with the next receive; the thread that started the request has ended; the error of an earlier
        // send, told here, and forgotten then.
        libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN => None,
        libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH => None,
        errno if errno > 0 => Some(errno),
        _ => None,
    }
}

/// The buffers of a ring, by number. Each is a boxed slice of [`ReceiveBatch::STORAGE_LENGTH`] bytes, kept as a pointer
/// as long as the system may write to it.
struct Buffers(Box<[NonNull<u8>]>);

impl Buffers {
    fn new(count: u16) -> Self {
        Self((0..count).map(|_| Self::lend(ReceiveBatch::storage())).collect())
    }

    fn lend(storage: Box<[u8]>) -> NonNull<u8> {
        NonNull::from(Box::leak(storage)).cast()
    }

    /// # Safety
    /// The pointer is from [`Self::lend`], and the system writes there no more.
    unsafe fn take_back(buffer: NonNull<u8>) -> Box<[u8]> {
        let whole = core::ptr::slice_from_raw_parts_mut(buffer.as_ptr(), ReceiveBatch::STORAGE_LENGTH);
        // SAFETY: it was a box of this length, and the caller says that it is ours.
        unsafe { Box::from_raw(whole) }
    }

    /// Exchanges a buffer that the system has filled for one of the batch, if it takes it.
    fn hand_over(&mut self, id: u16, template: &libc::msghdr, into: &mut ReceiveBatch) -> Option<Filled> {
        let place = self.0.get_mut(usize::from(id))?;
        // SAFETY: the place was filled by `lend`, as every place always is, and a completion with its number says that
        // the system is done with it until it is provided again.
        let mut storage = unsafe { Self::take_back(*place) };
        let filled = describe(&storage, template);
        let is_taken = into.exchange(&mut storage, START, filled);
        *place = Self::lend(storage);
        is_taken.then_some(filled)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        for buffer in &self.0 {
            // SAFETY: every place was filled by `lend`; the ring was closed before, see `Ring::uring`.
            drop(unsafe { Self::take_back(*buffer) });
        }
    }
}

/// How much room the names and control messages of datagrams get.
fn template() -> libc::msghdr {
    // SAFETY: all-zero bytes are a message header without name, data and control.
    let mut template: libc::msghdr = unsafe { core::mem::zeroed() };
    template.msg_namelen = NAME_ROOM as libc::socklen_t;
    template.msg_controllen = CONTROL_WORDS * size_of::<u64>();
    template
}

/// What the system says of the datagrams in a buffer. What it cut, or whose sender it can not name, is described as
/// empty: the wire's first check counts it as invalid.
fn describe(storage: &[u8], template: &libc::msghdr) -> Filled {
    let mut filled = Filled::EMPTY;
    let Ok(message) = RecvMsgOut::parse(storage, template) else {
        return filled;
    };
    let Some(from) = Name::from_bytes(message.name_data()) else {
        return filled;
    };
    filled.from = from;
    let cut = (libc::MSG_TRUNC | libc::MSG_CTRUNC) as u32;
    if message.flags() & cut != 0 || message.is_name_data_truncated() {
        return filled;
    }
    filled.length = message.payload_data().len();
    // A copy that is aligned.
    let mut control = [0u64; CONTROL_WORDS];
    let bytes = message.control_data();
    let length = bytes.len().min(size_of_val(&control));
    // SAFETY: `length` bytes are readable in the one and writable in the other, and they do not overlap.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), control.as_mut_ptr().cast(), length) };
    let mut header = *template;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = length;
    read_control(&header, &mut filled);
    filled
}

/// What the system takes buffers from: memory that it shares, from the start of a page on.
struct BufferQueue {
    entries: NonNull<BufRingEntry>,
    mask: u16,
    tail: u16,
}

impl BufferQueue {
    const LENGTH: usize = 4096;

    const fn has_room_for(count: u16) -> bool {
        count.is_power_of_two() && count as usize * size_of::<BufRingEntry>() <= Self::LENGTH
    }

    /// `count` is one of those that [`Self::has_room_for`] was asserted of.
    fn new(count: u16) -> io::Result<Self> {
        // SAFETY: mmap(any address, length, protection, flags, no file, 0) makes new memory and touches none of ours.
        let memory = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                Self::LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let entries = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            entries,
            mask: count - 1,
            tail: 0,
        })
    }

    fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Offers a buffer, which the system may use once that is published.
    fn push(&mut self, id: u16, buffers: &Buffers) {
        let Some(buffer) = buffers.0.get(usize::from(id)) else {
            return;
        };
        // SAFETY: the index is below the count of entries, for which there is room. The system only reads entries, up to
        // the tail that was published and only in `enter`; so nobody else uses this one.
        let entry = unsafe { &mut *self.entries.as_ptr().add(usize::from(self.tail & self.mask)) };
        entry.set_addr(buffer.as_ptr() as u64);
        entry.set_len(ReceiveBatch::STORAGE_LENGTH as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the system see what was offered.
    fn publish(&mut self) {
        // SAFETY: the pointer leads to the first entry, which is initialised: zeroes are an entry.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) }.cast_mut();
        // SAFETY: the tail lies inside the first entry, where the system looks for it, and is aligned. The system reads it
        // on this thread, in `enter`.
        unsafe { tail.write_volatile(self.tail) };
    }
}

impl Drop for BufferQueue {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nobody else has it: the ring was closed before, see `Ring::uring`.
        unsafe { libc::munmap(self.entries.as_ptr().cast(), Self::LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use fulmar::time::SystemClock;

    use super::super::super::conformance::{collect, local, send};
    use super::super::super::readiness::Readiness;
    use super::super::super::spec::SocketSpec;
    use super::*;

    /// A receiver with a ring, and a sender; nothing on systems without.
    fn pair() -> Option<(UringSocket, SystemSocket)> {
        if let Err(error) = probe() {
            eprintln!("skipped: no io_uring: {error}");
            return None;
        }
        let open = || SystemSocket::open(&local(Ipv4Addr::LOCALHOST.into())).unwrap();
        Some((UringSocket::new(open(), Arc::default()), open()))
    }

    fn send_numbered(sender: &mut SystemSocket, to: SocketAddr, numbers: core::ops::Range<usize>) {
        for number in numbers {
            // Of growing lengths, so that no system joins them.
            let bytes = vec![number as u8; 1 + number];
            assert_eq!(send(sender, &bytes, Some(to)).datagrams, 1);
        }
    }

    fn lengths(got: &[(Vec<u8>, SocketAddr)]) -> Vec<usize> {
        got.iter().map(|(bytes, _)| bytes.len()).collect()
    }

    #[test]
    fn more_datagrams_than_buffers_arrive_in_order() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let count = 3 * usize::from(RECEIVER_BUFFERS) + 1;
        for capacity in [1, 2, 64] {
            let mut batch = ReceiveBatch::new(capacity);
            for _ in 0..3 {
                send_numbered(&mut sender, to, 0..count);
                let got = collect(&mut receiver, &mut batch, count);
                assert!(lengths(&got).into_iter().eq(1..=count));
            }
        }
        assert!(receiver.ring.is_some() && !receiver.is_plain);
    }

    #[test]
    fn empty_datagrams_end_the_request_and_nothing_else() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(4);
        for _ in 0..5 {
            for bytes in [&b""[..], b"", b"x", b"", b"yy"] {
                assert_eq!(send(&mut sender, bytes, Some(to)).datagrams, 1);
            }
            let got = collect(&mut receiver, &mut batch, 5);
            assert_eq!(lengths(&got), [0, 0, 1, 0, 2]);
        }
    }

    #[test]
    fn what_is_in_a_batch_stays_while_more_comes_in() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(4);
        assert!(collect(&mut receiver, &mut ReceiveBatch::new(1), 0).is_empty());
        send_numbered(&mut sender, to, 0..4);
        assert_eq!(receiver.receive(&mut batch).datagrams, 4);
        // All buffers of the ring are used once more.
        let mut other = ReceiveBatch::new(4);
        let count = 2 * usize::from(RECEIVER_BUFFERS);
        send_numbered(&mut sender, to, 100..100 + count);
        collect(&mut receiver, &mut other, count);
        for (number, datagram) in batch.datagrams().enumerate() {
            assert_eq!(datagram.bytes, vec![number as u8; 1 + number]);
            assert_eq!(datagram.from, sender.local_address());
        }
    }

    #[test]
    fn another_thread_goes_on_where_the_first_one_was() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(2);
        for round in 0..3 {
            // Some are in the ring already when the thread changes.
            send_numbered(&mut sender, to, 0..8);
            assert_eq!(receiver.receive(&mut batch).datagrams, 2, "{round}");
            send_numbered(&mut sender, to, 8..12);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let got = collect(&mut receiver, &mut batch, 10);
                    assert!(lengths(&got).into_iter().eq(3..=12));
                });
            });
        }
        assert!(receiver.ring.is_some() && !receiver.is_plain);
    }

    #[test]
    fn a_socket_that_was_released_gives_its_address_back_wherever_it_is_closed() {
        for released in [true, false] {
            let Some((mut receiver, mut sender)) = pair() else {
                return;
            };
            let to = receiver.local_address();
            let mut batch = ReceiveBatch::new(2);
            send_numbered(&mut sender, to, 0..20);
            assert_eq!(receiver.receive(&mut batch).datagrams, 2);
            if released {
                receiver.release();
                // Closing it is the other thread's work.
                assert!(receiver.ring.as_ref().is_some_and(|ring| !ring.is_armed));
            }
            std::thread::scope(|scope| scope.spawn(move || drop(receiver)).join()).unwrap();
            let spec = SocketSpec {
                bind: to,
                ..local(to.ip())
            };
            if released {
                assert_eq!(SystemSocket::open(&spec).unwrap().local_address(), to);
                continue;
            }
            // The system needs a moment.
            let start = SystemClock.nanos();
            while SystemSocket::open(&spec).is_err() {
                assert!(SystemClock.nanos().since(start) < 10_000_000_000);
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn what_is_cut_or_comes_from_nobody_is_empty() {
        let mut storage = ReceiveBatch::storage();
        let template = template();
        let mut write = |name_length: u32, payload_length: u32, flags: i32, family: i32| {
            for (at, word) in [name_length, 0, payload_length, flags as u32].iter().enumerate() {
                storage[4 * at..][..4].copy_from_slice(&word.to_ne_bytes());
            }
            storage[16..18].copy_from_slice(&(family as u16).to_ne_bytes());
            let filled = describe(&storage, &template);
            (filled.length, filled.from == Filled::EMPTY.from)
        };
        assert_eq!(write(16, 100, 0, libc::AF_INET).0, 100);
        assert_eq!(write(16, 100, libc::MSG_TRUNC, libc::AF_INET).0, 0);
        assert_eq!(write(16, 100, libc::MSG_CTRUNC, libc::AF_INET).0, 0);
        assert_eq!(write(0, 100, 0, libc::AF_INET), (0, true));
        assert_eq!(write(16, 100, 0, libc::AF_UNIX), (0, true));
        assert_eq!(write(u32::MAX, 100, 0, libc::AF_INET).0, 0);
        // However long they say that they are.
        assert_eq!(
            write(16, u32::MAX, 0, libc::AF_INET).0,
            ReceiveBatch::STORAGE_LENGTH - START
        );
    }

    #[test]
    fn a_socket_whose_ring_can_not_be_made_receives_without() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(2);
        send_numbered(&mut sender, to, 0..1);
        assert_eq!(collect(&mut receiver, &mut batch, 1).len(), 1);
        receiver.give_up(&io::ErrorKind::PermissionDenied.into()).unwrap();
        send_numbered(&mut sender, to, 0..5);
        assert!(
            lengths(&collect(&mut receiver, &mut batch, 5))
                .into_iter()
                .eq(1..=5)
        );
        assert!(receiver.is_plain && receiver.ring.is_none());
    }

    #[test]
    fn a_released_socket_has_all_its_buffers() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(64);
        let count = usize::from(RECEIVER_BUFFERS);
        assert!(collect(&mut receiver, &mut batch, 0).is_empty());
        send_numbered(&mut sender, to, 0..2 * count);
        assert_eq!(receiver.receive(&mut batch).datagrams, count);
        // The others are in the buffers again.
        receiver.release();
        send_numbered(&mut sender, to, 0..count);
        let got = collect(&mut receiver, &mut batch, count);
        assert!(lengths(&got).into_iter().eq(1..=count));
    }

    #[test]
    fn what_a_request_brings_when_it_is_started_again_is_told() {
        let Some((mut receiver, mut sender)) = pair() else {
            return;
        };
        let to = receiver.local_address();
        let mut batch = ReceiveBatch::new(64);
        assert!(collect(&mut receiver, &mut batch, 0).is_empty());
        let buffers = usize::from(RECEIVER_BUFFERS);
        send_numbered(&mut sender, to, 0..buffers + 4);
        // The buffers ran out, the batch has room.
        let outcome = receiver.receive(&mut batch);
        assert_eq!((outcome.datagrams, outcome.is_full), (buffers, true));
        let outcome = receiver.receive(&mut batch);
        assert_eq!((outcome.datagrams, outcome.is_full), (4, false));
    }

    /// A poll, and how sockets register with it.
    fn poll() -> (mio::Poll, Registration) {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        (poll, Registration::of(registry, Readiness::new()))
    }

    #[test]
    fn a_socket_that_gets_no_event_wakes_its_thread_without_a_ring() {
        let no_more = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        // The poll refuses files.
        let refused = || Ok(OwnedFd::from(tempfile::tempfile().unwrap()));
        for event in [no_more(), refused()] {
            let Some((mut receiver, mut sender)) = pair() else {
                return;
            };
            let (mut poll, waiter) = poll();
            let mut batch = ReceiveBatch::new(1);
            // There is a ring already, which has to go.
            assert_eq!(receiver.receive(&mut batch).datagrams, 0);
            receiver.register_with(&waiter, event).unwrap();
            assert!(receiver.is_plain && receiver.ring.is_none());
            let mut events = mio::Events::with_capacity(4);
            poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            send_numbered(&mut sender, receiver.local_address(), 0..1);
            poll.poll(&mut events, Some(Duration::from_secs(30))).unwrap();
            assert!(!events.is_empty());
            assert_eq!(receiver.receive(&mut batch).datagrams, 1);
        }
    }

    #[test]
    fn a_socket_that_can_not_wake_its_thread_at_all_says_so() {
        let Some((mut receiver, _)) = pair() else {
            return;
        };
        let (_poll, waiter) = poll();
        // The poll takes a socket once.
        let _mark = waiter.add(receiver.socket.fd()).unwrap();
        let no_more = Err(io::Error::from_raw_os_error(libc::EMFILE));
        let error = receiver.register_with(&waiter, no_more).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EEXIST));
    }
}
