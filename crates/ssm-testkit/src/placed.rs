//! Operands in device memory, each inside a larger buffer whose ends tell whether a launch strayed.

use std::ops::Range;

use ssm_core::{Backend, DType, GatedScan, Op, Operand, Report};

use crate::subject::{AnyOp, Call, CallError, Ran, Tamper};
use crate::{Harness, HostTensor};

/// Bytes before and after an operand: as much as any device wants an offset aligned to.
const GUARD_BYTES: u64 = 256;

/// One operand in a buffer of its own.
pub(crate) struct Placed<M> {
    operand: Operand,
    memory: M,
    inside: Range<usize>,
    before: HostTensor,
}

impl<M> Placed<M> {
    fn new<H: Harness<Memory = M>>(
        harness: &H,
        operand: Operand,
        tensor: &HostTensor,
        offset: Option<usize>,
        guard: f64,
    ) -> Result<Self, CallError> {
        let offset = offset.unwrap_or((GUARD_BYTES / tensor.dtype().size()) as usize);
        let before = tensor.padded(offset, guard);
        let memory = harness.upload(&before).map_err(CallError::Device)?;
        Ok(Self { operand, memory, inside: offset..offset + tensor.len(), before })
    }

    pub(crate) fn read<'a, H: Harness<Memory = M>>(
        &'a self,
        harness: &H,
    ) -> <H::Backend as Backend>::Ref<'a> {
        harness.view(&self.memory, self.inside.clone())
    }

    pub(crate) fn write<'a, H: Harness<Memory = M>>(
        &'a mut self,
        harness: &H,
    ) -> <H::Backend as Backend>::Mut<'a> {
        harness.view_mut(&mut self.memory, self.inside.clone())
    }

    pub(crate) fn unchanged<H: Harness<Memory = M>>(&self, harness: &H) -> Result<(), CallError> {
        let same = self.download(harness)?.same_bits(&self.before);
        if same { Ok(()) } else { Err(CallError::Input { operand: self.operand }) }
    }

    pub(crate) fn untouched<H: Harness<Memory = M>>(&self, harness: &H) -> Result<(), CallError> {
        let same = self.download(harness)?.same_bits(&self.before);
        if same { Ok(()) } else { Err(CallError::Touched { operand: self.operand }) }
    }

    /// The elements inside, once the guards are found as they were.
    pub(crate) fn take<H: Harness<Memory = M>>(
        self,
        harness: &H,
    ) -> Result<(Operand, HostTensor), CallError> {
        let now = self.download(harness)?;
        let Range { start, end } = self.inside;
        let outside = |t: &HostTensor| [t.slice(0..start), t.slice(end..t.len())];
        let (is, was) = (outside(&now), outside(&self.before));
        if now.len() != self.before.len() || !is.iter().zip(&was).all(|(is, was)| is.same_bits(was)) {
            return Err(CallError::Guard { operand: self.operand });
        }
        Ok((self.operand, now.slice(start..end)))
    }

    fn download<H: Harness<Memory = M>>(&self, harness: &H) -> Result<HostTensor, CallError> {
        harness.download(&self.memory).map_err(CallError::Device)
    }
}

impl Call<'_> {
    pub(crate) fn problem(&self) -> &GatedScan {
        match self.op {
            AnyOp::Forward(op) => op.problem(),
            AnyOp::Backward(op) => op.problem(),
            AnyOp::Step(op) => op.problem(),
        }
    }
}

/// Places the operands of one call, with the call's mistake where it has one.
pub(crate) struct Placer<'a, H> {
    harness: &'a H,
    call: &'a Call<'a>,
    saved: u64,
    workspace_bytes: u64,
}

pub(crate) fn placer<'a, H: Harness>(harness: &'a H, call: &'a Call<'a>, report: &Report) -> Placer<'a, H> {
    Placer { harness, call, saved: report.saved, workspace_bytes: report.workspace_bytes }
}

type Slot<H> = Option<Placed<<H as Harness>::Memory>>;

