//! The one way onto the device: a kernel of the table with its parameter block, and a fill.

use std::ffi::c_void;

use cudarc::driver::result;
use cudarc::driver::sys::{CUdeviceptr, CUstream};

use crate::CudaError;
use crate::kernels::{Entry, Kernels};
use crate::params::Block;

/// A stream of the context that the kernels are loaded in.
#[derive(Debug)]
pub struct Launcher<'a> {
    kernels: &'a Kernels,
    stream: CUstream,
}

impl<'a> Launcher<'a> {
    pub(crate) fn new(kernels: &'a Kernels, stream: CUstream) -> Self {
        Self { kernels, stream }
    }

    /// The stream.
    pub(crate) fn stream(&self) -> CUstream {
        self.stream
    }

    /// Enqueues one kernel: `blocks` blocks of `threads` threads with `shared` bytes each.
    ///
    /// # Safety
    ///
    /// The entry takes a `P`; grid, block and shared memory are what scan_abi.h asks for; every address in `params` is
    /// 0 or that of device memory as large as scan_abi.h says, and stays so until the kernel is done.
    pub(crate) unsafe fn kernel<P: Block>(
        &self,
        entry: Entry,
        (blocks, threads, shared): (u64, u32, u32),
        params: &P,
    ) -> Result<(), CudaError> {
        let function = self.kernels.get(entry)?;
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the function is loaded, and its module lives as long as the backend; the driver copies the one
        // parameter before it returns; the rest is the caller's promise.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (blocks, 1, 1),
                (threads, 1, 1),
                shared,
                self.stream,
                &mut arguments,
            )?;
        }
        Ok(())
    }

    /// Enqueues the setting of `bytes` bytes to one value.
    ///
    /// # Safety
    ///
    /// So many bytes from `at` on are device memory that nothing else uses until this is done.
    pub(crate) unsafe fn fill(&self, at: CUdeviceptr, value: u8, bytes: u64) -> Result<(), CudaError> {
        let Ok(bytes) = usize::try_from(bytes) else { return Err(CudaError::OutOfMemory) };
        if bytes > 0 {
            // SAFETY: the caller's promise.
            unsafe { result::memset_d8_async(at, value, bytes, self.stream)? };
        }
        Ok(())
    }
}
