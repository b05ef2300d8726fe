//! What happens when a mapped file is truncated by somebody else: the next access beyond its end raises SIGBUS.
//!
//! Regions are registered in a fixed table. The signal handler looks the faulting address up, puts private zeroed
//! pages over the rest of that region, marks it damaged and returns: the access then reads zeros, which every
//! structure of the protocol reads as "nothing there". The owner finds [`GuardEntry::is_damaged`] at its next check
//! and closes what lived in the region. A fault outside registered regions goes to the handler that was there before.

use std::sync::Once;

use crate::sync::unmodelled::{AtomicBool, AtomicUsize, Ordering};

/// Most regions guarded at one time; further ones work, without protection.
pub const GUARDED_REGIONS_MAX: usize = 8192;

struct Slot {
    base: AtomicUsize,
    length: AtomicUsize,
    damaged: AtomicBool,
}

static SLOTS: [Slot; GUARDED_REGIONS_MAX] = [const {
    Slot {
        base: AtomicUsize::new(0),
        length: AtomicUsize::new(0),
        damaged: AtomicBool::new(false),
    }
}; GUARDED_REGIONS_MAX];

/// `base` value of a slot that is being filled in.
const RESERVED: usize = usize::MAX;

/// A region's place in the guard table, freed on drop.
#[derive(Debug)]
pub struct GuardEntry {
    index: usize,
}

impl GuardEntry {
    /// Puts a mapping under guard and installs the signal handler the first time. `None` when the table is full.
    pub fn register(base: *const u8, length: usize) -> Option<GuardEntry> {
        install_handler();
        for (index, slot) in SLOTS.iter().enumerate() {
            if slot.base.load(Ordering::Relaxed) == 0
                && slot
                    .base
                    .compare_exchange(0, RESERVED, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                slot.damaged.store(false, Ordering::Relaxed);
                slot.length.store(length, Ordering::Relaxed);
                // SYNC guard-slot: length and flag are complete once the base is visible.
                slot.base.store(base as usize, Ordering::Release);
                return Some(GuardEntry { index });
            }
        }
        None
    }

    /// Whether an access to the region faulted since it was registered.
    #[inline]
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        SLOTS[self.index].damaged.load(Ordering::Relaxed)
    }
}

impl Drop for GuardEntry {
    fn drop(&mut self) {
        SLOTS[self.index].base.store(0, Ordering::Release);
    }
}

static mut PREVIOUS: core::mem::MaybeUninit<libc::sigaction> = core::mem::MaybeUninit::uninit();
static INSTALL: Once = Once::new();
static PAGE_SIZE: AtomicUsize = AtomicUsize::new(4096);

fn install_handler() {
    INSTALL.call_once(|| {
        // SAFETY: `sysconf` has no memory arguments. `action` is fully initialised before the call, the handler has
        // the SA_SIGINFO signature, and PREVIOUS is written here only, inside `call_once`, before any region exists
        // that could fault into the handler.
        unsafe {
            let page = libc::sysconf(libc::_SC_PAGESIZE);
            if page > 0 {
                PAGE_SIZE.store(page as usize, Ordering::Relaxed);
            }
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &raw const action, (&raw mut PREVIOUS).cast());
        }
    });
}

/// Only async-signal-safe work: atomic loads and stores, and the `mmap` system call.
extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to an SA_SIGINFO handler, and si_addr is set for SIGBUS.
    let address = unsafe { (*info).si_addr() } as usize;
    for slot in &SLOTS {
        // SYNC guard-slot: length belongs to this base.
        let base = slot.base.load(Ordering::Acquire);
        if base == 0 || base == RESERVED {
            continue;
        }
        let length = slot.length.load(Ordering::Relaxed);
        if address < base || address - base >= length {
            continue;
        }
        let page = PAGE_SIZE.load(Ordering::Relaxed);
        let start = address & !(page - 1);
        let end = (base + length + page - 1) & !(page - 1);
        // SAFETY: [start, end) lies inside a mapping that a live Region owns (its guard entry is dropped before it
        // is unmapped), so replacing those pages touches nobody else's memory.
        let mapped = unsafe {
            libc::mmap(
                start as *mut libc::c_void,
                end - start,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapped != libc::MAP_FAILED {
            slot.damaged.store(true, Ordering::Relaxed);
            return;
        }
    }
    // SAFETY: PREVIOUS was filled by `install_handler` before this handler could run. A previous handler is called
    // with the arguments the kernel gave us; otherwise the default action is restored, and returning re-executes
    // the faulting access, which then ends the process.
    unsafe {
        let previous = &*(&raw const PREVIOUS).cast::<libc::sigaction>();
        let handler = previous.sa_sigaction;
        if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
            libc::signal(signal, libc::SIG_DFL);
        } else if previous.sa_flags & libc::SA_SIGINFO != 0 {
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                core::mem::transmute(handler);
            call(signal, info, context);
        } else {
            let call: extern "C" fn(libc::c_int) = core::mem::transmute(handler);
            call(signal);
        }
    }
}
