//! The CPU, over slices of the host.

use std::sync::Arc;

use ssm_cpu::CpuBackend;
use ssm_testkit::HostHarness;

/// There is always a CPU.
pub(crate) fn open() -> Result<Arc<HostHarness<CpuBackend>>, String> {
    Ok(Arc::new(HostHarness::default()))
}
