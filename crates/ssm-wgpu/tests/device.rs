//! What only a device can show of the calls on slices and of errors. The kernels' results are the conformance suite's.
//! Without an adapter every trial shows as ignored, or fails under `SSM_REQUIRE=wgpu`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};
use ssm_core::{
    Algorithm, BackwardArgs, Checkpoint, DType, Element, ForwardArgs, GatedScan, Grads, Kernel, Plan,
    PlanOptions, ScanBackward, ScanForward,
};
use ssm_wgpu::{CallError, ScanInputs, ScanOutputs, WgpuBackend, WgpuError, WgpuMut, WgpuRef, wgpu};

type Check = fn(&WgpuBackend) -> Result<(), Failed>;

fn main() -> ExitCode {
    let checks: [(&str, Check); 13] = [
        ("wgpu::slices_forward_and_step_agree_with_the_loop", slices_agree_with_the_loop),
        ("wgpu::slices_backward_agrees_with_the_loop", slices_backward),
        ("wgpu::short_slice_is_an_error", short_slice),
        ("wgpu::foreign_buffer_is_an_error_and_leaves_the_encoder_usable", foreign_buffer),
        ("wgpu::buffer_past_the_limit_is_an_error", huge_buffer),
        ("wgpu::small_bindings_change_no_bit", small_bindings_change_no_bit),
        ("wgpu::subgroups_change_no_bit", subgroups_change_no_bit),
        ("wgpu::spans_side_by_side_change_no_bit", spans_change_no_bit),
        ("wgpu::the_devices_own_rounding_to_halves_changes_no_bit", half_packing_changes_no_bit),
        ("wgpu::lost_device_of_our_own_is_an_error_at_every_call", lost_own_device),
        ("wgpu::lost_device_of_the_caller_is_an_error_of_the_call", lost_device_of_the_caller),
        ("wgpu::handlers_on_the_callers_device_stay", handlers_stay),
        ("wgpu::async_calls_do_not_block", async_calls_do_not_block),
    ];
    let required =
        std::env::var("SSM_REQUIRE").is_ok_and(|list| list.split(',').any(|name| name.trim() == "wgpu"));
    let backend = WgpuBackend::new().map(Arc::new);
    let trials = checks.into_iter().map(|(name, check)| match &backend {
        Ok(backend) => {
            let backend = backend.clone();
            Trial::test(name, move || check(&backend))
        }
        Err(error) => {
            let error = error.to_string();
            Trial::test(name, move || Err(Failed::from(error))).with_ignored_flag(!required)
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// x, a in (0, 1), b: (2, 37, 3) elements that are no multiples of each other.
fn operands() -> [Vec<f32>; 3] {
    let draw = |k: usize| (0..2 * 37 * 3).map(|i| ((i * k) % 101) as f32 / 102.0 + 0.004).collect();
    [draw(17), draw(31), draw(43)]
}

/// h after every step, from zero, in f64.
fn states([x, a, b]: &[Vec<f32>; 3]) -> Vec<f64> {
    let mut h = vec![0.0; x.len()];
    for i in 0..x.len() {
        let before = if i % (37 * 3) < 3 { 0.0 } else { h[i - 3] };
        h[i] = f64::from(a[i]) * before + f64::from(b[i]) * f64::from(x[i]);
    }
    h
}

fn near(what: &str, got: &[f32], expected: &[f64]) -> Result<(), Failed> {
    if got.len() != expected.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), expected.len()).into());
    }
    // A NaN is not near.
    let close = |g: f32, e: f64| (f64::from(g) - e).abs() <= 1e-5 * e.abs().max(1.0);
    match got.iter().zip(expected).position(|(g, e)| !close(*g, *e)) {
        Some(i) => Err(format!("{what} at {i}: {}, expected {}", got[i], expected[i]).into()),
        None => Ok(()),
    }
}

fn slices_agree_with_the_loop(gpu: &WgpuBackend) -> Result<(), Failed> {
    let drawn = operands();
    let h = states(&drawn);
    let [x, a, b] = &drawn;
    let scan = GatedScan::builder(2, 37, 3).c(false).final_state(true).build()?;
    let inputs = ScanInputs { x, a, b: Some(b), c: None, h0: None };
    let out: ScanOutputs<f32> = gpu.forward(&scan, &inputs)?;
    near("y", &out.y, &h)?;
    let ends: Vec<f64> = [36, 73].iter().flat_map(|row| h[row * 3..row * 3 + 3].to_vec()).collect();
    near("hT", &out.final_state.ok_or("no hT")?, &ends)?;
    let step = GatedScan::builder(2, 37, 3).c(false).build()?;
    let mut state = vec![0.0; 6];
    let y: Vec<f32> = gpu.step(&step, &inputs, &mut state)?;
    near("y of the step", &y, &h)?;
    near("state", &state, &ends)
}

