//! Any backend whose memory is the host's and whose queue is nothing: device memory is a host tensor.

use std::ops::Range;

use half::{bf16, f16};
use ssm_core::{Backend, DType, Kernel, ScanBackward, ScanForward, ScanStep};

use crate::{Failure, Harness, HostTensor};

/// A backend that takes views of slices.
#[derive(Clone, Debug, Default)]
pub struct HostHarness<B> {
    /// The backend under test.
    pub backend: B,
}

impl<B> Harness for HostHarness<B>
where
    B: Kernel<ScanForward> + Kernel<ScanBackward> + Kernel<ScanStep> + Send + Sync,
    B: for<'q> Backend<Queue<'q> = ()>,
    for<'a> B::Ref<'a>: From<&'a [f32]> + From<&'a [f16]> + From<&'a [bf16]> + From<&'a [f64]>,
    for<'a> B::Mut<'a>:
        From<&'a mut [f32]> + From<&'a mut [f16]> + From<&'a mut [bf16]> + From<&'a mut [f64]>,
{
    type Backend = B;
    type Memory = HostTensor;

    fn backend(&self) -> &B {
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

    fn view<'a>(&self, memory: &'a HostTensor, range: Range<usize>) -> B::Ref<'a> {
        match memory {
            HostTensor::F32(v) => B::Ref::from(&v[range]),
            HostTensor::F16(v) => B::Ref::from(&v[range]),
            HostTensor::Bf16(v) => B::Ref::from(&v[range]),
            HostTensor::F64(v) => B::Ref::from(&v[range]),
        }
    }

    fn view_mut<'a>(&self, memory: &'a mut HostTensor, range: Range<usize>) -> B::Mut<'a> {
        match memory {
            HostTensor::F32(v) => B::Mut::from(&mut v[range]),
            HostTensor::F16(v) => B::Mut::from(&mut v[range]),
            HostTensor::Bf16(v) => B::Mut::from(&mut v[range]),
            HostTensor::F64(v) => B::Mut::from(&mut v[range]),
        }
    }

    fn submit<R>(&self, enqueue: impl FnOnce(()) -> R) -> R {
        enqueue(())
    }

    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}
