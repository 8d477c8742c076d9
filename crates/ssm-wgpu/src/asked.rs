//! What a device is asked, by a dispatch, since WGSL does not promise it.

use wgpu::Features;

use crate::shader::WORKGROUP;
use crate::{WgpuBackend, WgpuError};

/// Workgroups that are asked after their subgroups.
const ASKED: u32 = 64;
/// The bits that f16 can tell apart, of every f32: sign, exponent and 10 of the significand.
const TOLD_APART: u32 = 1 << 19;

/// The question after the rounding to f16, with the integers' answer beside it.
pub(crate) fn half_rounding() -> String {
    let (known, text) = (include_str!("../wgsl/f16.wgsl"), include_str!("../wgsl/half_rounding.wgsl"));
    format!("const WORKGROUP: u32 = {WORKGROUP}u;\nconst PACKS: bool = false;\n{known}{text}")
}

impl WgpuBackend {
    /// What the entry `count` of a shader counts in its only binding.
    async fn counted(&self, label: &str, text: String, workgroups: u32) -> Result<u32, WgpuError> {
        let counter = self.buffer(4)?;
        self.scoped(|| {
            let device = self.device();
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
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
            pass.dispatch_workgroups(workgroups, 1, 1);
            drop(pass);
            self.queue().submit([encoder.finish()]);
        })?;
        let counted: Vec<f32> = self.read(&counter, 0, 1).await?;
        Ok(counted.first().map_or(0, |word| word.to_bits()))
    }

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
        let text = include_str!("../wgsl/subgroup_order.wgsl");
        let text = format!("const WORKGROUP: u32 = {WORKGROUP}u;\n{text}");
        let counted = self.counted("subgroup order", text, ASKED).await?;
        Ok(Self { subgroups: counted == ASKED * WORKGROUP, ..self })
    }

    /// With the device's own conversion to f16, where it is found to round to nearest even. WGSL does not promise that, so
    /// the device is asked, by a dispatch of its own. Every result is the same to the bit, except in what a NaN carries. A
    /// device that [`WgpuBackend::request`] made has been asked.
    ///
    /// # Errors
    ///
    /// The device's.
    pub async fn with_half_packing(self) -> Result<Self, WgpuError> {
        if !self.device().features().contains(Features::SHADER_F16) {
            return Ok(self);
        }
        let unlike = self.counted("half rounding", half_rounding(), TOLD_APART / WORKGROUP).await?;
        Ok(Self { packs: unlike == 0, ..self })
    }

    /// With conversions to f16 by integers, as on a device that was not asked.
    #[must_use]
    pub fn without_half_packing(self) -> Self {
        Self { packs: false, ..self }
    }

    /// Whether conversions to f16 are the device's own.
    pub fn uses_half_packing(&self) -> bool {
        self.packs
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