impl<H: Harness> Placer<'_, H> {
    fn dtype(&self, operand: Operand) -> DType {
        let problem = self.call.problem();
        match operand {
            Operand::Y | Operand::Dy => problem.out_dtype(),
            Operand::X | Operand::A | Operand::B | Operand::C => problem.dtype(),
            Operand::Dx | Operand::Da | Operand::Db | Operand::Dc => problem.dtype(),
            _ => problem.accumulator(),
        }
    }

    fn elements(&self, operand: Operand) -> usize {
        let problem = self.call.problem();
        match operand {
            Operand::Saved => self.saved as usize,
            Operand::Workspace => self.workspace_bytes.div_ceil(self.dtype(operand).size()) as usize,
            Operand::H0 | Operand::FinalState | Operand::DFinalState | Operand::Dh0 | Operand::State => {
                problem.state_elements() as usize
            }
            _ => problem.elements() as usize,
        }
    }

    fn put(&self, operand: Operand, tensor: &HostTensor, guard: f64) -> Result<Slot<H>, CallError> {
        let other = if tensor.dtype() == DType::F32 { DType::F16 } else { DType::F32 };
        let mistaken = match self.call.tamper {
            Some(Tamper::Length(o)) if o == operand => Some(tensor.padded_after(1)),
            Some(Tamper::Type(o)) if o == operand => Some(HostTensor::poison(other, tensor.len())),
            _ => None,
        };
        let tensor = mistaken.as_ref().unwrap_or(tensor);
        Placed::new(self.harness, operand, tensor, self.call.offset, guard).map(Some)
    }

    fn wanted(&self, operand: Operand, wanted: bool) -> bool {
        wanted ^ (self.call.tamper == Some(Tamper::Presence(operand)))
    }

    /// An input, where the call has it; guarded by NaN, so that reading past it shows.
    pub(crate) fn input(&self, operand: Operand) -> Result<Slot<H>, CallError> {
        let given = match operand {
            Operand::Saved => self.call.saved.filter(|_| self.saved > 0),
            _ => self.call.inputs.get(operand).filter(|_| self.has(operand)),
        };
        if !self.wanted(operand, given.is_some()) {
            return Ok(None);
        }
        match given {
            Some(tensor) => self.put(operand, tensor, f64::NAN),
            None => {
                self.put(operand, &HostTensor::poison(self.dtype(operand), self.elements(operand)), f64::NAN)
            }
        }
    }

    /// Whether the op takes the input: one set of inputs serves problems with fewer options.
    fn has(&self, operand: Operand) -> bool {
        let problem = self.call.problem();
        match operand {
            Operand::B => problem.has_b(),
            Operand::C => problem.has_c(),
            Operand::H0 => problem.has_initial_state(),
            Operand::DFinalState => {
                matches!(self.call.op, AnyOp::Backward(op) if op.has_final_state())
            }
            _ => true,
        }
    }

    /// An output, poisoned.
    pub(crate) fn output(&self, operand: Operand, wanted: bool) -> Result<Slot<H>, CallError> {
        if !self.wanted(operand, wanted) {
            return Ok(None);
        }
        self.put(operand, &HostTensor::poison(self.dtype(operand), self.elements(operand)), 7.0)
    }

    /// A step's state: read and written.
    pub(crate) fn state(&self) -> Result<Slot<H>, CallError> {
        match self.call.inputs.get(Operand::H0) {
            Some(state) => self.put(Operand::State, state, 7.0),
            None => self.output(Operand::State, true),
        }
    }

    pub(crate) fn workspace(&self) -> Result<Slot<H>, CallError> {
        let short = usize::from(self.call.tamper == Some(Tamper::Workspace));
        let elements = self.elements(Operand::Workspace).saturating_sub(short);
        if self.workspace_bytes == 0 {
            return Ok(None);
        }
        self.put(Operand::Workspace, &HostTensor::poison(self.dtype(Operand::Workspace), elements), 7.0)
    }

    /// An operand that every call of the op has.
    pub(crate) fn required<'p>(&self, slot: &'p Slot<H>) -> Result<&'p Placed<H::Memory>, CallError> {
        slot.as_ref().ok_or(CallError::Incomplete)
    }

    pub(crate) fn required_mut<'p>(
        &self,
        slot: &'p mut Slot<H>,
    ) -> Result<&'p mut Placed<H::Memory>, CallError> {
        slot.as_mut().ok_or(CallError::Incomplete)
    }

    /// The result, once the workspace's guards are found as they were.
    pub(crate) fn guarded(&self, ran: Ran, workspace: Slot<H>) -> Result<Ran, CallError> {
        match workspace {
            Some(workspace) => workspace.take(self.harness).map(|_| ran),
            None => Ok(ran),
        }
    }
}
