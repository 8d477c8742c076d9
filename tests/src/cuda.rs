//! The first CUDA device: memory is a cudarc slice, and the queue is one stream.

use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};
use ssm_core::DType;
use ssm_cuda::cudarc::driver::{CudaSlice, CudaStream, DeviceRepr};
use ssm_cuda::{CudaBackend, CudaError, CudaMut, CudaQueue, CudaRef};
use ssm_testkit::{Failure, Harness, HostTensor};

pub(crate) struct Cuda {
    backend: CudaBackend,
    stream: Arc<CudaStream>,
}

pub(crate) fn open() -> Result<Arc<Cuda>, String> {
    let open = || -> Result<Cuda, CudaError> {
        let backend = CudaBackend::new(0)?;
        // SAFETY: all work of the harness goes through one stream, which orders it.
        unsafe { backend.context().disable_event_tracking() };
        let stream = backend.context().new_stream()?;
        Ok(Cuda { backend, stream })
    };
    open().map(Arc::new).map_err(|error| error.to_string())
}

enum Elements {
    F32(CudaSlice<f32>),
    F16(CudaSlice<f16>),
    Bf16(CudaSlice<bf16>),
    F64(CudaSlice<f64>),
}

/// The driver has no empty allocation, so there is always room for one element.
pub(crate) struct Memory {
    elements: Elements,
    len: usize,
    stream: Arc<CudaStream>,
}

/// Runs the expression with `$v` bound to the slice inside, whatever its type.
macro_rules! with_slice {
    ($elements:expr, $v:ident => $body:expr) => {
        match $elements {
            Elements::F32($v) => $body,
            Elements::F16($v) => $body,
            Elements::Bf16($v) => $body,
            Elements::F64($v) => $body,
        }
    };
}

fn to_device<T: DeviceRepr + Default>(
    stream: &Arc<CudaStream>,
    host: &[T],
) -> Result<CudaSlice<T>, CudaError> {
    if host.is_empty() { Ok(stream.clone_htod(&[T::default()])?) } else { Ok(stream.clone_htod(host)?) }
}

fn to_host<T: DeviceRepr + Default + Clone>(
    stream: &Arc<CudaStream>,
    slice: &CudaSlice<T>,
    len: usize,
) -> Result<Vec<T>, CudaError> {
    let mut host = vec![T::default(); len];
    if len > 0 {
        stream.memcpy_dtoh(&slice.slice(..len), &mut host)?;
    }
    stream.synchronize()?;
    Ok(host)
}

impl Harness for Cuda {
    type Backend = CudaBackend;
    type Memory = Memory;

    fn backend(&self) -> &CudaBackend {
        &self.backend
    }

    fn device(&self) -> String {
        self.backend.name().unwrap_or_else(|error| error.to_string())
    }

    fn supports(&self, dtype: DType) -> bool {
        dtype != DType::F64
    }

    fn upload(&self, host: &HostTensor) -> Result<Memory, Failure> {
        let elements = match host {
            HostTensor::F32(v) => Elements::F32(to_device(&self.stream, v)?),
            HostTensor::F16(v) => Elements::F16(to_device(&self.stream, v)?),
            HostTensor::Bf16(v) => Elements::Bf16(to_device(&self.stream, v)?),
            HostTensor::F64(v) => Elements::F64(to_device(&self.stream, v)?),
        };
        Ok(Memory { elements, len: host.len(), stream: self.stream.clone() })
    }

    fn download(&self, memory: &Memory) -> Result<HostTensor, Failure> {
        let (stream, len) = (&self.stream, memory.len);
        Ok(match &memory.elements {
            Elements::F32(slice) => HostTensor::F32(to_host(stream, slice, len)?),
            Elements::F16(slice) => HostTensor::F16(to_host(stream, slice, len)?),
            Elements::Bf16(slice) => HostTensor::Bf16(to_host(stream, slice, len)?),
            Elements::F64(slice) => HostTensor::F64(to_host(stream, slice, len)?),
        })
    }

    fn view<'a>(&self, memory: &'a Memory, range: Range<usize>) -> CudaRef<'a> {
        with_slice!(&memory.elements, v => CudaRef::from_view(v.slice(range), &memory.stream))
    }

    fn view_mut<'a>(&self, memory: &'a mut Memory, range: Range<usize>) -> CudaMut<'a> {
        let Memory { elements, stream, .. } = memory;
        with_slice!(elements, v => CudaMut::from_view(v.slice_mut(range), stream))
    }

    fn submit<R>(&self, enqueue: impl FnOnce(CudaQueue<'_>) -> R) -> R {
        enqueue((&self.stream).into())
    }

    fn copy(&self, from: &Memory, to: &mut Memory) -> Result<bool, Failure> {
        if from.len != to.len {
            return Err("a copy between different lengths".into());
        }
        match (&from.elements, &mut to.elements) {
            (Elements::F32(from), Elements::F32(to)) => self.stream.memcpy_dtod(from, to)?,
            (Elements::F16(from), Elements::F16(to)) => self.stream.memcpy_dtod(from, to)?,
            (Elements::Bf16(from), Elements::Bf16(to)) => self.stream.memcpy_dtod(from, to)?,
            (Elements::F64(from), Elements::F64(to)) => self.stream.memcpy_dtod(from, to)?,
            _ => return Err("a copy between different types".into()),
        }
        Ok(true)
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(self.stream.synchronize()?)
    }
}
