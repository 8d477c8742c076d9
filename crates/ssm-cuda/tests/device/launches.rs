//! Ways to a launch: the easy layer, raw pointers, several streams, a captured graph, several devices.

use std::sync::Arc;

use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut};
use half::f16;
use ssm_core::{
    Algorithm, BindError, Checkpoint, DType, ForwardArgs, GatedScan, Grads, Kernel, Operand, Plan,
    PlanOptions, RunError, ScanForward,
};
use ssm_cuda::{
    CudaBackend, CudaError, CudaMut, CudaRef, ForeignStream, Forward, Inputs, backward, forward, step,
};

use crate::{A, Outcome, X, Y, small};

pub(crate) fn the_easy_layer_computes() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let scan = GatedScan::builder(1, 3, 1).b(false).c(false).final_state(true).build()?;
    let inputs = Inputs { x: &X, a: &A, b: None, c: None, h0: None };
    let out: Forward<f32> = forward(&gpu, &scan, &inputs)?;
    assert_eq!((out.y.as_slice(), out.final_state.as_slice()), (&Y[..], &Y[2..]));
    // g = [1 + 0.5·1.5, 1 + 0.5·1, 1], da = h[t-1]·g.
    let op = scan.backward(Grads::all(&scan))?;
    let grads = backward(&gpu, &op, &inputs, &out.saved, &[1.0f32; 3], None)?;
    assert_eq!(grads.x, [1.75, 1.5, 1.0]);
    assert_eq!(grads.a, [0.0, 1.5, 2.5]);
    assert!(grads.b.is_empty() && grads.c.is_empty() && grads.h0.is_empty());
    let halves =
        GatedScan::builder(1, 3, 1).dtype(DType::F16).out_dtype(DType::F32).b(false).c(false).build()?;
    let (x, a) = (X.map(f16::from_f32), A.map(f16::from_f32));
    let out: Forward<f32> = forward(&gpu, &halves, &Inputs { x: &x, a: &a, b: None, c: None, h0: None })?;
    assert_eq!(out.y, Y);
    let short = forward::<f32, f32>(&gpu, &scan, &Inputs { x: &X[..2], ..inputs }).unwrap_err();
    assert_eq!(short.to_string(), "x has 2 elements, expected 3");
    Ok(())
}

pub(crate) fn a_step_continues_a_forward() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let op = GatedScan::builder(1, 1, 1).b(false).c(false).build()?.step()?;
    let mut state = [0.0];
    for t in 0..3 {
        let inputs = Inputs { x: &X[t..=t], a: &A[t..=t], b: None, c: None, h0: None };
        let y: Vec<f32> = step(&gpu, &op, &inputs, &mut state)?;
        assert_eq!((y[0], state[0]), (Y[t], Y[t]));
    }
    Ok(())
}

fn args<'a>(
    x: &'a CudaSlice<f32>,
    a: &'a CudaSlice<f32>,
    y: &'a mut CudaSlice<f32>,
    stream: &'a CudaStream,
) -> ForwardArgs<'a, CudaBackend> {
    ForwardArgs {
        x: CudaRef::from_slice(x, stream),
        a: CudaRef::from_slice(a, stream),
        b: None,
        c: None,
        h0: None,
        y: CudaMut::from_slice(y, stream),
        final_state: None,
        saved: None,
    }
}

pub(crate) fn raw_pointers_and_streams_do() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let plan: Plan<ScanForward, CudaBackend> = gpu.plan(&small()?.forward(), &PlanOptions::default())?;
    let stream = gpu.context().default_stream();
    let (x, a) = (stream.clone_htod(&X)?, stream.clone_htod(&A)?);
    // One element in, so that no wide access is possible.
    let mut y = stream.clone_htod(&[f32::NAN; 5])?;
    {
        let (x, _x) = x.device_ptr(&stream);
        let (a, _a) = a.device_ptr(&stream);
        let (y, _y) = y.device_ptr_mut(&stream);
        // SAFETY: three initialised elements each, filled on the stream that the launch goes to.
        let args = unsafe {
            ForwardArgs {
                x: CudaRef::from_raw(&gpu, x, 3, DType::F32),
                a: CudaRef::from_raw(&gpu, a, 3, DType::F32),
                b: None,
                c: None,
                h0: None,
                y: CudaMut::from_raw(&gpu, y + 4, 3, DType::F32),
                final_state: None,
                saved: None,
            }
        };
        // SAFETY: the stream is this context's and outlives the call.
        let queue = unsafe { ssm_cuda::CudaQueue::from_raw(stream.cu_stream()) };
        plan.run(&gpu, args, None, queue)?;
    }
    let got = stream.clone_dtoh(&y)?;
    assert!(got[0].is_nan() && got[4].is_nan() && got[1..4] == Y, "{got:?}");
    Ok(())
}

/// Written on one stream, scanned on a second, read on a third, with nothing but the views to order them.
pub(crate) fn streams_are_ordered_by_the_views() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let (rows, channels) = (1 << 14, 64);
    let scan =
        GatedScan::builder(1, rows, channels).b(false).c(false).checkpoint(Checkpoint::Nothing).build()?;
    let march = PlanOptions { algorithm: Some(Algorithm::March) };
    let plan: Plan<ScanForward, CudaBackend> = gpu.plan(&scan.forward(), &march)?;
    let streams: Vec<Arc<CudaStream>> =
        (0..3).map(|_| gpu.context().new_stream()).collect::<Result<_, _>>()?;
    for round in 0..4 {
        let ones = vec![1.0f32; rows * channels];
        let a = streams[0].clone_htod(&ones)?;
        let x = streams[0].clone_htod(&ones)?;
        let mut y = streams[2].clone_htod(&vec![f32::NAN; rows * channels])?;
        plan.run(&gpu, args(&x, &a, &mut y, &streams[1]), None, (&streams[1]).into())?;
        let got = streams[2].clone_dtoh(&y)?;
        assert_eq!(got[(rows - 1) * channels..], vec![rows as f32; channels], "round {round}");
    }
    Ok(())
}

