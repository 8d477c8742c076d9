//! Opening a device: every way in which it can be missing is its own error.
//!
//! cudarc panics where libcuda is absent, so the library is opened here first, and nothing of cudarc is called before
//! that has succeeded.

use std::sync::Arc;

use cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use cudarc::driver::{CudaContext, DriverError, result, sys};
use ssm_core::{Backend, BindError, Operand, View};

use crate::kernels::{Kernels, Target};
use crate::{CudaError, CudaMut, CudaQueue, CudaRef};

/// One device with its kernels loaded. Cheap to share by reference; `Send` and `Sync`. A process may hold several.
#[derive(Debug)]
pub struct CudaBackend {
    context: Arc<CudaContext>,
    limits: DeviceLimits,
    kernels: Kernels,
}

/// What a plan needs to know of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that one multiprocessor has.
    pub shared_per_multiprocessor: u32,
    /// Bytes of shared memory that one block may ask for.
    pub shared_per_block: u32,
    /// Resident threads a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Resident blocks a multiprocessor.
    pub blocks_per_multiprocessor: u32,
}

impl CudaBackend {
    /// The device `ordinal`, through its primary context, which PyTorch, candle and cust share.
    ///
    /// Loads the kernels; the driver compiles them for the device and keeps the result in its own cache.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], [`CudaError::NoDevice`], [`CudaError::DeviceTooOld`], [`CudaError::DriverTooOld`], or
    /// what the driver says.
    pub fn new(ordinal: usize) -> Result<Self, CudaError> {
        open_driver()?;
        let count = device_count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        check_driver(driver_version()?, LEAST_DRIVER)?;
        Self::on(CudaContext::new(ordinal)?)
    }

    /// The device of a context that the caller already has.
    ///
    /// # Errors
    ///
    /// As [`CudaBackend::new`].
    pub fn on(context: Arc<CudaContext>) -> Result<Self, CudaError> {
        context.bind_to_thread()?;
        let limits = DeviceLimits::of(&context)?;
        let target = Target::for_device(limits.capability)
            .ok_or(CudaError::DeviceTooOld { capability: limits.capability })?;
        let found = driver_version()?;
        check_driver(found, target.driver().max(LEAST_DRIVER))?;
        let kernels = Kernels::load(&context, target, &limits, found)?;
        Ok(Self { context, limits, kernels })
    }

    /// How many devices the driver sees.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], or what the driver says; a driver that sees none is no error.
    pub fn count() -> Result<usize, CudaError> {
        open_driver()?;
        device_count()
    }

    /// The context, to make streams and buffers in.
    pub fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// What plans go by.
    pub fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    /// The device's name.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn name(&self) -> Result<String, CudaError> {
        Ok(self.context.name()?)
    }

    pub(crate) fn context_id(&self) -> u64 {
        self.context.cu_ctx() as u64
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.kernels
    }
}

impl Backend for CudaBackend {
    const NAME: &'static str = "cuda";
    type Ref<'a> = CudaRef<'a>;
    type Mut<'a> = CudaMut<'a>;
    type Queue<'q> = CudaQueue<'q>;
    type Error = CudaError;

    fn check_view(&self, operand: Operand, view: &dyn View) -> Result<(), BindError> {
        let (span, own) = (view.span(), self.context_id());
        if span.memory == own {
            return Ok(());
        }
        let expected = format!("cuda:{} (context {own:#x})", self.context.ordinal());
        Err(BindError::ForeignDevice { operand, expected, got: format!("context {:#x}", span.memory) })
    }
}

impl DeviceLimits {
    fn of(context: &CudaContext) -> Result<Self, CudaError> {
        let get = |attribute| -> Result<u32, CudaError> {
            Ok(u32::try_from(context.attribute(attribute)?).unwrap_or(0))
        };
        Ok(Self {
            capability: (
                get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                get(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessors: get(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_per_multiprocessor: get(
                Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )?,
            shared_per_block: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            threads_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
            blocks_per_multiprocessor: get(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR)?,
        })
    }
}

/// The names that cudarc tries end in the last of these on every Linux with a driver.
const LIBRARIES: [&str; 2] =
    if cfg!(windows) { ["nvcuda.dll", "nvcuda"] } else { ["libcuda.so", "libcuda.so.1"] };

fn open_driver() -> Result<(), CudaError> {
    let mut outcome = Ok(());
    for name in LIBRARIES {
        // SAFETY: loading the driver runs its initialisers, which is what loading a driver means; cudarc is about to
        // do the same. No symbol is taken from the handle.
        match unsafe { libloading::Library::new(name) } {
            Ok(_) => return Ok(()),
            Err(error) => outcome = Err(CudaError::NoDriver(error.into())),
        }
    }
    outcome
}

/// cudarc asks every device whether it has memory pools, and drivers before CUDA 11.2 do not know the question.
const LEAST_DRIVER: i32 = 11020;

fn check_driver(found: i32, needed: i32) -> Result<(), CudaError> {
    if found < needed { Err(CudaError::DriverTooOld { found, needed }) } else { Ok(()) }
}

/// After [`open_driver`].
fn device_count() -> Result<usize, CudaError> {
    let counted = result::init().and_then(|()| result::device::get_count());
    match counted {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// After [`open_driver`].
fn driver_version() -> Result<i32, CudaError> {
    let mut version = 0;
    // SAFETY: the pointer is to a live i32, which is all that the call writes.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared<T: Send + Sync>() {}

    #[test]
    fn the_backend_is_shared_between_threads() {
        is_shared::<CudaBackend>();
        is_shared::<CudaRef<'_>>();
        is_shared::<CudaMut<'_>>();
    }

    #[test]
    fn an_old_driver_or_device_is_named() {
        let error = check_driver(11010, LEAST_DRIVER).unwrap_err();
        assert!(matches!(error, CudaError::DriverTooOld { found: 11010, needed: 11020 }));
        assert!(check_driver(11080, Target::Sm90.driver()).is_ok());
        let targets = [(7, 0), (7, 2), (7, 5), (8, 9), (9, 0), (12, 0)].map(Target::for_device);
        let expected =
            [None, None, Some(Target::Sm75), Some(Target::Sm80), Some(Target::Sm90), Some(Target::Sm90)];
        assert_eq!(targets, expected);
    }

    /// On a machine without a driver this is the missing-driver test; on one with a driver, that of a device too many.
    #[test]
    fn a_missing_device_is_an_error_and_no_panic() {
        let error = CudaBackend::new(usize::MAX).expect_err("there are not so many devices");
        match CudaBackend::count() {
            Ok(seen) => {
                assert!(matches!(error, CudaError::NoDevice { count, .. } if count == seen), "{error}")
            }
            Err(CudaError::NoDriver(_)) => assert!(matches!(error, CudaError::NoDriver(_)), "{error}"),
            Err(other) => assert_eq!(error.to_string(), other.to_string()),
        }
    }
}
