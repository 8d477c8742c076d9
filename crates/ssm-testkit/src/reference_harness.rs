//! The reference backend behind a harness: device memory is a host tensor, and a queue is nothing.

use std::ops::Range;

use ssm_core::DType;

use crate::{Failure, Harness, HostMut, HostRef, HostTensor, ReferenceBackend};

/// The reference backend under test.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReferenceHarness {
    backend: ReferenceBackend,
}

/// A view of some elements of a host tensor, to read.
pub fn host_ref(memory: &HostTensor, range: Range<usize>) -> HostRef<'_> {
    match memory {
        HostTensor::F32(v) => HostRef::F32(&v[range]),
        HostTensor::F16(v) => HostRef::F16(&v[range]),
        HostTensor::Bf16(v) => HostRef::Bf16(&v[range]),
        HostTensor::F64(v) => HostRef::F64(&v[range]),
    }
}

/// A view of some elements of a host tensor, to write.
pub fn host_mut(memory: &mut HostTensor, range: Range<usize>) -> HostMut<'_> {
    match memory {
        HostTensor::F32(v) => HostMut::F32(&mut v[range]),
        HostTensor::F16(v) => HostMut::F16(&mut v[range]),
        HostTensor::Bf16(v) => HostMut::Bf16(&mut v[range]),
        HostTensor::F64(v) => HostMut::F64(&mut v[range]),
    }
}

impl Harness for ReferenceHarness {
    type Backend = ReferenceBackend;
    type Memory = HostTensor;

    fn backend(&self) -> &ReferenceBackend {
        &self.backend
    }

    fn device(&self) -> String {
        "the plain loop on the host".to_owned()
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

    fn view<'a>(&self, memory: &'a HostTensor, range: Range<usize>) -> HostRef<'a> {
        host_ref(memory, range)
    }

    fn view_mut<'a>(&self, memory: &'a mut HostTensor, range: Range<usize>) -> HostMut<'a> {
        host_mut(memory, range)
    }

    fn submit<R>(&self, enqueue: impl FnOnce(()) -> R) -> R {
        enqueue(())
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}
