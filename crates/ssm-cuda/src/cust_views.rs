//! cust's buffers and streams, for code bases that are built on it.
//!
//! cust works in the device's primary context, as [`CudaBackend::new`] does, so its memory is ours to use. It does not
//! order uses of a buffer on several streams, so that stays the caller's promise.

use cust::memory::{DeviceCopy, DeviceSlice};
use cust::stream::Stream;
use ssm_core::DType;

use crate::{CudaBackend, CudaMut, CudaQueue, CudaRef};

/// How many elements of `dtype` the slice's bytes hold.
fn elements<T: DeviceCopy>(slice: &DeviceSlice<T>, dtype: DType) -> u64 {
    (slice.len() as u64) * (size_of::<T>() as u64) / dtype.size()
}

impl<'a> CudaRef<'a> {
    /// A cust slice (a `DeviceBuffer` derefs to one), read as elements of `dtype`: f32 as such, f16 and bf16 as
    /// whatever 16-bit type the caller keeps them in.
    ///
    /// # Safety
    ///
    /// As for [`CudaRef::from_raw`]: the slice belongs to the backend's device, and what wrote it is ordered before the
    /// stream that the launch goes to.
    pub unsafe fn from_cust<T: DeviceCopy>(
        backend: &CudaBackend,
        slice: &'a DeviceSlice<T>,
        dtype: DType,
    ) -> Self {
        // SAFETY: the slice is borrowed for the view's life; order and device are the caller's promise.
        unsafe { Self::from_raw(backend, slice.as_device_ptr().as_raw(), elements(slice, dtype), dtype) }
    }
}

impl<'a> CudaMut<'a> {
    /// A cust slice to write, as elements of `dtype`.
    ///
    /// # Safety
    ///
    /// As for [`CudaMut::from_raw`], and any bits of `dtype` must be a valid `T`.
    pub unsafe fn from_cust<T: DeviceCopy>(
        backend: &CudaBackend,
        slice: &'a mut DeviceSlice<T>,
        dtype: DType,
    ) -> Self {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { Self::from_raw(backend, slice.as_device_ptr().as_raw(), elements(slice, dtype), dtype) }
    }
}

impl<'q> From<&'q Stream> for CudaQueue<'q> {
    /// A stream of another device is refused by the driver when something is launched on it.
    fn from(stream: &'q Stream) -> Self {
        // SAFETY: the borrow keeps the stream alive.
        unsafe { Self::from_raw(stream.as_inner().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use cust::memory::DeviceBuffer;
    use cust::stream::StreamFlags;
    use ssm_core::{ForwardArgs, GatedScan, Kernel, PlanOptions};

    use super::*;

    /// Also the proof that the feature links: against a stub libcuda both libraries say that it is one.
    #[test]
    fn both_libraries_see_a_device_or_neither_does() {
        let (cust, ours) = (cust::quick_init(), CudaBackend::new(0));
        assert_eq!(cust.is_ok(), ours.is_ok(), "cust: {:?}, ssm-cuda: {:?}", cust.err(), ours.err());
    }

    #[test]
    #[ignore = "needs a CUDA device"]
    fn a_scan_runs_on_cust_buffers_and_stream() {
        let context = cust::quick_init().unwrap();
        let backend = CudaBackend::new(0).unwrap();
        let stream = Stream::new(StreamFlags::NON_BLOCKING, None).unwrap();
        let x = DeviceBuffer::from_slice(&[1.0f32, 2.0, 3.0]).unwrap();
        let a = DeviceBuffer::from_slice(&[0.5f32, 0.5, 0.5]).unwrap();
        let mut y = DeviceBuffer::from_slice(&[f32::NAN; 3]).unwrap();
        let scan = GatedScan::builder(1, 3, 1)
            .b(false)
            .c(false)
            .checkpoint(ssm_core::Checkpoint::Nothing)
            .build()
            .unwrap();
        let plan = backend.plan(&scan.forward(), &PlanOptions::default()).unwrap();
        assert_eq!(plan.report().workspace_bytes, 0);
        // SAFETY: the buffers were filled by blocking copies and outlive the launch, which the stream waits for.
        unsafe {
            let args = ForwardArgs {
                x: CudaRef::from_cust(&backend, &x, DType::F32),
                a: CudaRef::from_cust(&backend, &a, DType::F32),
                b: None,
                c: None,
                h0: None,
                y: CudaMut::from_cust(&backend, &mut y, DType::F32),
                final_state: None,
                saved: None,
            };
            plan.run(&backend, args, None, (&stream).into()).unwrap();
        }
        stream.synchronize().unwrap();
        assert_eq!(y.as_host_vec().unwrap(), [1.0, 2.5, 4.25]);
        drop((x, a, y, stream));
        drop(context);
    }
}
