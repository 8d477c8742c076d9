//! The least backend that the measuring core can run on: the plain loop over time, in f32, on slices.

use std::ops::Range;

use ssm_core::{
    Algorithm, Backend, Bound, DType, Kernel, Op, Plan, PlanError, PlanOptions, Report, ScanBackward,
    ScanForward, ScanStep, Span, View,
};
use ssm_testkit::{Failure, Harness, HostTensor};

#[derive(Debug, Default)]
pub struct Plain {
    /// Leaves the last element of y as it was.
    pub lazy: bool,
}

#[derive(Debug)]
pub struct Slice<'a>(&'a [f32]);
#[derive(Debug)]
pub struct SliceMut<'a>(&'a mut [f32]);

fn span(slice: &[f32]) -> Span {
    Span { memory: 0, start: slice.as_ptr().addr() as u64, bytes: size_of_val(slice) as u64 }
}

impl View for Slice<'_> {
    fn dtype(&self) -> DType {
        DType::F32
    }
    fn elements(&self) -> u64 {
        self.0.len() as u64
    }
    fn span(&self) -> Span {
        span(self.0)
    }
}

impl View for SliceMut<'_> {
    fn dtype(&self) -> DType {
        DType::F32
    }
    fn elements(&self) -> u64 {
        self.0.len() as u64
    }
    fn span(&self) -> Span {
        span(self.0)
    }
}

impl Backend for Plain {
    const NAME: &'static str = "plain";
    type Ref<'a> = Slice<'a>;
    type Mut<'a> = SliceMut<'a>;
    type Queue<'q> = ();
    type Error = std::convert::Infallible;
}

fn plan<O: Op>(op: &O) -> Result<Plan<O, Plain>, PlanError>
where
    Plain: Kernel<O, Detail = ()>,
{
    let p = op.problem();
    if p.dtype() != DType::F32 {
        return Err(PlanError::UnsupportedType { backend: Plain::NAME, dtype: p.dtype() });
    }
    let report = Report {
        backend: Plain::NAME,
        op: O::NAME,
        shape: [p.batch(), p.len(), p.channels()],
        dtype: p.dtype(),
        checkpoint: p.checkpoint(),
        algorithm: Algorithm::Sequential,
        chunk_len: p.len(),
        chunks: 1,
        workspace_bytes: 0,
        // All of h, whatever the policy: a test needs something saved.
        saved: p.elements(),
        bytes_read: 0,
        bytes_written: 0,
    };
    Ok(Plan::new(op.clone(), report, ()))
}

impl Kernel<ScanForward> for Plain {
    type Detail = ();
    fn plan(&self, op: &ScanForward, _: &PlanOptions) -> Result<Plan<ScanForward, Self>, PlanError> {
        plan(op)
    }
    fn launch(&self, call: Bound<'_, '_, ScanForward, Self>, (): ()) -> Result<(), Self::Error> {
        let parts = call.into_parts();
        let [batch, len, channels] = parts.plan.report().shape;
        let args = parts.args;
        let (x, a, y) = (args.x.0, args.a.0, args.y.0);
        let saved = args.saved.expect("planned").0;
        let of = |v: &Option<Slice<'_>>, i: usize| v.as_ref().map_or(1.0, |v| v.0[i]);
        for i in 0..batch * len * channels {
            let past = if i / channels % len == 0 { 0.0 } else { saved[i - channels] };
            saved[i] = a[i] * past + of(&args.b, i) * x[i];
            if !(self.lazy && i + 1 == x.len()) {
                y[i] = of(&args.c, i) * saved[i];
            }
        }
        Ok(())
    }
}

impl Kernel<ScanBackward> for Plain {
    type Detail = ();
    fn plan(&self, op: &ScanBackward, _: &PlanOptions) -> Result<Plan<ScanBackward, Self>, PlanError> {
        plan(op)
    }
    fn launch(&self, call: Bound<'_, '_, ScanBackward, Self>, (): ()) -> Result<(), Self::Error> {
        let parts = call.into_parts();
        let [_, len, channels] = parts.plan.report().shape;
        let mut args = parts.args;
        let (x, a, dy) = (args.x.0, args.a.0, args.dy.0);
        let h = args.saved.expect("planned").0;
        let of = |v: &Option<Slice<'_>>, i: usize| v.as_ref().map_or(1.0, |v| v.0[i]);
        let dx = args.dx.expect("asked for").0;
        let mut g = vec![0.0; x.len()];
        for i in (0..x.len()).rev() {
            let t = i / channels % len;
            let later = if t + 1 == len { 0.0 } else { a[i + channels] * g[i + channels] };
            g[i] = of(&args.c, i) * dy[i] + later;
            dx[i] = of(&args.b, i) * g[i];
            let past = if t == 0 { 0.0 } else { h[i - channels] };
            args.da.iter_mut().for_each(|da| da.0[i] = past * g[i]);
            args.db.iter_mut().for_each(|db| db.0[i] = x[i] * g[i]);
            args.dc.iter_mut().for_each(|dc| dc.0[i] = dy[i] * h[i]);
        }
        Ok(())
    }
}

impl Kernel<ScanStep> for Plain {
    type Detail = ();
    fn plan(&self, op: &ScanStep, _: &PlanOptions) -> Result<Plan<ScanStep, Self>, PlanError> {
        plan(op)
    }
    fn launch(&self, _: Bound<'_, '_, ScanStep, Self>, (): ()) -> Result<(), Self::Error> {
        unimplemented!("no benchmark steps")
    }
}

#[derive(Debug, Default)]
pub struct PlainHarness(pub Plain);

impl Harness for PlainHarness {
    type Backend = Plain;
    type Memory = Vec<f32>;

    fn backend(&self) -> &Plain {
        &self.0
    }
    fn device(&self) -> String {
        "one core".to_owned()
    }
    fn supports(&self, dtype: DType) -> bool {
        dtype == DType::F32
    }
    fn upload(&self, host: &HostTensor) -> Result<Vec<f32>, Failure> {
        match host {
            HostTensor::F32(v) => Ok(v.clone()),
            other => Err(PlanError::UnsupportedType { backend: Plain::NAME, dtype: other.dtype() }.into()),
        }
    }
    fn download(&self, memory: &Vec<f32>) -> Result<HostTensor, Failure> {
        Ok(HostTensor::F32(memory.clone()))
    }
    fn view<'a>(&self, memory: &'a Vec<f32>, range: Range<usize>) -> Slice<'a> {
        Slice(&memory[range])
    }
    fn view_mut<'a>(&self, memory: &'a mut Vec<f32>, range: Range<usize>) -> SliceMut<'a> {
        SliceMut(&mut memory[range])
    }
    fn submit<R>(&self, enqueue: impl FnOnce(()) -> R) -> R {
        enqueue(())
    }
    fn wait(&self) -> Result<(), Failure> {
        Ok(())
    }
}
