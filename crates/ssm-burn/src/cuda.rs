//! burn's CUDA runtime through ssm-cuda: burn's memory, in the device's primary context, which both work in.
//!
//! CubeCL has CUDA streams of its own, one a thread unless burn is set up otherwise, and shows them to nobody, so the
//! kernels cannot be launched there. They go to a stream of ours, and the host orders the two: it waits for burn's
//! before the launch and for ours after it. That holds whatever burn does with its streams. What it costs is overlap:
//! nothing of this thread's is queued ahead of a scan or behind one, so the device idles at each while the host takes
//! notice, twice. No element passes through the host.
//!
//! This type-checks and has never been run.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::tensor::FloatTensor;
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::cuda::{CudaDevice, CudaRuntime};
use burn_cubecl::cubecl::future::block_on;
use cubecl_runtime::runtime::Runtime as CubeRuntime;
use ssm_core::{DType, RunError};
use ssm_cuda::cudarc::driver::CudaStream;
use ssm_cuda::{CudaBackend, CudaError, CudaMut, CudaQueue, CudaRef};

use crate::Error;
use crate::cube::Runtime;

type Server = <CudaRuntime as CubeRuntime>::Server;

/// What has been opened stays open: burn keeps its devices as long.
static OPENED: Mutex<Vec<(usize, Opened)>> = Mutex::new(Vec::new());

/// A burn device with the kernels on it, and the stream that they go to.
#[derive(Clone)]
pub(crate) struct Opened {
    kernels: Arc<CudaBackend>,
    stream: Arc<CudaStream>,
}

impl Opened {
    /// The device, with the kernels loaded the first time.
    ///
    /// # Errors
    ///
    /// [`Error::Cuda`].
    pub(crate) fn on(device: &CudaDevice) -> Result<Self, Error> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = opened.iter().find(|(index, _)| *index == device.index) {
            return Ok(found.clone());
        }
        let kernels = Arc::new(CudaBackend::new(device.index)?);
        let stream = kernels.context().new_stream().map_err(CudaError::from)?;
        let new = Self { kernels, stream };
        opened.push((device.index, new.clone()));
        Ok(new)
    }
}

/// Part of burn's pool.
pub(crate) struct Memory {
    /// With the tensor's offset.
    pointer: u64,
    /// burn's own handle (of a type that it does not name in public): while it lives the part is not used otherwise.
    _kept: Box<dyn Any>,
}

impl Runtime for Opened {
    type Kernels = CudaBackend;
    type Memory = Memory;

    fn kernels(&self) -> &CudaBackend {
        &self.kernels
    }

    /// From here on burn's stream for this call waits for the one that wrote the tensor, where that is another.
    fn memory(&self, tensor: &FloatTensor<CubeBackend>) -> Result<Memory, Error> {
        let managed = tensor.client.get_resource::<Server>(tensor.handle.clone());
        let managed = managed.map_err(|error| Error::Runtime { reason: error.to_string() })?;
        Ok(Memory { pointer: managed.resource().ptr, _kept: Box::new(managed) })
    }

    fn view<'a>(&'a self, memory: &'a Memory, elements: u64, dtype: DType) -> CudaRef<'a> {
        // SAFETY: the memory is that of a tensor with so many elements on this device. `memory` keeps it in place, and
        // what takes the view goes through `enqueue`, which waits for the writer before and for the kernels after, with
        // `memory` still borrowed. burn writes no tensor that somebody else holds, and the caller holds this one.
        unsafe { CudaRef::from_raw(&self.kernels, memory.pointer, elements, dtype) }
    }

    fn view_mut<'a>(&'a self, memory: &'a Memory, elements: u64, dtype: DType) -> CudaMut<'a> {
        // SAFETY: as above. The tensor is fresh, so nobody else reads or writes it; what used the memory before is on
        // burn's stream for this call, which `enqueue` waits for, or was over before burn gave the memory out again.
        unsafe { CudaMut::from_raw(&self.kernels, memory.pointer, elements, dtype) }
    }

    fn enqueue(
        &self,
        client: &Client,
        launch: impl for<'q> FnOnce(CudaQueue<'q>) -> Result<(), RunError<CudaError>>,
    ) -> Result<(), Error> {
        // burn's stream for this call, and with it all that it was made to wait for when the memory was asked for.
        block_on(client.sync()).map_err(|error| Error::Runtime { reason: error.to_string() })?;
        let launched = launch(CudaQueue::from(&self.stream));
        // After an error too: what was launched before it may still be at work in burn's memory.
        let done = self.stream.synchronize();
        launched?;
        done.map_err(|error| Error::Cuda(error.into()))
    }
}