pub(crate) fn a_foreign_stream_is_refused() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let plan: Plan<ScanForward, CudaBackend> = gpu.plan(&small()?.forward(), &PlanOptions::default())?;
    let (stream, other) = (gpu.context().new_stream()?, gpu.context().new_stream()?);
    let (x, a) = (stream.clone_htod(&X)?, stream.clone_htod(&A)?);
    let mut y = stream.clone_htod(&[f32::NAN; 3])?;
    let error = plan.run(&gpu, args(&x, &a, &mut y, &stream), None, (&other).into()).unwrap_err();
    let expected = ForeignStream::Operand(Operand::X);
    assert!(
        matches!(&error, RunError::Device(CudaError::ForeignStream(foreign)) if *foreign == expected),
        "{error}"
    );
    let mut short = stream.clone_htod(&[f32::NAN; 2])?;
    let error = plan.run(&gpu, args(&x, &a, &mut short, &stream), None, (&stream).into()).unwrap_err();
    let expected = BindError::Length { operand: Operand::Y, expected: 3, got: 2 };
    assert!(matches!(&error, RunError::Bind(bind) if *bind == expected), "{error}");
    assert!(stream.clone_dtoh(&y)?.iter().chain(&stream.clone_dtoh(&short)?).all(|v| v.is_nan()));
    Ok(())
}

pub(crate) fn a_captured_graph_replays() -> Outcome {
    // A context value of its own: event tracking is off in this one only.
    let context = CudaContext::new(0)?;
    // SAFETY: one stream does everything.
    unsafe { context.disable_event_tracking() };
    let gpu = CudaBackend::on(context)?;
    let cu = [0, 5, 5, 300, 700];
    let scan = GatedScan::builder(1, 800, 70)
        .b(false)
        .c(false)
        .checkpoint(Checkpoint::Nothing)
        .cu_seqlens(&cu)
        .build()?;
    let chunked = PlanOptions { algorithm: Some(Algorithm::Chunked) };
    let plan: Plan<ScanForward, CudaBackend> = gpu.plan(&scan.forward(), &chunked)?;
    let stream = gpu.context().new_stream()?;
    let n = 800 * 70;
    let (mut x, a) = (stream.clone_htod(&vec![0.0f32; n])?, stream.clone_htod(&vec![1.0f32; n])?);
    let mut y = stream.clone_htod(&vec![f32::NAN; n])?;
    let mut work = stream.clone_htod(&vec![f32::NAN; plan.report().workspace_bytes.div_ceil(4) as usize])?;
    stream.synchronize()?;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    plan.run(
        &gpu,
        args(&x, &a, &mut y, &stream),
        Some(CudaMut::from_slice(&mut work, &stream)),
        (&stream).into(),
    )?;
    let graph = stream
        .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)?
        .ok_or("nothing was captured")?;
    for value in [1.0f32, 2.0] {
        stream.memcpy_htod(&vec![value; n], &mut x)?;
        stream.memcpy_htod(&vec![f32::NAN; n], &mut y)?;
        graph.launch()?;
        let got = stream.clone_dtoh(&y)?;
        for (t, row) in got.chunks(70).enumerate() {
            let start = cu.iter().rev().find(|&&start| start <= t).copied().unwrap_or(0);
            let expected = if t < 700 { value * (t - start + 1) as f32 } else { 0.0 };
            assert!(row.iter().all(|&v| v == expected), "row {t}: {} against {expected}", row[0]);
        }
    }
    Ok(())
}

/// Two devices of one process work side by side, and neither takes the other's memory or stream.
pub(crate) fn devices_are_kept_apart() -> Outcome {
    let (first, second) = (CudaBackend::new(0)?, CudaBackend::new(1)?);
    let inputs = Inputs { x: &X, a: &A, b: None, c: None, h0: None };
    let scan = small()?;
    let run = &|gpu| forward::<f32, f32>(gpu, &scan, &inputs);
    std::thread::scope(|scope| -> Outcome {
        let workers = [&first, &second].map(|gpu| scope.spawn(move || run(gpu)));
        for worker in workers {
            assert_eq!(worker.join().map_err(|_| "a worker panicked")??.y, Y);
        }
        Ok(())
    })?;
    let (here, there) = (first.context().new_stream()?, second.context().new_stream()?);
    let plan: Plan<ScanForward, CudaBackend> = second.plan(&small()?.forward(), &PlanOptions::default())?;
    let (x, a) = (here.clone_htod(&X)?, there.clone_htod(&A)?);
    let mut y = there.clone_htod(&[f32::NAN; 3])?;
    let error = plan.run(&second, args(&x, &a, &mut y, &there), None, (&there).into()).unwrap_err();
    let foreign = matches!(&error, RunError::Bind(BindError::ForeignDevice { operand: Operand::X, .. }));
    assert!(foreign, "{error}");
    let x = there.clone_htod(&X)?;
    let error = plan.run(&second, args(&x, &a, &mut y, &there), None, (&here).into()).unwrap_err();
    let foreign = matches!(&error, RunError::Device(CudaError::ForeignStream(ForeignStream::Queue)));
    assert!(foreign, "{error}");
    assert!(there.clone_dtoh(&y)?.iter().all(|v| v.is_nan()));
    Ok(())
}
