//! The same bits from run to run: alone, beside another process on the same device, and from a captured graph.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream};
use half::bf16;
use ssm_core::{
    Algorithm, BackwardArgs, ForwardArgs, GatedScan, Grads, Kernel, Plan, PlanOptions, ScanBackward,
    ScanForward,
};
use ssm_cuda::{CudaBackend, CudaElement, CudaMut, CudaRef};

use crate::{Failure, Outcome, is_emulated, start};

/// Forward and backward of one problem on tensors that stay on the device.
struct Training<E> {
    gpu: CudaBackend,
    stream: Arc<CudaStream>,
    forward: Plan<ScanForward, CudaBackend>,
    backward: Plan<ScanBackward, CudaBackend>,
    /// x, a, b, c and dy.
    inputs: [CudaSlice<E>; 5],
    /// y, dx, da, db and dc.
    outputs: [CudaSlice<E>; 5],
    saved: CudaSlice<f32>,
    workspace: CudaSlice<f32>,
}

/// One of 2¹⁶ values, by a multiplicative hash: from 0 to 1.
fn value(index: usize, seed: u32) -> f32 {
    let hash = (index as u32 ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b9);
    (hash >> 16) as f32 / 65_536.0
}

fn draw<E: CudaElement>(tensor: usize, elements: usize, seed: u32) -> Vec<E> {
    let seed = seed * 8 + tensor as u32;
    // Gates remember for some hundred steps.
    let shape = |v: f32| if tensor == 1 { 0.99 + 0.01 * v } else { 2.0 * v - 1.0 };
    (0..elements).map(|i| E::from_f64(shape(value(i, seed)).into())).collect()
}

impl<E: CudaElement + PartialEq> Training<E> {
    fn new([batch, len, channels]: [usize; 3], algorithm: Algorithm) -> Result<Self, Failure> {
        // A context value of its own: event tracking is off in this one only.
        let context = CudaContext::new(0)?;
        // SAFETY: one stream does everything.
        unsafe { context.disable_event_tracking() };
        let gpu = CudaBackend::on(context)?;
        let stream = gpu.context().new_stream()?;
        let scan = GatedScan::builder(batch, len, channels).dtype(E::DTYPE).out_dtype(E::DTYPE).build()?;
        let options = PlanOptions { algorithm: Some(algorithm) };
        let forward: Plan<ScanForward, CudaBackend> = gpu.plan(&scan.forward(), &options)?;
        let backward: Plan<ScanBackward, CudaBackend> =
            gpu.plan(&scan.backward(Grads::all(&scan))?, &options)?;
        let elements = batch * len * channels;
        let upload = |tensor| stream.clone_htod(&draw(tensor, elements, 0));
        let inputs = [upload(0)?, upload(1)?, upload(2)?, upload(3)?, upload(4)?];
        let room = || stream.clone_htod(&vec![E::from_f64(f64::NAN); elements]);
        let outputs = [room()?, room()?, room()?, room()?, room()?];
        let saved = stream.clone_htod(&vec![f32::NAN; forward.report().saved as usize])?;
        let bytes = forward.report().workspace_bytes.max(backward.report().workspace_bytes);
        let workspace = stream.clone_htod(&vec![f32::NAN; bytes.div_ceil(4).max(1) as usize])?;
        stream.synchronize()?;
        Ok(Self { gpu, stream, forward, backward, inputs, outputs, saved, workspace })
    }

    fn launch(&mut self) -> Outcome {
        let Self { gpu, stream, forward, backward, inputs, outputs, saved, workspace } = self;
        let [x, a, b, c, dy] = inputs.each_ref();
        let [y, dx, da, db, dc] = outputs.each_mut();
        let read = |slice| CudaRef::from_slice(slice, stream);
        let args = ForwardArgs {
            x: read(x),
            a: read(a),
            b: Some(read(b)),
            c: Some(read(c)),
            h0: None,
            y: CudaMut::from_slice(y, stream),
            final_state: None,
            saved: Some(CudaMut::from_slice(saved, stream)),
        };
        let queue = || (&*stream).into();
        forward.run(gpu, args, Some(CudaMut::from_slice(workspace, stream)), queue())?;
        let args = BackwardArgs {
            x: read(x),
            a: read(a),
            b: Some(read(b)),
            c: Some(read(c)),
            h0: None,
            saved: Some(CudaRef::from_slice(saved, stream)),
            dy: read(dy),
            d_final_state: None,
            dx: Some(CudaMut::from_slice(dx, stream)),
            da: Some(CudaMut::from_slice(da, stream)),
            db: Some(CudaMut::from_slice(db, stream)),
            dc: Some(CudaMut::from_slice(dc, stream)),
            dh0: None,
        };
        backward.run(gpu, args, Some(CudaMut::from_slice(workspace, stream)), queue())?;
        Ok(())
    }

