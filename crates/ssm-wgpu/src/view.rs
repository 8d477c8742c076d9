//! Views of the caller's buffers: a buffer, a byte offset, a number of elements and their type.

use std::hash::{DefaultHasher, Hash, Hasher};

use ssm_core::{BindError, DType, Operand, Span, View};
use wgpu::{Buffer, BufferUsages};

/// Elements of a buffer, to read.
#[derive(Clone, Copy, Debug)]
pub struct WgpuRef<'a> {
    pub(crate) buffer: &'a Buffer,
    pub(crate) offset: u64,
    elements: u64,
    dtype: DType,
}

/// Elements of a buffer, to write. The buffer itself is shared, as wgpu has it: that no two views of one call overlap
/// where one is written is checked when the call is bound.
#[derive(Debug)]
pub struct WgpuMut<'a>(WgpuRef<'a>);

impl<'a> WgpuRef<'a> {
    /// `elements` of `dtype` from byte `offset` on. The buffer needs the usage `STORAGE`; the offset any multiple of
    /// the element's size.
    pub fn new(buffer: &'a Buffer, offset: u64, elements: u64, dtype: DType) -> Self {
        Self { buffer, offset, elements, dtype }
    }
}

impl<'a> WgpuMut<'a> {
    /// As [`WgpuRef::new`].
    pub fn new(buffer: &'a Buffer, offset: u64, elements: u64, dtype: DType) -> Self {
        Self(WgpuRef::new(buffer, offset, elements, dtype))
    }

    /// The same elements, to read.
    pub fn as_ref(&self) -> WgpuRef<'a> {
        self.0
    }
}

impl View for WgpuRef<'_> {
    fn dtype(&self) -> DType {
        self.dtype
    }

    fn elements(&self) -> u64 {
        self.elements
    }

    fn span(&self) -> Span {
        // Two buffers that share a hash would be taken for one: at odds of 2^-64 a call that is fine is refused, and
        // none that is wrong goes through.
        let mut hasher = DefaultHasher::new();
        self.buffer.hash(&mut hasher);
        let bytes = self.elements.saturating_mul(self.dtype.size());
        Span { memory: hasher.finish(), start: self.offset, bytes }
    }

    fn check(&self, operand: Operand) -> Result<(), BindError> {
        let unusable = |expected, got| Err(BindError::Unusable { operand, expected, got });
        if self.elements == 0 {
            return Ok(());
        }
        if !self.buffer.usage().contains(BufferUsages::STORAGE) {
            return unusable("a buffer with the usage STORAGE".into(), format!("{:?}", self.buffer.usage()));
        }
        // Shaders address whole words, the last element's too.
        let end = self.offset.checked_add(self.span().bytes).and_then(|end| end.checked_next_multiple_of(4));
        match end {
            Some(end) if end <= self.buffer.size() => {}
            _ => {
                let expected = format!("{} elements at byte {} in whole words", self.elements, self.offset);
                return unusable(expected, format!("a buffer of {} bytes", self.buffer.size()));
            }
        }
        if operand == Operand::Workspace && !self.offset.is_multiple_of(4) {
            return Err(BindError::Misaligned { operand, expected: 4, address: self.offset });
        }
        Ok(())
    }
}

impl View for WgpuMut<'_> {
    fn dtype(&self) -> DType {
        self.0.dtype()
    }

    fn elements(&self) -> u64 {
        self.0.elements()
    }

    fn span(&self) -> Span {
        self.0.span()
    }

    fn check(&self, operand: Operand) -> Result<(), BindError> {
        self.0.check(operand)
    }
}
