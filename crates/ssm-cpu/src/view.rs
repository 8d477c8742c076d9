//! Views of host memory.

use std::marker::PhantomData;

use ssm_core::{DType, Element, Span, View};

/// Host memory to read.
#[derive(Clone, Copy, Debug)]
pub struct CpuRef<'a> {
    ptr: *const u8,
    elements: usize,
    dtype: DType,
    lifetime: PhantomData<&'a [u8]>,
}

/// Host memory to write.
#[derive(Debug)]
pub struct CpuMut<'a> {
    ptr: *mut u8,
    elements: usize,
    dtype: DType,
    lifetime: PhantomData<&'a mut [u8]>,
}

// SAFETY: a CpuRef is a shared borrow of elements that are Sync.
unsafe impl Send for CpuRef<'_> {}
// SAFETY: as above.
unsafe impl Sync for CpuRef<'_> {}
// SAFETY: a CpuMut is a unique borrow of elements that are Send.
unsafe impl Send for CpuMut<'_> {}
// SAFETY: a shared CpuMut gives no access to the elements outside this crate, and none inside before a launch owns it.
unsafe impl Sync for CpuMut<'_> {}

impl<'a, E: Element> From<&'a [E]> for CpuRef<'a> {
    fn from(slice: &'a [E]) -> Self {
        Self { ptr: slice.as_ptr().cast(), elements: slice.len(), dtype: E::DTYPE, lifetime: PhantomData }
    }
}

impl<'a, E: Element> From<&'a mut [E]> for CpuMut<'a> {
    fn from(slice: &'a mut [E]) -> Self {
        Self { ptr: slice.as_mut_ptr().cast(), elements: slice.len(), dtype: E::DTYPE, lifetime: PhantomData }
    }
}

impl CpuRef<'_> {
    /// Memory that no Rust slice describes: another runtime's tensor, say.
    ///
    /// # Safety
    ///
    /// `ptr` points to `elements` initialised elements of `dtype`, which nothing writes while the view lives.
    /// Alignment and overlap are checked when a call is bound.
    pub unsafe fn from_raw(ptr: *const u8, elements: usize, dtype: DType) -> Self {
        Self { ptr, elements, dtype, lifetime: PhantomData }
    }

    pub(crate) fn as_ptr<E: Element>(&self) -> *const E {
        debug_assert_eq!(self.dtype, E::DTYPE);
        self.ptr.cast()
    }
}

impl CpuMut<'_> {
    /// Memory that no Rust slice describes, initialised or not. Only the state of a step is read before it is written.
    ///
    /// # Safety
    ///
    /// `ptr` points to room for `elements` elements of `dtype`, which nothing else touches while the view lives; as the
    /// state of a step they are initialised. Alignment and overlap are checked when a call is bound.
    pub unsafe fn from_raw(ptr: *mut u8, elements: usize, dtype: DType) -> Self {
        Self { ptr, elements, dtype, lifetime: PhantomData }
    }

    pub(crate) fn as_mut_ptr<E: Element>(&mut self) -> *mut E {
        debug_assert_eq!(self.dtype, E::DTYPE);
        self.ptr.cast()
    }

    /// The first byte, whatever the type.
    pub(crate) fn bytes(&mut self) -> *mut u8 {
        self.ptr
    }
}

/// Host memory is one address space.
fn span(ptr: *const u8, elements: usize, dtype: DType) -> Span {
    Span { memory: 0, start: ptr.addr() as u64, bytes: elements as u64 * dtype.size() }
}

impl View for CpuRef<'_> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn elements(&self) -> u64 {
        self.elements as u64
    }

    fn span(&self) -> Span {
        span(self.ptr, self.elements, self.dtype)
    }
}

impl View for CpuMut<'_> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn elements(&self) -> u64 {
        self.elements as u64
    }

    fn span(&self) -> Span {
        span(self.ptr, self.elements, self.dtype)
    }
}
