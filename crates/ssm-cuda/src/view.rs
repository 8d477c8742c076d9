//! Views of device memory that the caller owns, and the stream a launch goes to.
//!
//! cudarc orders a slice's uses on several streams by events: asking for the pointer makes the stream wait, and a
//! guard records the use when it is dropped. A view holds that guard, so the use is recorded once the launch that
//! consumes the view has been enqueued.

use std::marker::PhantomData;

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use cudarc::driver::{CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, DevicePtrMut, SyncOnDrop};
use ssm_core::{DType, Element, Operand, Span, View};

use crate::error::ForeignStream;
use crate::{CudaBackend, CudaError};

/// Where elements lie, and whose guard goes with them.
pub(crate) struct Place<'a> {
    context: u64,
    pointer: CUdeviceptr,
    elements: u64,
    dtype: DType,
    /// The handle of the stream that the guard orders the memory on; none for a raw pointer, which its caller orders.
    stream: Option<usize>,
    _guard: Option<SyncOnDrop<'a>>,
}

impl<'a> Place<'a> {
    fn tracked<T: Element>(
        stream: &'a CudaStream,
        owner: &CudaStream,
        elements: usize,
        (pointer, guard): (CUdeviceptr, SyncOnDrop<'a>),
    ) -> Self {
        let mut guard = Some(guard);
        if owner.context() != stream.context() {
            // No stream orders the memory of another context, so no launch takes this view. What cudarc keeps of the
            // attempt would come out of the next call, which has nothing to do with it.
            guard = None;
            for of in [owner, stream] {
                let _ = of.context().check_err();
            }
        }
        Self {
            context: owner.context().cu_ctx() as u64,
            pointer,
            elements: elements as u64,
            dtype: T::DTYPE,
            stream: Some(stream.cu_stream().addr()),
            _guard: guard,
        }
    }

    fn raw(backend: &CudaBackend, pointer: CUdeviceptr, elements: u64, dtype: DType) -> Self {
        Self { context: backend.context_id(), pointer, elements, dtype, stream: None, _guard: None }
    }

    fn span(&self) -> Span {
        Span {
            memory: self.context,
            start: self.pointer,
            bytes: self.elements.saturating_mul(self.dtype.size()),
        }
    }
}

/// The address of an operand, for a launch on `stream`; 0 for an absent one.
pub(crate) fn pointer(
    place: Option<&Place<'_>>,
    stream: CUstream,
    operand: Operand,
) -> Result<CUdeviceptr, CudaError> {
    match place {
        Some(place) if place.stream.is_some_and(|other| other != stream.addr()) => {
            Err(CudaError::ForeignStream(ForeignStream::Operand(operand)))
        }
        place => Ok(place.map_or(0, |place| place.pointer)),
    }
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {} at {:#x}", self.elements, self.dtype, self.pointer)
    }
}

/// Device memory to read.
#[derive(Debug)]
pub struct CudaRef<'a>(pub(crate) Place<'a>);

/// Device memory to write.
#[derive(Debug)]
pub struct CudaMut<'a>(pub(crate) Place<'a>);

impl<'a> CudaRef<'a> {
    /// A whole slice, for a launch on `stream`.
    pub fn from_slice<T: Element>(slice: &'a CudaSlice<T>, stream: &'a CudaStream) -> Self {
        Self(Place::tracked::<T>(stream, slice.stream(), slice.len(), slice.device_ptr(stream)))
    }

    /// Part of a slice, for a launch on `stream`.
    pub fn from_view<T: Element>(view: CudaView<'a, T>, stream: &'a CudaStream) -> Self {
        let (elements, owner) = (view.len(), view_stream(&view));
        Self(Place::tracked::<T>(stream, &owner, elements, view.view_ptr(stream)))
    }

    /// Memory that cudarc does not own: another library's tensor, say.
    ///
    /// # Safety
    ///
    /// From `pointer` on, `elements` initialised elements of `dtype` lie in memory that the backend's device can read,
    /// and stay there, unchanged, until the work enqueued with this view is done. What wrote them is ordered before
    /// the stream that the launch goes to.
    pub unsafe fn from_raw(backend: &CudaBackend, pointer: CUdeviceptr, elements: u64, dtype: DType) -> Self {
        Self(Place::raw(backend, pointer, elements, dtype))
    }
}

impl<'a> CudaMut<'a> {
    /// A whole slice, for a launch on `stream`.
    pub fn from_slice<T: Element>(slice: &'a mut CudaSlice<T>, stream: &'a CudaStream) -> Self {
        let (elements, owner) = (slice.len(), slice.stream().clone());
        Self(Place::tracked::<T>(stream, &owner, elements, slice.device_ptr_mut(stream)))
    }

    /// Part of a slice, for a launch on `stream`.
    pub fn from_view<T: Element>(view: CudaViewMut<'a, T>, stream: &'a CudaStream) -> Self {
        let (elements, owner) = (view.len(), view_stream(&view));
        Self(Place::tracked::<T>(stream, &owner, elements, view.view_ptr_mut(stream)))
    }

    /// Memory that cudarc does not own: another library's tensor, say.
    ///
    /// # Safety
    ///
    /// From `pointer` on, `elements` elements of `dtype` fit in memory that the backend's device can write and that
    /// nothing else reads or writes until the work enqueued with this view is done. Earlier uses are ordered before
    /// the stream that the launch goes to. A step's state is initialised; other outputs need not be.
    pub unsafe fn from_raw(backend: &CudaBackend, pointer: CUdeviceptr, elements: u64, dtype: DType) -> Self {
        Self(Place::raw(backend, pointer, elements, dtype))
    }
}

fn view_stream<T>(view: &impl cudarc::driver::DeviceSlice<T>) -> std::sync::Arc<CudaStream> {
    view.stream().clone()
}

macro_rules! view {
    ($type:ident) => {
        impl View for $type<'_> {
            fn dtype(&self) -> DType {
                self.0.dtype
            }
            fn elements(&self) -> u64 {
                self.0.elements
            }
            fn span(&self) -> Span {
                self.0.span()
            }
        }
    };
}

view!(CudaRef);
view!(CudaMut);

/// The stream that a launch is enqueued on.
#[derive(Clone, Copy, Debug)]
pub struct CudaQueue<'q> {
    stream: CUstream,
    context: Option<u64>,
    life: PhantomData<&'q CudaStream>,
}

impl<'q> From<&'q CudaStream> for CudaQueue<'q> {
    fn from(stream: &'q CudaStream) -> Self {
        let context = Some(stream.context().cu_ctx() as u64);
        Self { stream: stream.cu_stream(), context, life: PhantomData }
    }
}

impl<'q> From<&'q std::sync::Arc<CudaStream>> for CudaQueue<'q> {
    fn from(stream: &'q std::sync::Arc<CudaStream>) -> Self {
        Self::from(stream.as_ref())
    }
}

impl CudaQueue<'_> {
    /// A stream of another library.
    ///
    /// # Safety
    ///
    /// `stream` is a stream of the backend's context, and lives as long as the queue does.
    pub unsafe fn from_raw(stream: CUstream) -> Self {
        Self { stream, context: None, life: PhantomData }
    }

    /// The handle, if it is a stream of the context `id` or was said to be.
    pub(crate) fn stream(&self, id: u64) -> Result<CUstream, CudaError> {
        match self.context {
            Some(context) if context != id => Err(CudaError::ForeignStream(ForeignStream::Queue)),
            _ => Ok(self.stream),
        }
    }
}
