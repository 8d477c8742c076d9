//! burn's flex backend through ssm-cpu.
//!
//! Flex tensors are host memory: operands are viewed where they lie, at any offset, and outputs are written into fresh
//! flex tensors. Only an operand whose elements are not in (B, L, D) order is copied, as burn's own ops do.

use std::borrow::Cow;
use std::sync::LazyLock;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType as BurnType, Shape, bf16, f16};
use ssm_core::{
    BackwardArgs, BindError, DType, Element, ForwardArgs, GatedScan, Kernel, Op, Operand, Plan, PlanOptions,
    ScanBackward, ScanForward,
};
use ssm_cpu::{CpuBackend, CpuMut, CpuRef};

use crate::backend::{
    Arriving, Forward, Gradients, Operands, Outcome, ScanDispatch, ScanKernels, can_plan, full_shape,
    state_shape, untracked,
};
use crate::{Error, burn_type};

type Tensor = FloatTensor<Flex>;

static CPU: LazyLock<CpuBackend> = LazyLock::new(CpuBackend::new);

impl ScanDispatch for Flex {
    fn gated_scan(operands: Operands<Self>, problem: GatedScan, options: PlanOptions) -> Outcome<Self> {
        untracked(&operands, &problem, &options).into()
    }
}

impl ScanKernels for Flex {
    fn check(problem: &GatedScan, options: &PlanOptions, _: &Self::Device) -> Result<(), Error> {
        can_plan(&*CPU, problem, options)
    }

    fn scan_forward(
        problem: &GatedScan,
        options: &PlanOptions,
        operands: &Operands<Self>,
    ) -> Result<Forward<Self>, Error> {
        let plan = Kernel::<ScanForward>::plan(&*CPU, &problem.forward(), options)?;
        let inputs = Inputs::of(operands);
        let mut workspace = workspace(&plan);
        let acc = problem.accumulator();
        let mut y = room(full_shape(problem), problem.out_dtype());
        let mut final_state = problem.wants_final_state().then(|| room(state_shape(problem), acc));
        // Every policy's count fits the address space: the problem checked the largest, all of h.
        let saved = plan.report().saved as usize;
        let mut saved = (saved > 0).then(|| room(Shape::from([saved]), acc));
        let args = ForwardArgs {
            x: view(Operand::X, &inputs.x)?,
            a: view(Operand::A, &inputs.a)?,
            b: maybe(Operand::B, inputs.b.as_deref())?,
            c: maybe(Operand::C, inputs.c.as_deref())?,
            h0: maybe(Operand::H0, inputs.h0.as_deref())?,
            y: write(Operand::Y, &mut y)?,
            final_state: maybe_write(Operand::FinalState, final_state.as_mut())?,
            saved: maybe_write(Operand::Saved, saved.as_mut())?,
        };
        plan.run(&CPU, args, Some(workspace.as_mut_slice().into()), ())?;
        Ok(Forward { y, final_state, saved })
    }

    fn scan_backward(
        op: &ScanBackward,
        options: &PlanOptions,
        operands: &Operands<Self>,
        arriving: &Arriving<Self>,
    ) -> Result<Gradients<Self>, Error> {
        let plan = Kernel::<ScanBackward>::plan(&*CPU, op, options)?;
        let (problem, grads) = (op.problem(), op.grads());
        let inputs = Inputs::of(operands);
        let mut workspace = workspace(&plan);
        let dy = in_order(&arriving.dy);
        let d_final_state = arriving.d_final_state.as_ref().map(in_order);
        let full = |wanted: bool| wanted.then(|| room(full_shape(problem), problem.dtype()));
        let mut out = [full(grads.x), full(grads.a), full(grads.b), full(grads.c), None];
        out[4] = grads.h0.then(|| room(state_shape(problem), problem.accumulator()));
        let [dx, da, db, dc, dh0] = out.each_mut();
        let args = BackwardArgs {
            x: view(Operand::X, &inputs.x)?,
            a: view(Operand::A, &inputs.a)?,
            b: maybe(Operand::B, inputs.b.as_deref())?,
            c: maybe(Operand::C, inputs.c.as_deref())?,
            h0: maybe(Operand::H0, inputs.h0.as_deref())?,
            saved: maybe(Operand::Saved, arriving.saved.as_ref())?,
            dy: view(Operand::Dy, &dy)?,
            d_final_state: maybe(Operand::DFinalState, d_final_state.as_deref())?,
            dx: maybe_write(Operand::Dx, dx.as_mut())?,
            da: maybe_write(Operand::Da, da.as_mut())?,
            db: maybe_write(Operand::Db, db.as_mut())?,
            dc: maybe_write(Operand::Dc, dc.as_mut())?,
            dh0: maybe_write(Operand::Dh0, dh0.as_mut())?,
        };
        plan.run(&CPU, args, Some(workspace.as_mut_slice().into()), ())?;
        Ok(out)
    }
}