    /// The bits of every output, after everything enqueued so far.
    fn bits(&self) -> Result<Vec<Vec<E>>, Failure> {
        self.outputs.iter().map(|output| Ok(self.stream.clone_dtoh(output)?)).collect()
    }

    fn redraw(&mut self, seed: u32) -> Outcome {
        for (tensor, slice) in self.inputs.iter_mut().enumerate() {
            self.stream.memcpy_htod(&draw(tensor, slice.len(), seed), slice)?;
        }
        Ok(())
    }

    /// The outputs as they were before anything ran.
    fn poison(&mut self) -> Outcome {
        for slice in &mut self.outputs {
            self.stream.memcpy_htod(&vec![E::from_f64(f64::NAN); slice.len()], slice)?;
        }
        Ok(())
    }

    fn run_again(&mut self, times: usize) -> Outcome {
        self.launch()?;
        let first = self.bits()?;
        assert!(first.iter().flatten().all(|v| !v.to_f64().is_nan()), "an output holds NaN");
        for run in 1..times {
            self.poison()?;
            self.launch()?;
            assert!(self.bits()? == first, "run {run} of {} differs", self.forward.report());
        }
        Ok(())
    }
}

/// Many columns for march; one row whose time many blocks share for chunked. They grow with the device.
fn shapes(gpu: &CudaBackend) -> [([usize; 3], Algorithm); 2] {
    let multiprocessors = gpu.limits().multiprocessors as usize;
    [
        ([2, 700, 16 * multiprocessors], Algorithm::March),
        ([1, 64 * multiprocessors + 3, 200], Algorithm::Chunked),
    ]
}

fn hundred(gpu: &CudaBackend) -> usize {
    // An emulated device does everything in the same order each time.
    if is_emulated(gpu) { 2 } else { 100 }
}

pub(crate) fn every_run_gives_the_same_bits() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    for (shape, algorithm) in shapes(&gpu) {
        Training::<f32>::new(shape, algorithm)?.run_again(hundred(&gpu))?;
        Training::<bf16>::new(shape, algorithm)?.run_again(hundred(&gpu))?;
    }
    Ok(())
}

/// The role `load`: keeps the device busy until its standard input ends.
pub(crate) fn load() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let mut work = shapes(&gpu)
        .map(|(shape, algorithm)| Training::<f32>::new(shape, algorithm))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        let _ = stop.send(());
    });
    println!("busy");
    let mut rounds = 0u64;
    while stopped.try_recv().is_err() {
        for training in &mut work {
            training.launch()?;
            training.stream.synchronize()?;
        }
        rounds += 1;
    }
    println!("{rounds} rounds");
    Ok(())
}

pub(crate) fn so_it_does_beside_another_process() -> Outcome {
    let mut other = start("load", &[])?;
    let mut lines = BufReader::new(other.stdout.take().ok_or("no output")?).lines();
    let busy = lines.next().transpose()?;
    assert_eq!(busy.as_deref(), Some("busy"));
    let outcome = every_run_gives_the_same_bits();
    drop(other.stdin.take());
    let rounds = lines.next().transpose()?.unwrap_or_default();
    let status = other.wait()?;
    assert!(status.success() && rounds.ends_with(" rounds"), "the other process: {status}, {rounds}");
    outcome
}

pub(crate) fn a_captured_training_pass_replays() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    for (shape, algorithm) in shapes(&gpu) {
        let mut training = Training::<bf16>::new(shape, algorithm)?;
        let stream = training.stream.clone();
        stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
        training.launch()?;
        let graph = stream
            .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)?
            .ok_or("nothing was captured")?;
        for seed in 1..4 {
            training.redraw(seed)?;
            training.launch()?;
            let expected = training.bits()?;
            training.poison()?;
            graph.launch()?;
            assert!(training.bits()? == expected, "a replay differs from a launch");
        }
    }
    Ok(())
}
