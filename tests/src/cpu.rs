//! The CPU: device memory is a host tensor, and a queue is nothing.

use std::ops::Range;
use std::sync::Arc;

use ssm_core::DType;
use ssm_cpu::{CpuBackend, CpuMut, CpuRef};
use ssm_testkit::{Failure, Harness, HostTensor};

#[derive(Default)]
pub(crate) struct Cpu {
    backend: CpuBackend,
}

/// There is always a CPU.
pub(crate) fn open() -> Result<Arc<Cpu>, String> {
    Ok(Arc::new(Cpu::default()))
}

impl Harness for Cpu {
    type Backend = CpuBackend;
    type Memory = HostTensor;

    fn backend(&self) -> &CpuBackend {
        &self.backend
    }

    fn device(&self) -> String {
        std::env::consts::ARCH.to_owned()
    }

    fn supports(&self, _: DType) -> bool {
        true
    }

    fn upload(&self, host: &HostTensor) -> Result<HostTensor, Failure> {
        Ok(host.clone())
    }

    fn download(&self, memory: &HostTensor) -> Result<HostTensor, Failure> {
        Ok(memory.clone())
    }

    fn view<'a>(&self, memory: &'a HostTensor, range: Range<usize>) -> CpuRef<'a> {
        match memory {
            HostTensor::F32(v) => (&v[range]).into(),
            HostTensor::F16(v) => (&v[range]).into(),
            HostTensor::Bf16(v) => (&v[range]).into(),
            HostTensor::F64(v) => (&v[range]).into(),
        }
    }

    fn view_mut<'a>(&self, memory: &'a mut HostTensor, range: Range<usize>) -> CpuMut<'a> {
        match memory {
            HostTensor::F32(v) => (&mut v[range]).into(),
            HostTensor::F16(v) => (&mut v[range]).into(),
            HostTensor::Bf16(v) => (&mut v[range]).into(),
            HostTensor::F64(v) => (&mut v[range]).into(),
        }
    }

    fn submit<R>(&self, enqueue: impl FnOnce(()) -> R) -> R {
        enqueue(())
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}