fn slices_backward(gpu: &WgpuBackend) -> Result<(), Failed> {
    let drawn = operands();
    let h = states(&drawn);
    let [x, a, b] = &drawn;
    let scan = GatedScan::builder(2, 37, 3).c(false).build()?;
    let inputs = ScanInputs { x, a, b: Some(b), c: None, h0: None };
    let dy = vec![1.0_f32; x.len()];
    let grads = gpu.backward(&scan, &inputs, &dy, None, Grads::all(&scan))?;
    let (mut g, mut da) = (vec![0.0; h.len()], vec![0.0; h.len()]);
    for i in (0..h.len()).rev() {
        let last = i % (37 * 3) >= 36 * 3;
        g[i] = 1.0 + if last { 0.0 } else { f64::from(a[i + 3]) * g[i + 3] };
        da[i] = if i % (37 * 3) < 3 { 0.0 } else { h[i - 3] * g[i] };
    }
    let times = |v: &[f32]| v.iter().zip(&g).map(|(v, g)| f64::from(*v) * g).collect::<Vec<_>>();
    near("dx", &grads.dx.ok_or("no dx")?, &times(b))?;
    near("db", &grads.db.ok_or("no db")?, &times(x))?;
    near("da", &grads.da.ok_or("no da")?, &da)
}

fn short_slice(gpu: &WgpuBackend) -> Result<(), Failed> {
    let scan = GatedScan::builder(1, 4, 3).b(false).c(false).build()?;
    let inputs = ScanInputs { x: &[0.5_f32; 11], a: &[0.5; 12], b: None, c: None, h0: None };
    match gpu.forward::<f32, f32>(&scan, &inputs) {
        Err(CallError::Bind(_)) => Ok(()),
        other => Err(format!("expected a bind error, got {other:?}").into()),
    }
}

/// Two devices of one instance, the caller's own.
fn two_devices() -> Result<[WgpuBackend; 2], Failed> {
    fn ready<T>(future: impl Future<Output = T>) -> Result<T, Failed> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Ok(output),
            std::task::Poll::Pending => Err("the adapter did not answer at once".into()),
        }
    }
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    let adapter = ready(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))??;
    let device = || -> Result<WgpuBackend, Failed> {
        let (device, queue) = ready(adapter.request_device(&wgpu::DeviceDescriptor::default()))??;
        Ok(WgpuBackend::from_device(device, queue))
    };
    Ok([device()?, device()?])
}

fn foreign_buffer(_: &WgpuBackend) -> Result<(), Failed> {
    let [gpu, other] = two_devices()?;
    let plan: Plan<ScanForward, WgpuBackend> =
        gpu.plan(&GatedScan::builder(1, 4, 3).b(false).c(false).build()?.forward(), &PlanOptions::default())?;
    let (x, a, y) = (other.buffer(48)?, gpu.buffer(48)?, gpu.buffer(48)?);
    let saved = gpu.buffer(plan.report().saved_bytes())?;
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let args = ForwardArgs {
        x: WgpuRef::new(&x, 0, 12, DType::F32),
        a: WgpuRef::new(&a, 0, 12, DType::F32),
        b: None,
        c: None,
        h0: None,
        y: WgpuMut::new(&y, 0, 12, DType::F32),
        final_state: None,
        saved: Some(WgpuMut::new(&saved, 0, plan.report().saved, DType::F32)),
    };
    match plan.run(&gpu, args, None, &mut encoder) {
        Err(ssm_core::RunError::Device(WgpuError::Validation { .. })) => {}
        other => return Err(format!("expected a validation error, got {other:?}").into()),
    }
    gpu.queue().submit([encoder.finish()]);
    Ok(gpu.check()?)
}

