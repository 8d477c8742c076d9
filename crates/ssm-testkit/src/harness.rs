//! What a backend implements to be tested and measured: memory to and from its device, and a queue.

use std::ops::Range;

use ssm_core::{Backend, DType, Kernel, ScanBackward, ScanForward, ScanStep};

use crate::HostTensor;

/// Whatever went wrong on the way to a result.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One backend on one device.
pub trait Harness: Send + Sync {
    /// The backend under test.
    type Backend: Kernel<ScanForward> + Kernel<ScanBackward> + Kernel<ScanStep>;
    /// Memory of the device, tagged with its element type.
    type Memory;

    /// The backend value that every call goes through.
    fn backend(&self) -> &Self::Backend;

    /// The device, in words.
    fn device(&self) -> String;

    /// Whether the device has the storage type.
    fn supports(&self, dtype: DType) -> bool;

    /// Device memory with the tensor's elements.
    ///
    /// # Errors
    ///
    /// The device's own.
    fn upload(&self, host: &HostTensor) -> Result<Self::Memory, Failure>;

    /// The elements back, after everything that was submitted before.
    ///
    /// # Errors
    ///
    /// The device's own.
    fn download(&self, memory: &Self::Memory) -> Result<HostTensor, Failure>;

    /// A view of some elements, to read.
    fn view<'a>(&self, memory: &'a Self::Memory, range: Range<usize>) -> <Self::Backend as Backend>::Ref<'a>;

    /// A view of some elements, to write.
    fn view_mut<'a>(
        &self,
        memory: &'a mut Self::Memory,
        range: Range<usize>,
    ) -> <Self::Backend as Backend>::Mut<'a>;

    /// Hands `enqueue` a queue, then submits what it enqueued. Does not wait.
    fn submit<R>(&self, enqueue: impl FnOnce(<Self::Backend as Backend>::Queue<'_>) -> R) -> R;

    /// Enqueues the device's own copy between two allocations of one length and type: the reference that benchmarks
    /// measure a kernel against. Says whether the device has one; nothing happens where it has not.
    ///
    /// # Errors
    ///
    /// The device's own.
    fn copy(&self, from: &Self::Memory, to: &mut Self::Memory) -> Result<bool, Failure> {
        let _ = (from, to);
        Ok(false)
    }

    /// Blocks until everything submitted is done.
    ///
    /// # Errors
    ///
    /// What the device says of the work.
    fn wait(&self) -> Result<(), Failure>;
}
