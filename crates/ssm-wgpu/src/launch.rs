//! From a schedule and bound operands to commands in the caller's encoder.

use ssm_core::{DType, Operand};
use wgpu::{BindGroupEntry, BindingResource, Buffer, BufferBinding, BufferUsages, CommandEncoder};

use crate::dispatch::{Dispatch, FOLD, Schedule, Window};
use crate::shader::{Body, Form, PipelineKey, ROWS, SPAN, Slot, TABLE};
use crate::view::WgpuRef;
use crate::{WgpuBackend, WgpuError};

/// An operand by its name.
pub(crate) type Operands<'a, 'o> = &'o dyn Fn(Operand) -> Option<WgpuRef<'a>>;

/// A window as it is bound: an aligned offset, and where the window begins after it.
struct Placed<'a> {
    window: Window,
    buffer: &'a Buffer,
    offset: u64,
    bytes: u64,
    elements_in: u32,
    halved: bool,
    written: bool,
}

/// `Params` of common.wgsl.
const PARAMS_BYTES: u64 = 144;
const TABLE_BYTES: u64 = TABLE as u64 * 16;

impl WgpuBackend {
    pub(crate) fn encode(
        &self,
        schedule: &Schedule,
        operands: Operands<'_, '_>,
        encoder: &mut CommandEncoder,
    ) -> Result<(), WgpuError> {
        self.check()?;
        if schedule.dispatches.is_empty() {
            return Ok(());
        }
        let limits = self.shared.device.limits();
        let slot_bytes = u64::from(limits.min_uniform_buffer_offset_alignment).next_multiple_of(256);
        let table_at = schedule.dispatches.len() as u64 * slot_bytes;
        let mut uniforms = vec![0_u8; table_at as usize];
        let mut ready = Vec::with_capacity(schedule.dispatches.len());
        for (dispatch, slot) in schedule.dispatches.iter().zip(uniforms.chunks_exact_mut(slot_bytes as usize))
        {
            let placed = self.place(dispatch, operands)?;
            let key = self.pipeline_key(dispatch, &placed);
            let lanes = dispatch.channels / u64::from(key.form.lane());
            let workgroups =
                (u64::from(dispatch.params.items) * lanes).div_ceil(u64::from(key.workgroup().0));
            let most = u64::from(limits.max_compute_workgroups_per_dimension).max(1);
            // The nearest to a square: few workgroups stand idle in the last row.
            let rows = workgroups.div_ceil(most).max(1);
            let grid = workgroups.div_ceil(rows);
            let mut offsets = [0; 16];
            for p in &placed {
                offsets[p.window.slot as usize] = p.elements_in;
                if key.level && p.window.slot.is_tensor() {
                    offsets[Slot::X as usize] = p.elements_in;
                }
            }
            let words = dispatch.params.words(&offsets, lanes as u32, grid as u32);
            for (bytes, word) in slot.as_chunks_mut::<4>().0.iter_mut().zip(words) {
                *bytes = word.to_ne_bytes();
            }
            ready.push((self.pipeline(&key)?, placed, grid as u32, rows as u32));
        }
        uniforms.extend(schedule.table.iter().flatten().flat_map(|word| word.to_ne_bytes()));
        let tail = if schedule.table.is_empty() { 0 } else { TABLE_BYTES };
        let buffer =
            self.make_buffer(uniforms.len() as u64 + tail, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        // Bind groups first: when one is refused (a buffer of another device), the encoder has not been touched.
        let groups = self.scoped(|| {
            // A fresh buffer a launch: the write goes before the caller's next submission, and no launch waits for
            // another's.
            self.shared.queue.write_buffer(&buffer, 0, &uniforms);
            let uniform = |offset, size: u64| {
                let size = std::num::NonZeroU64::new(size);
                BindingResource::Buffer(BufferBinding { buffer: &buffer, offset, size })
            };
            let mut groups = Vec::with_capacity(ready.len());
            for (i, (dispatch, (pipeline, placed, ..))) in schedule.dispatches.iter().zip(&ready).enumerate()
            {
                let params = uniform(i as u64 * slot_bytes, PARAMS_BYTES);
                let mut entries = vec![BindGroupEntry { binding: 0, resource: params }];
                if let Some(table) = &dispatch.table {
                    let resource = uniform(table_at + table.start as u64 * 16, TABLE_BYTES);
                    entries.push(BindGroupEntry { binding: 1, resource });
                }
                entries.extend(placed.iter().map(|p| BindGroupEntry {
                    binding: p.window.slot.binding(),
                    resource: BindingResource::Buffer(BufferBinding {
                        buffer: p.buffer,
                        offset: p.offset,
                        size: std::num::NonZeroU64::new(p.bytes),
                    }),
                }));
                groups.push(self.shared.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &pipeline.layout,
                    entries: &entries,
                }));
            }
            groups
        })?;
        self.scoped(|| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for ((pipeline, _, x, y), group) in ready.iter().zip(&groups) {
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, group, &[]);
                pass.dispatch_workgroups(*x, *y, 1);
            }
        })
    }

    fn place<'a>(
        &self,
        dispatch: &Dispatch,
        operands: Operands<'a, '_>,
    ) -> Result<Vec<Placed<'a>>, WgpuError> {
        let align = u64::from(self.shared.device.limits().min_storage_buffer_offset_alignment).max(4);
        let mut placed = Vec::with_capacity(dispatch.windows.len());
        for window in &dispatch.windows {
            // Binding the call has checked that every operand of the plan is there.
            let Some(view) = operands(window.operand) else {
                return Err(WgpuError::Internal { description: format!("{} is not bound", window.operand) });
            };
            let dtype = dispatch.key.dtype_of(window.slot);
            let size = dtype.size();
            let at = view.offset + window.start * size;
            let offset = at / align * align;
            placed.push(Placed {
                window: *window,
                buffer: view.buffer,
                offset,
                bytes: (at - offset + window.len * size).next_multiple_of(4),
                elements_in: ((at - offset) / size) as u32,
                halved: matches!(dtype, DType::F16 | DType::Bf16),
                written: dispatch.key.writes(window.slot),
            });
        }
        Ok(placed)
    }

    fn pipeline_key(&self, dispatch: &Dispatch, placed: &[Placed<'_>]) -> PipelineKey {
        let mut halved = placed.iter().filter(|p| p.halved).peekable();
        let form = if halved.peek().is_none() {
            Form::Scalar
        } else if dispatch.aligned_rows && halved.all(|p| p.elements_in % 2 == 0) {
            let march = matches!(dispatch.key.body, Body::ForwardMarch | Body::BackwardMarch);
            // Spans side by side are folded, each held whole in registers, and none is paused in.
            let apart =
                dispatch.params.flags & FOLD != 0 && dispatch.key.chunk == SPAN && !dispatch.key.paused;
            match march {
                true if apart && self.spans && self.uses_subgroups() && turns(dispatch) => Form::Turned,
                true if apart && self.spans => Form::Spans,
                true if self.uses_subgroups() => Form::Joined,
                _ => Form::Pairs,
            }
        } else if self.uses_subgroups() {
            Form::Neighbours
        } else {
            Form::Halves
        };
        let shared =
            placed.iter().any(|w| w.written && placed.iter().any(|r| !r.written && r.buffer == w.buffer));
        let mut starts = placed.iter().filter(|p| p.window.slot.is_tensor()).map(|p| p.elements_in);
        let level = starts.next().is_none_or(|first| starts.all(|start| start == first));
        let fused = self.fma_rounds_once();
        let f16 = [dispatch.key.dtype, dispatch.key.out_dtype].contains(&DType::F16);
        PipelineKey { key: dispatch.key, form, shared, fused, packs: f16 && self.packs, level }
    }
}

/// Whether `Form::Turned` does, and pays: a last round that is not whole goes step by step.
fn turns(dispatch: &Dispatch) -> bool {
    let (key, params) = (&dispatch.key, &dispatch.params);
    let narrow = key.dtype.size() == 2 && key.out_dtype.size() == 2;
    let full =
        (u64::from(params.items) * dispatch.channels).is_multiple_of(u64::from(Form::Turned.workgroup().0));
    let whole = params.len.is_multiple_of(ROWS * SPAN) || params.len >= 16 * ROWS * SPAN;
    key.body == Body::BackwardMarch && narrow && !key.packed && full && whole
}
