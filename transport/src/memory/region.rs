//! A region: owned bytes, on the heap or mapped from a file.

use core::fmt;
use core::ptr::NonNull;
use std::alloc::Layout;
use std::io;
use std::sync::{Arc, Weak};

use super::buffer::View;
use super::guard::GuardEntry;

/// Alignment of heap regions; mapped ones are page aligned by the kernel.
const HEAP_ALIGNMENT: usize = 4096;

/// Owned bytes that views look at. Cloning is cheap and shares the bytes; they live until the last clone and the
/// last view are gone.
#[derive(Clone)]
pub struct Region(Arc<Owner>);

/// Looks whether a region is still there, without keeping it.
#[derive(Clone)]
pub(crate) struct RegionWatch(Weak<Owner>);

impl RegionWatch {
    /// How many clones and views of the region there are.
    pub(crate) fn holders(&self) -> usize {
        self.0.strong_count()
    }

    /// Whether it is this region that it looks at.
    pub(crate) fn is_of(&self, region: &Region) -> bool {
        core::ptr::eq(self.0.as_ptr(), Arc::as_ptr(&region.0))
    }
}

struct Owner {
    base: NonNull<u8>,
    length: usize,
    // Declared before `backing`, so that the guard forgets the range before it is unmapped.
    guard: Option<GuardEntry>,
    backing: Backing,
}

enum Backing {
    Heap(Layout),
    // Its drop unmaps.
    Mapped(memmap2::MmapRaw),
}

// SAFETY: the bytes are reached only through `View`, which uses atomics and raw copies; the owner itself is immutable.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Region {
    /// Zeroed heap bytes, page aligned. For the simulator, for tests and for in-process stand-ins of shared files.
    ///
    /// # Panics
    /// If `length` is 0 or beyond `isize::MAX`.
    #[must_use]
    pub fn heap(length: usize) -> Region {
        assert!(length > 0, "a region has at least one byte");
        let layout = Layout::from_size_align(length, HEAP_ALIGNMENT)
            .expect("a heap region is shorter than isize::MAX");
        // SAFETY: the layout has a length above zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            std::alloc::handle_alloc_error(layout)
        };
        Region(Arc::new(Owner {
            base,
            length,
            guard: None,
            backing: Backing::Heap(layout),
        }))
    }

    /// Takes a mapping over, under the guard of [`super::guard`].
    ///
    /// # Panics
    /// If the mapping is empty.
    #[must_use]
    pub fn mapped(mapping: memmap2::MmapRaw) -> Region {
        let length = mapping.len();
        assert!(length > 0, "a mapping has at least one byte");
        let base = NonNull::new(mapping.as_mut_ptr()).expect("a mapping is never at address zero");
        let guard = GuardEntry::register(base.as_ptr(), length);
        Region(Arc::new(Owner {
            base,
            length,
            guard,
            backing: Backing::Mapped(mapping),
        }))
    }

    /// Something that tells how many hold this region, and holds nothing.
    #[must_use]
    pub(crate) fn watch(&self) -> RegionWatch {
        RegionWatch(Arc::downgrade(&self.0))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.length
    }

    /// Never true: a region has at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether the file behind the mapping was truncated under us and zeros have taken its place.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.0.guard.as_ref().is_some_and(GuardEntry::is_damaged)
    }

    /// A window of `length` bytes at `offset`.
    ///
    /// # Panics
    /// If the window does not lie inside the region or does not start on an 8-byte boundary: callers check lengths
    /// that come from elsewhere first.
    #[must_use]
    pub fn view(&self, offset: usize, length: usize) -> View {
        assert!(
            offset <= self.0.length && length <= self.0.length - offset,
            "a view lies inside its region"
        );
        assert!(offset.is_multiple_of(8), "a view starts on an 8-byte boundary");
        // SAFETY: offset is inside the allocation, as just checked.
        let base = unsafe { self.0.base.add(offset) };
        // SAFETY: [base, base + length) lies inside the region, which the view keeps alive by its clone.
        unsafe { View::from_raw_parts(base, length, self.clone()) }
    }

    /// Has the pages of a range given to the file and entered in the page tables of this process at once, so that no
    /// store to them is held up later. On the heap nothing is to be done.
    ///
    /// # Errors
    /// Whatever the system says: no room in the file system, or no such call (before Linux 5.14).
    ///
    /// # Panics
    /// If the range does not lie inside the region.
    pub fn populate(&self, offset: usize, length: usize) -> io::Result<()> {
        assert!(
            offset <= self.0.length && length <= self.0.length - offset,
            "what is populated lies inside its region"
        );
        match &self.0.backing {
            Backing::Heap(_) => Ok(()),
            Backing::Mapped(mapping) => mapping.advise_range(memmap2::Advice::PopulateWrite, offset, length),
        }
    }

    /// The whole region as a view.
    #[must_use]
    pub fn as_view(&self) -> View {
        self.view(0, self.0.length)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // The guard must forget the range before the pages go away.
        self.guard = None;
        if let Backing::Heap(layout) = &self.backing {
            // SAFETY: `base` came from `alloc_zeroed` with this layout and nobody holds a view any more, since views
            // hold the Arc that is being dropped.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), *layout) }
        }
    }
}

impl fmt::Debug for RegionWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionWatch")
            .field("holders", &self.holders())
            .finish()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("length", &self.0.length)
            .finish_non_exhaustive()
    }
}
