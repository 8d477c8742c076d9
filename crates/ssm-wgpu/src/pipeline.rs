//! Compiled kernels, each built once a device.

use std::sync::Arc;

use wgpu::{
    BindGroupLayout, BindGroupLayoutEntry, BindingType, BufferBindingType, ComputePipeline, ShaderStages,
};

use crate::device::lock;
use crate::shader::{PipelineKey, source};
use crate::{WgpuBackend, WgpuError};

/// A kernel and the layout of what it binds.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: ComputePipeline,
    pub(crate) layout: BindGroupLayout,
}

/// The bindings of a kernel, as the plan binds them.
pub(crate) fn layout_entries(key: &PipelineKey) -> Vec<BindGroupLayoutEntry> {
    let entry = |binding, ty| BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let mut entries = vec![entry(0, BufferBindingType::Uniform)];
    if key.key.packed {
        entries.push(entry(1, BufferBindingType::Uniform));
    }
    entries.extend(key.key.slots.iter().map(|slot| {
        let read_only = !key.key.writes(slot) && !key.shared;
        entry(slot.binding(), BufferBindingType::Storage { read_only })
    }));
    entries
}

impl WgpuBackend {
    pub(crate) fn pipeline(&self, key: &PipelineKey) -> Result<Arc<Pipeline>, WgpuError> {
        if let Some(pipeline) = lock(&self.shared.pipelines).get(key) {
            return Ok(Arc::clone(pipeline));
        }
        let device = &self.shared.device;
        let built = self.scoped(|| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(key.key.body.entry()),
                source: wgpu::ShaderSource::Wgsl(source(key).into()),
            };
            let module = device.create_shader_module(descriptor);
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &layout_entries(key),
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(key.key.body.entry()),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some(key.key.body.entry()),
                compilation_options: wgpu::PipelineCompilationOptions {
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        })?;
        // Two threads may have built it at once; the first one's stays.
        Ok(Arc::clone(lock(&self.shared.pipelines).entry(*key).or_insert_with(|| Arc::new(built))))
    }
}
