//! What the studies share: results.json, which `cargo xtask report` draws.

use std::path::Path;

use burn::tensor::{Device, FloatDType};
use ssm_benches::results::{Host, Results, SCHEMA};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a study runs on, and what results.json calls it.
pub(crate) struct Place {
    pub(crate) device: Device,
    pub(crate) backend: &'static str,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn cpu() -> Self {
        let name = ssm_cpu::CpuBackend::new().isa().to_owned();
        Self { device: Device::flex(), backend: "cpu", name }
    }

    /// The best adapter.
    #[cfg(feature = "wgpu")]
    pub(crate) fn wgpu() -> Result<Self, Failure> {
        let (device, setup) = Device::wgpu_options().init_with_setup()?;
        ssm_burn::connect_wgpu(&device, &setup)?;
        Ok(Self { device, backend: "wgpu", name: setup.adapter.get_info().name })
    }

    #[cfg(not(feature = "wgpu"))]
    pub(crate) fn wgpu() -> Result<Self, Failure> {
        Err("built without the feature wgpu".into())
    }
}

/// What a scan computes in, as results.json spells it.
pub(crate) fn type_name(compute: Option<FloatDType>) -> String {
    compute.map_or("f32".to_owned(), |dtype| format!("{dtype:?}").to_lowercase())
}

/// Writes results.json with this machine and what `fill` puts in, and says where.
pub(crate) fn write(
    out: &Path,
    quick: bool,
    seed: u64,
    fill: impl FnOnce(&mut Results),
) -> Result<(), Failure> {
    let mut results = Results {
        schema: SCHEMA,
        host: Host::read(quick, seed),
        results: vec![],
        absent: vec![],
        skipped: vec![],
        errors: vec![],
        curves: vec![],
    };
    fill(&mut results);
    let path = out.join("results.json");
    results.write(&path)?;
    println!("{}", path.display());
    Ok(())
}
