//! The caller's workspace, cut into pieces. The same cuts measure a plan and serve a launch.

/// Every piece begins on a cache line: no two workers share one.
const LINE: usize = 64;

/// Hands out pieces one after the other.
#[derive(Debug)]
pub(crate) struct Arena {
    base: *mut u8,
    used: usize,
}

impl Arena {
    /// Hands out nothing, only measures.
    pub(crate) fn measure() -> Self {
        Self { base: std::ptr::null_mut(), used: 0 }
    }

    /// # Safety
    ///
    /// `base` is good for as many bytes as the same cuts measured.
    pub(crate) unsafe fn new(base: *mut u8) -> Self {
        Self { base: base.wrapping_add(base.align_offset(LINE)), used: 0 }
    }

    /// Room for `count` values on a line of its own. Saturates where the size leaves the address space, and so does
    /// [`Arena::bytes`].
    pub(crate) fn take<T>(&mut self, count: usize) -> *mut T {
        let at = self.base.wrapping_add(self.used).cast();
        let bytes = count.saturating_mul(size_of::<T>());
        // A line between pieces, so that rows of a power of two do not begin at the same offset of their pages: a load
        // that follows a store to the same offset of another page waits for it.
        let pitch = bytes.checked_next_multiple_of(LINE).and_then(|b| b.checked_add(LINE));
        self.used = pitch.map_or(usize::MAX, |b| self.used.saturating_add(b));
        at
    }

    /// Bytes that the caller has to bring, whatever its alignment; `None` when no address space holds them.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self.used {
            0 => Some(0),
            used => used.checked_add(LINE).filter(|b| isize::try_from(*b).is_ok()).map(|b| b as u64),
        }
    }
}
