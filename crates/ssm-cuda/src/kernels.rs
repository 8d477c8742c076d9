//! The embedded PTX: its entries by name, and the modules once loaded.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::{CUfunction_attribute_enum as Attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, DriverError};
use cudarc::nvrtc::Ptx;
use ssm_core::DType;

use crate::tuning::{ROWS, Row};
use crate::{CudaError, DeviceLimits};

/// The PTX that a device is given: that of the newest architecture it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Sm75,
    Sm80,
    Sm90,
}

impl Target {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Sm75, Self::Sm80, Self::Sm90];

    pub(crate) fn for_device(capability: (u32, u32)) -> Option<Self> {
        match capability {
            (9.., _) => Some(Self::Sm90),
            (8, _) => Some(Self::Sm80),
            (7, 5..) => Some(Self::Sm75),
            _ => None,
        }
    }

    pub(crate) const fn arch(self) -> u32 {
        match self {
            Self::Sm75 => 75,
            Self::Sm80 => 80,
            Self::Sm90 => 90,
        }
    }

    /// The PTX; none where what the build put into the binary is damaged.
    pub(crate) fn ptx(self) -> Option<String> {
        let deflated: &[u8] = match self {
            Self::Sm75 => include_bytes!(concat!(env!("OUT_DIR"), "/scan.sm_75.ptx.deflated")),
            Self::Sm80 => include_bytes!(concat!(env!("OUT_DIR"), "/scan.sm_80.ptx.deflated")),
            Self::Sm90 => include_bytes!(concat!(env!("OUT_DIR"), "/scan.sm_90.ptx.deflated")),
        };
        String::from_utf8(miniz_oxide::inflate::decompress_to_vec(deflated).ok()?).ok()
    }

    /// The lowest driver, as CUDA counts versions, that reads the PTX's `.version`: 7.0 came with CUDA 11.0, 7.8 with
    /// CUDA 11.8.
    pub(crate) const fn driver(self) -> i32 {
        match self {
            Self::Sm75 | Self::Sm80 => 11000,
            Self::Sm90 => 11080,
        }
    }

    /// The tile sizes for one storage type; none for f64.
    pub(crate) fn row(self, dtype: DType) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.arch == self.arch() && row.dtype == dtype)
    }
}

/// Which way an entry runs the recurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// How an entry walks along time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Walk {
    March,
    Chunked,
}

/// One kernel. `any`: y or dy has another type than the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Scan { direction: Direction, walk: Walk, dtype: DType, any: bool },
    Step { dtype: DType, any: bool },
    Put,
}

impl Entry {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Put];
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            for any in [false, true] {
                all.push(Self::Step { dtype, any });
                for direction in [Direction::Forward, Direction::Backward] {
                    all.extend([Walk::March, Walk::Chunked].map(|walk| Self::Scan {
                        direction,
                        walk,
                        dtype,
                        any,
                    }));
                }
            }
        }
        all
    }

    pub(crate) fn name(self) -> String {
        let suffix = |any| if any { "_any" } else { "" };
        match self {
            Self::Scan { direction, walk, dtype, any } => {
                let direction = match direction {
                    Direction::Forward => "forward",
                    Direction::Backward => "backward",
                };
                let walk = match walk {
                    Walk::March => "march",
                    Walk::Chunked => "chunked",
                };
                format!("scan_{direction}_{walk}_{dtype}{}", suffix(any))
            }
            Self::Step { dtype, any } => format!("scan_step_{dtype}{}", suffix(any)),
            Self::Put => "scan_put".to_owned(),
        }
    }

    /// The most dynamic shared memory that a plan may ask for on this device.
    fn most_shared(self, target: Target, limits: &DeviceLimits) -> u32 {
        let Self::Scan { direction, walk, dtype, any } = self else { return 0 };
        let Some(row) = target.row(dtype) else { return 0 };
        let row = if any { row.narrow() } else { *row };
        let out = if any { 4 } else { dtype.size() };
        let most = row.shared(direction, walk, out, row.stages(direction, walk));
        u32::try_from(most).unwrap_or(u32::MAX).min(limits.shared_per_block)
    }
}

/// Every entry, loaded.
#[derive(Debug)]
pub(crate) struct Kernels {
    functions: HashMap<Entry, CudaFunction>,
}

/// What every kernel may use without asking the driver.
const DEFAULT_SHARED: u32 = 48 << 10;

impl Kernels {
    pub(crate) fn load(
        context: &Arc<CudaContext>,
        target: Target,
        limits: &DeviceLimits,
        driver: i32,
    ) -> Result<Self, CudaError> {
        let damaged = CudaError::Driver { status: CUresult::CUDA_ERROR_INVALID_SOURCE };
        let ptx = Ptx::from_src(target.ptx().ok_or(damaged)?);
        let module = context.load_module(ptx).map_err(|error| match error {
            DriverError(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION) => {
                CudaError::DriverTooOld { found: driver, needed: target.driver() }
            }
            error => error.into(),
        })?;
        let mut functions = HashMap::new();
        for entry in Entry::all() {
            let function = module.load_function(&entry.name())?;
            let shared = entry.most_shared(target, limits);
            if shared > DEFAULT_SHARED {
                let bytes = i32::try_from(shared).unwrap_or(i32::MAX);
                function.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)?;
            }
            functions.insert(entry, function);
        }
        Ok(Self { functions })
    }

    pub(crate) fn get(&self, entry: Entry) -> Result<&CudaFunction, CudaError> {
        self.functions.get(&entry).ok_or(CudaError::Driver { status: CUresult::CUDA_ERROR_NOT_FOUND })
    }
}