/// Slabs of few steps: marches and folds pause inside groups and spans, and states are saved at every step.
fn small_bindings_change_no_bit(gpu: &WgpuBackend) -> Result<(), Failed> {
    // One row of 300 channels fits; of 3 channels two groups, and the aggregates of most.
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 2048, ..wgpu::Limits::default() };
    let small = WgpuBackend::with_limits(limits)?;
    for (len, channels) in [(150, 300), (3000, 3)] {
        for cu in [vec![0, len, 2 * len], vec![0, 7, 7, len + 65, 2 * len - 3]] {
            let scan =
                GatedScan::builder(1, 2 * len, channels).c(false).initial_state(true).final_state(true);
            let scan = scan.cu_seqlens(&cu).build()?;
            let draw = |k: usize, n: usize| -> Vec<f32> {
                (0..n).map(|i| (i * k % 1009) as f32 / 1010.0 + 0.0004).collect()
            };
            let (n, states) = (scan.elements() as usize, scan.state_elements() as usize);
            let (x, b, dy, h0) = (draw(17, n), draw(31, n), draw(43, n), draw(3, states));
            let a: Vec<f32> = draw(29, n).iter().map(|v| 1.0 - 0.01 * v).collect();
            let inputs = ScanInputs { x: &x, a: &a, b: Some(&b), c: None, h0: Some(&h0) };
            let forward = |gpu: &WgpuBackend| gpu.forward::<f32, f32>(&scan, &inputs);
            let backward =
                |gpu: &WgpuBackend| gpu.backward(&scan, &inputs, &dy, Some(&h0), Grads::all(&scan));
            if forward(gpu)? != forward(&small)? || backward(gpu)? != backward(&small)? {
                return Err(format!("other bits in small bindings: {len} by {channels}, {cu:?}").into());
            }
        }
    }
    Ok(())
}

/// Rows that share words and rows that do not, longer and shorter than a subgroup: what neighbours write for each other
/// is what each would have written.
fn subgroups_change_no_bit(gpu: &WgpuBackend) -> Result<(), Failed> {
    // A device without subgroups runs the other path throughout, and has nothing to compare.
    if gpu.uses_subgroups() != gpu.device().features().contains(wgpu::Features::SUBGROUP) {
        return Err("the device has subgroups, and they are not used".into());
    }
    let odd = [(3, 70, 5, false), (2, 200, 77, true), (1, 130, 333, false)];
    let even = [(3, 50, 6, true), (2, 60, 78, false), (1, 130, 130, false)];
    let shapes = [odd, even].concat();
    // Spans side by side need no subgroups.
    let gpu = gpu.clone().without_spans();
    same_in_halves(&gpu, &gpu.clone().without_subgroups(), &shapes)
}

/// Rows that end inside a workgroup and after it, spans that end inside a round and groups of several rounds, marches
/// and chunks, on a device that may use the kernels of GPUs.
fn spans_change_no_bit(gpu: &WgpuBackend) -> Result<(), Failed> {
    let shapes = [
        (3, 50, 6, true),
        (2, 300, 78, false),
        (1, 130, 130, false),
        (1, 523, 2, true),
        (1, 16_500, 2, false),
    ];
    let gpu = gpu.clone().with_gpu_kernels();
    let alone = gpu.clone().without_spans();
    same_in_halves(&gpu, &alone, &shapes)?;
    // Marches where a device would split time, in full workgroups and not.
    let marches = [
        (2, 1030, 16),
        (3, 64, 32),
        (1, 16_448, 32),
        (2, 200, 16),
        (5, 70, 10),
        (2, 1030, 32),
        (4, 64, 48),
        (1, 16_448, 64),
    ];
    for (batch, len, channels) in marches {
        for (dtype, bits) in [(DType::Bf16, 0x3c00..0x3f80), (DType::F16, 0x2000..0x3c00)] {
            if !gpu.supports(dtype) {
                continue;
            }
            let scan = GatedScan::builder(batch, len, channels).dtype(dtype);
            let scan = scan.checkpoint(Checkpoint::Nothing).build()?;
            if marched(&gpu, &scan, bits.clone())? != marched(&alone, &scan, bits)? {
                return Err(format!("other bits of a march: {batch}, {len}, {channels}, {dtype}").into());
            }
        }
    }
    Ok(())
}

