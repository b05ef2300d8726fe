//! Copies into memory that others read: short ones inline, long ones as the processor likes best.

/// Longest copy that is made without a call, bytes.
pub(crate) const SHORT_COPY_MAX: usize = 64;

/// A copy that needs no call up to [`SHORT_COPY_MAX`] bytes: two moves that may overlap each other.
///
/// # Safety
/// As for [`core::ptr::copy_nonoverlapping`] with bytes.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) unsafe fn copy_bytes(source: *const u8, target: *mut u8, length: usize) {
    /// # Safety
    /// `length` is from `size_of::<T>()` to twice that; otherwise as above.
    #[inline(always)]
    unsafe fn both_ends<T: Copy>(source: *const u8, target: *mut u8, length: usize) {
        let last = length - size_of::<T>();
        // SAFETY: the first and the last `size_of::<T>()` bytes lie inside the `length` bytes of each range.
        unsafe {
            let head = source.cast::<T>().read_unaligned();
            let tail = source.add(last).cast::<T>().read_unaligned();
            target.cast::<T>().write_unaligned(head);
            target.add(last).cast::<T>().write_unaligned(tail);
        }
    }
    // SAFETY: each branch holds the length condition of what it calls, the caller vouches for the ranges. The long
    // copy is asked for first, so that it is folded away where the caller knows that the length is short.
    unsafe {
        if length > SHORT_COPY_MAX {
            copy_long(source, target, length);
        } else if length > 32 {
            // Not as one wide type, which the compiler would pass through the stack.
            both_ends::<Sixteen>(source, target, 32);
            both_ends::<Sixteen>(source.add(length - 32), target.add(length - 32), 32);
        } else if length > 16 {
            both_ends::<Sixteen>(source, target, length);
        } else if length >= 8 {
            both_ends::<u64>(source, target, length);
        } else if length >= 4 {
            both_ends::<u32>(source, target, length);
        } else if length >= 2 {
            both_ends::<u16>(source, target, length);
        } else if length == 1 {
            *target = *source;
        }
    }
}

/// Sixteen bytes that the compiler keeps in a register.
#[cfg(all(target_arch = "x86_64", not(loom)))]
type Sixteen = core::arch::x86_64::__m128i;
#[cfg(all(not(target_arch = "x86_64"), not(loom)))]
type Sixteen = u128;

/// Copies from this length on go by the string copy of the processor, bytes. Lines that it writes as a whole it does
/// not read first, which is most of the work where they lie in the memory of another processor or in none. On the
/// processor that this was measured on it takes longer to begin than it saves below this length.
#[cfg(all(target_arch = "x86_64", not(miri), not(loom), not(fuzzing)))]
const STRING_COPY_MIN: usize = 512;

/// The string copy is fast only between addresses that agree modulo this.
#[cfg(all(target_arch = "x86_64", not(miri), not(loom), not(fuzzing)))]
const STRING_COPY_ALIGNMENT: usize = 32;

/// # Safety
/// As for [`core::ptr::copy_nonoverlapping`] with bytes.
#[cfg(not(loom))]
#[inline(always)]
unsafe fn copy_long(source: *const u8, target: *mut u8, length: usize) {
    // Not under the fuzzer, whose sanitizer sees no assembly.
    #[cfg(all(target_arch = "x86_64", not(miri), not(fuzzing)))]
    if length >= STRING_COPY_MIN
        && (source.addr() ^ target.addr()).is_multiple_of(STRING_COPY_ALIGNMENT)
        && std::arch::is_x86_feature_detected!("ermsb")
    {
        // SAFETY: the caller vouches for both ranges. The direction flag is clear, as it is at any assembly. Only the
        // stores of one string copy may be seen out of order; a store after it is seen after all of them (Intel's
        // manual, volume 3, fast-string operation), so that a release store publishes these bytes like any others.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") length => _,
                inout("rdi") target => _,
                inout("rsi") source => _,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    // SAFETY: the caller vouches for both ranges.
    unsafe { core::ptr::copy_nonoverlapping(source, target, length) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_and_alignment_are_exact_and_touch_nothing_else() {
        let source: Vec<u8> = (0..3000usize).map(|index| (index * 7 + 1) as u8).collect();
        for length in (0..200).chain(500..530).chain([1023, 1024, 1376, 2900]) {
            for (from, to) in [(0, 0), (1, 0), (0, 3), (17, 32), (3, 35)] {
                let mut target = vec![0xaa_u8; 3000];
                // SAFETY: both ranges lie inside their vectors: 35 + 2900 is below 3000.
                unsafe { copy_bytes(source.as_ptr().add(from), target.as_mut_ptr().add(to), length) };
                assert_eq!(target[to..to + length], source[from..from + length], "{length}");
                let around = target[..to].iter().chain(&target[to + length..]);
                assert!(around.copied().all(|byte| byte == 0xaa), "{length}");
            }
        }
    }
}
