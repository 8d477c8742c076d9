//! The device, its limits, and how its failures become results.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wgpu::{Buffer, BufferUsages, Device, Features, Limits, Queue};

use crate::WgpuError;
use crate::grid::DeviceLimits;
use crate::pipeline::Pipeline;
use crate::shader::{CHUNK, PipelineKey, SOFTWARE_CHUNK};

/// The scan kernels on one wgpu device. Clones share the device and its compiled pipelines.
#[derive(Clone, Debug)]
pub struct WgpuBackend {
    pub(crate) shared: Arc<Shared>,
    /// Steps that an invocation holds in registers.
    pub(crate) chunk: u32,
    /// Whether kernels may use them.
    pub(crate) subgroups: bool,
    /// Whether the device was found to round to f16 as it should.
    pub(crate) packs: bool,
    /// Whether 16-bit marches may take the spans of a group side by side.
    pub(crate) spans: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) pipelines: Mutex<HashMap<PipelineKey, Arc<Pipeline>>>,
    /// The first failure that no error scope saw; kept for devices of our own only.
    failure: Arc<Mutex<Option<WgpuError>>>,
}

/// The value inside, even if a thread panicked while it held the lock: both maps behind these locks are whole at every
/// point where a panic could happen.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a device of ours has where its adapter has it.
const FEATURES: Features = Features::SHADER_F16.union(Features::SUBGROUP).union(Features::TIMESTAMP_QUERY);