/// The words of all gradients of a march over elements whose bits are in some range.
fn marched(gpu: &WgpuBackend, scan: &GatedScan, bits: std::ops::Range<u32>) -> Result<Vec<u32>, Failed> {
    let options = PlanOptions { algorithm: Some(Algorithm::March) };
    let plan: Plan<ScanBackward, WgpuBackend> = gpu.plan(&scan.backward(Grads::all(scan))?, &options)?;
    let (elements, dtype) = (scan.elements(), scan.dtype());
    let element = |i: u64, k: u64| bits.start + (i * k % 1009) as u32 % (bits.end - bits.start);
    let drawn = [17, 29, 31, 37, 43].map(|k| {
        let buffer = gpu.buffer(elements * 2)?;
        let words = (0..elements / 2).map(|i| element(2 * i, k) | element(2 * i + 1, k) << 16);
        let bytes: Vec<u8> = words.flat_map(u32::to_le_bytes).collect();
        gpu.queue().write_buffer(&buffer, 0, &bytes);
        Ok::<_, WgpuError>(buffer)
    });
    let [x, a, b, c, dy] = drawn;
    let (x, a, b, c, dy) = (x?, a?, b?, c?, dy?);
    let size = plan.report().workspace_bytes;
    let (work, grads) = (gpu.buffer(size)?, [(); 4].map(|()| gpu.buffer(elements * 2)));
    let [dx, da, db, dc] = grads;
    let (dx, da, db, dc) = (dx?, da?, db?, dc?);
    let (input, output) = (
        |buffer| WgpuRef::new(buffer, 0, elements, dtype),
        |buffer| Some(WgpuMut::new(buffer, 0, elements, dtype)),
    );
    let args = BackwardArgs {
        x: input(&x),
        a: input(&a),
        b: Some(input(&b)),
        c: Some(input(&c)),
        h0: None,
        saved: None,
        dy: input(&dy),
        d_final_state: None,
        dx: output(&dx),
        da: output(&da),
        db: output(&db),
        dc: output(&dc),
        dh0: None,
    };
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    plan.run(gpu, args, Some(WgpuMut::new(&work, 0, size / 4, DType::F32)), &mut encoder)?;
    gpu.queue().submit([encoder.finish()]);
    let mut words = Vec::new();
    for buffer in [&dx, &da, &db, &dc] {
        words.extend(gpu.read_blocking::<f32>(buffer, 0, elements / 2)?.into_iter().map(f32::to_bits));
    }
    Ok(words)
}

/// The device was asked over all that f16 tells apart; here in the kernels, in every form.
fn half_packing_changes_no_bit(gpu: &WgpuBackend) -> Result<(), Failed> {
    println!("the device rounds to halves: {}", gpu.uses_half_packing());
    if !gpu.supports(DType::F16) {
        return Ok(());
    }
    let shapes = [(3, 70, 5, false), (2, 130, 78, true), (1, 130, 130, false)];
    for gpu in [gpu.clone(), gpu.clone().with_gpu_kernels(), gpu.clone().without_subgroups()] {
        same_of::<half::f16>(&gpu, &gpu.clone().without_half_packing(), &shapes)?;
    }
    Ok(())
}

type Shape = (usize, usize, usize, bool);

fn same_in_halves(gpu: &WgpuBackend, other: &WgpuBackend, shapes: &[Shape]) -> Result<(), Failed> {
    same_of::<half::bf16>(gpu, other, shapes)?;
    if gpu.supports(DType::F16) { same_of::<half::f16>(gpu, other, shapes) } else { Ok(()) }
}

/// Batch, steps, channels and direction; of one sequence, packed ones in its place.
fn same_of<E: Element + PartialEq>(
    gpu: &WgpuBackend,
    other: &WgpuBackend,
    shapes: &[Shape],
) -> Result<(), Failed> {
    for &(batch, len, channels, reverse) in shapes {
        let scan = GatedScan::builder(batch, len, channels).dtype(E::DTYPE).reverse(reverse);
        let scan = scan.initial_state(true).final_state(true);
        let scan = if batch == 1 { scan.cu_seqlens(&[0, 9, 9, 71, len - 2]) } else { scan }.build()?;
        let draw = |k: usize| -> Vec<E> {
            let value = |i| E::from_f64((i * k % 1009) as f64 / 1010.0 + 0.0004);
            (0..scan.elements() as usize).map(value).collect()
        };
        let (x, a, b, c, dy) = (draw(17), draw(29), draw(31), draw(37), draw(43));
        let h0: Vec<f32> = (0..scan.state_elements()).map(|i| (i % 7) as f32 - 3.2).collect();
        let inputs = ScanInputs { x: &x, a: &a, b: Some(&b), c: Some(&c), h0: Some(&h0) };
        let forward = |gpu: &WgpuBackend| gpu.forward::<E, E>(&scan, &inputs);
        let backward = |gpu: &WgpuBackend| gpu.backward(&scan, &inputs, &dy, Some(&h0), Grads::all(&scan));
        if forward(gpu)? != forward(other)? || backward(gpu)? != backward(other)? {
            return Err(format!("other bits: {batch}, {len}, {channels}, {}", E::DTYPE).into());
        }
    }
    Ok(())
}

