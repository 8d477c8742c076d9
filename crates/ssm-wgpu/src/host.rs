//! The easy layer: slices in, vectors out. Uploads, runs, downloads.

use ssm_core::{
    BackwardArgs, BindError, Checkpoint, Element, ForwardArgs, GatedScan, Grads, Kernel, Op, Operand, Plan,
    PlanOptions, StepArgs,
};
use wgpu::{Buffer, BufferUsages};

use crate::view::{WgpuMut, WgpuRef};
use crate::wait::Mapped;
use crate::{CallError, WgpuBackend, WgpuError};

/// The inputs of a scan, (B, L, D) in the problem's storage type.
#[derive(Clone, Copy, Debug)]
pub struct ScanInputs<'a, E> {
    /// (B, L, D).
    pub x: &'a [E],
    /// (B, L, D).
    pub a: &'a [E],
    /// (B, L, D).
    pub b: Option<&'a [E]>,
    /// (B, L, D).
    pub c: Option<&'a [E]>,
    /// (N, D).
    pub h0: Option<&'a [f32]>,
}

/// What forward computed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanOutputs<O> {
    /// (B, L, D).
    pub y: Vec<O>,
    /// hT (N, D), when the problem asks for it.
    pub final_state: Option<Vec<f32>>,
}

/// The gradients that were asked for.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each field is the gradient of that name")]
pub struct ScanGradients<E> {
    pub dx: Option<Vec<E>>,
    pub da: Option<Vec<E>>,
    pub db: Option<Vec<E>>,
    pub dc: Option<Vec<E>>,
    pub dh0: Option<Vec<f32>>,
}

/// Elements on the device.
struct Held {
    buffer: Buffer,
    elements: u64,
    dtype: ssm_core::DType,
}

impl Held {
    fn view(&self) -> WgpuRef<'_> {
        WgpuRef::new(&self.buffer, 0, self.elements, self.dtype)
    }

    fn view_mut(&self) -> WgpuMut<'_> {
        WgpuMut::new(&self.buffer, 0, self.elements, self.dtype)
    }
}

fn bytes_of<E: Element>(elements: &[E]) -> &[u8] {
    // SAFETY: Element is sealed to the four float types, which have no padding, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

fn elements_of<E: Element>(bytes: &[u8]) -> Vec<E> {
    let count = bytes.len() / size_of::<E>();
    let mut elements = vec![E::default(); count];
    // SAFETY: both hold `count` elements of bytes, the vector is our own, and every bit pattern is a float.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.as_mut_ptr().cast(), count * size_of::<E>());
    }
    elements
}

