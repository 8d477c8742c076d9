//! Stores past the caches.
//!
//! An ordinary store first reads the line it writes. Outputs that no cache would hold are staged in the first-level cache
//! and go out in whole lines with non-temporal stores, which do not. A burst of those holds up the loads behind it, so a
//! stage is drained line by line while the kernel fills the next one.

use super::OUTPUTS;
use super::dispatch::Job;
use super::lanes::Isa;

const LINE: usize = 64;

/// Whole lines on their way from a stage to an output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lines {
    src: *const u8,
    dst: *mut u8,
    left: usize,
}

impl Lines {
    pub(crate) const NONE: Self = Self { src: std::ptr::null(), dst: std::ptr::null_mut(), left: 0 };

    /// Copies what lies before the first and after the last whole line of the destination, and leaves the lines between.
    ///
    /// # Safety
    ///
    /// `src` is good for reading and `dst` for writing `bytes` bytes until the lines are drained; they do not overlap.
    pub(crate) unsafe fn new(src: *const u8, dst: *mut u8, bytes: usize) -> Self {
        let head = dst.align_offset(LINE).min(bytes);
        let left = (bytes - head) / LINE;
        let tail = head + left * LINE;
        // SAFETY: head, lines and tail split the range.
        unsafe {
            std::ptr::copy_nonoverlapping(src, dst, head);
            std::ptr::copy_nonoverlapping(src.add(tail), dst.add(tail), bytes - tail);
            Self { src: src.add(head), dst: dst.add(head), left }
        }
    }

    /// Copies up to `most` lines.
    ///
    /// # Safety
    ///
    /// As promised to [`Lines::new`].
    #[inline(always)]
    pub(crate) unsafe fn drain<I: Isa>(&mut self, most: usize) {
        let lines = most.min(self.left);
        for _ in 0..lines {
            // SAFETY: a whole line is left, and the destination is aligned to it.
            unsafe {
                I::stream_line(self.src, self.dst);
                self.src = self.src.add(LINE);
                self.dst = self.dst.add(LINE);
            }
        }
        self.left -= lines;
    }
}

/// Drains what is left.
pub(crate) struct Leave(pub(crate) [Lines; OUTPUTS]);

impl Job for Leave {
    type Out = ();

    #[inline(always)]
    unsafe fn run<I: Isa>(&self) {
        for mut lines in self.0 {
            // SAFETY: the caller's contract.
            unsafe { lines.drain::<I>(usize::MAX) };
        }
    }
}

/// Makes streamed lines visible before whatever this thread publishes next.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is always there.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Whether this target has such stores.
pub(crate) const AVAILABLE: bool = cfg!(target_arch = "x86_64");
