//! The backend value: which threads, which instruction set.

use std::sync::Arc;

use ssm_core::Backend;

use crate::drive::Threads;
use crate::kernel::Level;
use crate::{CpuMut, CpuRef};

/// Gated scans on this machine's processor.
///
/// Work runs on the rayon pool that the calling thread belongs to (the global one outside of any), or on the one given to
/// [`CpuBackend::with_pool`]. No bit of a result depends on the number of threads.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    pool: Option<Arc<rayon::ThreadPool>>,
    level: Level,
}

/// What the device can say while work is enqueued: on the host, nothing.
pub type DeviceError = std::convert::Infallible;

impl CpuBackend {
    /// With the best instruction set of this processor. `SSM_CPU_ISA=portable` in the environment asks for
    /// [`CpuBackend::portable`] instead, to test and compare.
    pub fn new() -> Self {
        match std::env::var_os("SSM_CPU_ISA") {
            Some(isa) if isa == "portable" => Self::portable(),
            _ => Self { pool: None, level: Level::detect() },
        }
    }

    /// With the instruction set that every processor of the target has.
    pub fn portable() -> Self {
        Self { pool: None, level: Level::PORTABLE }
    }

    /// On this pool, whichever thread calls.
    #[must_use]
    pub fn with_pool(self, pool: Arc<rayon::ThreadPool>) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// The instruction set in use: `avx512` (F, BW and VL), `avx2` (with FMA and F16C) or `portable`.
    pub fn isa(&self) -> &'static str {
        self.level.name()
    }

    pub(crate) fn threads(&self) -> Threads<'_> {
        Threads { pool: self.pool.as_deref() }
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Backend for CpuBackend {
    const NAME: &'static str = "cpu";
    type Ref<'a> = CpuRef<'a>;
    type Mut<'a> = CpuMut<'a>;
    type Queue<'q> = ();
    type Error = DeviceError;
}