impl WgpuBackend {
    /// Runs forward on slices and waits. Not there on wasm32.
    ///
    /// # Errors
    ///
    /// [`CallError`], before anything is queued unless the device fails.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn forward<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
    ) -> Result<ScanOutputs<O>, CallError> {
        crate::wait::block_on(self.forward_async(problem, inputs))
    }

    /// Runs backward on slices and waits. Not there on wasm32.
    ///
    /// # Errors
    ///
    /// As [`WgpuBackend::backward_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn backward<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
        dy: &[O],
        d_final_state: Option<&[f32]>,
        grads: Grads,
    ) -> Result<ScanGradients<E>, CallError> {
        crate::wait::block_on(self.backward_async(problem, inputs, dy, d_final_state, grads))
    }

    /// Runs a step on slices and waits. Not there on wasm32.
    ///
    /// # Errors
    ///
    /// As [`WgpuBackend::step_async`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn step<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
        state: &mut [f32],
    ) -> Result<Vec<O>, CallError> {
        crate::wait::block_on(self.step_async(problem, inputs, state))
    }

    /// Runs forward on slices. Nothing is kept for a backward, whatever the problem's checkpoint policy.
    ///
    /// # Errors
    ///
    /// [`CallError`], before anything is queued unless the device fails.
    pub async fn forward_async<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
    ) -> Result<ScanOutputs<O>, CallError> {
        let op = problem.to_builder().checkpoint(Checkpoint::Nothing).build()?.forward();
        output_type::<O>(problem)?;
        let plan: Plan<_, Self> = self.plan(&op, &PlanOptions::default())?;
        let held = self.hold_inputs(inputs)?;
        let y = self.hold::<O>(problem.elements())?;
        let end = match problem.wants_final_state() {
            true => Some(self.hold::<f32>(problem.state_elements())?),
            false => None,
        };
        let workspace = self.hold::<f32>(plan.report().workspace_bytes / 4)?;
        let [x, a, b, c, h0] = &held;
        let args = ForwardArgs {
            x: given(x, Operand::X)?,
            a: given(a, Operand::A)?,
            b: b.as_ref().map(Held::view),
            c: c.as_ref().map(Held::view),
            h0: h0.as_ref().map(Held::view),
            y: y.view_mut(),
            final_state: end.as_ref().map(Held::view_mut),
            saved: None,
        };
        self.submit(|encoder| plan.run(self, args, Some(workspace.view_mut()), encoder))?;
        let final_state = match &end {
            Some(end) => Some(self.download(end).await?),
            None => None,
        };
        Ok(ScanOutputs { y: self.download(&y).await?, final_state })
    }

    /// Runs backward on slices, rebuilding what forward would have saved.
    ///
    /// # Errors
    ///
    /// [`CallError`], before anything is queued unless the device fails.
    pub async fn backward_async<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
        dy: &[O],
        d_final_state: Option<&[f32]>,
        grads: Grads,
    ) -> Result<ScanGradients<E>, CallError> {
        let mut op = problem.to_builder().checkpoint(Checkpoint::Nothing).build()?.backward(grads)?;
        if d_final_state.is_some() {
            op = op.with_final_state();
        }
        let plan: Plan<_, Self> = self.plan(&op, &PlanOptions::default())?;
        let held = self.hold_inputs(inputs)?;
        let dy = self.upload(dy)?;
        let d_end = d_final_state.map(|d| self.upload(d)).transpose()?;
        let full = |wanted: bool| wanted.then(|| self.hold::<E>(problem.elements())).transpose();
        let (dx, da, db, dc) = (full(grads.x)?, full(grads.a)?, full(grads.b)?, full(grads.c)?);
        let dh0 = grads.h0.then(|| self.hold::<f32>(problem.state_elements())).transpose()?;
        let workspace = self.hold::<f32>(plan.report().workspace_bytes / 4)?;
        let [x, a, b, c, h0] = &held;
        let args = BackwardArgs {
            x: given(x, Operand::X)?,
            a: given(a, Operand::A)?,
            b: b.as_ref().map(Held::view),
            c: c.as_ref().map(Held::view),
            h0: h0.as_ref().map(Held::view),
            saved: None,
            dy: dy.view(),
            d_final_state: d_end.as_ref().map(Held::view),
            dx: dx.as_ref().map(Held::view_mut),
            da: da.as_ref().map(Held::view_mut),
            db: db.as_ref().map(Held::view_mut),
            dc: dc.as_ref().map(Held::view_mut),
            dh0: dh0.as_ref().map(Held::view_mut),
        };
        debug_assert_eq!(op.problem().checkpoint(), Checkpoint::Nothing, "nothing is saved here");
        self.submit(|encoder| plan.run(self, args, Some(workspace.view_mut()), encoder))?;
        Ok(ScanGradients {
            dx: self.download_some(&dx).await?,
            da: self.download_some(&da).await?,
            db: self.download_some(&db).await?,
            dc: self.download_some(&dc).await?,
            dh0: self.download_some(&dh0).await?,
        })
    }

    /// Runs a step on slices: y of the next L tokens, and the state (B, D) after them in place of the one before.
    ///
    /// # Errors
    ///
    /// [`CallError`]; the state is as it was.
    pub async fn step_async<E: Element, O: Element>(
        &self,
        problem: &GatedScan,
        inputs: &ScanInputs<'_, E>,
        state: &mut [f32],
    ) -> Result<Vec<O>, CallError> {
        let op = problem.step()?;
        output_type::<O>(problem)?;
        let plan: Plan<_, Self> = self.plan(&op, &PlanOptions::default())?;
        if inputs.h0.is_some() {
            return Err(BindError::Unexpected { operand: Operand::H0 }.into());
        }
        let held = self.hold_inputs(inputs)?;
        let y = self.hold::<O>(problem.elements())?;
        let kept = self.upload(state)?;
        let workspace = self.hold::<f32>(plan.report().workspace_bytes / 4)?;
        let [x, a, b, c, _] = &held;
        let args = StepArgs {
            x: given(x, Operand::X)?,
            a: given(a, Operand::A)?,
            b: b.as_ref().map(Held::view),
            c: c.as_ref().map(Held::view),
            y: y.view_mut(),
            state: kept.view_mut(),
        };
        self.submit(|encoder| plan.run(self, args, Some(workspace.view_mut()), encoder))?;
        let y = self.download(&y).await?;
        let after: Vec<f32> = self.download(&kept).await?;
        state.copy_from_slice(&after);
        Ok(y)
    }

    /// Encodes, then submits, unless encoding failed.
    fn submit<R, F: Into<CallError>>(
        &self,
        encode: impl FnOnce(&mut wgpu::CommandEncoder) -> Result<R, F>,
    ) -> Result<R, CallError> {
        let made = self.scoped(|| {
            let mut encoder =
                self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let result = encode(&mut encoder).map_err(Into::into)?;
            self.queue().submit([encoder.finish()]);
            Ok(result)
        })?;
        self.check()?;
        made
    }

    fn hold<E: Element>(&self, elements: u64) -> Result<Held, WgpuError> {
        let bytes = elements.saturating_mul(E::DTYPE.size());
        Ok(Held { buffer: self.buffer(bytes)?, elements, dtype: E::DTYPE })
    }

    fn upload<E: Element>(&self, elements: &[E]) -> Result<Held, WgpuError> {
        let held = self.hold::<E>(elements.len() as u64)?;
        let bytes = bytes_of(elements);
        let (whole, rest) = bytes.split_at(bytes.len() / 4 * 4);
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.scoped(|| {
            if !whole.is_empty() {
                self.queue().write_buffer(&held.buffer, 0, whole);
            }
            // Writes come in whole words.
            if !rest.is_empty() {
                self.queue().write_buffer(&held.buffer, whole.len() as u64, &last);
            }
        })?;
        Ok(held)
    }

    fn hold_inputs<E: Element>(&self, inputs: &ScanInputs<'_, E>) -> Result<[Option<Held>; 5], WgpuError> {
        let some = |slice: Option<&[E]>| slice.map(|slice| self.upload(slice)).transpose();
        let h0 = inputs.h0.map(|h0| self.upload(h0)).transpose()?;
        Ok([some(Some(inputs.x))?, some(Some(inputs.a))?, some(inputs.b)?, some(inputs.c)?, h0])
    }

    async fn download_some<E: Element>(&self, held: &Option<Held>) -> Result<Option<Vec<E>>, WgpuError> {
        match held {
            Some(held) => Ok(Some(self.download(held).await?)),
            None => Ok(None),
        }
    }

    async fn download<E: Element>(&self, held: &Held) -> Result<Vec<E>, WgpuError> {
        self.read(&held.buffer, 0, held.elements).await
    }

    /// As [`WgpuBackend::read`], and waits. Not there on wasm32.
    ///
    /// # Errors
    ///
    /// The device's.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_blocking<E: Element>(
        &self,
        buffer: &Buffer,
        offset: u64,
        elements: u64,
    ) -> Result<Vec<E>, WgpuError> {
        crate::wait::block_on(self.read(buffer, offset, elements))
    }

    /// Elements of a buffer with the usage `COPY_SRC`, from a byte offset that is a multiple of 4, after everything
    /// submitted so far.
    ///
    /// # Errors
    ///
    /// The device's.
    pub async fn read<E: Element>(
        &self,
        buffer: &Buffer,
        offset: u64,
        elements: u64,
    ) -> Result<Vec<E>, WgpuError> {
        let bytes = elements.saturating_mul(E::DTYPE.size());
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let padded = bytes.next_multiple_of(4);
        let staging = self.make_buffer(padded, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let mapped = self.scoped(|| {
            let mut encoder =
                self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, padded);
            self.queue().submit([encoder.finish()]);
            Mapped::request(self.device(), &staging)
        })?;
        mapped.await?;
        self.check()?;
        let range = staging.get_mapped_range(..);
        let range = range.map_err(|error| WgpuError::ReadBack { reason: error.to_string() })?;
        Ok(elements_of(&range[..bytes as usize]))
    }
}

fn given(held: &Option<Held>, operand: Operand) -> Result<WgpuRef<'_>, BindError> {
    held.as_ref().map(Held::view).ok_or(BindError::Missing { operand })
}

fn output_type<O: Element>(problem: &GatedScan) -> Result<(), CallError> {
    let (expected, got) = (problem.out_dtype(), O::DTYPE);
    if expected == got { Ok(()) } else { Err(CallError::OutputType { expected, got }) }
}
