//! The measuring core: a kernel and its reference take turns, so that both see the same machine.
//!
//! On a shared machine bandwidth drifts by a third within minutes. A reference measured before or after says little;
//! one measured in the same tenth of a second says what the kernel could have had. Hence `fraction` is the median over
//! the samples of (reference time / kernel time) of one pair, not a ratio of two medians.

use std::time::{Duration, Instant};

use ssm_core::{Algorithm, Checkpoint};
use ssm_testkit::{Failure, Harness};

use crate::case::{Case, Direction};
use crate::operands::{Operands, Plans};
use crate::reference::Reference;
use crate::results::{NOISY, Row};
use crate::stats::{Summary, median};

/// How long to measure one case.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Seconds of sampling, kernel and reference together.
    pub seconds: f64,
    /// No fewer pairs than this, whatever the seconds say.
    pub least: usize,
    /// No more pairs than this.
    pub most: usize,
}

impl Budget {
    /// For a first look.
    pub const QUICK: Self = Self { seconds: 0.8, least: 5, most: 41 };
    /// For numbers to quote.
    pub const FULL: Self = Self { seconds: 4.0, least: 11, most: 201 };
}

/// A sample lasts at least this long: launches are repeated until it does, so that the clock and the wait weigh nothing.
const SAMPLE: Duration = Duration::from_millis(2);
const MOST_LAUNCHES: usize = 1000;
/// A GPU that idles while inputs are made lowers its clock, an H200 from 1980 to 345 MHz, and raises it only after some
/// tenths of a second of work.
const WARM_UP: Duration = Duration::from_millis(500);

/// What one case took.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The algorithm that ran.
    pub algorithm: Algorithm,
    /// The checkpoint policy it ran with.
    pub checkpoint: Checkpoint,
    /// Bytes that forward keeps for backward.
    pub saved_bytes: u64,
    /// Bytes of workspace.
    pub workspace_bytes: u64,
    /// The reference, in words; empty for none.
    pub reference: String,
    /// Launches a sample.
    pub launches: usize,
    /// Nanoseconds a launch, one entry a sample.
    pub kernel_ns: Vec<f64>,
    /// Nanoseconds the reference took beside it; empty where the device has none.
    pub reference_ns: Vec<f64>,
}

impl Measurement {
    /// The kernel's time.
    pub fn kernel(&self) -> Summary {
        Summary::of(&self.kernel_ns)
    }

    /// The reference's median time in nanoseconds.
    pub fn reference_time(&self) -> Option<f64> {
        (!self.reference_ns.is_empty()).then(|| median(&self.reference_ns))
    }

    /// The share of the reference's bandwidth: of the paired ratios.
    pub fn fraction(&self) -> Option<Summary> {
        let ratios: Vec<f64> = self.reference_ns.iter().zip(&self.kernel_ns).map(|(r, k)| r / k).collect();
        (!ratios.is_empty()).then(|| Summary::of(&ratios))
    }
}

impl Measurement {
    /// A measured case as a row.
    pub fn row(&self, backend: &str, device: &str, case: &Case) -> Row {
        let m = self;
        let (time, reference, bytes) = (m.kernel(), m.reference_time(), case.bytes());
        let fraction = m.fraction();
        Row {
            backend: backend.to_owned(),
            device: device.to_owned(),
            op: Case::OP.to_owned(),
            direction: case.direction.name().to_owned(),
            dtype: case.dtype.name().to_owned(),
            shape: case.shape,
            variant: case.variant.to_string(),
            algorithm: m.algorithm.name().to_owned(),
            median_ns: time.median,
            p10_ns: time.p10,
            p90_ns: time.p90,
            bytes,
            gb_per_s: bytes as f64 / time.median,
            reference_gb_per_s: reference.map(|ns| bytes as f64 / ns),
            fraction: fraction.map(|f| f.median),
            fraction_p10: fraction.map(|f| f.p10),
            fraction_p90: fraction.map(|f| f.p90),
            reference: reference.map(|_| m.reference.clone()),
            checkpoint: Some(m.checkpoint.name().to_owned()),
            saved_bytes: Some(m.saved_bytes),
            workspace_bytes: Some(m.workspace_bytes),
            peak_bytes: None,
            samples: m.kernel_ns.len(),
            launches: m.launches,
            noisy: time.spread() > NOISY,
        }
    }
}

/// A case on a device, ready to launch.
pub struct Prepared<'h, H: Harness> {
    harness: &'h H,
    plans: Plans<H>,
    direction: Direction,
    sets: Vec<Operands<H::Memory>>,
    next: usize,
}

