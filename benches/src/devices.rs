//! The devices to measure: one line a backend.

use std::sync::Arc;

use ssm_core::{Backend, DType};
use ssm_testkit::drift::{Drift, Probe, drift};
use ssm_testkit::{Erased, Failure, Harness};
use ssm_tests::{Visitor, each_backend};

use crate::case::{Case, Scale};
use crate::measure::{Budget, Measurement, Prepared, measure};
use crate::reference::{CpuTriad, DeviceCopy, Reference};
use crate::results::Absent;

/// A device with its harness and reference behind it.
pub trait Device {
    /// The backend's name.
    fn backend(&self) -> &'static str;

    /// The device, in words.
    fn describe(&self) -> String;

    /// Which table of cases fits it.
    fn scale(&self) -> Scale;

    /// Whether it has the storage type.
    fn supports(&self, dtype: DType) -> bool;

    /// Measures one case.
    ///
    /// # Errors
    ///
    /// What planning or the device says.
    fn measure(&self, case: &Case, budget: Budget, seed: u64) -> Result<Measurement, Failure>;

    /// How far each output is from the float64 recurrence.
    ///
    /// # Errors
    ///
    /// What planning or the device says.
    fn drift(&self, probe: &Probe) -> Result<Vec<Drift>, Failure>;

    /// Hands out a timer: seconds that so many launches of the case take.
    ///
    /// # Errors
    ///
    /// What planning or the device says.
    fn timer<'d>(&'d self, case: &Case, seed: u64) -> Result<Timer<'d>, Failure>;
}

/// Seconds that so many launches take.
pub type Timer<'d> = Box<dyn FnMut(usize) -> Result<f64, Failure> + 'd>;

/// A harness with its reference.
pub struct Lane<H: Harness> {
    harness: Arc<H>,
    reference: Box<dyn Reference<H>>,
    scale: Scale,
}

impl<H: Harness> Lane<H> {
    /// The triad beside what runs on the CPU's threads, the device's own copy beside everything else.
    pub fn new(harness: Arc<H>) -> Self {
        // Mesa's name for its rasteriser on the CPU.
        let emulated = harness.device().to_lowercase().contains("llvmpipe");
        let scale = match H::Backend::NAME {
            "wgpu" | "cuda" if !emulated => Scale::Gpu,
            "wgpu" => Scale::Emulated,
            _ => Scale::Cpu,
        };
        let reference: Box<dyn Reference<H>> = match scale {
            Scale::Cpu => Box::new(CpuTriad),
            _ => Box::new(DeviceCopy { scale }),
        };
        Self { harness, reference, scale }
    }
}

impl<H: Harness + 'static> Device for Lane<H> {
    fn backend(&self) -> &'static str {
        H::Backend::NAME
    }

    fn describe(&self) -> String {
        self.harness.device()
    }

    fn scale(&self) -> Scale {
        self.scale
    }

    fn supports(&self, dtype: DType) -> bool {
        self.harness.supports(dtype)
    }

    fn measure(&self, case: &Case, budget: Budget, seed: u64) -> Result<Measurement, Failure> {
        measure(&*self.harness, &*self.reference, case, budget, seed)
    }

    fn drift(&self, probe: &Probe) -> Result<Vec<Drift>, Failure> {
        drift(&Erased(self.harness.clone()), probe)
    }

    fn timer<'d>(&'d self, case: &Case, seed: u64) -> Result<Timer<'d>, Failure> {
        let mut prepared = Prepared::new(&*self.harness, case, self.reference.cache_bytes(), seed)?;
        Ok(Box::new(move |launches| prepared.time(launches)))
    }
}

/// What was looked for: devices, and why others are absent.
#[derive(Default)]
pub struct Found {
    /// The devices.
    pub devices: Vec<Box<dyn Device>>,
    /// Backends without a device.
    pub absent: Vec<Absent>,
}

impl Found {
    /// One backend: its harness, or why there is none.
    pub fn add<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>) {
        match harness {
            Ok(harness) => self.devices.push(Box::new(Lane::new(harness))),
            Err(why) => self.absent.push(Absent { backend: name.to_owned(), why }),
        }
    }
}

impl Visitor for Found {
    fn visit<H: Harness + 'static>(&mut self, name: &'static str, harness: Result<Arc<H>, String>) {
        // A backend's second device differs in its limits, and shares the names of the first one's rows.
        if name == H::Backend::NAME {
            self.add(name, harness);
        }
    }
}

/// Looks for every backend of the table in `tests/`.
pub fn find() -> Found {
    let mut found = Found::default();
    each_backend(&mut found);
    found
}