impl WgpuBackend {
    /// The best adapter's device, with all that the adapter offers. Blocks; not there on wasm32.
    ///
    /// # Errors
    ///
    /// [`WgpuError::NoAdapter`] or [`WgpuError::NoDevice`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self, WgpuError> {
        crate::wait::block_on(Self::request(None))
    }

    /// As [`WgpuBackend::new`], with no more than these limits: [`Limits::default`] are those that every WebGPU device
    /// has. Blocks; not there on wasm32.
    ///
    /// # Errors
    ///
    /// [`WgpuError::NoAdapter`] or [`WgpuError::NoDevice`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with_limits(limits: Limits) -> Result<Self, WgpuError> {
        crate::wait::block_on(Self::request(Some(limits)))
    }

    /// A device of the best adapter, with these limits, or all that the adapter offers.
    ///
    /// # Errors
    ///
    /// [`WgpuError::NoAdapter`] or [`WgpuError::NoDevice`]; what goes wrong when the device is asked for the order of
    /// its subgroups.
    pub async fn request(limits: Option<Limits>) -> Result<Self, WgpuError> {
        let mut instance = wgpu::InstanceDescriptor::new_without_display_handle();
        // Not OpenGL: its adapters lack f16, and often compute altogether.
        instance.backends = wgpu::Backends::VULKAN
            | wgpu::Backends::METAL
            | wgpu::Backends::DX12
            | wgpu::Backends::BROWSER_WEBGPU;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = wgpu::Instance::new(instance)
            .request_adapter(&options)
            .await
            .map_err(|error| WgpuError::NoAdapter { reason: error.to_string() })?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("ssm-wgpu"),
            required_features: adapter.features() & FEATURES,
            required_limits: limits.unwrap_or_else(|| adapter.limits()),
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| WgpuError::NoDevice { reason: error.to_string() })?;
        let backend = Self::from_device(device, queue);
        // The device is ours, so what nobody else catches is ours to report.
        let failure = Arc::clone(&backend.shared.failure);
        backend.shared.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&failure).get_or_insert(error.into());
        }));
        let failure = Arc::clone(&backend.shared.failure);
        backend.shared.device.set_device_lost_callback(move |_, reason| {
            *lock(&failure) = Some(WgpuError::DeviceLost { reason });
        });
        backend.with_subgroups().await?.with_half_packing().await
    }

    /// The caller's device and a queue of it. Installs no handler on either. f16 problems need the device to have been
    /// made with [`Features::SHADER_F16`]. For subgroup operations see [`WgpuBackend::with_subgroups`].
    pub fn from_device(device: Device, queue: Queue) -> Self {
        let shared = Shared { device, queue, pipelines: Mutex::default(), failure: Arc::default() };
        let chunk = if is_software(&shared.device) { SOFTWARE_CHUNK } else { CHUNK };
        Self { shared: Arc::new(shared), chunk, subgroups: false, packs: false, spans: true }
    }

    /// With the kernels that run on GPUs, on an adapter that is a program on the processor too. There they take longer
    /// to compile and compute the same; their plans save fewer states, and do not go with plans made otherwise.
    #[must_use]
    pub fn with_gpu_kernels(self) -> Self {
        Self { chunk: CHUNK, ..self }
    }

    /// With one invocation for a channel of a sequence, where a march over 16-bit elements would have several. Every result
    /// is the same to the bit.
    #[must_use]
    pub fn without_spans(self) -> Self {
        Self { spans: false, ..self }
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// The queue that command buffers go to.
    pub fn queue(&self) -> &Queue {
        &self.shared.queue
    }

    /// Takes a failure that no call has reported: a lost device, or an error in work submitted earlier. Always `Ok` on
    /// a device of the caller's, whose handlers are the caller's too.
    ///
    /// # Errors
    ///
    /// That failure. A lost device is said again at every call.
    pub fn check(&self) -> Result<(), WgpuError> {
        let mut failure = lock(&self.shared.failure);
        match failure.take() {
            None => Ok(()),
            Some(error) => {
                if matches!(error, WgpuError::DeviceLost { .. }) {
                    *failure = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// A buffer that can be an operand, uploaded to and downloaded from. At least four bytes.
    ///
    /// # Errors
    ///
    /// [`WgpuError::BufferTooLarge`], [`WgpuError::OutOfMemory`] or a lost device.
    pub fn buffer(&self, bytes: u64) -> Result<Buffer, WgpuError> {
        self.make_buffer(bytes, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST)
    }

    pub(crate) fn make_buffer(&self, bytes: u64, usage: BufferUsages) -> Result<Buffer, WgpuError> {
        self.check()?;
        let limit = self.shared.device.limits().max_buffer_size;
        // Whole words: bindings and copies come in no other size.
        let size = bytes.max(4).checked_next_multiple_of(4).filter(|size| *size <= limit);
        let size = size.ok_or(WgpuError::BufferTooLarge { bytes, limit })?;
        let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
        self.scoped(|| self.shared.device.create_buffer(&descriptor))
    }

    /// Runs `make` and says what the device had against it.
    ///
    /// On the web errors arrive later, so that no scope can answer here: there they go to the device's own handler.
    pub(crate) fn scoped<T>(&self, make: impl FnOnce() -> T) -> Result<T, WgpuError> {
        if cfg!(target_arch = "wasm32") {
            return Ok(make());
        }
        let device = &self.shared.device;
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        // Scopes are a stack, and each pop takes effect at once.
        let errors = [poll_once(validation.pop()), poll_once(internal.pop()), poll_once(memory.pop())];
        match errors.into_iter().flatten().next() {
            Some(error) => Err(error.into()),
            None => Ok(made),
        }
    }

    /// Whether WGSL's fma is known to round once: in Vulkan and Metal on a GPU. DirectX 12 makes a multiply-add of it
    /// that may round twice, as software adapters do, and the web does not say what is below.
    pub(crate) fn fma_rounds_once(&self) -> bool {
        let backend = self.shared.device.adapter_info().backend;
        !self.is_software() && matches!(backend, wgpu::Backend::Vulkan | wgpu::Backend::Metal)
    }

    /// Whether the adapter is a program on the processor.
    pub(crate) fn is_software(&self) -> bool {
        is_software(&self.shared.device)
    }

    pub(crate) fn limits(&self) -> DeviceLimits {
        let limits = self.shared.device.limits();
        // A binding begins at an aligned offset below its window and ends on a whole word above it. Elements inside
        // are counted in 32 bits.
        let slack = 2 * u64::from(limits.min_storage_buffer_offset_alignment) + 8;
        DeviceLimits {
            binding: limits.max_storage_buffer_binding_size.min(u64::from(u32::MAX)).saturating_sub(slack),
            buffer: limits.max_buffer_size,
            buffers: limits.max_storage_buffers_per_shader_stage,
            chunk: self.chunk,
        }
    }
}

fn is_software(device: &Device) -> bool {
    device.adapter_info().device_type == wgpu::DeviceType::Cpu
}

/// The output of a future that is ready, as those of error scopes are off the web.
fn poll_once<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => None,
    }
}