impl<'h, H: Harness> Prepared<'h, H> {
    /// Plans, uploads fresh inputs from `seed`, runs once and checks that every output was written.
    ///
    /// # Errors
    ///
    /// Whatever planning or the device says, or [`crate::Unwritten`].
    pub fn new(harness: &'h H, case: &Case, cache_bytes: u64, seed: u64) -> Result<Self, Failure> {
        let plans = Plans::new(harness.backend(), case)?;
        let sets = (2 * cache_bytes).div_ceil(plans.operand_bytes().max(1)).clamp(1, 64);
        let upload = |i| Operands::upload(harness, &plans, seed.wrapping_add(i << 40));
        let sets = (0..sets).map(upload).collect::<Result<_, _>>()?;
        let mut prepared = Self { harness, plans, direction: case.direction, sets, next: 0 };
        for set in &mut prepared.sets {
            set.forward(harness, &prepared.plans)?;
            set.backward(harness, &prepared.plans)?;
            harness.wait()?;
        }
        prepared.sets[0].check_written(harness)?;
        Ok(prepared)
    }

    /// Enqueues the case's passes once, on the next set of operands.
    ///
    /// # Errors
    ///
    /// The device's own.
    pub fn launch(&mut self) -> Result<(), Failure> {
        let at = self.next;
        self.next = (at + 1) % self.sets.len();
        let set = &mut self.sets[at];
        if self.direction != Direction::Backward {
            set.forward(self.harness, &self.plans)?;
        }
        if self.direction != Direction::Forward {
            set.backward(self.harness, &self.plans)?;
        }
        Ok(())
    }

    /// Seconds that `launches` launches and the wait for them took.
    ///
    /// # Errors
    ///
    /// The device's own.
    pub fn time(&mut self, launches: usize) -> Result<f64, Failure> {
        let start = Instant::now();
        for _ in 0..launches {
            self.launch()?;
        }
        self.harness.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Measures one case beside its reference.
///
/// # Errors
///
/// Those of [`Prepared::new`] and of the reference.
pub fn measure<H: Harness>(
    harness: &H,
    reference: &dyn Reference<H>,
    case: &Case,
    budget: Budget,
    seed: u64,
) -> Result<Measurement, Failure> {
    let mut kernel = Prepared::new(harness, case, reference.cache_bytes(), seed)?;
    let mut streams = Vec::new();
    for pass in case.passes() {
        streams.extend(reference.prepare(harness, pass)?);
    }
    let has_reference = streams.len() == case.passes().len();
    let mut time_reference = |launches: usize| -> Result<f64, Failure> {
        if !has_reference {
            return Ok(f64::NAN);
        }
        let start = Instant::now();
        for _ in 0..launches {
            streams.iter_mut().try_for_each(|stream| stream.submit())?;
        }
        harness.wait()?;
        Ok(start.elapsed().as_secs_f64())
    };

    // Warm both; the second run of each says how many launches fill a sample and how many samples the budget.
    let warm_up = if reference.cache_bytes() > 0 { WARM_UP } else { Duration::ZERO };
    let begin = Instant::now();
    loop {
        let (_, _) = (kernel.time(1)?, time_reference(1)?);
        if begin.elapsed() >= warm_up {
            break;
        }
    }
    let (once, reference_once) = (kernel.time(1)?, time_reference(1)?);
    let launches = ((SAMPLE.as_secs_f64() / once.max(1e-9)).ceil() as usize).clamp(1, MOST_LAUNCHES);
    let pair = (once + reference_once.max(0.0)) * launches as f64;
    let samples = ((budget.seconds / pair) as usize).clamp(budget.least, budget.most);

    let (mut kernel_ns, mut reference_ns) = (Vec::with_capacity(samples), Vec::with_capacity(samples));
    let per_launch = |seconds: f64| seconds * 1e9 / launches as f64;
    for i in 0..samples {
        // Who goes first alternates: whatever the one leaves in the caches helps neither.
        if i % 2 == 0 {
            kernel_ns.push(per_launch(kernel.time(launches)?));
            reference_ns.push(per_launch(time_reference(launches)?));
        } else {
            reference_ns.push(per_launch(time_reference(launches)?));
            kernel_ns.push(per_launch(kernel.time(launches)?));
        }
    }
    if !has_reference {
        reference_ns.clear();
    }
    let report = kernel.plans.report(case.direction);
    Ok(Measurement {
        algorithm: report.algorithm,
        checkpoint: report.checkpoint,
        saved_bytes: kernel.plans.forward.report().saved_bytes(),
        workspace_bytes: kernel.plans.workspace_bytes(),
        reference: streams.iter().map(|s| s.describe()).collect::<Vec<_>>().join("; "),
        launches,
        kernel_ns,
        reference_ns,
    })
}
