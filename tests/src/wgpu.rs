//! wgpu, on the adapter's own limits and on those that every WebGPU device has.

use std::ops::Range;
use std::sync::Arc;

use ssm_core::DType;
use ssm_testkit::{Failure, Harness, HostTensor};
use ssm_wgpu::wgpu::{Buffer, Limits, PollType};
use ssm_wgpu::{WgpuBackend, WgpuError, WgpuMut, WgpuRef};

/// The best adapter, with a device of some limits.
pub(crate) struct WgpuHarness {
    backend: WgpuBackend,
}

/// A tensor in a buffer of its own.
pub(crate) struct Memory {
    buffer: Buffer,
    dtype: DType,
    elements: usize,
}

/// All that the adapter offers.
pub(crate) fn open() -> Result<Arc<WgpuHarness>, String> {
    WgpuBackend::new().map(|backend| Arc::new(WgpuHarness { backend })).map_err(|error| error.to_string())
}

/// No more than every device has.
pub(crate) fn open_least() -> Result<Arc<WgpuHarness>, String> {
    WgpuBackend::with_limits(Limits::default())
        .map(|backend| Arc::new(WgpuHarness { backend }))
        .map_err(|error| error.to_string())
}

impl Harness for WgpuHarness {
    type Backend = WgpuBackend;
    type Memory = Memory;

    fn backend(&self) -> &WgpuBackend {
        &self.backend
    }

    fn device(&self) -> String {
        let info = self.backend.device().adapter_info();
        format!("{} ({}, {})", info.name, info.backend, info.driver_info)
    }

    fn supports(&self, dtype: DType) -> bool {
        self.backend.supports(dtype)
    }

    fn upload(&self, host: &HostTensor) -> Result<Memory, Failure> {
        let mut bytes = host.bytes();
        let buffer = self.backend.buffer(bytes.len() as u64)?;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if !bytes.is_empty() {
            self.backend.queue().write_buffer(&buffer, 0, &bytes);
        }
        self.backend.check()?;
        Ok(Memory { buffer, dtype: host.dtype(), elements: host.len() })
    }

    fn download(&self, memory: &Memory) -> Result<HostTensor, Failure> {
        let bytes = memory.elements as u64 * memory.dtype.size();
        // As words, whatever they hold.
        let words: Vec<f32> = self.backend.read_blocking(&memory.buffer, 0, bytes.div_ceil(4))?;
        let raw: Vec<u8> =
            words.iter().flat_map(|word| word.to_bits().to_ne_bytes()).take(bytes as usize).collect();
        Ok(HostTensor::from_bytes(memory.dtype, &raw))
    }

    fn view<'a>(&self, memory: &'a Memory, range: Range<usize>) -> WgpuRef<'a> {
        let offset = range.start as u64 * memory.dtype.size();
        WgpuRef::new(&memory.buffer, offset, range.len() as u64, memory.dtype)
    }

    fn view_mut<'a>(&self, memory: &'a mut Memory, range: Range<usize>) -> WgpuMut<'a> {
        let offset = range.start as u64 * memory.dtype.size();
        WgpuMut::new(&memory.buffer, offset, range.len() as u64, memory.dtype)
    }

    fn submit<R>(&self, enqueue: impl FnOnce(&mut ssm_wgpu::wgpu::CommandEncoder) -> R) -> R {
        let mut encoder = self.backend.device().create_command_encoder(&Default::default());
        let result = enqueue(&mut encoder);
        self.backend.queue().submit([encoder.finish()]);
        result
    }

    fn wait(&self) -> Result<(), Failure> {
        self.backend
            .device()
            .poll(PollType::wait_indefinitely())
            .map_err(|error| WgpuError::Internal { description: error.to_string() })?;
        Ok(self.backend.check()?)
    }
}
