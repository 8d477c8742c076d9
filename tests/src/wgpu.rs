//! wgpu, on the adapter's own limits and on those that every WebGPU device has.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ssm_core::DType;
use ssm_testkit::{Failure, Harness, HostTensor};
use ssm_wgpu::wgpu::{
    BindGroupDescriptor, BindGroupEntry, BindingResource, Buffer, BufferBinding, CommandEncoder,
    ComputePipeline, ComputePipelineDescriptor, Limits, PollType, ShaderModuleDescriptor, ShaderSource,
};
use ssm_wgpu::{WgpuBackend, WgpuError, WgpuMut, WgpuRef};

/// The best adapter, with a device of some limits.
pub(crate) struct WgpuHarness {
    backend: WgpuBackend,
    copy: OnceLock<ComputePipeline>,
}

/// A tensor in a buffer of its own.
pub(crate) struct Memory {
    buffer: Buffer,
    dtype: DType,
    elements: usize,
}

type Opened = Result<Arc<WgpuHarness>, String>;

fn opened(backend: Result<WgpuBackend, WgpuError>) -> Opened {
    match backend {
        Ok(backend) => Ok(Arc::new(WgpuHarness { backend, copy: OnceLock::new() })),
        Err(error) => Err(error.to_string()),
    }
}

/// All that the adapter offers. One device a process: a device compiles its kernels anew.
pub(crate) fn open() -> Opened {
    static DEVICE: OnceLock<Opened> = OnceLock::new();
    DEVICE.get_or_init(|| opened(WgpuBackend::new())).clone()
}

/// No more than every device has, no subgroup operations, and the kernels that GPUs run. One device a process too.
pub(crate) fn open_least() -> Opened {
    static DEVICE: OnceLock<Opened> = OnceLock::new();
    DEVICE
        .get_or_init(|| {
            let backend = WgpuBackend::with_limits(Limits::default());
            opened(backend.map(|b| b.with_gpu_kernels().without_subgroups()))
        })
        .clone()
}

/// 16 bytes an invocation.
const COPY: &str = "
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<u32>>;

@compute @workgroup_size(256)
fn copy(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&source)) {
        sink[id.x] = source[id.x];
    }
}";
const COPY_GROUP: u64 = 256 * 16;
/// What every device binds at once; so many workgroups fit one dimension of a dispatch.
const COPY_WINDOW: u64 = 128 << 20;

impl WgpuHarness {
    fn copy_pipeline(&self) -> &ComputePipeline {
        self.copy.get_or_init(|| {
            let device = self.backend.device();
            let source = ShaderSource::Wgsl(COPY.into());
            let module = device.create_shader_module(ShaderModuleDescriptor { label: None, source });
            device.create_compute_pipeline(&ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("copy"),
                compilation_options: Default::default(),
                cache: None,
            })
        })
    }

    fn encode_copy(&self, from: &Buffer, to: &Buffer, encoder: &mut CommandEncoder) {
        let pipeline = self.copy_pipeline();
        let whole = from.size() / 16 * 16;
        for offset in (0..whole).step_by(COPY_WINDOW as usize) {
            let bytes = COPY_WINDOW.min(whole - offset);
            let binding = |binding, buffer| BindGroupEntry {
                binding,
                resource: BindingResource::Buffer(BufferBinding {
                    buffer,
                    offset,
                    size: std::num::NonZeroU64::new(bytes),
                }),
            };
            let group = self.backend.device().create_bind_group(&BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[binding(0, from), binding(1, to)],
            });
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(bytes.div_ceil(COPY_GROUP) as u32, 1, 1);
        }
        if whole < from.size() {
            encoder.copy_buffer_to_buffer(from, whole, to, whole, from.size() - whole);
        }
    }
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

    fn submit<R>(&self, enqueue: impl FnOnce(&mut CommandEncoder) -> R) -> R {
        let mut encoder = self.backend.device().create_command_encoder(&Default::default());
        let result = enqueue(&mut encoder);
        self.backend.queue().submit([encoder.finish()]);
        result
    }

    /// By a shader, as the kernels move memory.
    fn copy(&self, from: &Memory, to: &mut Memory) -> Result<bool, Failure> {
        if from.buffer.size() != to.buffer.size() {
            return Err("a copy between different lengths".into());
        }
        self.submit(|encoder| self.encode_copy(&from.buffer, &to.buffer, encoder));
        self.backend.check()?;
        Ok(true)
    }

    fn wait(&self) -> Result<(), Failure> {
        self.backend
            .device()
            .poll(PollType::wait_indefinitely())
            .map_err(|error| WgpuError::Internal { description: error.to_string() })?;
        Ok(self.backend.check()?)
    }
}
