//! Whether a device has subgroups, and fills them in order.

use wgpu::Features;

use crate::shader::WORKGROUP;
use crate::{WgpuBackend, WgpuError};

/// Workgroups that are asked.
const ASKED: u32 = 64;

impl WgpuBackend {
    /// With subgroup operations, where the device was made with [`Features::SUBGROUP`] and has invocations that follow
    /// each other do so in the subgroup too. WGSL does not promise that, so the device is asked, by a dispatch of its
    /// own. Every result is the same to the bit; what gains is 16-bit elements. A device that [`WgpuBackend::request`]
    /// made has been asked.
    ///
    /// In the browser nothing changes: there WGSL wants a directive that naga does not know.
    ///
    /// # Errors
    ///
    /// The device's.
    pub async fn with_subgroups(self) -> Result<Self, WgpuError> {
        if cfg!(target_arch = "wasm32") || !self.device().features().contains(Features::SUBGROUP) {
            return Ok(self);
        }
        let counter = self.buffer(4)?;
        self.scoped(|| {
            let text = include_str!("../wgsl/subgroup_order.wgsl");
            let text = format!("const WORKGROUP: u32 = {WORKGROUP}u;\n{text}");
            let device = self.device();
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some("subgroup order"),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("subgroup order"),
                layout: None,
                module: &module,
                entry_point: Some("count"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[wgpu::BindGroupEntry { binding: 0, resource: counter.as_entire_binding() }],
            });
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(ASKED, 1, 1);
            drop(pass);
            self.queue().submit([encoder.finish()]);
        })?;
        let counted: Vec<f32> = self.read(&counter, 0, 1).await?;
        let subgroups = counted.first().is_some_and(|word| word.to_bits() == ASKED * WORKGROUP);
        Ok(Self { subgroups, ..self })
    }

    /// Without subgroup operations, though the device may have them. Every result is the same to the bit.
    #[must_use]
    pub fn without_subgroups(self) -> Self {
        Self { subgroups: false, ..self }
    }

    /// Whether kernels use subgroup operations: a march over 16-bit elements, and whatever writes 16-bit elements in
    /// rows that share words, as they do where the channels are odd in number.
    pub fn uses_subgroups(&self) -> bool {
        self.subgroups
    }
}