fn tiny() -> Result<GatedScan, Failed> {
    Ok(GatedScan::builder(1, 4, 3).b(false).c(false).build()?)
}

const TINY: ScanInputs<'static, f32> =
    ScanInputs { x: &[0.5; 12], a: &[0.5; 12], b: None, c: None, h0: None };

fn lost_own_device(_: &WgpuBackend) -> Result<(), Failed> {
    let gpu = WgpuBackend::new()?;
    gpu.forward::<f32, f32>(&tiny()?, &TINY)?;
    gpu.device().destroy();
    // The callback comes with a poll.
    let _ = gpu.device().poll(wgpu::PollType::wait_indefinitely());
    for _ in 0..2 {
        match gpu.forward::<f32, f32>(&tiny()?, &TINY) {
            Err(CallError::Device(WgpuError::DeviceLost { .. })) => {}
            other => return Err(format!("expected a lost device, got {other:?}").into()),
        }
    }
    match gpu.check() {
        Err(WgpuError::DeviceLost { .. }) => Ok(()),
        other => Err(format!("expected a lost device, got {other:?}").into()),
    }
}

fn lost_device_of_the_caller(_: &WgpuBackend) -> Result<(), Failed> {
    let [gpu, _] = two_devices()?;
    gpu.forward::<f32, f32>(&tiny()?, &TINY)?;
    gpu.device().destroy();
    match gpu.forward::<f32, f32>(&tiny()?, &TINY) {
        Err(CallError::Device(_)) => Ok(()),
        other => Err(format!("expected a device error, got {other:?}").into()),
    }
}

fn handlers_stay(_: &WgpuBackend) -> Result<(), Failed> {
    let [gpu, _] = two_devices()?;
    let (errors, losses) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (seen, lost) = (errors.clone(), losses.clone());
    gpu.device().on_uncaptured_error(Arc::new(move |_| _ = seen.fetch_add(1, Ordering::SeqCst)));
    gpu.device().set_device_lost_callback(move |_, _| _ = lost.fetch_add(1, Ordering::SeqCst));
    let gpu = WgpuBackend::from_device(gpu.device().clone(), gpu.queue().clone());
    gpu.forward::<f32, f32>(&tiny()?, &TINY)?;
    // A mistake of the caller's own, outside every scope of ours.
    let descriptor = wgpu::BufferDescriptor {
        label: None,
        size: gpu.device().limits().max_buffer_size + 4,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    };
    let _ = gpu.device().create_buffer(&descriptor);
    gpu.device().destroy();
    let _ = gpu.device().poll(wgpu::PollType::wait_indefinitely());
    match (errors.load(Ordering::SeqCst), losses.load(Ordering::SeqCst)) {
        (1, 1) => Ok(()),
        seen => {
            Err(format!("the caller's handlers saw {seen:?} errors and losses, expected one each").into())
        }
    }
}

/// A first poll returns before the device can have answered, and a wake-up follows.
fn async_calls_do_not_block(gpu: &WgpuBackend) -> Result<(), Failed> {
    struct Wake(std::sync::mpsc::Sender<()>);
    impl std::task::Wake for Wake {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let (sender, woken) = std::sync::mpsc::channel();
    let waker = std::task::Waker::from(Arc::new(Wake(sender)));
    let mut context = std::task::Context::from_waker(&waker);
    let (shape, scan) = (1 << 20, GatedScan::builder(1, 1 << 14, 64).b(false).c(false).build()?);
    let (x, a) = (vec![1.0_f32; shape], vec![0.5_f32; shape]);
    let inputs = ScanInputs { x: &x, a: &a, b: None, c: None, h0: None };
    let mut call = std::pin::pin!(gpu.forward_async::<f32, f32>(&scan, &inputs));
    let mut waits = 0;
    loop {
        match call.as_mut().poll(&mut context) {
            std::task::Poll::Ready(out) if waits > 0 => return near("y", &out?.y[shape - 1..], &[2.0]),
            std::task::Poll::Ready(_) => return Err("the first poll waited for the device".into()),
            std::task::Poll::Pending => waits += 1,
        }
        woken.recv_timeout(std::time::Duration::from_secs(60))?;
    }
}

fn huge_buffer(gpu: &WgpuBackend) -> Result<(), Failed> {
    match gpu.buffer(u64::MAX) {
        Err(WgpuError::BufferTooLarge { .. }) => Ok(()),
        other => Err(format!("expected an error, got {other:?}").into()),
    }
}
