//! The device's errors. What a process does not survive on the device is done by a process of its own, which has to end
//! well: an error, never a panic or a signal.

use cudarc::driver::sys;
use ssm_core::{Checkpoint, DType, ForwardArgs, GatedScan, Kernel, Plan, PlanOptions, RunError, ScanForward};
use ssm_cuda::{CudaBackend, CudaError, CudaMut, CudaRef, Error, Inputs, forward};

use crate::{A, Failure, Outcome, X, Y, small, told};

const INPUTS: Inputs<'static, f32> = Inputs { x: &X, a: &A, b: None, c: None, h0: None };

pub(crate) fn memory_that_is_not_there_is_an_error() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let stream = gpu.context().new_stream()?;
    // SAFETY: never read; there is no such memory.
    let error = unsafe { stream.alloc::<u8>(1 << 46) }.unwrap_err();
    assert!(matches!(CudaError::from(error), CudaError::OutOfMemory));
    // y alone would take 16 TiB.
    let huge = GatedScan::builder(1, 1 << 30, 1 << 12).b(false).c(false);
    let huge = huge.checkpoint(Checkpoint::Nothing).build()?;
    let error = forward::<f32, f32>(&gpu, &huge, &INPUTS).unwrap_err();
    assert!(matches!(error, Error::Device(CudaError::OutOfMemory)), "{error}");
    // The device is as good as before.
    assert_eq!(forward::<f32, f32>(&gpu, &small()?, &INPUTS)?.y, Y);
    Ok(())
}

/// What of `error` a caller can match on.
fn kind(error: &CudaError) -> &'static str {
    match error {
        CudaError::NoDriver(_) => "NoDriver",
        CudaError::NoDevice { .. } => "NoDevice",
        CudaError::DriverTooOld { .. } => "DriverTooOld",
        CudaError::DeviceTooOld { .. } => "DeviceTooOld",
        CudaError::OutOfMemory => "OutOfMemory",
        CudaError::ContextLost { .. } => "ContextLost",
        CudaError::ForeignStream(_) => "ForeignStream",
        _ => "Driver",
    }
}

/// Says how a call on slices fares.
fn say_what_works(gpu: &CudaBackend) -> Outcome {
    match forward::<f32, f32>(gpu, &small()?, &INPUTS) {
        Ok(out) => println!("then: {}", if out.y == Y { "fine" } else { "wrong" }),
        Err(Error::Device(error) | Error::Run(RunError::Device(error))) => {
            println!("then: {}: {error}", kind(&error))
        }
        Err(error) => println!("then: {error}"),
    }
    Ok(())
}

/// The role `open`, and what the others end with.
pub(crate) fn open() -> Outcome {
    match CudaBackend::new(0) {
        Ok(gpu) => say_what_works(&gpu)?,
        Err(error) => println!("{}: {error}", kind(&error)),
    }
    Ok(())
}

/// Whether each line of a role begins so.
fn as_expected(text: &str, starts: &[&str]) -> Outcome {
    let begins = text.lines().zip(starts).all(|(line, start)| line.starts_with(start));
    if begins && text.lines().count() == starts.len() { Ok(()) } else { Err(text.into()) }
}

/// The role `fault`: a launch on an address where nothing is.
pub(crate) fn fault() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let stream = gpu.context().new_stream()?;
    let plan: Plan<ScanForward, CudaBackend> = gpu.plan(&small()?.forward(), &PlanOptions::default())?;
    // Past every address that a device can have.
    let nowhere = 1 << 60;
    // SAFETY: none: this is what breaking the promise does, and the process is there to be lost.
    let args = unsafe {
        ForwardArgs {
            x: CudaRef::from_raw(&gpu, nowhere, 3, DType::F32),
            a: CudaRef::from_raw(&gpu, nowhere + 64, 3, DType::F32),
            b: None,
            c: None,
            h0: None,
            y: CudaMut::from_raw(&gpu, nowhere + 128, 3, DType::F32),
            final_state: None,
            saved: None,
        }
    };
    plan.run(&gpu, args, None, (&stream).into())?;
    let error = stream.synchronize().map_err(CudaError::from).err().ok_or("the fault went unnoticed")?;
    println!("fault: {}: {error}", kind(&error));
    say_what_works(&gpu)?;
    open()
}

pub(crate) fn a_faulty_address_loses_the_context() -> Outcome {
    as_expected(&told("fault", &[])?, &["fault: ContextLost", "then: ContextLost", "ContextLost"])
}

/// The role `reset`: someone else in the process resets the device under a backend that has work and memory on it.
pub(crate) fn reset() -> Outcome {
    let gpu = CudaBackend::new(0)?;
    let stream = gpu.context().new_stream()?;
    let memory = stream.clone_htod(&X)?;
    assert_eq!(forward::<f32, f32>(&gpu, &small()?, &INPUTS)?.y, Y);
    // SAFETY: the driver's contract allows it at any time; what becomes of our handles is what is tested.
    unsafe { sys::cuDevicePrimaryCtxReset_v2(0) }.result()?;
    say_what_works(&gpu)?;
    // The driver may crash on handles that died with their context, and cudarc's slices and streams hold some: whoever
    // resets a device has to forget them.
    std::mem::forget((memory, stream));
    drop(gpu);
    open()
}

pub(crate) fn a_destroyed_context_is_an_error() -> Outcome {
    as_expected(&told("reset", &[])?, &["then: ContextLost", "then: fine"])
}

pub(crate) fn what_is_missing_has_its_own_error() -> Outcome {
    let cases = [
        ("SCAN_DRIVER_DEVICES", "0", "NoDevice: no CUDA device 0: the driver sees 0"),
        ("SCAN_DRIVER_VERSION", "11010", "DriverTooOld: the driver speaks CUDA 11.1, the kernels need 11.2"),
        (
            "SCAN_DRIVER_CAPABILITY",
            "70",
            "DeviceTooOld: the device has compute capability 7.0, the kernels need 7.5",
        ),
        ("LD_LIBRARY_PATH", "/nowhere", "NoDriver: no NVIDIA driver: libcuda cannot be loaded"),
        ("SCAN_DRIVER_CAPABILITY", "90", "then: fine"),
    ];
    for (name, value, expected) in cases {
        let text = told("open", &[(name, value)])?;
        if text.trim_end() != expected {
            return Err(Failure::from(format!("{name}={value}: {text}")));
        }
    }
    Ok(())
}