/// The operands with their elements in order.
struct Inputs<'a> {
    x: Cow<'a, Tensor>,
    a: Cow<'a, Tensor>,
    b: Option<Cow<'a, Tensor>>,
    c: Option<Cow<'a, Tensor>>,
    h0: Option<Cow<'a, Tensor>>,
}

impl<'a> Inputs<'a> {
    fn of(operands: &'a Operands<Flex>) -> Self {
        Self {
            x: in_order(&operands.x),
            a: in_order(&operands.a),
            b: operands.b.as_ref().map(in_order),
            c: operands.c.as_ref().map(in_order),
            h0: operands.h0.as_ref().map(in_order),
        }
    }
}

fn in_order(tensor: &Tensor) -> Cow<'_, Tensor> {
    if tensor.is_contiguous() { Cow::Borrowed(tensor) } else { Cow::Owned(tensor.to_contiguous()) }
}

fn room(shape: Shape, dtype: DType) -> Tensor {
    Tensor::empty(shape, burn_type(dtype))
}

/// Type and length are checked when the call is bound; a type that no scan knows is refused here.
fn unusable(operand: Operand, got: BurnType) -> Error {
    let expected = "f32, f16, bf16 or f64".to_owned();
    Error::Bind(BindError::Unusable { operand, expected, got: format!("{got:?}") })
}

fn view(operand: Operand, tensor: &Tensor) -> Result<CpuRef<'_>, Error> {
    fn of<E: Element + burn::tensor::Element + bytemuck::Pod>(tensor: &Tensor) -> CpuRef<'_> {
        // No elements, no aligned memory either.
        match tensor.layout().contiguous_offsets() {
            Some((start, end)) if start < end => tensor.storage::<E>()[start..end].into(),
            _ => (&[] as &[E]).into(),
        }
    }
    Ok(match tensor.dtype() {
        BurnType::F32 => of::<f32>(tensor),
        BurnType::F16 => of::<f16>(tensor),
        BurnType::BF16 => of::<bf16>(tensor),
        BurnType::F64 => of::<f64>(tensor),
        got => return Err(unusable(operand, got)),
    })
}

/// A view of a tensor that [`room`] made: its own memory, from its first element to its last.
fn write(operand: Operand, tensor: &mut Tensor) -> Result<CpuMut<'_>, Error> {
    fn of<E: Element + burn::tensor::Element + bytemuck::Pod>(tensor: &mut Tensor) -> CpuMut<'_> {
        match tensor.bytes().is_empty() {
            true => (&mut [] as &mut [E]).into(),
            false => tensor.storage_mut::<E>().into(),
        }
    }
    Ok(match tensor.dtype() {
        BurnType::F32 => of::<f32>(tensor),
        BurnType::F16 => of::<f16>(tensor),
        BurnType::BF16 => of::<bf16>(tensor),
        BurnType::F64 => of::<f64>(tensor),
        got => return Err(unusable(operand, got)),
    })
}

fn maybe(operand: Operand, tensor: Option<&Tensor>) -> Result<Option<CpuRef<'_>>, Error> {
    tensor.map(|tensor| view(operand, tensor)).transpose()
}

fn maybe_write(operand: Operand, tensor: Option<&mut Tensor>) -> Result<Option<CpuMut<'_>>, Error> {
    tensor.map(|tensor| write(operand, tensor)).transpose()
}

/// The widest accumulator, so that it is aligned for any. The plan has made sure that it fits the address space.
fn workspace<O: Op>(plan: &Plan<O, CpuBackend>) -> Vec<f64>
where
    CpuBackend: Kernel<O>,
{
    vec![0.0; plan.report().workspace_bytes.div_ceil(DType::F64.size()) as usize]
}
