//! burn's wgpu runtime through ssm-wgpu: burn's buffers, device and queue.
//!
//! burn keeps the wgpu device of a tensor to itself, so the program hands it over once: [`connect_wgpu`]. A tensor's
//! buffer is asked of burn's client, which first submits all that it has recorded for it; our commands are then
//! submitted to the same queue, and whatever burn records later goes there after them.

use std::any::Any;
use std::sync::{Mutex, PoisonError};

use burn::backend::DispatchDevice;
use burn::backend::tensor::FloatTensor;
use burn::backend::wgpu::{AutoCompiler, WgpuDevice, WgpuResource, WgpuSetup};
use burn::tensor::Device;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::wgpu::WgpuServer;
use burn_cubecl::{CubeBackend, CubeDevice};
use ssm_core::{DType, RunError};
use ssm_wgpu::wgpu::{CommandEncoder, CommandEncoderDescriptor};
use ssm_wgpu::{WgpuBackend, WgpuError, WgpuMut, WgpuRef};

use crate::Error;
use crate::cube::Runtime;

static CONNECTED: Mutex<Vec<(WgpuDevice, WgpuBackend)>> = Mutex::new(Vec::new());

/// Lets tensors of a burn device be scanned, by the wgpu device that burn made it with. Once a device, before its first
/// scan; again does nothing.
///
/// `setup` is what [`init_with_setup`](burn::tensor::wgpu::WgpuOptions::init_with_setup) returned with `device`, or what
/// `device` was made from: wgpu panics on buffers of another instance than the queue's.
///
/// # Errors
///
/// [`Error::UnsupportedDevice`] for a device that is not wgpu's.
///
/// ```no_run
/// use burn::tensor::{Device, Tensor};
/// use ssm_burn::{ScanOptions, connect_wgpu, gated_scan};
///
/// let (device, setup) = Device::wgpu_options().init_with_setup()?;
/// connect_wgpu(&device, &setup)?;
/// let x = Tensor::<3>::ones([1, 3, 1], &device);
/// let y = gated_scan(x.clone(), x * 0.5, None, None, ScanOptions::default())?.y;
/// assert_eq!(y.into_data().to_vec::<f32>()?, [1.0, 1.5, 1.75]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn connect_wgpu(device: &Device, setup: &WgpuSetup) -> Result<(), Error> {
    let plain = device.clone().without_autodiff();
    let DispatchDevice::Cube(CubeDevice::Wgpu(id)) = plain.as_dispatch() else {
        return Err(Error::UnsupportedDevice { device: format!("{plain:?}") });
    };
    let mut connected = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !connected.iter().any(|(known, _)| known == id) {
        connected.push((id.clone(), WgpuBackend::from_device(setup.device.clone(), setup.queue.clone())));
    }
    Ok(())
}

/// A burn device with the kernels on it.
pub(crate) struct Connected(WgpuBackend);

impl Connected {
    /// # Errors
    ///
    /// [`Error::NotConnected`].
    pub(crate) fn to(device: &WgpuDevice) -> Result<Self, Error> {
        let connected = CONNECTED.lock().unwrap_or_else(PoisonError::into_inner);
        let found = connected.iter().find(|(known, _)| known == device);
        let missing = || Error::NotConnected { device: format!("{device:?}") };
        found.map(|(_, kernels)| Self(kernels.clone())).ok_or_else(missing)
    }
}

/// Part of a buffer of burn's pool.
pub(crate) struct Memory {
    place: WgpuResource,
    /// burn's own handle (of a type that it does not name in public): while it lives the part is not used otherwise.
    _kept: Box<dyn Any>,
}

impl Runtime for Connected {
    type Kernels = WgpuBackend;
    type Memory = Memory;

    fn kernels(&self) -> &WgpuBackend {
        &self.0
    }

    fn memory(&self, tensor: &FloatTensor<CubeBackend>) -> Result<Memory, Error> {
        let managed = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let managed = managed.map_err(|error| Error::Runtime { reason: error.to_string() })?;
        Ok(Memory { place: managed.resource().clone(), _kept: Box::new(managed) })
    }

    fn view<'a>(&'a self, memory: &'a Memory, elements: u64, dtype: DType) -> WgpuRef<'a> {
        WgpuRef::new(&memory.place.buffer, memory.place.offset, elements, dtype)
    }

    fn view_mut<'a>(&'a self, memory: &'a Memory, elements: u64, dtype: DType) -> WgpuMut<'a> {
        WgpuMut::new(&memory.place.buffer, memory.place.offset, elements, dtype)
    }

    fn enqueue(
        &self,
        _: &Client,
        launch: impl for<'q> FnOnce(&'q mut CommandEncoder) -> Result<(), RunError<WgpuError>>,
    ) -> Result<(), Error> {
        let mut encoder = self.0.device().create_command_encoder(&CommandEncoderDescriptor::default());
        launch(&mut encoder)?;
        self.0.queue().submit([encoder.finish()]);
        Ok(())
    }
}
