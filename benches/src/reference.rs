//! The reference beside every kernel: how fast this device moves the same bytes when it does nothing else.

use ssm_core::DType;
use ssm_testkit::{Failure, Harness, HostTensor};

use crate::case::{Scale, Traffic};
use crate::triad::Triad;

/// Makes references for a harness.
pub trait Reference<H: Harness>: Send + Sync {
    /// A reference for one pass: moves `traffic.bytes()` bytes, read and written ones together. None where the
    /// device has none to offer.
    ///
    /// # Errors
    ///
    /// The device's own; out of memory among them.
    fn prepare<'h>(
        &'h self,
        harness: &'h H,
        traffic: Traffic,
    ) -> Result<Option<Box<dyn Stream + 'h>>, Failure>;

    /// Bytes that the device may keep in its caches from one launch to the next. Operands are rotated until together
    /// they are at least twice that; 0 for none.
    fn cache_bytes(&self) -> u64 {
        0
    }
}

/// One prepared reference.
pub trait Stream {
    /// What it does, in words.
    fn describe(&self) -> String;

    /// Enqueues one pass. May return before it is done; [`Harness::wait`] waits for it.
    ///
    /// # Errors
    ///
    /// The device's own.
    fn submit(&mut self) -> Result<(), Failure>;
}

/// The CPU's reference: as many streams of the same length, on the current rayon pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTriad;

struct CpuStream {
    triad: Triad,
    traffic: Traffic,
}

impl<H: Harness> Reference<H> for CpuTriad {
    fn prepare<'h>(&'h self, _: &'h H, traffic: Traffic) -> Result<Option<Box<dyn Stream + 'h>>, Failure> {
        let bytes = usize::try_from(traffic.tensor_bytes)?;
        Ok(Some(Box::new(CpuStream { triad: Triad::new(traffic.reads, traffic.writes, bytes), traffic })))
    }
}

impl Stream for CpuStream {
    fn describe(&self) -> String {
        let Traffic { reads, writes, .. } = self.traffic;
        let (variant, pool) = (self.triad.variant(), rayon::current_num_threads());
        format!("triad of {reads} reads and {writes} writes, {variant}, pool of {pool}")
    }

    fn submit(&mut self) -> Result<(), Failure> {
        self.triad.pass();
        Ok(())
    }
}

/// A GPU's reference: the device's own copy of half as many bytes, which reads them once and writes them once.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCopy {
    /// What kind of device it is: one emulated in software has no cache to get around.
    pub scale: Scale,
}

/// More than the last cache of the GPUs at hand holds.
const GPU_CACHE_BYTES: u64 = 128 << 20;

struct CopyStream<'h, H: Harness> {
    harness: &'h H,
    pairs: Vec<(H::Memory, H::Memory)>,
    next: usize,
}

impl<H: Harness> Reference<H> for DeviceCopy {
    fn prepare<'h>(
        &'h self,
        harness: &'h H,
        traffic: Traffic,
    ) -> Result<Option<Box<dyn Stream + 'h>>, Failure> {
        // f32 words: whole tensors are even in number or in size wherever bandwidth is what counts.
        let words = usize::try_from(traffic.bytes() / 8)?;
        let cache = Reference::<H>::cache_bytes(self);
        let count = (2 * cache).div_ceil(traffic.bytes().max(1)).clamp(1, 64);
        let block = HostTensor::filled(DType::F32, words, 1.0);
        let mut pairs = Vec::new();
        for _ in 0..count {
            pairs.push((harness.upload(&block)?, harness.upload(&block)?));
        }
        let mut has_copy = true;
        for (from, to) in &mut pairs {
            has_copy &= harness.copy(from, to)?;
        }
        harness.wait()?;
        Ok(has_copy.then(|| -> Box<dyn Stream + 'h> { Box::new(CopyStream { harness, pairs, next: 0 }) }))
    }

    fn cache_bytes(&self) -> u64 {
        if self.scale == Scale::Gpu { GPU_CACHE_BYTES } else { 0 }
    }
}

impl<H: Harness> Stream for CopyStream<'_, H> {
    fn describe(&self) -> String {
        "device copy".to_owned()
    }

    fn submit(&mut self) -> Result<(), Failure> {
        let at = self.next;
        self.next = (at + 1) % self.pairs.len();
        let (from, to) = &mut self.pairs[at];
        self.harness.copy(from, to).map(|_| ())
    }
}
